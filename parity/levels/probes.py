"""Probes: inputs that show where two implementations of one operator differ, and the run of a call on each of them.

All probes but "odd" and "many" have the shapes of the call, so that Jittor compiles one set of kernels for them.
"""
from collections.abc import Iterator

import numpy as np

from jittwin.draws import Draws
from parity.case import is_training, load
from parity.levels.backward import projected
from parity.levels.calls import decode, is_within, operator, tensors_in
from parity.pair import named
from parity.sites import injected
from parity.workers.side import Arrays, Side, group

# Probes whose values come from a palette: moving a palette by one unit in the last place keeps ties ties.
PALETTES = {"ties": (-1.0, 0.0, 1.0), "zeros": (0.0,), "extremes": (-100.0, -30.0, 0.5, 30.0, 100.0)}
PROBES = ("random", *PALETTES, "large mean", "many", "nan", "inf", "odd", "range")
MANY = (2, 3, 128, 192)      # elements that one float32 sum adds up badly [N1, N2]


def inputs(call: dict, values: Arrays, seed: str) -> Iterator[tuple[str, Arrays]]:
    """The probes that apply to a call, each with its arrays by number.

    values: the recorded values of arguments that are not floating point. Every probe uses them; only the probe
    "range" puts class ids and integers from the host out of range.
    """
    places = {place.get("tensor", place.get("array")): place for place in tensors_in(call)}
    floats = [number for number in places if str(number) not in values]
    weights = op.weights if (op := operator(call)) else ()
    integers = _ranged(call, places, values)
    for probe in PROBES:
        if probe == "range" and not integers or not (floats or probe in ("random", "range")):
            continue
        if probe == "many" and not (op and op.many):
            continue
        shapes = {number: MANY if probe == "many" else place["shape"] for number, place in places.items()}
        if probe == "odd":
            odd = {number: shape if number in weights else _odd(shape) for number, shape in shapes.items()}
            if odd == shapes:
                continue
            shapes = odd
        arrays = {str(number): _cut(values[str(number)], shapes[number]) for number in places if number not in floats}
        for number in floats:
            arrays |= _filled("random" if number in weights else probe, number, shapes[number],
                              f"{seed} {probe} {number}")
        if probe == "range":
            arrays |= integers
        yield probe, arrays


def _odd(shape: list[int]) -> list[int]:
    """The shape of an image (B, C, H, W) with even H or W made one smaller; other shapes unchanged."""
    return [*shape[:2], *(side - 1 if side % 2 == 0 else side for side in shape[2:])] if len(shape) == 4 else shape


def _cut(values: np.ndarray, shape: list[int]) -> np.ndarray:
    return values[tuple(slice(side) for side in shape)]


