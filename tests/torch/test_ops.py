"""Functions and layers of the PyTorch twin against PyTorch and transformers; float64, in which the parity tests compute
the truth, needs care."""
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from torch_models.nn import layers, ops
from torch_models.nn.kernels import functions

IMAGE = torch.arange(384 * 512, dtype=torch.float32).reshape(1, 1, 384, 512)


@pytest.mark.parametrize("size", [(460, 614), (192, 256), (100, 333)])     # first: the enlargement of the crop
def test_nearest_picks_the_same_pixels_in_float64(size):
    assert torch.equal(ops.interpolate(IMAGE.double(), size), ops.interpolate(IMAGE, size).double())


def test_pytorch_itself_does_not():
    assert not torch.equal(F.interpolate(IMAGE.double(), (460, 614)), F.interpolate(IMAGE, (460, 614)).double())


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def split(x, heads: int):
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


@pytest.mark.parametrize("mask", [None, (2, 1, 1, 4), (1, 1, 5, 4), (1, 3, 1, 4), (2, 3, 5, 4)], ids=str)
def test_attention_is_that_of_pytorch(mask):
    q, k, v = torch.randn(2, 5, 12), torch.randn(2, 4, 12), torch.randn(2, 4, 12)
    given = [x.requires_grad_() for x in (q, k, v)]
    mask = mask and torch.randn(mask)
    expected = F.scaled_dot_product_attention(*(split(x, 3) for x in given), mask).transpose(1, 2).flatten(2)
    found = ops.attention(*given, 3, mask)
    torch.testing.assert_close(found, expected)
    for ours, theirs in zip(*(torch.autograd.grad((y * y).sum(), given) for y in (found, expected))):
        torch.testing.assert_close(ours, theirs)


def test_masks_are_those_of_transformers():
    from transformers.masking_utils import bidirectional_mask_function, eager_mask
    keep = torch.tensor([[1, 1, 0, 0], [0, 0, 0, 0]])
    padding = eager_mask(2, 1, 4, mask_function=bidirectional_mask_function, attention_mask=keep.bool())
    assert torch.equal(ops.padding_mask(keep), padding) and torch.equal(ops.causal_mask(4), eager_mask(1, 4, 4))
    v = torch.randn(2, 4, 6)
    torch.testing.assert_close(ops.attention(v, v, v, 2, ops.padding_mask(keep))[1], v[1].mean(0).expand(4, 6))


def test_a_mask_has_no_gradient():
    x, mask = torch.randn(1, 3, 4), torch.randn(1, 1, 3, 3, requires_grad=True)
    assert not ops.attention(x, x, x, 2, mask).requires_grad


def test_dropout_of_attention_is_dropout_of_its_weights():
    q, v = torch.randn(2, 5, 4), torch.eye(5).expand(2, 5, 5)
    weights = (q @ q.transpose(1, 2) / 2).softmax(-1)
    ops.seed_dropout(4)
    found = ops.attention(F.pad(q, (0, 1)), F.pad(q, (0, 1)) * (5 / 4) ** 0.5, v, 1, None, 0.5, 8)
    torch.testing.assert_close(found, ops.dropout(weights, 0.5, 8))
    assert (found == 0).any()


def test_quick_gelu_is_that_of_transformers():
    from transformers.activations import QuickGELUActivation
    x = torch.linspace(-12, 12, 99)
    torch.testing.assert_close(ops.quick_gelu(x), QuickGELUActivation()(x))


def test_elements_along_an_axis_broadcast_and_are_in_range():
    x, numbers = torch.randn(2, 5, 3), torch.tensor([[[4], [0]], [[1], [1]]])
    assert torch.equal(ops.take_along_dim(x, numbers, 1), torch.take_along_dim(x, numbers, 1))
    with pytest.raises(RuntimeError, match="out of bounds"):
        ops.take_along_dim(x, numbers - 5, 1)


def test_stochastic_depth_drops_samples():
    ops.seed_dropout(1)
    path = torch.nn.Sequential(layers.DropPath(0.4), layers.DropPath(0.4))
    layers.name_dropouts(path)
    x = torch.ones(400, 2, 3)
    first, second = (part(x) for part in path)
    assert torch.equal(first, ops.dropout(torch.ones(400), 0.4, path[0].site)[:, None, None].expand_as(x))
    assert 0.3 < (first == 0).float().mean() < 0.5 and (first != second).any()
    assert path.eval()(x) is x


