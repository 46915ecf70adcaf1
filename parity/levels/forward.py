"""L3: the outputs of every module, in a free forward pass and with each module alone on PyTorch's inputs.

The free pass shows how error grows with depth and where it first exceeds the noise. In the pass "alone" (teacher
forcing) a fault cannot spread, so that pass names every module that is wrong and no other.
"""
import numpy as np

from parity.case import Case, arrays_for
from parity.levels.trace import ROOT, forced, record
from parity.result import Row, row, severity
from parity.workers.compare import Comparison, Verdict, is_discrete, rms
from parity.workers.oracle import Twins
from parity.workers.side import grouped

FULL_PERTURBATIONS = 2     # at the published size, where each takes long
MAP_SIDE = 64         # the most points of an error map along either side


def check(case: Case, size: str, mode: str, twins: Twins) -> list[Row]:
    """The row of this level. At full size it is made of the free pass alone, down to the case's `full_depth`."""
    arguments = {"case": case.reference(), "size": size, "mode": mode}
    arrays = arrays_for(case, twins, size, mode)
    limits = {"perturbations": FULL_PERTURBATIONS, "depth": case.full_depth} if size == "full" else {}
    free = twins.compare(record, arrays, inputs=False, **limits, **arguments)
    passes, verdicts, culprits = {"": free}, {"": judged(free)}, []
    if size != "full":
        known, _ = twins.torch.call(record, arrays, **arguments)
        given = {**arrays, **grouped("record", known)}
        passes["alone"] = twins.compare(forced, given, **arguments)
        verdicts["alone"] = judged(passes["alone"])
        culprits = at_fault(passes["alone"].values, verdicts["alone"])
    places = {label(name, kind): (kind, name) for kind, found in verdicts.items() for name in found}
    curve = growth(free.values["order"], verdicts[""])
    diverged = [path for path, v in curve if not v.passed]
    result = row(case.name, "L3", mode, {shown: verdicts[kind][name] for shown, (kind, name) in places.items()},
                 case.dtype, size=size, curve=[[path, v.error, v.noise, v.limit] for path, v in curve],
                 first_divergence=diverged[0].split("#")[0] if diverged else "", culprits=culprits,
                 unmatched=unmatched(free), flips=flips(passes))
    kind, name = places[result.worst]
    result.detail["map"] = {"name": result.worst, "error": error_map(passes[kind].candidate.get(name),
                                                                     passes[kind].truth.get(name))}
    return [result]


def judged(found: Comparison) -> dict[str, Verdict]:
    """The verdict of each tensor. Outputs and inputs of modules are compared if both twins have them, since a twin
    may wrap a library's model with other modules. The case's results and the state must exist in both twins."""
    return found.verdicts([name for name in dict.fromkeys([*found.truth, *found.candidate])
                           if name in found.truth and name in found.candidate or not is_call(name)])


def unmatched(found: Comparison) -> dict[str, list[str]]:
    """The module outputs and inputs that only one twin has, by framework."""
    return {"PyTorch": [label(name) for name in found.truth if is_call(name) and name not in found.candidate],
            "Jittor": [label(name) for name in found.candidate if is_call(name) and name not in found.truth]}


def is_call(name: str) -> bool:
    return name.startswith(("in/", "out/"))


def address(name: str) -> tuple[str, str, str]:
    """"out/<path>#<call>/<i>" as (path, call, i)."""
    call, _, number = name.split("/", 1)[1].rpartition("/")
    path, _, times = call.rpartition("#")
    return path, times, number


def label(name: str, kind: str = "") -> str:
    """The name of a trace's tensor in reports: a first output has its module's path, a second call is "path#1"."""
    what, _, rest = name.partition("/")
    if is_call(name):
        path, call, number = address(name)
        shown = (path or ROOT) + (f"#{call}" if call != "0" else "")
        if what == "in" or number != "0":
            shown += f" {'input' if what == 'in' else 'output'} {number}"
    else:
        shown = f"{what} {rest}"
    return f"{shown} ({kind})" if kind else shown


def growth(order: list, verdicts: dict[str, Verdict]) -> list[tuple[str, Verdict]]:
    """The worst output of each call, in the order in which the calls ended."""
    calls: dict[str, list[Verdict]] = {}
    for name, verdict in verdicts.items():
        if name.startswith("out/"):
            path, call, _ = address(name)
            calls.setdefault(f"{path}#{call}", []).append(verdict)
    return [(label(f"out/{path}#{call}/0"), max(calls[f"{path}#{call}"], key=lambda v: (not v.passed, severity(v))))
            for path, call, _ in order if f"{path}#{call}" in calls]


def at_fault(values: dict, verdicts: dict[str, Verdict]) -> list[str]:
    """The modules that are wrong themselves, in the order of execution.

    All modules inside a module returned PyTorch's outputs, so an error in its own outputs, or in the inputs that it
    hands to the modules inside it, is its own. A wrong statistic is the fault of the module that holds it.
    """
    paths, found = list(dict.fromkeys(path for path, _, _ in values["order"])), set()
    for name in (name for name, verdict in verdicts.items() if not verdict.passed):
        if name.startswith("in/"):
            caller = values["callers"].get(name.split("/", 1)[1].rpartition("/")[0], "")
            found.add(caller.rpartition("#")[0])
        elif name.startswith("out/"):
            found.add(address(name)[0])
        elif name.startswith("state/"):
            key = name.removeprefix("state/")
            found.add(max((path for path in paths if key.startswith(f"{path}.")), key=len, default=""))
        else:
            found.add("")
    return [path or ROOT for path in [*(path for path in paths if path), ""] if path in found]


def flips(passes: dict[str, Comparison]) -> dict[str, int]:
    """The number of elements that differ in each integer or boolean tensor."""
    return {label(name, kind): int(np.count_nonzero(found.candidate[name] != truth))
            for kind, found in passes.items() for name, truth in found.truth.items()
            if is_discrete(truth) and name in found.candidate and found.candidate[name].shape == truth.shape}


def error_map(candidate, truth) -> list[list[float]]:
    """The error of a tensor (…, H, W) by place, relative to the root mean square of the truth. Each number is the
    largest over a block of pixels and all other dimensions. [] for vectors, or if shapes differ."""
    if candidate is None or truth is None or candidate.shape != truth.shape or truth.ndim < 2 or not truth.size:
        return []
    difference = np.abs(np.asarray(candidate, np.float64) - np.asarray(truth, np.float64))
    finite = np.isfinite(difference)
    difference[~finite] = difference[finite].max(initial=0.0)
    difference = difference.reshape(-1, *truth.shape[-2:]).max(0) / (rms(truth[np.isfinite(truth)]) or 1.0)
    blocks = [-(-length // MAP_SIDE) for length in difference.shape]
    padded = np.pad(difference, [(0, -length % block) for length, block in zip(difference.shape, blocks)])
    rows, columns = (length // block for length, block in zip(padded.shape, blocks))
    return padded.reshape(rows, blocks[0], columns, blocks[1]).max((1, 3)).tolist()
