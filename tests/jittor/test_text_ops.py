"""Masks, lookups and cross entropy against closed forms in float64, and what they refuse."""
import numpy as np
import pytest
from scipy.special import log_softmax
from test_transformer_ops import agree, differences, normal, np_softmax, slopes

from jt_models.boot import jt
from jt_models.nn import ops
from jt_models.nn.layers import BatchNorm1d, Conv2d, DropPath, Embedding, Sequential, name_dropouts

SHAPES = ((2, 5, 12), (2, 4, 12), (2, 4, 12))                  # queries, keys and values of three heads
KEEP, CAUSAL = np.array([[1, 1, 0, 0], [1, 0, 1, 1]]), np.tril(np.ones((5, 4), int))[None, None]
HEADS = np.array([1.0, 0.0, -2.0], np.float32).reshape(1, 3, 1, 1) * normal((1, 3, 1, 4), seed=6)
MASKS = {"each sample its own": np.where(KEEP, 0, ops.LOWEST)[:, None, None],
         "each query its own": np.where(CAUSAL, 0, ops.LOWEST), "each head its own": HEADS,
         "all": normal((2, 3, 5, 4), seed=5)}


def np_attention(q, k, v, mask, kept=1):
    split = [x.reshape(*x.shape[:2], 3, -1).transpose(0, 2, 1, 3) for x in (q, k, v)]
    scores = split[0] @ split[1].transpose(0, 1, 3, 2) / np.sqrt(split[0].shape[-1]) + mask
    return ((np_softmax(scores) * kept) @ split[2]).transpose(0, 2, 1, 3).reshape(q.shape)


@pytest.mark.parametrize("name", MASKS)
def test_masked_attention(name):
    mask, arrays = MASKS[name].astype(np.float32), [normal(shape, seed=i) for i, shape in enumerate(SHAPES)]
    ours, closed = (lambda *a: ops.attention(*a, 3, jt.array(mask))), (lambda *a: np_attention(*a, mask))
    agree(ours(*map(jt.array, arrays)), closed(*(a.astype(np.float64) for a in arrays)))
    cotangent = normal((2, 5, 12), seed=9)
    for number, slope in enumerate(slopes(ours, arrays, cotangent)):
        agree(slope, differences(closed, arrays, cotangent, number), 5e-5)


def test_a_row_that_sees_nothing_sees_all_alike():
    q, k, v = (jt.array(normal(shape, seed=i)) for i, shape in enumerate(SHAPES))
    found = ops.attention(q, k, v, 3, ops.padding_mask(jt.array(np.array([[1, 1, 0, 0], [0, 0, 0, 0]])))).numpy()
    np.testing.assert_allclose(found[1], np.tile(v.numpy()[1].mean(0), (5, 1)), atol=1e-6)
    np.testing.assert_allclose(found[:1], ops.attention(q[:1], k[:1, :2], v[:1, :2], 3).numpy(), atol=1e-6)


def test_the_gradient_of_a_row_that_sees_nothing():
    """PyTorch's: the scores pass it on, although the mask has swallowed their values."""
    q, k, v, g = (normal((1, length, 4), seed=i) for i, length in enumerate((2, 3, 3, 2)))
    mask = ops.padding_mask(jt.zeros((1, 3)))
    slope = g @ v.transpose(0, 2, 1)
    slope = (slope - slope.mean(-1, keepdims=True)) / 3 / 2                 # weights 1/3; root of the width 2
    expected = slope @ k, slope.transpose(0, 2, 1) @ q, np.tile(g.sum(1, keepdims=True) / 3, (1, 3, 1))
    for found, closed in zip(slopes(lambda *a: ops.attention(*a, 1, mask), (q, k, v), g), expected):
        np.testing.assert_allclose(found, closed, atol=1e-6)


