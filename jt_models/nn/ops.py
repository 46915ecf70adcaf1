"""Functions on tensors, with the same names and the same semantics in both twins.

Images are (B, C, H, W) float32. `size` is (height, width). Names in brackets are entries of the catalogue of Jittor's
differences from PyTorch; a function repairs those that it names.
"""
import numpy as np

from jittwin import draws
from jt_models.boot import jt, nn
from jt_models.nn import processes
from jt_models.nn.kernels.activation import Gelu, GeluTanh, QuickGelu, Relu
from jt_models.nn.kernels.attention import Attention, Softmax
from jt_models.nn.kernels.conv import Conv
from jt_models.nn.kernels.depthwise import DepthwiseConv
from jt_models.nn.kernels.dropout import Drop
from jt_models.nn.kernels.kernel import total as _total      # no part of this module's interface
from jt_models.nn.kernels.lookup import Along, Rows
from jt_models.nn.kernels.loss import CrossEntropy
from jt_models.nn.kernels.modulation import AddNoise, Modulate, NormalizeModulate
from jt_models.nn.kernels.norm import LayerNorm
from jt_models.nn.kernels.pool import AvgPool, MaxPool
from jt_models.nn.kernels.precision import Rounded, arithmetic
from jt_models.nn.kernels.precision import autocast as autocast  # part of this module's interface
from jt_models.nn.kernels.resample import Resample, Taps

tanh = jt.tanh
sigmoid = jt.sigmoid


def leaky_relu(x, slope: float = 0.01):
    return nn.leaky_relu(x, slope)


def relu(x):
    """max(x, 0) with gradient 0 at 0; NaN stays NaN [G5]."""
    if jt.flags.no_grad:
        return jt.ternary(x <= 0, jt.zeros_like(x), x)      # Jittor makes one loop of this and of what comes before
    return Relu()(x)


def concat(tensors, dim: int):
    return jt.concat(list(tensors), dim)


def detach(x):
    return x.detach()


def assign(target, source):
    """Copy the value of `source` to the parameter or buffer `target`, without a gradient."""
    value = source.detach().copy()
    value.sync()    # a copy that is still to be made would count as a use of `source` in the next gradient
    target.update(value)


def from_host(array):
    """A tensor with the values and the type of a NumPy array. Jittor alone would make 64-bit types 32-bit [P6]."""
    return jt.array(array, dtype=str(array.dtype))


def to_host(x):
    """The values of a tensor as a NumPy array."""
    return x.numpy()


def no_grad():
    return jt.no_grad()


def zeros(shape):
    return jt.zeros(tuple(shape))


def randn(shape):
    """Standard normal from the device's own generator; the first axis is the batch."""
    now = processes.share()
    return jt.randn(*shape) if now is None else jt.randn(now.total, *shape[1:])[now.taken]


def one_hot(labels, classes: int):
    """(B, H, W) integers to (B, classes, H, W) float32; values outside 0..classes-1 give no class."""
    return (labels.unsqueeze(1) == jt.arange(classes).reshape(1, classes, 1, 1)).float32()


def conv2d(x, weight, bias=None, stride=1, padding=0, groups: int = 1):
    """weight (out, in / groups, height, width); stride and padding are one number, or two for height and width.

    A kernel of ours computes depthwise convolutions with stride 1, since Jittor's uses one thread only.
    """
    x, weight, bias = _rounded(x, weight, bias)
    settings = _two(stride), _two(padding), groups
    if groups == x.shape[1] == weight.shape[0] > 1 and settings[0] == (1, 1):
        y = _biased(DepthwiseConv(settings[1])(x, weight), bias, 1)
    else:
        y = Conv(*settings)(x, weight, bias)
    return _rounded(y)[0]


def _two(size) -> tuple:
    return tuple(size) if isinstance(size, (tuple, list)) else (size, size)


def _biased(y, bias, dim: int):
    """y plus bias (C,) along a dimension."""
    if bias is None:
        return y
    shape = [1] * len(y.shape)
    shape[dim] = -1
    return y + expand(bias.reshape(shape), y.shape)


