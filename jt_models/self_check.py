"""Whether Jittor computes what it should on this device: a few operators and their gradients against NumPy in float64.

On a GPU Jittor compiles everything again with another compiler, and the tests of this project ran on a CPU.
"""
from collections.abc import Callable

import numpy as np

from jittwin.errors import reason
from jt_models.boot import jt
from jt_models.nn import ops

LIMIT = 1e-4            # of the size of the right result
STEP = 1e-6             # of the central differences in float64
INDEX = np.arange(60).reshape(2, 5, 6) % 4      # rows of the modulation
FEW_OR_MANY = np.minimum(np.arange(5000) % 600, 299).reshape(2, 50, 50)     # 8 or 9 pixels of a row, 2408 of the last
MASK = np.sin(np.arange(600, dtype=np.float32)).reshape(1, 2, 1, 300)


def _rows_normalised(x):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt(np.square(centred).mean(-1, keepdims=True) + 1e-5)


def _softmax(x):
    parts = np.exp(x)
    return parts / parts.sum(-1, keepdims=True)


def _convolution(x, weight, bias):
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))[:, :, ::2, ::2]
    return np.einsum("bchwij,ocij->bohw", windows, weight) + bias[:, None, None]


def _attention(q, k, v, mask=0.0):
    q, k, v = (x.reshape(2, -1, 2, 4).transpose(0, 2, 1, 3) for x in (q, k, v))
    return (_softmax(q @ k.transpose(0, 1, 3, 2) / 2 + mask) @ v).transpose(0, 2, 1, 3).reshape(2, -1, 8)


def _normalised_modulation(x, gain, shift):
    x = np.moveaxis(_rows_normalised(np.moveaxis(x, 1, 0).reshape(3, -1)).reshape(3, 2, 50, 50), 0, 1)
    y = x * np.moveaxis(gain[FEW_OR_MANY], 3, 1) + np.moveaxis(shift[FEW_OR_MANY], 3, 1)
    return np.where(y > 0, y, 0.2 * y)


# Some rows are longer than a block of threads of jt_models/nn/kernels/rows.py. In the normalised modulation, channels
# and rows of the table have more pixels than a block and a thread of jt_models/nn/kernels/pixels.py take.
# name: (the operator, its formula in NumPy, the shapes of its arguments)
CHECKS: dict[str, tuple[Callable, Callable, tuple]] = {
    "matrix product": (ops.linear, lambda x, weight, bias: x @ weight.T + bias, ((3, 5, 16), (8, 16), (8,))),
    "convolution": (lambda *given: ops.conv2d(*given, 2, 1), _convolution, ((2, 3, 6, 7), (4, 3, 3, 3), (4,))),
    "layer norm": (ops.layer_norm, lambda x, gain, shift: _rows_normalised(x) * gain + shift, ((4, 9), (9,), (9,))),
    "attention": (lambda *given: ops.attention(*given, 2), _attention, ((2, 5, 8), (2, 3, 8), (2, 3, 8))),
    "modulation": (lambda *given: ops.modulate(*given, jt.array(INDEX.astype(np.int32))),
                   lambda x, gain, shift: x * np.moveaxis(gain[INDEX], 3, 1) + np.moveaxis(shift[INDEX], 3, 1),
                   ((2, 3, 5, 6), (4, 3), (4, 3))),
    "normalised modulation": (
        lambda *given: ops.normalize_modulate(*given, jt.array(FEW_OR_MANY.astype(np.int32)), 1e-5, 0.2)[0],
        _normalised_modulation, ((2, 3, 50, 50), (300, 3), (300, 3))),
    "softmax": (ops.softmax, _softmax, ((2, 3, 300),)),
    "layer norm of long rows": (ops.layer_norm, lambda x, gain, shift: _rows_normalised(x) * gain + shift,
                                ((19, 300), (300,), (300,))),
    "masked attention": (lambda *given: ops.attention(*given, 2, jt.array(MASK)),
                         lambda *given: _attention(*given, MASK), ((2, 5, 8), (2, 300, 8), (2, 300, 8))),
    "mean": (ops.mean, lambda x: np.atleast_1d(x.mean()), ((2, 3, 100, 100),)),
}


def failure() -> str:
    """The first operator that cannot be computed, or is something else, and by how much, in one line; "" if none is."""
    for name, (operator, formula, shapes) in CHECKS.items():
        try:
            errors = _errors(name, operator, formula, shapes)
        except RuntimeError as error:
            return f"{name} cannot be computed ({reason(error)})"
        for what, error in errors.items():
            if not error <= LIMIT:
                return f"the {what} of {name} is off by {error:.1e} of its size"
    return ""


def _errors(name: str, operator, formula, shapes) -> dict[str, float]:
    """The errors of the result and of the gradients, relative to their size."""
    draws = np.random.Generator(np.random.Philox(len(name)))
    arrays, directions = ([draws.standard_normal(shape).astype(np.float32) for shape in shapes] for _ in "ad")
    wide = [a.astype(np.float64) for a in arrays]
    right = formula(*wide)
    cotangent = draws.standard_normal(right.shape).astype(np.float32)
    given = [jt.array(a) for a in arrays]
    found = operator(*given)
    slopes = jt.grad((found * jt.array(cotangent)).sum(), given)
    errors = {"result": _off(found.numpy(), right)}
    # The gradient along one direction for each argument, which two values of the formula give too.
    for number, (slope, direction) in enumerate(zip(slopes, directions)):
        ends = [formula(*wide[:number], wide[number] + step * direction, *wide[number + 1:])
                for step in (STEP, -STEP)]
        expected = ((ends[0] - ends[1]) * cotangent).sum() / (2 * STEP)
        size = np.sqrt(np.square(slope.numpy()).sum() * np.square(direction).sum())
        errors[f"gradient {number}"] = abs((slope.numpy() * direction).sum() - expected) / max(size, 1e-30)
    return errors


def _off(found, right) -> float:
    return float(np.abs(found - right).max() / np.sqrt(np.mean(np.square(right))))