def test_a_causal_mask_hides_what_comes_after():
    x, mask = normal((1, 4, 12)), ops.causal_mask(4)
    changed = x.copy()
    changed[:, 2:] += 1
    before, after = (ops.attention(jt.array(a), jt.array(a), jt.array(a), 3, mask).numpy() for a in (x, changed))
    np.testing.assert_array_equal(before[:, :2], after[:, :2])
    assert (before[:, 2:] != after[:, 2:]).all()


def test_no_gradient_passes_to_a_mask():
    mask, (q, k, v) = jt.array(MASKS["all"]), (jt.array(normal(shape)) for shape in SHAPES)
    assert not jt.grad(ops.attention(q, k, v, 3, mask).sum(), mask).numpy().any()


def test_masks_over_several_blocks_of_queries():
    q, k, v, mask = (normal(shape, seed=i) for i, shape in enumerate(
        ((1, 1500, 6), (1, 700, 6), (1, 700, 6), (1, 1, 1500, 700))))
    expected = np_attention(*(x.astype(np.float64) for x in (q, k, v)), mask)
    agree(ops.attention(*map(jt.array, (q, k, v)), 3, jt.array(mask)), expected)


@pytest.mark.parametrize("shape", [(2, 5, 4), (3, 1, 1, 4), (2, 2, 1, 4), (2, 1, 4, 4), (2, 1, 1, 1)])
def test_a_mask_of_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match=r"the mask of attention is \(.*, not \(2 or 1, 3 or 1, 5 or 1, 4\)"):
        ops.attention(*(jt.zeros(s) for s in SHAPES), 3, jt.zeros(shape))


def test_dropout_of_attention():
    """The mask is that of the array of all weights, of which this shows every one; its gradient has the same."""
    ops.seed_dropout(3)
    kept = ops.dropout(jt.ones((2, 3, 5, 4)), 0.4, 9).numpy()
    assert set(np.unique(kept)) == {0, np.float32(1 / 0.6)}
    arrays = [normal(shape, seed=i) for i, shape in enumerate(SHAPES)]
    ours, closed = (lambda *a: ops.attention(*a, 3, None, 0.4, 9)), (lambda *a: np_attention(*a, 0, kept))
    agree(ours(*map(jt.array, arrays)), closed(*(a.astype(np.float64) for a in arrays)))
    cotangent = normal((2, 5, 12), seed=9)
    for number, slope in enumerate(slopes(ours, arrays, cotangent)):
        agree(slope, differences(closed, arrays, cotangent, number), 5e-5)


def test_embeddings_and_their_gradient():
    numbers, layer = np.array([[1, 0, 1], [4, 1, 1]], np.int32), Embedding(5, 70, padding_idx=1)
    weight, cotangent = normal((5, 70)), normal((2, 3, 70), seed=1)
    layer.weight.update(jt.array(weight))
    found = layer(jt.array(numbers))
    np.testing.assert_array_equal(found.numpy(), weight[numbers])
    expected = np.zeros((5, 70))
    np.add.at(expected, numbers.ravel(), cotangent.reshape(6, 70))
    plain = jt.grad((ops.embedding(jt.array(numbers), layer.weight) * jt.array(cotangent)).sum(), layer.weight)
    np.testing.assert_allclose(plain.numpy(), expected, atol=1e-6)
    expected[1] = 0
    slope = jt.grad((found * jt.array(cotangent)).sum(), layer.weight)
    np.testing.assert_allclose(slope.numpy(), expected, atol=1e-6)


def test_elements_along_an_axis():
    x, numbers, g = normal((2, 5, 3)), np.array([[[4], [0], [4]], [[1], [1], [1]]], np.int32), normal((2, 3, 3), seed=1)
    found = ops.take_along_dim(given := jt.array(x), jt.array(numbers), 1)
    np.testing.assert_array_equal(found.numpy(), np.take_along_axis(x, numbers, 1))
    expected = np.zeros(x.shape)
    np.add.at(expected, (np.arange(2)[:, None, None], numbers, np.arange(3)), g)
    np.testing.assert_allclose(jt.grad((found * jt.array(g)).sum(), given).numpy(), expected, atol=1e-6)