def _filled(probe: str, number: int, shape: list[int], site: str) -> Arrays:
    draws = Draws(17)
    if probe in PALETTES:
        palette = np.array(PALETTES[probe], np.float32)
        codes = draws.integers(site, 0, len(palette) - 1, shape).astype(np.int8)
        return {f"{number} codes": codes, "palette": palette}
    values = draws.normal(site, shape)
    flat = values.reshape(-1)
    if probe in ("large mean", "many"):
        values += 10
    elif probe == "nan":
        # NaN only in the first half, so that an effect of one sample on another shows as well.
        flat[draws.permutation(f"{site} at", max(1, flat.size // 2))[:max(1, flat.size // 32)]] = np.nan
    elif probe == "inf":
        flat[flat.size // 4], flat[-1 - flat.size // 5] = np.inf, -np.inf
    return {str(number): values}


def _ranged(call: dict, places: dict, values: Arrays) -> Arrays:
    """The integer arguments of the probe "range": with class ids that do not exist, or that 32 bits do not hold."""
    op, arrays = operator(call), {}
    for number, place in places.items():
        if op and (number in op.labels or call["name"] == "from_host") and str(number) in values:
            limits = np.iinfo(place["type"])
            array = values[str(number)].copy()
            strange = [n for n in (-1, -100, 5, 150, 255, 2 ** 31, 2 ** 32 + 1) if limits.min <= n <= limits.max]
            array.reshape(-1)[:len(strange)] = strange[:array.size]
            arrays[str(number)] = array
    return arrays


def run(side: Side, arrays: Arrays, case: dict, size: str, calls: list[dict]) -> tuple[Arrays, dict]:
    """In a worker: "<call>|<probe>|<result>" for every call and each of its probes.

    The results are the outputs, gradients of a random linear function of them ("slope …"), and the state that a
    layer changed ("state …"). If a call raises, its only result is the array "raised", and {"raised": {…: message}}
    has the message.
    """
    modules, results, raised = {}, {}, {}
    for index, call in enumerate(calls):
        if call["path"] is not None and call["mode"] not in modules:
            modules[call["mode"]] = Layers(side, load(case), size, call["mode"], arrays)
        for probe in call["probes"]:
            given = _decoded(group(arrays, f"{index}|{probe}"))
            try:
                found = one(side, call, given, modules.get(call["mode"]))
            except Exception as error:
                raised[f"{index}|{probe}"] = f"{type(error).__name__}: {error}"[:300]
                found = {"raised": np.ones(1, np.float32)}
            results |= {f"{index}|{probe}|{name}": a for name, a in found.items()}
    return results, {"raised": raised}


def _decoded(arrays: Arrays) -> Arrays:
    palette = arrays.pop("palette", None)
    return {name.removesuffix(" codes"): palette[a] if name.endswith(" codes") else a for name, a in arrays.items()}


class Layers:
    """The case's module. Its leaf modules are run one by one, each time from the same state."""

    def __init__(self, side: Side, case, size: str, mode: str, arrays: Arrays):
        self.side, self.module = side, case.build(side, size, mode)
        if side.wide:
            self.module.double()
        side.backend.load_numpy(self.module, group(arrays, f"weights {mode}"), allow_missing=("*",))
        side.backend.train_mode(self.module, is_training(mode))
        self.parts, self.parameters = side.parts(self.module), side.backend.parameters(self.module)
        self.tensors = self.module.state_dict()

    def state(self, path: str) -> Arrays:
        return {name: self.side.host(tensor) for name, tensor in self.tensors.items() if is_within(name, path)}

    def call(self, path: str, arguments, keywords):
        with injected(self.side, self.module):
            return self.parts[path](*arguments, **keywords)

    def restore(self, state: Arrays) -> None:
        if state:
            self.side.backend.load_numpy(self.module, state, allow_missing=("*",))


def one(side: Side, call: dict, given: Arrays, layers: Layers | None) -> Arrays:
    """The results of one call on the given arrays."""
    host = {number for place in tensors_in(call) if (number := place.get("array")) is not None}
    tensors = {int(n): a if int(n) in host else side.tensor(a) for n, a in given.items()}
    wanted = {f"{n}": side.differentiable(t) for n, t in tensors.items()
              if n not in host and given[str(n)].dtype.kind == "f"}
    arguments, keywords = decode(call["arguments"], tensors), decode(call["keywords"], tensors)
    if op := operator(call):
        function = getattr(side.ops, call["name"]) if op.run is None else lambda *a, **k: op.run(side, *a, **k)
        return results_of(side, function(*arguments, **keywords), wanted)
    path = call["path"]
    wanted |= {name: p for name, p in layers.parameters.items() if is_within(name, path)}
    before = layers.state(path)
    found = results_of(side, layers.call(path, arguments, keywords), wanted)
    changed = {name: a for name, a in layers.state(path).items() if a.tobytes() != before[name].tobytes()}
    layers.restore({name: before[name] for name in changed})
    return found | {f"state {name}": a for name, a in changed.items()}


def results_of(side: Side, outputs, wanted: dict) -> Arrays:
    """The outputs, and their gradients for the tensors `wanted`; zeros for a tensor that no gradient reaches."""
    outputs = named(outputs)
    found = {name: np.atleast_1d(value if isinstance(value, np.ndarray) else side.host(value))   # no scalars [P10]
             for name, value in outputs.items()}
    smooth = {name: outputs[name] for name, a in found.items()
              if a.dtype.kind == "f" and not isinstance(outputs[name], np.ndarray)}
    if not smooth or not wanted:
        return found
    loss = sum(projected(side, name, tensor) for name, tensor in smooth.items())
    if side.name == "torch" and not loss.requires_grad:
        slopes = {name: np.zeros(tuple(t.shape), found[next(iter(smooth))].dtype) for name, t in wanted.items()}
    else:
        slopes = side.gradients(loss, wanted)
    return found | {f"slope {name}": a for name, a in slopes.items()}
