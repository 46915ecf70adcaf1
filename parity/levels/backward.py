"""L4: gradients of every parameter and of the inputs, for random cotangents and for the real losses."""
import numpy as np

from jittwin.draws import Draws
from parity.case import Case, arrays_for, load, prepared
from parity.oracle import Twins
from parity.result import Row, row
from parity.side import Arrays, Side

DIRECTIONS = 2
SETS = 3      # of weights: a fault shows with any, a flipped ReLU sign with these weights only


def gradients(side: Side, arrays: Arrays, case: dict, size: str, mode: str, direction: int | None) -> Arrays:
    """In a worker: "gradient <name>" of a random linear function of all outputs; of each of the real losses
    where direction is None."""
    case = load(case)
    module, inputs = prepared(side, arrays, case, size, mode)
    wanted = {**{f"gradient {name}": p for name, p in side.backend.parameters(module).items()},
              **{f"gradient input {name}": inputs[name] for name in case.differentiable}}
    if direction is None:
        losses = case.losses(side, module, inputs, mode)
        results = {f"loss {name}": side.host(loss).reshape(()) for name, loss in losses.items()}
        return results | side.gradients(sum(losses.values()), wanted)
    outputs = case.run(side, module, inputs, mode)
    loss = sum(projected(side, f"{direction} {name}", tensor) for name, tensor in outputs.items())
    return side.gradients(loss, wanted)


def projected(side: Side, site: str, tensor):
    """A random linear function of a tensor, of order one whatever the tensor's size.

    Not the plain sum: the gradient of softmax(x).sum() is zero, and would agree with anything.
    """
    shape = tuple(tensor.shape)
    coefficients = Draws(13).normal(site, shape) / np.float32(np.sqrt(max(1, np.prod(shape))))
    return (tensor * side.tensor(coefficients.astype(np.float64) if side.wide else coefficients)).sum()


def check(case: Case, size: str, mode: str, twins: Twins) -> list[Row]:
    """The row of this level. A disagreement must persist with every set of weights."""
    arguments = {"case": case.reference(), "size": size, "mode": mode}
    directions = [*range(DIRECTIONS), *([None] if "losses" in type(case).__dict__ else [])]
    for seed in range(SETS):
        arrays, verdicts = arrays_for(case, twins, size, mode, seed), {}
        for direction in directions:
            found = twins.compare("parity.levels.backward:gradients", arrays, direction=direction, **arguments)
            kind = "losses" if direction is None else f"direction {direction}"
            verdicts |= {f"{name} ({kind})": v for name, v in found.verdicts().items()}
        result = row(case.name, "L4", mode, verdicts, case.dtype, size=size, weight_sets=seed + 1)
        if result.passed:
            break
    return [result]