def depthwise_conv2d(x, weight, bias=None, padding=0):
    """Convolution of each channel with its own kernel of weight (C, 1, height, width), stride 1."""
    return conv2d(x, weight, bias, 1, padding, groups=x.shape[1])


def linear(x, weight, bias=None):
    """x (…, in) times weight (out, in) transposed, plus bias."""
    x, weight, bias = _rounded(x, weight, bias)
    # The reshaped x keeps Jittor from making an array (rows, out, in) of all products of a matrix x, in order to add
    # them up one by one, where the gradient of x is asked for before that of the weight.
    y = nn.matmul_transpose(x.reshape(1, *x.shape), weight).reshape(*x.shape[:-1], -1)
    return _rounded(_biased(y, bias, len(y.shape) - 1))[0]


def gelu(x):
    """GELU in its exact form, with the error function."""
    return Gelu()(x)


def gelu_tanh(x):
    """GELU with tanh in place of the error function (Hendrycks and Gimpel 2016, arXiv 1606.08415)."""
    return GeluTanh()(x)


def quick_gelu(x):
    """x times the logistic function of 1.702 x (Hendrycks and Gimpel 2016, arXiv 1606.08415)."""
    return QuickGelu()(x)


def layer_norm(x, weight, bias, eps: float = 1e-5):
    """Each row of x (…, C) normalised. Jittor's own loses the variance of rows with a large mean [N3]."""
    return LayerNorm(eps)(x, weight, bias)


def softmax(x):
    """Along the last axis."""
    return Softmax()(x)


def attention(q, k, v, heads: int, mask=None, p: float = 0.0, site: int = 0):
    """Attention: q (B, N, C), k and v (B, M, C), the heads side by side in C, to (B, N, C).

    The scores are divided by sqrt(C / heads). mask: (B or 1, heads or 1, N or 1, M); it is added to the scores and
    gets no gradient. p, site: dropout of the attention weights, see `dropout`. ValueError: a mask of another shape.
    """
    batch, length, keys = q.shape[0], q.shape[1], k.shape[1]
    if mask is not None:
        if len(mask.shape) != 4 or mask.shape[3] != keys or any(
                side not in (1, full) for side, full in zip(mask.shape, (batch, heads, length))):
            raise ValueError(f"the mask of attention is {tuple(mask.shape)}, not ({batch} or 1, {heads} or 1, "
                             f"{length} or 1, {keys})")
        mask = mask.detach()
    drop = Drop(p, *_numbers(site, batch * heads * length * keys)) if p else None
    return _rounded(Attention(heads, mask, drop)(*_rounded(q, k, v)))[0]


# The mask value that hides a key. A score plus this value is float32's lowest number, so a row in which all keys are
# hidden has equal weights. With two such masks added the score is -inf, and such a row becomes NaN.
LOWEST = float(np.finfo(np.float32).min)


def padding_mask(keep):
    """The mask of `attention` (B, 1, 1, M) that hides the keys where keep (B, M) is 0."""
    keep = keep.reshape(keep.shape[0], 1, 1, keep.shape[1])
    return jt.ternary(keep != 0, jt.zeros(keep.shape), jt.full(keep.shape, LOWEST))


def causal_mask(length: int):
    """The mask of `attention` (1, 1, length, length) with which each token sees itself and the tokens before it."""
    return jt.array(np.triu(np.full((1, 1, length, length), LOWEST, np.float32), 1))


def embedding(numbers, weight, padding_idx: int | None = None):
    """Rows of weight (V, C) by their numbers (…), 0 to V - 1: (…, C). The row padding_idx gets no gradient [F14]."""
    return Rows(numbers, padding_idx)(weight)


def take_along_dim(x, numbers, dim: int):
    """The elements of x with these numbers along `dim`. In other dimensions `numbers` has the size of x, or 1."""
    shape, outer = list(x.shape), 1
    for side in shape[:dim]:
        outer *= side
    count = numbers.shape[dim]
    wide = [*shape[:dim], count, *shape[dim + 1:]]
    numbers = numbers.broadcast(wide).reshape(outer, count, -1)
    return Along(numbers)(x.reshape(outer, shape[dim], -1)).reshape(wide)


