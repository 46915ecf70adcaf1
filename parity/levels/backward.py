"""L4: gradients of every parameter and of the inputs, for random cotangents and for the real losses."""
import numpy as np

from jittwin.draws import Draws
from parity.case import Case, arrays_for, load, prepared
from parity.result import Row, row
from parity.workers.compare import Verdict
from parity.workers.oracle import Twins
from parity.workers.side import Arrays, Side, group

DIRECTIONS = 2
SETS = 3      # sets of weights: a fault shows with any of them, a flipped ReLU sign only with one


def gradients(side: Side, arrays: Arrays, case: dict, size: str, mode: str, half: str | None = None) -> Arrays:
    """In a worker: "gradient <name>" for every parameter and every differentiable input.

    Without `half` they are gradients of the linear function of all outputs whose coefficients are the arrays
    "cotangents/…". With it they are gradients of the losses of that half of the training step, and the results
    include "loss <name>".
    """
    case = load(case)
    module, inputs = prepared(side, arrays, case, size, mode)
    wanted = {f"gradient {name}": p for name, p in side.backend.parameters(module).items()
              if half is None or case.trained(half, name)}
    wanted |= {f"gradient input {name}": inputs[name] for name in case.differentiable}
    if half is not None:
        losses = case.losses(side, module, inputs, mode, half)
        results = {f"loss {name}": side.host(loss).reshape(()) for name, loss in losses.items()}
        return results | side.gradients(sum(losses.values()), wanted)
    outputs, cotangents = case.run(side, module, inputs, mode), group(arrays, "cotangents")
    return side.gradients(sum((tensor * side.tensor(cotangents[name])).sum() for name, tensor in outputs.items()),
                          wanted)


def shapes(side: Side, arrays: Arrays, case: dict, size: str, mode: str) -> tuple[Arrays, dict]:
    """In a worker: the shapes of the outputs."""
    case = load(case)
    module, inputs = prepared(side, arrays, case, size, mode)
    with side.backend.no_grad():
        outputs = case.run(side, module, inputs, mode)
    return {}, {name: list(tensor.shape) for name, tensor in outputs.items()}


def cotangent(site: str, shape) -> np.ndarray:
    """Coefficients of a random linear function of a tensor; the function is of order one whatever the tensor's size.

    A plain sum would not do: the gradient of softmax(x).sum() is zero whatever softmax computes.
    """
    return Draws(13).normal(site, tuple(shape)) / np.float32(np.sqrt(max(1, np.prod(shape))))


def projected(side: Side, site: str, tensor):
    """The linear function of a tensor whose coefficients are `cotangent`."""
    coefficients = cotangent(site, tensor.shape)
    return (tensor * side.tensor(coefficients.astype(np.float64) if side.wide else coefficients)).sum()


def request(case: Case, size: str, mode: str, twins: Twins, seed: int, part: int | str) -> tuple[Arrays, dict]:
    """The arrays and arguments of `gradients`, with the weights of this seed.

    part: the number of a direction (a random cotangent), or the name of the half whose losses are used.
    """
    arguments = {"case": case.reference(), "size": size, "mode": mode}
    arrays = arrays_for(case, twins, size, mode, seed)
    if isinstance(part, str):
        return arrays, {**arguments, "half": part}
    _, outputs = twins.torch.call(shapes, arrays, **arguments)
    # Cotangents are inputs, so they move when noise is measured: the gradient of a bias is little but their sum.
    arrays |= {f"cotangents/{name}": cotangent(f"{part} {name}", shape) for name, shape in outputs.items()}
    return arrays, arguments


def compared(case: Case, size: str, mode: str, twins: Twins, seed: int, part: int | str) -> dict[str, Verdict]:
    arrays, arguments = request(case, size, mode, twins, seed, part)
    return twins.compare(gradients, arrays, **arguments).verdicts()


def check(case: Case, size: str, mode: str, twins: Twins) -> list[Row]:
    """The row of this level. A comparison that fails is repeated with other weights.

    A rounding error that flips the sign of one ReLU moves many gradients a little, but only with some weights. A
    fault shows with any weights, so a tensor fails only if it disagrees with every set of them.
    """
    parts = {f"direction {number}": number for number in range(DIRECTIONS)}
    if type(case).losses is not Case.losses:
        parts |= {f"losses {half}".strip(): half for half in case.halves}
    verdicts, again = {}, {}
    for name, part in parts.items():
        found: dict[str, Verdict] = {}
        for seed in range(SETS):
            for tensor, verdict in compared(case, size, mode, twins, seed, part).items():
                if tensor not in found or not found[tensor].passed:
                    found[tensor] = verdict
            if all(verdict.passed for verdict in found.values()):
                break
            again[name] = seed + 1
        verdicts |= {f"{tensor} ({name})": verdict for tensor, verdict in found.items()}
    return [row(case.name, "L4", mode, verdicts, case.dtype, size=size, weights_replaced=again)]
