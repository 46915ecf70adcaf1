"""Sums over as many pixels or tokens as the published models have, against NumPy in float64 [N1, N2].

Jittor adds up float32 one after the other, and the error grows with the root of the number of terms. No small tensor
shows it, and the longest sums are hidden: the gradient of a parameter that every pixel or token meets.
"""
import numpy as np
import pytest

from jittwin.models import bert
from jt_models.apf_gan.augment import color
from jt_models.backbones.bert import Embeddings
from jt_models.boot import jt
from jt_models.nn import layers, ops

MAP = (2, 3, 384, 512)          # pictures of APF-GAN
LIMIT = 1e-6                    # of the size of the result; the long sums were off by 4e-6 to 1e-5


def normal(shape, mean=0.5, seed=0):
    return (mean + np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def agree(found, expected, limit=LIMIT):
    found = found.numpy().reshape(expected.shape)
    assert np.abs(found - expected).max() < limit * np.sqrt(np.mean(np.square(expected)))


def slopes(result, cotangent, *given):
    return jt.grad((result * jt.array(cotangent)).sum(), list(given))


@pytest.mark.parametrize("kind, training", [
    (layers.BatchNorm2d, True), (layers.BatchNorm2d, False), (layers.FrozenBatchNorm2d, True)])
def test_weight_and_bias_of_batch_normalisation(backend, kind, training):
    x, norm = normal(MAP), kind(3)
    g = x + normal(MAP, seed=1)         # so that the gradient of the weight does not cancel out
    backend.train_mode(norm, training)
    wide, normalises = x.astype(np.float64), training and kind is layers.BatchNorm2d
    if normalises:
        wide = (wide - wide.mean((0, 2, 3), keepdims=True)) / np.sqrt(wide.var((0, 2, 3), keepdims=True) + norm.eps)
    else:
        wide = wide / np.sqrt(1 + norm.eps)
    weight, bias = slopes(norm(jt.array(x)), g, norm.weight, norm.bias)
    agree(weight, (g * wide).sum((0, 2, 3)))
    agree(bias, g.sum((0, 2, 3), dtype=np.float64))


@pytest.mark.parametrize("tokens", [(1, 36864), (36864,)])      # of DaViT's first stage for 768x768 pixels
def test_bias_of_a_linear_layer(tokens):
    x, weight, bias, g = normal((*tokens, 2)), normal((5, 2)), jt.zeros((5,)), normal((*tokens, 5), seed=1)
    (found,) = slopes(ops.linear(jt.array(x), jt.array(weight), bias), g, bias)
    agree(found, g.reshape(-1, 5).sum(0, dtype=np.float64))


def test_weight_of_a_linear_layer_after_its_input():
    """Of a matrix x, Jittor would make an array of all 20000 x 16 x 64 products, and add them up one by one."""
    x, weight, g = normal((20000, 64)), normal((16, 64)), normal((20000, 16), seed=1)
    given = jt.array(x), jt.array(weight)
    for_x, for_weight = slopes(ops.linear(*given), g, *given)
    for_x.sync()
    agree(for_weight, g.T.astype(np.float64) @ x)


def test_type_embedding_of_a_text(backend):
    """All tokens of all texts have the same type."""
    config = bert.PRESETS["tiny"]
    shape = (512, min(77, config.max_position_embeddings), config.hidden_size)
    embeddings, g = Embeddings(config), normal(shape, seed=1)
    embeddings.LayerNorm = embeddings.dropout = lambda x: x
    (found,) = slopes(embeddings(jt.zeros(shape[:2], "int32")), g, embeddings.token_type_embeddings.weight)
    agree(found[0], g.sum((0, 1), dtype=np.float64))


def test_bias_of_a_depthwise_convolution():
    bias, g = jt.zeros((3,)), normal(MAP, seed=1)
    (found,) = slopes(ops.depthwise_conv2d(jt.array(normal(MAP)), jt.ones((3, 1, 3, 3)), bias, 1), g, bias)
    agree(found, g.sum((0, 2, 3), dtype=np.float64))


def test_mean_of_maps():
    """Of the detector of distortion, over which its losses are means."""
    x = normal((4, 1, 768, 768))
    agree(ops.mean(jt.array(x)), x.mean(dtype=np.float64), 1e-7)


def test_mean_of_tokens():
    x = normal((2, 1024, 1152))
    agree(ops.mean_dims(jt.array(x), (1,)), x.mean(1, keepdims=True, dtype=np.float64))


class Draws:
    def uniform(self, site, batch):
        return np.linspace(0.2, 0.7, batch)


def test_gradient_of_a_changed_colour():
    """Half of the contrast's change goes through the mean of the whole picture."""
    x, g, draws = jt.array(normal(MAP)), normal(MAP, seed=1), Draws()
    (found,) = slopes(color(x, draws, "color"), g, x)
    drawn, g = draws.uniform("", 2).reshape(-1, 1, 1, 1), g.astype(np.float64)
    contrast, saturation = drawn + 0.5, drawn * 2
    g = g * contrast + (1 - contrast) * g.mean((1, 2, 3), keepdims=True)
    agree(found, g * saturation + (1 - saturation) * g.mean(1, keepdims=True))


def test_spectral_norm(backend):
    """The largest singular value divides every weight, so its gradient is a sum over all of them."""
    w = normal((256, 512, 3, 3), 0)
    conv, u = layers.SpectralConv2d(512, 256, 3, bias=False, spectral="on"), normal(256, 0, 1)
    backend.load_numpy(conv, {"weight_orig": w, "weight_u": u, "weight_v": np.zeros(4608, np.float32)})
    g = w + normal(w.shape, 0, 2)
    result = conv.weight()
    (found,) = slopes(result, g, conv.weight_orig)
    wide = w.astype(np.float64)
    matrix = wide.reshape(256, -1)
    v = u @ matrix
    v /= np.linalg.norm(v)
    u = matrix @ v
    u /= np.linalg.norm(u)
    largest = u @ matrix @ v
    agree(result, wide / largest)
    along = (g.reshape(256, -1) * matrix).sum()
    # Where elements of u and v are large, so is the gradient: 1.6e-6 is its rounding. It was off by 3e-4.
    agree(found, (g.reshape(256, -1) / largest - along / largest ** 2 * np.outer(u, v)).reshape(w.shape), 5e-6)
    stored = backend.state_numpy(conv)
    agree(jt.array(stored["weight_u"]), u)
    agree(jt.array(stored["weight_v"]), v)
