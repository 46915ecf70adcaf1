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


def error(values, truth) -> float:
    """max|values - truth| / rms(truth); infinite when the non-finite elements differ."""
    values, truth = np.asarray(values, np.float64), np.asarray(truth, np.float64)
    finite = np.isfinite(truth)
    if values.shape != truth.shape or not np.array_equal(values[~finite], truth[~finite], equal_nan=True):
        return np.inf
    worst = np.abs(values[finite] - truth[finite]).max(initial=0.0)
    if not worst < np.inf:
        return np.inf
    scale = np.sqrt(np.mean(np.square(truth[finite]))) if finite.any() else 0.0
    return float(worst / scale) if scale else (0.0 if worst == 0 else np.inf)


def perturb(arrays: dict, draw: int) -> dict:
    """A copy in which every floating element has moved up or down by one ULP; draw 0 changes nothing."""
    if not draw:
        return dict(arrays)
    coin = np.random.Generator(np.random.Philox(draw))


    def moved(a):
        up = coin.integers(0, 2, a.shape, np.uint8)
        return np.nextafter(a, np.where(up, np.inf, -np.inf).astype(a.dtype))

    return {name: moved(a) if a.dtype.kind == "f" else a for name, a in arrays.items()}


def agree(jittor, torch32, torch64, noise: Iterable, gradient: bool = False) -> Agreement:
    """Compare one tensor. `noise`: the same tensor from float32 PyTorch runs on perturbed arrays."""
    truth = np.asarray(torch64, np.float64)
    seen = max((error(values, truth) for values in noise), default=0.0)
    own, theirs = error(jittor, truth), error(torch32, truth)
    times_noise, times_error = FACTORS[gradient]
    one_ulp = error(np.nextafter(np.float32(truth), np.float32(np.inf)), truth)
    limit = max(times_noise * seen, times_error * theirs, one_ulp)
    return Agreement(own, theirs, seen, limit, own <= limit < np.inf)