def cross_entropy(logits, labels, reduction: str = "mean", ignore_index: int = -100):
    """-log softmax(logits)[label] for each row of logits (N, C) and its label, of labels (N,).

    reduction: "none", or "sum" or "mean" over the rows whose label is not ignore_index. Any other label that is no
    class raises an error [L1, L2].
    """
    if reduction not in ("none", "sum", "mean"):
        raise ValueError(f"{reduction} is not a valid value for reduction: none, sum, mean")
    return CrossEntropy(labels, reduction, ignore_index)(logits)


def interpolate(x, size, mode: str = "nearest", align_corners: bool = False):
    """Resize to (height, width), without antialiasing. mode: nearest, bilinear or bicubic [F6].

    align_corners: the first and last pixels of either axis keep their places; else the edges of the picture do. It has
    no meaning for nearest.
    """
    height, width = x.shape[-2:]
    if mode == "nearest" and height % size[0] == 0 and width % size[1] == 0:
        return x[:, :, ::height // size[0], ::width // size[1]]
    if (height, width) == tuple(size):
        return x
    return Resample(*(_taps(old, new, mode, align_corners) for old, new in zip((height, width), size)))(x)


def _taps(old: int, new: int, mode: str, align_corners: bool) -> Taps:
    """The elements and weights of each position along an axis, from the host in double precision. Jittor's own resize
    computes float32 positions for every pixel, and is ten times slower in bicubic mode."""
    if old == new:
        return Taps([np.arange(new)], None, old)
    if mode == "nearest":
        at = np.arange(new, dtype=np.float32) * np.float32(old / new)
        return Taps([np.minimum(np.floor(at), old - 1)], None, old)
    at = (np.arange(new) + 0.5) * (old / new) - 0.5
    if align_corners:
        at = np.arange(new) * (old - 1) / max(new - 1, 1)
    if mode == "bilinear":
        at = np.maximum(at, 0)
    base = np.floor(at)
    t = at - base
    if mode == "bilinear":
        weights = {0: 1 - t, 1: t}
    else:
        # Cubic convolution with a = -0.75 (Keys 1981): distances below 1, and from 1 to 2.
        near, far = (lambda d: (1.25 * d - 2.25) * d * d + 1), (lambda d: -0.75 * (((d - 5) * d + 8) * d - 4))
        weights = {-1: far(1 + t), 0: near(t), 1: near(1 - t), 2: far(2 - t)}
    return Taps([np.clip(base + offset, 0, old - 1) for offset in weights], np.stack(list(weights.values())), old)


def upsample2(x):
    """Nearest-neighbour enlargement by two."""
    batch, channels, height, width = x.shape
    x = x.reshape(batch, channels, height, 1, width, 1).broadcast((batch, channels, height, 2, width, 2))
    return x.reshape(batch, channels, 2 * height, 2 * width)


def avg_pool2d(x, kernel: int, stride: int, padding: int = 0, count_include_pad: bool = True):
    """Average pooling. Jittor's own always divides by the whole window, and refuses small inputs [F2, F4]."""
    return AvgPool(kernel, stride, padding, count_include_pad)(x)


def max_pool2d(x, kernel: int, stride: int, padding: int = 0):
    """Maximum pooling. Jittor's own loses NaNs and refuses inputs no larger than the window [F2]."""
    return MaxPool(kernel, stride, padding)(x)


def add_noise(x, noise, scale, index):
    """x (B, C, H, W) plus noise (B, 1, H, W) times a row of scale (U, C), the row index (B, H, W), as in `modulate`."""
    _check_rows(x, index)
    return AddNoise(index)(x, noise, scale)


def modulate(x, gain, shift, index, slope: float = 1.0):
    """x (B, C, H, W) scaled and shifted at each pixel by a row of gain and shift (U, C); index (B, H, W) is the row.

    slope: of the leaky ReLU that follows. A row's gradient sums its pixels in order. ValueError: index of another size.
    """
    _check_rows(x, index)
    return Modulate(index, slope)(x, gain, shift)


def normalize_modulate(x, gain, shift, index, eps: float, slope: float, joint: bool = False):
    """`modulate` of x normalised by the mean and variance of the batch, then leaky ReLU of a slope above 0.

    Returns the result, and the mean and biased variance (C,), which have no gradients. Of the maps in between, none is
    kept for the gradient. joint: the batch is that of all processes.
    """
    _check_rows(x, index)
    return NormalizeModulate(index, eps, slope, joint)(x, gain, shift)


def _check_rows(x, index) -> None:
    if tuple(index.shape) != (x.shape[0], *x.shape[2:]):
        raise ValueError(f"the rows of {tuple(index.shape)} pixels do not fit images {tuple(x.shape)}")


def mean(x):
    """Mean over all elements, as a scalar. It is added up in double precision [N1, N2]."""
    return _total(x, range(len(x.shape))) / x.numel()


def sum_dims(x, dims):
    """Sum over some dimensions, which stay with length 1. It is added up in double precision [N1]."""
    return _total(x, dims, keepdims=True)


def mean_dims(x, dims):
    """Mean over some dimensions, which stay with length 1. It is added up in double precision [N1, N2]."""
    count = 1
    for dim in dims:
        count *= x.shape[dim]
    return sum_dims(x, dims) / count


def expand(x, shape):
    """x in a shape with as many dimensions, of which those of length 1 are repeated.

    The gradient of x is added up in double precision; Jittor's own is one long float32 sum [N1]. The conversions become
    part of the loops before and after them, so that no array of float64 is made.
    """
    return x.float64().broadcast(list(shape)).cast(x.dtype)


def cumsum(x):
    """Cumulative sums along the rows of (B, K), computed from (B, K, K): Jittor's own runs in Python on the CPU."""
    rows, columns = x.shape
    terms = x.unsqueeze(1).broadcast((rows, columns, columns))
    return where(jt.array(np.tri(columns, dtype=np.float32)[None]), terms, jt.zeros_like(terms)).sum(2)


def full_precision(x):
    """A result of `autocast` in the type of the rest of the model. Here it is float32 already."""
    return x


def l1_mean(x, y):
    """Mean absolute difference. Its gradient is 0 for elements that are equal or whose difference is NaN [G1]."""
    difference = x - y
    sign = (difference > 0).float32() - (difference < 0).float32()
    return mean(difference * sign)


def shift2d(x, dy, dx):
    """out[b, :, y, x] = in[b, :, y + dy[b], x + dx[b]], zero outside; dy, dx are (B,) int64 arrays on the host."""
    return x.reindex(x.shape, ["i0", "i1", "i2+@e0(i0)", "i3+@e1(i0)"],
                     extras=[jt.array(dy.astype("int32")), jt.array(dx.astype("int32"))])


def where(condition, x, y):
    """x where the boolean (or 0/1) tensor `condition` holds, y elsewhere; `condition` broadcasts to x and y."""
    return jt.ternary(condition.bool().broadcast(x.shape), x, y)


_settings = {"seed": 0}


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
    return Drop(p, *_numbers(site, x.numel()))(x)


def drop_path(x, p: float, site: int):
    """Each sample of x (B, …) is zero with probability p, else divided by 1 - p.

    This is stochastic depth (Huang et al. 2016, arXiv 1603.09382).
    The samples are those elements that `dropout` of a tensor (B,) makes zero.
    """
    if not p:
        return x
    return x * dropout(jt.ones((x.shape[0],)), p, site).reshape(-1, *[1] * (len(x.shape) - 1))


def _numbers(site: int, elements: int) -> tuple[int, int]:
    """Two 32-bit numbers for the masks of a site, for a tensor with so many elements.

    Several processes drop what one process drops of the whole batch.
    """
    number = draws.key("dropout", _settings["seed"], site)
    return number + 0x9E3779B1 * processes.first_element(elements) & 0xFFFFFFFF, number >> 32 & 0xFFFFFFFF


def set_precision(name: str):
    """Set the number type in which `autocast` computes: float32, bfloat16 or float16."""
    arithmetic["precision"] = name


def _rounded(*tensors):
    if not arithmetic["autocast"] or arithmetic["precision"] == "float32":
        return tensors
    return [x if x is None else Rounded(arithmetic["precision"])(x) for x in tensors]
