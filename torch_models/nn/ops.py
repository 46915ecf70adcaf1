"""Functions on tensors, with the same names and the same semantics in both twins.

Images are (B, C, H, W) float32. `size` is (height, width).
"""
import contextlib

import numpy as np
import torch
import torch.nn.functional as F

from jittwin import draws
from torch_models.nn import processes
from torch_models.nn.kernels import functions

relu = F.relu
gelu = F.gelu
tanh = torch.tanh
sigmoid = torch.sigmoid


def leaky_relu(x, slope: float = 0.01):
    return _LeakyRelu.apply(x, slope)


class _LeakyRelu(torch.autograd.Function):
    """Keeps its result, which the next layer most often keeps too, instead of x. The slope is not negative."""

    @staticmethod
    def forward(context, x, slope):
        y = F.leaky_relu(x, slope)
        context.save_for_backward(y)
        context.slope = slope
        return y

    @staticmethod
    def backward(context, gradient):
        (y,) = context.saved_tensors
        return torch.ops.aten.leaky_relu_backward(gradient, y, context.slope, True), None


def concat(tensors, dim: int):
    return torch.cat(list(tensors), dim)


def detach(x):
    return x.detach()


def assign(target, source):
    """Copy the value of `source` to the parameter or buffer `target`, without a gradient."""
    with torch.no_grad():
        target.copy_(source)


def from_host(array):
    """A tensor with the values of a NumPy array."""
    return functions.placed(array, torch.get_default_device())


def to_host(x):
    """The values of a tensor as a NumPy array."""
    return x.numpy(force=True)


def no_grad():
    return torch.no_grad()


def zeros(shape):
    return torch.zeros(shape)


def randn(shape):
    """Standard normal from the device's own generator; the first axis is the batch."""
    now = processes.share()
    return torch.randn(shape) if now is None else torch.randn((now.total, *shape[1:]))[now.taken]


def one_hot(labels, classes: int):
    """(B, H, W) integers to (B, classes, H, W) float32; values outside 0..classes-1 give no class.

    The result is float64 if that is the default type, so that parity can compute its float64 truth.
    """
    match = labels[:, None] == torch.arange(classes, dtype=labels.dtype)[None, :, None, None]
    return match.to(torch.get_default_dtype())


def conv2d(x, weight, bias=None, stride=1, padding=0, groups: int = 1):
    """weight (out, in / groups, height, width); stride and padding are one number, or two for height and width."""
    return F.conv2d(x, weight, bias, stride, padding, groups=groups)


def depthwise_conv2d(x, weight, bias=None, padding=0):
    """Convolution of each channel with its own kernel of weight (C, 1, height, width), stride 1."""
    return conv2d(x, weight, bias, 1, padding, groups=x.shape[1])


def linear(x, weight, bias=None):
    """x (…, in) times weight (out, in) transposed, plus bias."""
    return F.linear(x, weight, bias)


def gelu_tanh(x):
    """GELU with tanh in place of the error function (Hendrycks and Gimpel 2016, arXiv 1606.08415)."""
    return F.gelu(x, approximate="tanh")


def quick_gelu(x):
    """x times the logistic function of 1.702 x (Hendrycks and Gimpel 2016, arXiv 1606.08415)."""
    return x * torch.sigmoid(1.702 * x)


def layer_norm(x, weight, bias, eps: float = 1e-5):
    """Each row of x (…, C) normalised."""
    return F.layer_norm(x, x.shape[-1:], weight, bias, eps)


def softmax(x):
    """Along the last axis."""
    return x.softmax(-1)


def attention(q, k, v, heads: int, mask=None, p: float = 0.0, site: int = 0):
    """Attention: q (B, N, C), k and v (B, M, C), the heads side by side in C, to (B, N, C).

    The scores are divided by sqrt(C / heads). mask: (B or 1, heads or 1, N or 1, M); it is added to the scores and
    gets no gradient. p, site: dropout of the attention weights, see `dropout`. ValueError: a mask of another shape.
    """
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    # Not the fused kernel: it makes 0 of a query that is not a number.
    scores = q @ k.transpose(2, 3) * q.shape[-1] ** -0.5
    weights = softmax(scores if mask is None else scores + mask.detach())
    return (dropout(weights, p, site) @ v).transpose(1, 2).flatten(2)


# The mask value that hides a key. A score plus this value is float32's lowest number, so a row in which all keys are
# hidden has equal weights. With two such masks added the score is -inf, and such a row becomes NaN.
LOWEST = float(np.finfo(np.float32).min)


def padding_mask(keep):
    """The mask of `attention` (B, 1, 1, M) that hides the keys where keep (B, M) is 0."""
    return torch.where(keep[:, None, None] != 0, 0.0, LOWEST)


