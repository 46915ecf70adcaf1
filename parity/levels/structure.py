"""L1: the twins hold the same state, and weights cross between them unchanged, both ways and through files.

The state is every name with its shape, its type and its role: a "parameter" is trained, a "constant" is not (a buffer
or frozen weights). The files are safetensors, .pth and .pkl; the hash of every tensor is compared. The first file of a
model that has a conversion record goes through upstream's form and back. A port that loads a state that does not fit
fails, whatever it computes. A module without tensors must refuse every tensor.
"""
import math
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from jittwin.models.catalog import BY_NAME, Record
from jittwin.models.conversion import Conversion
from jittwin.weights import content_hash, read_weights, write_content, write_weights
from jittwin.weights.state import changes
from parity.align import explain_differences
from parity.case import Case, load
from parity.lint import lint
from parity.result import Row, failure, row
from parity.workers.compare import Verdict
from parity.workers.oracle import Twins
from parity.workers.side import Arrays, Side

SUFFIXES = (".safetensors", ".pth", ".pkl")
HOPS = ("torch", "jittor", "torch", "jittor")     # torch -> jittor -> torch, and jittor -> torch -> jittor
SMALL = 1 << 22               # elements; a larger state makes one round through all formats instead of three
STRANGER = "a_key_no_model_has"
EMPTY = "no tensors in either"


def describe(side: Side, arrays: Arrays, case: dict, size: str, mode: str) -> tuple[Arrays, dict]:
    """In a worker: {"state": {name: [shape, type, role]}, "ties": groups of names of one tensor, "traps": lines}.

    The module is described after a load and a change of mode, neither of which may change what is described.
    """
    module = load(case).build(side, size, mode)
    before = {name: id(tensor) for name, tensor in _tensors(side, module).items()}
    # A module may be built with memory that nobody has written to, which may hold NaN.
    half = {name: np.zeros(a.shape, np.float16) if a.dtype == np.float32 else a
            for name, a in side.backend.state_numpy(module).items()}
    side.backend.load_numpy(module, half)           # the module must keep its own element type [S4]
    state = side.backend.state_numpy(module)
    for flag in (True, False):
        side.backend.train_mode(module, flag)
    tensors, ties = _tensors(side, module), _ties(side, module)
    traps = lint(side, module) if side.name == "jittor" else []
    if replaced := [name for name, tensor in tensors.items() if before.get(name) != id(tensor)]:
        traps.append(f"{side.name}: loading makes new tensors of {len(replaced)} names, such as {replaced[0]}: "
                     "an optimizer would go on with the old ones [S13]")
    trained, given = (tied | {name for group in ties if tied & set(group) for name in group} for tied in (
        {name for name, tensor in tensors.items() if tensor.requires_grad}, set(side.backend.parameters(module))))
    if astray := sorted(trained ^ given):
        kept = "is not" if astray[0] in trained else "is"
        traps.append(f"{side.name}: {len(astray)} names, such as {astray[0]}, which {kept} given to the optimizer")
    described = {name: [list(a.shape), str(a.dtype), "parameter" if name in trained else "constant"]
                 for name, a in state.items()}
    return {}, {"state": described, "ties": ties, "traps": traps}


def _tensors(side: Side, module) -> dict:
    """The tensor objects of the framework, by name."""
    if side.name == "torch":
        return dict([*module.named_parameters(), *module.named_buffers()])
    return dict(module.state_dict())


def _ties(side: Side, module) -> list[list[str]]:
    """Groups of names under which the module holds the same tensor."""
    if side.name == "torch":
        named = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
    else:
        from jt_models.boot import jt
        named = [(f"{path}.{name}" if path else name, value) for path, part in side.parts(module).items()
                 for name, value in vars(part).items() if isinstance(value, jt.Var)]
    groups: dict[int, list[str]] = {}
    for name, tensor in named:
        groups.setdefault(id(tensor), []).append(name)
    return sorted(sorted(names) for names in groups.values() if len(names) > 1)