def test_noise_scaled_by_rows_and_its_gradients():
    index = np.random.default_rng(0).integers(0, 5, (2, 6, 9)).astype(np.int32)
    arrays = [normal((2, 3, 6, 9)), normal((2, 1, 6, 9), seed=1), normal((6, 3), seed=2)]
    cotangent = normal((2, 3, 6, 9), seed=3)

    def closed(x, noise, scale):
        return x + noise * np.moveaxis(scale[index], 3, 1)

    def ours(*tensors):
        return ops.add_noise(*tensors, jt.array(index))

    agree(ours(*map(jt.array, arrays)), closed(*(a.astype(np.float64) for a in arrays)))
    for number, slope in enumerate(slopes(ours, arrays, cotangent)):
        agree(slope, differences(closed, arrays, cotangent, number), 2e-5)


@pytest.mark.parametrize("slope", [0.2, 1.0])
def test_modulation_by_rows_and_its_gradients(slope):
    index = np.random.default_rng(0).integers(0, 5, (2, 6, 9)).astype(np.int32)
    arrays = [normal((2, 3, 6, 9)), normal((6, 3), seed=1), normal((6, 3), seed=2)]
    cotangent = normal((2, 3, 6, 9), seed=3)

    def closed(x, gain, shift):
        y = x * np.moveaxis(gain[index], 3, 1) + np.moveaxis(shift[index], 3, 1)
        return np.where(y > 0, y, slope * y)

    def ours(*tensors):
        return ops.modulate(*tensors, jt.array(index), slope)

    agree(ours(*map(jt.array, arrays)), closed(*(a.astype(np.float64) for a in arrays)))
    for number, slope_of in enumerate(slopes(ours, arrays, cotangent)):
        agree(slope_of, differences(closed, arrays, cotangent, number), 2e-5)


@pytest.mark.parametrize("slope", [0.2, 1.0])
def test_normalised_modulation_and_its_gradients(slope):
    index = np.random.default_rng(0).integers(0, 5, (2, 6, 9)).astype(np.int32)
    arrays = [3 * normal((2, 3, 6, 9)) + 5, normal((6, 3), seed=1), normal((6, 3), seed=2)]
    cotangent = normal((2, 3, 6, 9), seed=3)

    def closed(x, gain, shift):
        x = (x - x.mean((0, 2, 3), keepdims=True)) / np.sqrt(x.var((0, 2, 3), keepdims=True) + 1e-5)
        y = x * np.moveaxis(gain[index], 3, 1) + np.moveaxis(shift[index], 3, 1)
        return np.where(y > 0, y, slope * y)

    def ours(*tensors):
        return ops.normalize_modulate(*tensors, jt.array(index), 1e-5, slope)[0]

    _, mean, variance = ops.normalize_modulate(*map(jt.array, arrays), jt.array(index), 1e-5, slope)
    agree(mean, arrays[0].mean((0, 2, 3), dtype=np.float64))
    agree(variance, arrays[0].var((0, 2, 3), dtype=np.float64))
    agree(ours(*map(jt.array, arrays)), closed(*(a.astype(np.float64) for a in arrays)))
    for number, slope_of in enumerate(slopes(ours, arrays, cotangent)):
        agree(slope_of, differences(closed, arrays, cotangent, number), 2e-5)


@pytest.mark.parametrize("reduction", ["mean", "none", "sum"])
def test_cross_entropy(reduction):
    labels, logits = np.array([3, 0, 7, 7, 1], np.int32), normal((5, 9)) * 30
    rows = np.flatnonzero(labels != 7)

    def closed(x):
        losses = np.zeros(5)
        losses[rows] = -log_softmax(x, -1)[rows, labels[rows]]
        return losses if reduction == "none" else np.atleast_1d(losses.sum() / (3 if reduction == "mean" else 1))

    def ours(x):
        return ops.cross_entropy(x, jt.array(labels), reduction, 7)

    agree(ours(jt.array(logits)), closed(logits.astype(np.float64)))
    cotangent = normal(closed(logits).shape, seed=2)
    (slope,) = slopes(ours, [logits], cotangent)
    agree(slope, differences(closed, [logits], cotangent, 0), 2e-5)


