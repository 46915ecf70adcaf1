"""L4: gradients of every parameter and of the inputs, for random cotangents and for the real losses."""
import numpy as np

from jittwin.draws import Draws
from parity.case import Case, arrays_for, load, prepared
from parity.compare import Verdict
from parity.oracle import Twins
from parity.result import Row, row
from parity.side import Arrays, Side

DIRECTIONS = 2
SETS = 3      # of weights: a fault shows with any, a flipped ReLU sign with these weights only


def gradients(side: Side, arrays: Arrays, case: dict, size: str, mode: str, direction: int | None = None,
              half: str = "") -> Arrays:
    """In a worker: "gradient <name>" of a random linear function of all outputs; of the real losses of one half
    of the training step, and "loss <name>", where direction is None."""
    case = load(case)
    module, inputs = prepared(side, arrays, case, size, mode)
    wanted = {f"gradient {name}": p for name, p in side.backend.parameters(module).items()
              if direction is not None or case.trained(half, name)}
    wanted |= {f"gradient input {name}": inputs[name] for name in case.differentiable}
    if direction is None:
        losses = case.losses(side, module, inputs, mode, half)
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


def compared(case: Case, size: str, mode: str, twins: Twins, seed: int, what: dict) -> dict[str, Verdict]:
    """The verdicts of one call of `gradients`, with the weights of this seed."""
    found = twins.compare("parity.levels.backward:gradients", arrays_for(case, twins, size, mode, seed),
                          case=case.reference(), size=size, mode=mode, **what)
    return found.verdicts()


def check(case: Case, size: str, mode: str, twins: Twins) -> list[Row]:
    """The row of this level. What disagrees is computed again with other weights, and must disagree with all."""
    parts = {f"direction {number}": {"direction": number} for number in range(DIRECTIONS)}
    if type(case).losses is not Case.losses:
        parts |= {f"losses {half}".strip(): {"half": half} for half in case.halves}
    verdicts, again = {}, {}
    for part, what in parts.items():
        for seed in range(SETS):
            found = compared(case, size, mode, twins, seed, what)
            if all(verdict.passed for verdict in found.values()):
                break
            again[part] = seed + 1
        verdicts |= {f"{name} ({part})": verdict for name, verdict in found.items()}
    return [row(case.name, "L4", mode, verdicts, case.dtype, size=size, weights_replaced=again)]
