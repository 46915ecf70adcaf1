"""Average pooling and its gradient against their formulas in float64."""
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
