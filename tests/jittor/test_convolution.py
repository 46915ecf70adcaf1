"""Convolution and its gradients against their formulas in float64."""
import numpy as np
import pytest

from jt_models.boot import jt
from jt_models.nn import ops
from jt_models.nn.kernels.conv import Conv

# picture (B, in, H, W), weight (out, in / groups, h, w), stride, padding, groups
SHAPES = {
    "a network's first layer": ((2, 3, 17, 14), (18, 3, 7, 7), (2, 2), (3, 3), 1),
    "blocks of 16 channels": ((2, 32, 6, 7), (16, 32, 3, 3), (1, 1), (1, 1), 1),
    "channels that fill no block": ((2, 19, 6, 7), (5, 19, 3, 2), (1, 1), (1, 0), 1),
    "rows and columns that no window reaches": ((1, 4, 8, 9), (6, 4, 3, 3), (3, 2), (0, 0), 1),
    "products of pictures": ((2, 5, 12, 16), (7, 5, 1, 1), (1, 1), (0, 0), 1),
    "products of an odd number of pictures": ((3, 20, 12, 16), (33, 20, 1, 1), (1, 1), (0, 0), 1),
    "a product too small for that": ((2, 48, 3, 5), (20, 48, 1, 1), (1, 1), (0, 0), 1),
    "a product with padding": ((2, 5, 12, 16), (7, 5, 1, 1), (1, 1), (1, 2), 1),
    "stride and padding that keep the size": ((1, 5, 12, 16), (7, 5, 1, 1), (2, 2), (6, 8), 1),
    "every second pixel": ((2, 17, 12, 15), (33, 17, 1, 1), (2, 2), (0, 0), 1),
    "groups": ((2, 6, 7, 8), (4, 3, 3, 3), (1, 1), (1, 1), 2),
    "groups of 16 channels": ((2, 32, 7, 8), (64, 16, 3, 3), (2, 1), (1, 1), 2),
    "a group for each channel": ((2, 6, 7, 8), (6, 1, 3, 3), (2, 2), (1, 1), 6),
}


def arrays(name: str) -> list:
    """x, weight, bias and a gradient of the result."""
    x, weight, stride, padding, _ = SHAPES[name]
    sides = [(x[2 + i] + 2 * padding[i] - weight[2 + i]) // stride[i] + 1 for i in (0, 1)]
    draws = np.random.default_rng(1)
    return [draws.standard_normal(shape).astype(np.float32)
            for shape in (x, weight, weight[:1], (x[0], weight[0], *sides))]


def formulas(name: str, x, weight, bias, g) -> dict:
    """The result and its gradients, one element of the kernels at a time, in float64."""
    _, (_, _, high, wide), (down, right), (top, left), groups = SHAPES[name]
    x, weight, bias, g = (a.astype(np.float64) for a in (x, weight, bias, g))
    padded = np.pad(x, ((0, 0), (0, 0), (top, top), (left, left)))
    y, dx, dw = np.zeros_like(g) + bias[:, None, None], np.zeros_like(padded), np.zeros_like(weight)
    ins, outs = x.shape[1] // groups, weight.shape[0] // groups
    for i, j, group in np.ndindex(high, wide, groups):
        rows, columns = (slice(at, at + step * (count - 1) + 1, step)
                         for at, step, count in zip((i, j), (down, right), g.shape[2:]))
        seen = slice(None), slice(group * ins, (group + 1) * ins), rows, columns
        made = slice(group * outs, (group + 1) * outs)
        kernel = weight[made, :, i, j]
        y[:, made] += np.einsum("oc,bchw->bohw", kernel, padded[seen])
        dx[seen] += np.einsum("oc,bohw->bchw", kernel, g[:, made])
        dw[made, :, i, j] = np.einsum("bohw,bchw->oc", g[:, made], padded[seen])
    return {"y": y, "dx": dx[:, :, top:top + x.shape[2], left:left + x.shape[3]], "dw": dw, "db": g.sum((0, 2, 3))}


def found(function, x, weight, bias, g) -> dict:
    given = [jt.array(a) for a in (x, weight, bias)]
    y = function(*given)
    slopes = jt.grad((y * jt.array(g)).sum(), given)
    return {name: value.numpy() for name, value in zip(("y", "dx", "dw", "db"), (y, *slopes))}


@pytest.mark.parametrize("name", SHAPES)
def test_values_and_gradients(name):
    settings, given = SHAPES[name][2:], arrays(name)
    results, truth = found(Conv(*settings), *given), formulas(name, *given)
    for key, value in truth.items():
        assert results[key].shape == value.shape, key
        assert np.abs(results[key] - value).max() < 5e-6 * np.sqrt(np.square(value).mean()), key
    again = found(Conv(*settings), *given)
    assert all(np.array_equal(results[key], again[key]) for key in results)


def test_the_gradient_of_a_part_alone():
    name = "blocks of 16 channels"
    settings, (x, weight, _, g) = SHAPES[name][2:], arrays(name)
    given = jt.array(weight)
    y = Conv(*settings)(jt.array(x).stop_grad(), given, None)
    slope = jt.grad((y * jt.array(g)).sum(), given).numpy()
    assert np.abs(slope - formulas(name, x, weight, weight[:, 0, 0, 0], g)["dw"]).max() < 1e-3


@pytest.mark.parametrize("weight, groups", [((4, 3, 1, 1), 1), ((3, 3, 1, 1), 2), ((4, 6, 14, 1), 1)])
def test_a_weight_that_does_not_fit(weight, groups):
    with pytest.raises(ValueError, match="does not fit an input"):
        ops.conv2d(jt.zeros((2, 6, 12, 12)), jt.zeros(weight), groups=groups)
