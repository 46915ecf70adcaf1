"""L2: every operator and leaf layer that a model calls, on inputs for which implementations tend to differ.

One call of each kind (calls.py) is run on every probe (probes.py) in both twins, forward and backward, and compared
with PyTorch in float64. No element may be far off, so gradients follow the stricter rule of outputs. Where an output is
a sum of many products, it may also be off by what adding them one after the other costs, whatever the noise of PyTorch
is, which adds them in blocks.
"""
import math
from dataclasses import replace

import numpy as np

from parity.case import Case, arrays_for
from parity.levels.calls import distinct, is_within, operator, record, tensors_in, title
from parity.levels.ops import OPS
from parity.levels.probes import inputs, run
from parity.result import Row, failure, row
from parity.workers.compare import FLOOR_ULPS, VACUOUS, Comparison, Verdict, equal
from parity.workers.oracle import Twins
from parity.workers.side import Arrays

EPSILON = 2.0 ** -24       # the largest relative error of rounding to float32
ONCE = True     # a call is probed once, whichever modes it occurs in


def check(case: Case, size: str, mode: str, twins: Twins) -> list[Row]:
    """The row of this level, for all modes of the case together."""
    calls, values, weights, recorded = recorded_calls(case, size, twins)
    unknown = sorted({call["name"] for call in calls if call["path"] is None and call["name"] not in OPS})
    if unknown:
        return [failure(case.name, "L2", mode, f"no probe knows how to drive nn.ops.{', nn.ops.'.join(unknown)}: "
                        "add a row to OPS in parity/levels/ops.py", case.dtype, size=size)]
    arrays = dict(weights)
    for index, call in enumerate(calls):
        call["probes"] = []
        for probe, given in inputs(call, values[index], title(call)):
            call["probes"].append(probe)
            arrays |= {f"{index}|{probe}/{name}": a for name, a in given.items()}
    found = twins.compare(run, arrays, case=case.reference(), size=size, calls=calls)
    titles = [f"{index} {title(call)}" for index, call in enumerate(calls)]
    judged = verdicts(found, calls, titles, [products(call, weights) for call in calls])
    undecided = [name for name, verdict in judged.items() if "[random]" not in name and not decided(verdict)]
    return [row(case.name, "L2", mode, {name: v for name, v in judged.items() if name not in undecided}, case.dtype,
                size=size, calls=titles, recorded=recorded, probes=sum(len(call["probes"]) for call in calls),
                undecided=undecided, raised=found.values["raised"])]


def decided(verdict: Verdict) -> bool:
    """Whether float32 PyTorch computes this well enough to compare. It does not for the slope of tanh at 10."""
    return verdict.noise < VACUOUS or verdict.error > verdict.limit


def recorded_calls(case: Case, size: str, twins: Twins) -> tuple[list[dict], list[Arrays], Arrays, int]:
    """From all modes: one call of each kind; the values of its integer arguments; the weights of the layers called,
    as "weights <mode>/<name>"; and the number of calls recorded."""
    seen, weights, recorded = [], {}, 0
    for mode in case.modes:
        arrays = arrays_for(case, twins, size, mode)
        values, found = twins.torch.call(record, arrays,
                                         case=case.reference(), size=size, mode=mode)
        recorded += found["recorded"]
        seen += [(call, {name.split("/")[1]: a for name, a in values.items() if name.split("/")[0] == str(index)})
                 for index, call in enumerate(found["calls"])]
        weights[mode] = {name[len("weights/"):]: a for name, a in arrays.items() if name.startswith("weights/")}
    kept = distinct(seen)
    calls = [call for call, _ in kept]
    needed = {f"weights {call['mode']}/{name}": a for call in calls if call["path"] is not None
              for name, a in weights[call["mode"]].items() if is_within(name, call["path"])}
    return calls, [values for _, values in kept], needed, recorded


def products(call: dict, weights: Arrays) -> int:
    """How many products each output of a convolution or a linear layer is the sum of; 0 for other calls."""
    if call["name"] in ("conv2d", "linear"):
        _, weight, *_ = tensors_in(call)
        return math.prod(weight["shape"][1:])
    weight = weights.get(f"weights {call['mode']}/{call['path']}.weight")
    return math.prod(weight.shape[1:]) if call["name"] in ("Conv2d", "Linear") and weight is not None else 0


def verdicts(found: Comparison, calls: list[dict], titles: list[str], sums: list[int]) -> dict[str, Verdict]:
    """The verdicts by call, probe and result. sums: of each call, the products in an output."""
    judged = {}
    for name, verdict in found.verdicts().items():
        index, probe, result = name.split("|")
        op = operator(calls[int(index)])
        if op and op.exact and not result.startswith("slope") \
                and name in found.truth and name in found.candidate:
            verdict = equal(found.candidate[name], single(found.truth[name]))
        # The rounding of n terms that are added one after the other grows with the root of n.
        summed = FLOOR_ULPS * EPSILON * math.sqrt(sums[int(index)])
        if result == "output" and verdict.limit < verdict.error <= summed and verdict.noise < VACUOUS:
            verdict = replace(verdict, limit=summed, reason="")
        judged[f"{titles[int(index)]} [{probe}] {result}"] = verdict
    return judged


def single(truth: np.ndarray) -> np.ndarray:
    """The float32 values that copies of these float64 values must have."""
    return truth.astype(np.float32) if truth.dtype == np.float64 else truth