def test_layers_are_those_of_pytorch():
    x = torch.randn(6, 4) + 2
    ours, theirs = layers.BatchNorm1d(4), torch.nn.BatchNorm1d(4)
    torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(ours.running_var, theirs.running_var)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))
    image = torch.randn(2, 4, 7, 6)
    settings = {"kernel_size": (3, 1), "stride": (2, 1), "padding": (1, 0), "groups": 2, "bias": False}
    ours, theirs = (kind(4, 8, **settings) for kind in (layers.Conv2d, torch.nn.Conv2d))
    ours.load_state_dict(theirs.state_dict())
    torch.testing.assert_close(ours(image), theirs(image))
    assert torch.equal(layers.MaxPool2d(3, 2, 1)(image), torch.nn.MaxPool2d(3, 2, 1)(image))
    assert torch.equal(layers.AvgPool2d(3, 1, 1, False)(image),
                       torch.nn.AvgPool2d(3, 1, 1, count_include_pad=False)(image))


def pixels(layout, dtype):
    """The row of each pixel of two pictures, the pictures, and gradients of results of their shape."""
    index = torch.randint(0, 5, (2, 6, 9), dtype=torch.int32)
    return index, *(torch.randn(2, 3, 6, 9, dtype=dtype).to(memory_format=layout) for _ in range(2))


def agree(found, expected, given, cotangent):
    """The values, and the gradients of what they are computed from."""
    torch.testing.assert_close(found, expected)
    for ours, theirs in zip(*(torch.autograd.grad(y, given, cotangent) for y in (found, expected))):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_noise_scaled_by_rows(layout, dtype, monkeypatch):
    monkeypatch.setattr(functions, "PIXELS", 7)
    index, x, cotangent = pixels(layout, dtype)
    given = [x, torch.randn(2, 1, 6, 9, dtype=dtype), torch.randn(6, 3, dtype=dtype)]
    given = [each.requires_grad_() for each in given]
    expected = given[0] + given[1] * F.embedding(index, given[2]).permute(0, 3, 1, 2)
    found = ops.add_noise(*given, index)
    agree(found, expected, given, cotangent)


@pytest.mark.parametrize("slope", [0.2, 1.0])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_modulation_by_rows(layout, dtype, slope, monkeypatch):
    monkeypatch.setattr(functions, "PIXELS", 7)
    index, x, cotangent = pixels(layout, dtype)
    given = [x.requires_grad_(), *(torch.randn(6, 3, dtype=dtype, requires_grad=True) for _ in range(2))]
    rows = [F.embedding(index, table).permute(0, 3, 1, 2) for table in given[1:]]
    expected = F.leaky_relu(given[0] * rows[0] + rows[1], slope)
    found = ops.modulate(*given, index, slope)
    agree(found, expected, given, cotangent)


@pytest.mark.parametrize("slope", [0.2, 1.0])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_normalised_modulation_keeps_two_maps_and_has_the_gradients_of_its_parts(layout, dtype, slope, monkeypatch):
    monkeypatch.setattr(functions, "PIXELS", 7)
    index, x, cotangent = pixels(layout, dtype)
    given = [(3 * x + 5).requires_grad_(), *(torch.randn(6, 3, dtype=dtype, requires_grad=True) for _ in range(2))]
    rows = [F.embedding(index, table).permute(0, 3, 1, 2) for table in given[1:]]
    normal = F.batch_norm(given[0], None, None, training=True)
    expected = F.leaky_relu(normal * rows[0] + rows[1], slope)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.shape) or t, lambda t: t):
        found, mean, variance = ops.normalize_modulate(*given, index, 1e-5, slope)
    assert kept.count(x.shape) == 2
    torch.testing.assert_close(mean, given[0].mean((0, 2, 3)))
    torch.testing.assert_close(variance, given[0].var((0, 2, 3), correction=0))
    agree(found, expected, given, cotangent)


def test_sums_of_modulation_over_many_pixels_are_exact():
    gradient = torch.full((1, 1, 512, 512), 0.1)
    table = torch.ones(1, 1, requires_grad=True)
    found = ops.modulate(torch.ones(1, 1, 512, 512), table, table, torch.zeros(1, 512, 512, dtype=torch.int32))
    (slope,) = torch.autograd.grad(found, table, gradient)
    assert slope.item() == pytest.approx(2 * 512 ** 2 * float(np.float32(0.1)), rel=1e-7)


def test_leaky_relu_keeps_its_result_and_has_the_gradient_of_pytorch():
    x = torch.tensor([-2.0, -0.0, 0.0, 1e-45, 3.0, float("nan"), float("inf"), -float("inf")], requires_grad=True)
    kept, cotangent = [], torch.randn(8)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.data_ptr()) or t, lambda t: t):
        y = ops.leaky_relu(x, 0.2)
    assert kept == [y.data_ptr()]
    expected = F.leaky_relu(x, 0.2)
    torch.testing.assert_close(y, expected, rtol=0, atol=0, equal_nan=True)
    assert torch.equal(*(torch.autograd.grad(z, x, cotangent)[0] for z in (y, expected)))
