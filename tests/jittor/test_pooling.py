"""Pooling, resizing and their gradients against their formulas in float64."""
import numpy as np
import pytest

from jt_models.boot import jt
from jt_models.nn import ops


def formulas(x, g, kernel, stride, padding, padded):
    """The means and the gradient of sum(g * means)."""
    sides = (0, 0), (0, 0), (padding, padding), (padding, padding)
    given, inside = np.pad(x.astype(np.float64), sides), np.pad(np.ones(x.shape), sides)
    y, slope = np.zeros(g.shape), np.zeros_like(given)
    for at in np.ndindex(g.shape):
        image, channel, p, q = at
        window = (image, channel, slice(p * stride, p * stride + kernel), slice(q * stride, q * stride + kernel))
        count = kernel ** 2 if padded else inside[window].sum()
        y[at] = given[window].sum() / count
        slope[window] += g[at] / count
    return y, slope[:, :, padding:padding + x.shape[2], padding:padding + x.shape[3]]


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("shape, kernel, stride, padding", [
    ((2, 3, 7, 9), 3, 1, 1), ((2, 3, 6, 9), 3, 2, 1), ((1, 2, 7, 9), 2, 2, 0), ((1, 2, 9, 5), 5, 3, 2),
    ((2, 1, 1, 1), 3, 1, 1),
])
def test_values_and_gradient(shape, kernel, stride, padding, padded):
    draws = np.random.default_rng(0)
    x = draws.standard_normal(shape).astype(np.float32)
    sides = [(side + 2 * padding - kernel) // stride + 1 for side in shape[2:]]
    g = draws.standard_normal((*shape[:2], *sides)).astype(np.float32)
    given = jt.array(x)
    found = ops.avg_pool2d(given, kernel, stride, padding, padded)
    slope = jt.grad((found * jt.array(g)).sum(), given)
    for ours, truth in zip((found, slope), formulas(x, g, kernel, stride, padding, padded)):
        assert ours.shape == list(truth.shape)
        np.testing.assert_allclose(ours.numpy(), truth, atol=1e-6)


def maxima(x, g, kernel, stride, padding):
    """The maxima and the gradient of sum(g * maxima). The first of equals counts, and a NaN more than all numbers."""
    y, slope = np.zeros(g.shape), np.zeros(x.shape)
    for at in np.ndindex(g.shape):
        top, left = at[2] * stride - padding, at[3] * stride - padding
        window = x[at[0], at[1], max(top, 0):top + kernel, max(left, 0):left + kernel]
        holes = np.flatnonzero(np.isnan(window))
        row, column = np.unravel_index(holes[-1] if len(holes) else window.argmax(), window.shape)
        y[at] = window[row, column]
        slope[at[0], at[1], max(top, 0) + row, max(left, 0) + column] += g[at]
    return y, slope


@pytest.mark.parametrize("shape, kernel, stride, padding", [
    ((2, 3, 7, 9), 3, 2, 1), ((2, 3, 40, 70), 3, 2, 1), ((1, 2, 9, 37), 2, 2, 0), ((2, 2, 35, 35), 3, 2, 0),
    ((1, 2, 18, 33), 3, 1, 1), ((1, 2, 9, 5), 5, 3, 2), ((2, 1, 1, 1), 3, 1, 1), ((1, 1, 2, 3), 2, 3, 0),
])
def test_the_maximum_and_its_gradient(shape, kernel, stride, padding):
    """Of few values, so that many are equal, some infinite and some not a number."""
    draws = np.random.default_rng(0)
    x = draws.choice(np.array([-2, -1, 0, 0.5, -np.inf, np.inf, np.nan], np.float32), shape,
                     p=[0.2, 0.2, 0.2, 0.2, 0.18, 0.01, 0.01])
    x[0, 0, :3, :3] = -np.inf
    sides = [(side + 2 * padding - kernel) // stride + 1 for side in shape[2:]]
    g = draws.integers(-9, 9, (*shape[:2], *sides)).astype(np.float32)
    given = jt.array(x)
    found = ops.max_pool2d(given, kernel, stride, padding)
    slope = jt.grad((found * jt.array(g)).sum(), given)
    for ours, truth in zip((found, slope), maxima(x, g, kernel, stride, padding)):
        np.testing.assert_array_equal(ours.numpy(), truth)


def matrix(old: int, new: int, mode: str, align_corners: bool):
    """What an axis is multiplied with to resize it, (new, old): hats, or Keys's cubic with a = -0.75."""
    found = np.zeros((new, old))
    at = np.arange(new) * (old - 1) / max(new - 1, 1) if align_corners else (np.arange(new) + 0.5) * old / new - 0.5
    for row, place in enumerate(at):
        for source in range(int(np.floor(place)) - 2, int(np.floor(place)) + 4):
            d = abs(place - source)
            share = max(0.0, 1 - d)
            if mode == "bicubic":
                near, far = 1.25 * d ** 3 - 2.25 * d ** 2 + 1, -0.75 * (d ** 3 - 5 * d ** 2 + 8 * d - 4)
                share = near if d < 1 else far if d < 2 else 0
            found[row, min(max(source, 0), old - 1)] += share
    return found


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("shape, size, align_corners", [
    ((2, 3, 6, 8), (9, 10), False), ((2, 3, 6, 8), (12, 16), True), ((1, 2, 12, 9), (3, 2), False),
    ((1, 2, 7, 35), (7, 20), False), ((1, 2, 5, 4), (3, 1), True),
])
def test_resizing_and_its_gradient(shape, size, align_corners, mode):
    draws = np.random.default_rng(0)
    x, g = (draws.standard_normal(s).astype(np.float32) for s in (shape, (*shape[:2], *size)))
    rows, columns = (matrix(old, new, mode, align_corners) for old, new in zip(shape[2:], size))
    given = jt.array(x)
    found = ops.interpolate(given, size, mode, align_corners)
    slope = jt.grad((found * jt.array(g)).sum(), given)
    np.testing.assert_allclose(found.numpy(), rows @ x.astype(np.float64) @ columns.T, atol=2e-6)
    np.testing.assert_allclose(slope.numpy(), rows.T @ g.astype(np.float64) @ columns, atol=2e-6)
