"""The operators of transformers against closed forms in float64, and SegFormer's own facts."""
import numpy as np
import pytest
from scipy.special import erf

from jittwin.models.segformer import SegFormerConfig
from jt_models import boot
from jt_models.boot import jt, nn
from jt_models.nn import ops
from jt_models.nn.kernels import attention
from jt_models.nn.layers import DepthwiseConv2d, LayerNorm, Linear


def normal(shape, mean=0.0, seed=0):
    return (mean + np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def agree(found, expected, limit=1e-5):
    found = found.numpy() if hasattr(found, "numpy") else found
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < limit * np.sqrt(np.mean(np.square(expected)))


def slopes(function, arrays, cotangent):
    """Gradients of sum(cotangent * function(arrays)): Jittor's, and central differences of NumPy in float64."""
    given = [jt.array(a) for a in arrays]
    return [g.numpy() for g in jt.grad((function(*given) * jt.array(cotangent)).sum(), given)]


def differences(function, arrays, cotangent, number, step=1e-5):
    wide = [a.astype(np.float64) for a in arrays]
    found = np.empty_like(wide[number])
    for at in np.ndindex(found.shape):
        value = wide[number][at]
        wide[number][at] = value + step
        above = (function(*wide) * cotangent).sum()
        wide[number][at] = value - step
        found[at] = (above - (function(*wide) * cotangent).sum()) / (2 * step)
        wide[number][at] = value
    return found


def np_softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def np_layer_norm(x, weight, bias):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt(np.square(centred).mean(-1, keepdims=True) + 1e-5) * weight + bias


def np_attention(q, k, v, heads):
    split = [x.reshape(*x.shape[:2], heads, -1).transpose(0, 2, 1, 3) for x in (q, k, v)]
    scores = split[0] @ split[1].transpose(0, 1, 3, 2) / np.sqrt(split[0].shape[-1])
    return (np_softmax(scores) @ split[2]).transpose(0, 2, 1, 3).reshape(q.shape)


def np_depthwise(x, weight, bias):
    side = weight.shape[-1]
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (side, side), (2, 3))
    return np.einsum("bchwij,cij->bchw", windows, weight[:, 0]) + bias[:, None, None]


