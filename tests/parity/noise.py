"""When two float32 results are equal: the error of one is measured against the noise of the other.

The truth is PyTorch in float64. The noise is what the float32 twin itself shows when weights and
inputs move by one unit in the last place. A fixed tolerance would fail correct gradients of a deep
network and pass wrong parameters of a shallow one.
"""
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

DRAWS = 8
FACTORS = {False: (8, 4), True: (16, 8)}     # gradient?: (times the noise, times PyTorch's own error)


class Agreement(NamedTuple):
    """Errors relative to the root mean square of the truth; `limit` is what `jittor` may be."""

    jittor: float
    torch32: float
    noise: float
    limit: float
    passed: bool


def error(values, truth, gradient: bool = False) -> float:
    """max|values - truth| / rms(truth); infinite when the non-finite elements differ.

    For gradients the ninth decile of |values - truth| stands for the maximum: where a rounding error flips
    the sign of one ReLU or the winner of one max-pool, some elements of a correct gradient are far off.
    """
    values, truth = np.asarray(values, np.float64), np.asarray(truth, np.float64)
    finite = np.isfinite(truth)
    if values.shape != truth.shape or not np.array_equal(values[~finite], truth[~finite], equal_nan=True):
        return np.inf
    difference, truth = np.abs(values[finite] - truth[finite]), truth[finite]
    if not difference.size:
        return 0.0
    size = np.quantile(difference, 0.9) if gradient else difference.max()
    if not size < np.inf:
        return np.inf
    scale = np.sqrt(np.mean(np.square(truth)))
    return float(size / scale) if scale else (0.0 if size == 0 else np.inf)


def perturb(arrays: dict, draw: int) -> dict:
    """A copy in which every floating element but 0 moved up or down by one ULP; draw 0 changes nothing."""
    if not draw:
        return dict(arrays)
    generator = np.random.Generator(np.random.Philox(draw))
    return {name: _moved(a, generator) if a.dtype in (np.float32, np.float64) else a
            for name, a in arrays.items()}


def _moved(a, generator) -> np.ndarray:
    bits = a.view(np.int32 if a.dtype == np.float32 else np.int64)
    step = generator.integers(0, 2, a.shape, np.uint8).astype(bits.dtype) * 2 - 1
    return (bits + step * ((a != 0) & np.isfinite(a))).view(a.dtype)


def agree(jittor, torch32, torch64, noise: Iterable, gradient: bool = False) -> Agreement:
    """Compare one tensor. `noise`: the same tensor from float32 PyTorch runs on perturbed arrays.

    Where the noise hides a hundredth of the signal nothing can be concluded, and it does not pass.
    """
    truth = np.asarray(torch64, np.float64)
    seen = max((error(values, truth, gradient) for values in noise), default=0.0)
    own, theirs = error(jittor, truth, gradient), error(torch32, truth, gradient)
    times_noise, times_error = FACTORS[gradient]
    one_ulp = error(np.nextafter(np.float32(truth), np.float32(np.inf)), truth, gradient)
    limit = max(times_noise * seen, times_error * theirs, one_ulp)
    return Agreement(own, theirs, seen, limit, own <= limit and seen < 0.01)