def refuses(side: Side, arrays: Arrays, case: dict, size: str, mode: str) -> tuple[Arrays, dict]:
    """In a worker: offer the module states that do not fit. It must refuse each and stay unchanged.

    Returns {"complaints": lines about states that it loaded in whole or in part}.
    """
    module = load(case).build(side, size, mode)
    state = side.backend.state_numpy(module)
    # Values that the module does not have, so that whatever is loaded by mistake shows; broadcast to save memory.
    first = {name: np.nan_to_num(a.reshape(-1)[:1], posinf=0, neginf=0) for name, a in state.items()}
    other = {name: np.broadcast_to((first[name] + 1).astype(a.dtype).reshape(()), a.shape) for name, a in state.items()}
    before, complaints = _digests(state), []
    del state
    offers = {}
    for name, array in list(other.items())[:1]:
        longer = (*array.shape[:-1], 1 + sum(array.shape[-1:]))
        offers = {f"without {name}": {n: a for n, a in other.items() if n != name},
                  f"with {name} of shape {longer}": other | {name: np.zeros(longer, array.dtype)}}
    offers[f"with {STRANGER}"] = other | {STRANGER: np.zeros(1, np.float32)}
    for kind, offered in offers.items():
        try:
            side.backend.load_numpy(module, offered)
            complaints.append(f"{side.name} loads a state {kind} without an error [S3]")
        except Exception:
            after = _digests(side.backend.state_numpy(module))
            if moved := [n for n in before if after.get(n) != before[n]]:
                complaints.append(f"{side.name} refuses a state {kind} after it has loaded {len(moved)} tensors of it")
    return {}, {"complaints": complaints}


def relay(side: Side, arrays: Arrays, case: dict, size: str, mode: str, sources: list, targets: list,
          aliases: dict[str, str]) -> tuple[Arrays, dict]:
    """In a worker: load every source, a file or the seed of random weights, and write the state to its target.

    aliases: names that files leave out, with the name that holds the same tensor. Returns {"digests": per source
    the hash of every tensor in the module}.
    """
    case, digests = load(case), []
    module = case.build(side, size, mode)
    own = {name: (tuple(a.shape), a.dtype) for name, a in side.backend.state_numpy(module).items()}
    for source, target in zip(sources, targets, strict=True):
        if isinstance(source, str):
            values = read_weights(source)
        else:
            values = case.weights({name: shape for name, (shape, _) in own.items()}, source)
        values |= {alias: values[name] for alias, name in aliases.items() if alias in own}
        side.backend.load_numpy(module, values)
        del values
        state = {name: a for name, a in side.backend.state_numpy(module).items() if name not in aliases}
        digests.append(_digests(state))
        if target:
            write_weights(target, state)
    return {}, {"digests": digests}


def _digests(arrays: Mapping[str, np.ndarray]) -> dict[str, str]:
    return {name: content_hash({name: array}) for name, array in arrays.items()}


def check(case: Case, size: str, mode: str, twins: Twins) -> list[Row]:
    """The row of this level: the differences between the states or, if there are none, a verdict per tensor."""
    arguments = {"case": case.reference(), "size": size, "mode": mode}
    found = {name: values for name, (_, values) in
             twins.both(describe, **arguments).items()}
    aliases = _aliases(found["torch"]["ties"], found["jittor"]["state"])
    problems = [*compare_states(found["torch"], found["jittor"], aliases),
                *found["torch"]["traps"], *found["jittor"]["traps"]]
    if not problems:
        refused = twins.both(refuses, **arguments)
        problems = [line for _, values in refused.values() for line in values["complaints"]]
    if problems:
        return [failure(case.name, "L1", mode, "; ".join(problems), case.dtype, size=size)]
    described = list(found["torch"]["state"].values())
    elements, roles = sum(math.prod(shape) for shape, _, _ in described), [role for _, _, role in described]
    verdicts = {EMPTY: Verdict(0.0, 0.0, 0.0, 0.0)}
    if described:
        verdicts = conversions(twins, arguments, aliases, routes=len(SUFFIXES) if elements < SMALL else 1,
                               record=BY_NAME.get(case.name))
    return [row(case.name, "L1", mode, verdicts, case.dtype, size=size, parameters=roles.count("parameter"),
                constants=roles.count("constant"), elements=elements, aliases=aliases)]