OPERATORS = {
    "attention": (lambda q, k, v: ops.attention(q, k, v, 3), lambda q, k, v: np_attention(q, k, v, 3),
                  ((2, 5, 12), (2, 4, 12), (2, 4, 12))),
    "layer_norm": (ops.layer_norm, np_layer_norm, ((2, 3, 9), (9,), (9,))),
    "softmax": (ops.softmax, np_softmax, ((2, 3, 7),)),
    "gelu": (ops.gelu, lambda x: x * 0.5 * (1 + erf(x / np.sqrt(2))), ((4, 9),)),
    "depthwise_conv2d": (lambda *a: ops.depthwise_conv2d(*a, padding=1), np_depthwise,
                         ((2, 3, 5, 6), (3, 1, 3, 3), (3,))),
    "depthwise_conv2d, 5x5": (lambda *a: ops.depthwise_conv2d(*a, padding=1), np_depthwise,
                              ((2, 3, 7, 6), (3, 1, 5, 5), (3,))),
    "linear": (ops.linear, lambda x, w, b: x @ w.T + b, ((2, 3, 5), (4, 5), (4,))),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_values_and_gradients(name):
    ours, closed, sizes = OPERATORS[name]
    arrays = [normal(shape, seed=i) for i, shape in enumerate(sizes)]
    expected = closed(*(a.astype(np.float64) for a in arrays))
    agree(ours(*map(jt.array, arrays)), expected)
    cotangent = normal(expected.shape, seed=9)
    for number, slope in enumerate(slopes(ours, arrays, cotangent)):
        agree(slope, differences(closed, arrays, cotangent, number), 2e-5)


def test_gelu_has_the_accuracy_of_pytorch_and_saturates():
    """PyTorch's own float32 GELU is off by up to 1.2e-6 between -6 and 6, and its gradient by 2.9e-7."""
    x = np.concatenate([np.linspace(-6, 6, 200001), [-1e30, -100, 100, 1e30]]).astype(np.float32)
    wide = x.astype(np.float64)
    below = 0.5 * (1 + erf(wide / np.sqrt(2)))
    found = ops.gelu(jt.array(x)).numpy()
    assert np.abs(found - wide * below)[:-4].max() < 1.2e-6
    np.testing.assert_array_equal(found[-4:], [0, 0, 100, np.float32(1e30)])
    slope = slopes(ops.gelu, [x], np.ones_like(x))[0]
    assert np.abs(slope - below - wide * np.exp(-wide * wide / 2) / np.sqrt(2 * np.pi)).max() < 2.9e-7
    assert np.isnan(ops.gelu(jt.array(np.array([np.nan], np.float32))).numpy()).all()


def test_attention_over_more_queries_than_fit_in_a_block():
    q, k, v = normal((1, 1500, 8), seed=1), normal((1, 700, 8), seed=2), normal((1, 700, 8), seed=3)
    g = normal(q.shape, seed=4)
    agree(ops.attention(*map(jt.array, (q, k, v)), 2), np_attention(q, k, v, 2))
    # The gradients of keys and values add up over the blocks: they are those of the halves' sum.
    whole = slopes(lambda *a: ops.attention(*a, 2), (q, k, v), g)
    parts = [slopes(lambda *a: ops.attention(*a, 2), (q[:, rows], k, v), g[:, rows])
             for rows in (slice(0, 200), slice(200, 500), slice(500, 1500))]
    agree(whole[0], np.concatenate([part[0] for part in parts], 1))
    for number in (1, 2):
        agree(whole[number], sum(part[number] for part in parts))


def test_rows_with_a_large_mean_keep_their_variance():
    x = normal((4, 1152), mean=1000)
    expected = np_layer_norm(x.astype(np.float64), 1, 0)
    ours, plain = LayerNorm(1152), nn.LayerNorm(1152)
    agree(ours(jt.array(x)), expected, 1e-3)
    assert np.abs(plain(jt.array(x)).numpy() - expected).max() > 0.1


def test_infinities_and_nans():
    x = np.array([[1, 2, np.nan], [0, np.inf, 1], [-np.inf, 0, 0]], np.float32)
    found = ops.softmax(jt.array(x)).numpy()
    assert np.isnan(found[:2]).all()
    np.testing.assert_allclose(found[2], [0, 0.5, 0.5])
    bad = np.zeros((1, 4, 6), np.float32)
    bad[0, 1, 0] = np.nan                               # one query, in the first of two heads
    found = np.isnan(ops.attention(jt.array(bad), *(jt.array(np.ones((1, 3, 6), np.float32)) for _ in "kv"), 2).numpy())
    assert found[0, 1, :3].all() and found.sum() == 3


def test_layers_start_as_they_should():
    x = jt.array(normal((2, 3, 5)))
    agree(LayerNorm(5)(x), np_layer_norm(normal((2, 3, 5)).astype(np.float64), 1, 0))
    assert Linear(5, 4)(x).shape == [2, 3, 4] and DepthwiseConv2d(3, 3, padding=1).weight.shape == [3, 1, 3, 3]


def test_segformer_is_the_same_without_gradients(backend):
    config = SegFormerConfig(depths=(1, 1, 1, 1), hidden_sizes=(8, 8, 16, 16), num_attention_heads=(1, 2, 2, 4),
                             decoder_hidden_size=8, num_labels=5)
    network = backend.build("segformer", config)
    state = backend.state_numpy(network)
    backend.load_numpy(network, {name: np.abs(normal(a.shape, seed=len(name))) * 0.3 for name, a in state.items()})
    backend.train_mode(network, False)
    x = normal((1, 3, 64, 32))
    found = network(jt.array(x))
    assert found.shape == [1, 5, 16, 8] and np.isfinite(found.numpy()).all() and found.numpy().std() > 0
    with backend.no_grad():
        np.testing.assert_array_equal(network(jt.array(x)).numpy(), found.numpy())
    assert set(backend.parameters(network)) == {n for n in state if "running" not in n}


def test_attention_without_onednn_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(boot, "_onednn_dir", lambda: tmp_path)
    monkeypatch.setattr(attention, "onednn_flags", boot.onednn_flags.__wrapped__)
    x = jt.array(normal((1, 2, 4)))
    with pytest.raises(boot.JittorSetupError, match="pip install onednn"):
        ops.attention(x, x, x, 1)