def causal_mask(length: int):
    """The mask of `attention` (1, 1, length, length) with which each token sees itself and the tokens before it."""
    return torch.full((1, 1, length, length), LOWEST).triu(1)


def embedding(numbers, weight, padding_idx: int | None = None):
    """Rows of weight (V, C) by their numbers (…), 0 to V - 1: (…, C). The row padding_idx gets no gradient."""
    return F.embedding(numbers, weight, padding_idx)


def take_along_dim(x, numbers, dim: int):
    """The elements of x with these numbers along `dim`. In other dimensions `numbers` has the size of x, or 1."""
    # PyTorch's function of this name takes numbers out of range modulo the length; this one refuses them.
    return x.gather(dim, numbers.expand(*x.shape[:dim], -1, *x.shape[dim + 1:]))


def cross_entropy(logits, labels, reduction: str = "mean", ignore_index: int = -100):
    """-log softmax(logits)[label] for each row of logits (N, C) and its label, of labels (N,).

    reduction: "none", or "sum" or "mean" over the rows whose label is not ignore_index. Any other label that is no
    class raises an error.
    """
    return F.cross_entropy(logits, labels, reduction=reduction, ignore_index=ignore_index)


def interpolate(x, size, mode: str = "nearest", align_corners: bool = False):
    """Resize to (height, width), without antialiasing. mode: nearest, bilinear or bicubic.

    align_corners: the first and last pixels of either axis keep their places; else the edges of the picture do. It has
    no meaning for nearest.
    """
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    if mode == "nearest" and all(old % new == 0 for old, new in zip(x.shape[-2:], size)):
        # The same pixels, found many times faster than by F.interpolate.
        return x[:, :, ::x.shape[2] // size[0], ::x.shape[3] // size[1]].contiguous()
    if mode == "nearest" and x.dtype == torch.float64:
        # PyTorch selects some other pixels of float64 images. The float64 truth of parity needs those of float32.
        rows, columns = (F.interpolate(torch.arange(old, dtype=torch.float32)[None, None], new, mode=mode)[0, 0].long()
                         for old, new in zip(x.shape[-2:], size))
        return x[:, :, rows][..., columns]
    return F.interpolate(x, size=tuple(size), mode=mode, align_corners=None if mode == "nearest" else align_corners)


def upsample2(x):
    """Nearest-neighbour enlargement by two."""
    return F.interpolate(x, scale_factor=2, mode="nearest")


def avg_pool2d(x, kernel: int, stride: int, padding: int = 0, count_include_pad: bool = True):
    return F.avg_pool2d(x, kernel, stride, padding, count_include_pad=count_include_pad)


def max_pool2d(x, kernel: int, stride: int, padding: int = 0):
    return F.max_pool2d(x, kernel, stride, padding)


def add_noise(x, noise, scale, index):
    """x (B, C, H, W) plus noise (B, 1, H, W) times a row of scale (U, C), the row index (B, H, W), as in `modulate`."""
    _check_rows(x, index)
    return functions.AddNoise.apply(x, noise.to(x.dtype), scale.to(x.dtype), index)


def modulate(x, gain, shift, index, slope: float = 1.0):
    """x (B, C, H, W) scaled and shifted at each pixel by a row of gain and shift (U, C); index (B, H, W) is the row.

    slope: of the leaky ReLU that follows. A row's gradient sums its pixels in order. ValueError: index of another size.
    """
    _check_rows(x, index)
    return functions.Modulate.apply(x, gain.to(x.dtype), shift.to(x.dtype), index, slope)


def normalize_modulate(x, gain, shift, index, eps: float, slope: float, joint: bool = False):
    """`modulate` of x normalised by the mean and variance of the batch, then leaky ReLU of a slope above 0.

    Returns the result, and the mean and biased variance (C,), which have no gradients. Of the maps in between, none is
    kept for the gradient. joint: the batch is that of all processes.
    """
    _check_rows(x, index)
    return functions.NormalizeModulate.apply(x, gain.to(x.dtype), shift.to(x.dtype), index, eps, slope, joint)


def _check_rows(x, index) -> None:
    if tuple(index.shape) != (x.shape[0], *x.shape[2:]):
        raise ValueError(f"the rows of {tuple(index.shape)} pixels do not fit images {tuple(x.shape)}")


def mean(x):
    """Mean over all elements, as a scalar."""
    return x.mean()


def sum_dims(x, dims):
    """Sum over some dimensions, which stay with length 1."""
    return x.sum(dims, keepdim=True)


def mean_dims(x, dims):
    """Mean over some dimensions, which stay with length 1."""
    return x.mean(dims, keepdim=True)


def expand(x, shape):
    """x in a shape with as many dimensions, of which those of length 1 are repeated."""
    return x.expand(tuple(shape))


def cumsum(x):
    """Cumulative sums along the rows of (B, K)."""
    return x.cumsum(1)


def full_precision(x):
    """A result of `autocast` in the type of the rest of the model."""
    return x.to(torch.get_default_dtype())


def l1_mean(x, y):
    """Mean absolute difference. Its gradient is 0 for elements that are equal."""
    return (x - y).abs().mean()


def shift2d(x, dy, dx):
    """out[b, :, y, x] = in[b, :, y + dy[b], x + dx[b]], zero outside; dy, dx are (B,) int64 arrays on the host."""
    height, width = x.shape[-2:]
    rows = []
    for image, down, right in zip(x, dy.tolist(), dx.tolist()):
        padded = F.pad(image, (max(-right, 0), max(right, 0), max(-down, 0), max(down, 0)))
        top, left = max(down, 0), max(right, 0)
        rows.append(padded[:, top:top + height, left:left + width])
    return torch.stack(rows)


def where(condition, x, y):
    """x where the boolean (or 0/1) tensor `condition` holds, y elsewhere; `condition` broadcasts to x and y."""
    return torch.where(condition.bool(), x, y)


_settings = {"seed": 0, "precision": "float32"}


def seed_dropout(value: int):
    """Set the seed of all dropout from now on."""
    _settings["seed"] = value


def dropout(x, p: float, site: int):
    """Each element is zero with probability p, else divided by 1 - p.

    Only the seed, `site` and the element's index decide which elements are zero. So they are the same on every device
    and in both twins, when a layer is computed again, and after a run resumes.
    """
    if not p:
        return x
    numbers = draws.key("dropout", _settings["seed"], site)
    # Several processes drop what one process drops of the whole batch.
    first = numbers + 0x9E3779B1 * processes.first_element(x.numel())
    return _Dropout.apply(x, p, first & 0xFFFFFFFF, numbers >> 32 & 0xFFFFFFFF)


def drop_path(x, p: float, site: int):
    """Each sample of x (B, …) is zero with probability p, else divided by 1 - p.

    This is stochastic depth (Huang et al. 2016, arXiv 1603.09382).
    The samples are those elements that `dropout` of a tensor (B,) makes zero.
    """
    if not p:
        return x
    return x * dropout(x.new_ones(x.shape[0]), p, site).reshape(-1, *[1] * (x.ndim - 1))


class _Dropout(torch.autograd.Function):
    """Dropout that computes its mask again for the gradient instead of storing it."""

    @staticmethod
    def forward(context, x, p, first, second):
        context.drawn = p, first, second
        return _dropped(x, *context.drawn)

    @staticmethod
    def backward(context, gradient):
        return _dropped(gradient, *context.drawn), None, None, None


def _dropped(x, p: float, first: int, second: int):
    """Dropout of x. Element i is kept if the upper 24 bits of a 32-bit hash of i, keyed by `first` and `second`, are
    at least p 2^24. The multipliers are those of MurmurHash3. A CPU works block by block, so that the hashes stay in
    its cache."""
    x = x.contiguous()
    y, scale = torch.empty_like(x), 1 / (1 - p) if p < 1 else 0.0
    count = x.numel() if x.is_cuda else min(x.numel(), 1 << 16)
    numbers = torch.arange(count, device=x.device).to(torch.int32) * _signed(0x9E3779B1)
    for at in range(0, x.numel(), max(count, 1)):
        given, result = x.view(-1)[at:at + count], y.view(-1)[at:at + count]
        h = numbers[:len(given)] + _signed((first + 0x9E3779B1 * at) & 0xFFFFFFFF)
        h = h.bitwise_xor_(_shifted(h, 16)).mul_(_signed(0x85EBCA6B)).bitwise_xor_(_signed(second))
        h = h.bitwise_xor_(_shifted(h, 13)).mul_(_signed(0xC2B2AE35))
        h = _shifted(h.bitwise_xor_(_shifted(h, 16)), 8)
        torch.mul(given, (h >= round(p * 2 ** 24)).to(x.dtype).mul_(scale), out=result)
    return y


def _signed(number: int) -> int:
    """A 32-bit number as torch.int32 stores it. Products of torch.int32 keep the lower 32 bits."""
    return number - (number >> 31 << 32)


def _shifted(h, by: int):
    """h shifted right by `by` bits, filled with zeros."""
    return (h >> by).bitwise_and_((1 << 32 - by) - 1)


def set_precision(name: str):
    """Set the number type in which `autocast` computes: float32, bfloat16 or float16."""
    _settings["precision"] = name


def autocast():
    """While this context lasts, operands and results of matrix products and convolutions have the precision set."""
    if _settings["precision"] == "float32":
        return contextlib.nullcontext()
    return torch.autocast(torch.get_default_device().type, getattr(torch, _settings["precision"]))