def compare_states(expected: dict, found: dict, aliases: Mapping[str, str]) -> list[str]:
    """The differences between two descriptions (see `describe`), of which `expected` is PyTorch's.

    aliases: further names of tied tensors, which Jittor does not save.
    """
    def column(description, index):
        return {name: tuple(entry[index]) if index == 0 else entry[index]
                for name, entry in description["state"].items() if name not in aliases}

    problems = [explain_differences(column(expected, 0), column(found, 0)),
                changes("of another type", column(expected, 1), column(found, 1)),
                changes("of another role", column(expected, 2), column(found, 2))]
    for first, second, side in ((expected, found, "Jittor"), (found, expected, "PyTorch")):
        problems += [f"{' and '.join(group)} are one tensor, but not in {side} [S5]"
                     for group in first["ties"] if group not in second["ties"]]
    return [problem for problem in problems if problem]


def _aliases(ties: list[list[str]], state: Mapping) -> dict[str, str]:
    """The further names of tied tensors, each with the name under which Jittor saves the tensor."""
    aliases = {}
    for group in ties:
        kept = [name for name in group if name in state]
        aliases |= {name: kept[0] for name in group if kept and name != kept[0]}
    return aliases


def conversions(twins: Twins, arguments: dict, aliases: Mapping[str, str], routes: int,
                record: Record | None = None) -> dict[str, Verdict]:
    """A verdict per tensor. Each route starts from other weights and uses the file formats in another order.

    record: of the model in the catalogue, if it is there.
    """
    seen = []
    with tempfile.TemporaryDirectory(prefix="parity-") as folder:
        sources: list = list(range(routes))
        for hop, side in enumerate(HOPS):
            last = hop == len(HOPS) - 1
            targets = [None if last else str(Path(folder, f"{route}-{hop}{_suffix(route, hop)}"))
                       for route in range(routes)]
            _, values = getattr(twins, side).call(relay, sources=sources, targets=targets, aliases=dict(aliases),
                                                  **arguments)
            for source in sources:
                if hop:
                    Path(source).unlink()       # at full size a file takes hundreds of megabytes
            seen.append(values["digests"])
            sources = targets
            if not hop and record and record.conversion and record.files == "state":
                through_upstream(record.conversion, sources[0], folder)
    return {name: _crossed(seen, name) for name in seen[0][0]}


def through_upstream(conversion: Conversion, file: str, folder: str) -> None:
    """Write the arrays of a file as upstream's PyTorch file, and what the conversion record reads of that to `file`."""
    upstream, arrays = Path(folder, "upstream.pth"), read_weights(file)
    named, _ = conversion.upstream(arrays)
    write_content(upstream, conversion.compose(named, {}) if conversion.compose else named)
    found = conversion.open(upstream).arrays
    write_weights(file, {name: found[name] for name in arrays if name in found})
    upstream.unlink()


def _suffix(route: int, hop: int) -> str:
    return SUFFIXES[(route + hop) % len(SUFFIXES)]


def _crossed(seen: list[list[dict]], name: str) -> Verdict:
    """Whether a tensor has the same bytes after every hop of every route."""
    for route, digests in enumerate(seen[0]):
        for hop in range(1, len(HOPS)):
            if seen[hop][route].get(name) != digests[name]:
                way = "".join(f"{HOPS[i]} -> {_suffix(route, i)} -> " for i in range(hop)) + HOPS[hop]
                return Verdict(np.inf, 0.0, 0.0, 0.0, f"other bytes after {way}")
    return Verdict(0.0, 0.0, 0.0, 0.0)