def test_the_mean_over_no_label_is_not_a_number():
    logits, labels = jt.array(normal((2, 3))), jt.array(np.full(2, -100, np.int32))
    loss = ops.cross_entropy(logits, labels)
    assert np.isnan(loss.numpy()).all() and not jt.grad(loss, logits).numpy().any()


@pytest.mark.parametrize("call", [
    lambda bad: ops.embedding(bad, jt.ones((5, 2))), lambda bad: ops.cross_entropy(jt.ones((2, 5)), bad),
    lambda bad: ops.take_along_dim(jt.ones((5,)), bad, 0),
    lambda bad: ops.add_noise(jt.ones((1, 1, 1, 2)), jt.ones((1, 1, 1, 2)), jt.ones((5, 1)), bad.reshape(1, 1, 2)),
    lambda bad: ops.modulate(jt.ones((1, 1, 1, 2)), jt.ones((5, 1)), jt.ones((5, 1)), bad.reshape(1, 1, 2))])
@pytest.mark.parametrize("bad", [-1, 5])
def test_numbers_out_of_range_are_refused(call, bad):
    with pytest.raises(RuntimeError, match=f"{bad} is not in the range from 0 to 4"):
        call(jt.array(np.array([0, bad], np.int32))).sync()


def test_stochastic_depth_drops_samples():
    ops.seed_dropout(1)
    path = Sequential(DropPath(0.4), DropPath(0.4))
    name_dropouts(path)
    x = jt.ones((400, 2, 3))
    path.train()
    first, second = (part(x).numpy() for part in path)
    assert set(np.unique(first)) == {0, np.float32(1 / 0.6)} and (first == first[:, :1, :1]).all()
    assert abs((first[:, 0, 0] == 0).mean() - 0.4) < 0.1 and (first != second).any()
    path.eval()
    np.testing.assert_array_equal(path(x).numpy(), x.numpy())


def test_batch_norm_of_vectors():
    norm, x = BatchNorm1d(3), normal((6, 3), mean=2)
    norm.train()
    agree(norm(jt.array(x)), (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5))
    np.testing.assert_allclose(norm.running_var.numpy(), 0.9 + 0.1 * x.var(0, ddof=1), rtol=1e-5)
    with pytest.raises(ValueError, match="more than one value per channel"):
        norm(jt.array(x[:1]))


# kernel, stride, padding, groups: one kernel a channel, the same with a stride, several kernels a group
@pytest.mark.parametrize("settings", [((3, 5), 1, (1, 2), 4), ((3, 1), (2, 1), (1, 0), 4), ((1, 3), 1, 0, 2)])
def test_grouped_convolution(settings):
    kernel, stride, padding, groups = settings
    layer, x = Conv2d(4, 8 if groups == 2 else 4, kernel, stride, padding, groups=groups), normal((2, 4, 6, 7))
    weight = normal(tuple(layer.weight.shape), seed=1)
    layer.weight.update(jt.array(weight))
    (down, right), (top, left) = ((s if isinstance(s, tuple) else (s, s)) for s in (stride, padding))

    def closed(x, weight):
        padded = np.pad(x, ((0, 0), (0, 0), (top, top), (left, left)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, kernel, (2, 3))[:, :, ::down, ::right]
        parts = zip(np.split(windows, groups, 1), np.split(weight, groups))
        return np.concatenate([np.einsum("bchwij,ocij->bohw", *part) for part in parts], 1)

    found = layer(given := jt.array(x))
    expected = closed(x.astype(np.float64), weight.astype(np.float64))
    agree(found, expected)
    cotangent = normal(expected.shape, seed=2)
    slopes = jt.grad((found * jt.array(cotangent)).sum(), [given, layer.weight])
    for number, slope in enumerate(slopes):
        agree(slope.numpy(), differences(closed, [x, weight], cotangent, number), 2e-5)
