"""Functions on tensors, under the names and with the semantics both twins share.

Images are (B, C, H, W) float32. `size` is (height, width). Names in brackets are
entries of the catalogue of Jittor's differences that the function repairs.
"""
from jt_models.boot import jt, nn

tanh = jt.tanh


def leaky_relu(x, slope: float = 0.01):
    return nn.leaky_relu(x, slope)


def relu(x):
    """max(x, 0) with gradient 0 at 0; NaN stays NaN [G5]."""
    return jt.ternary(x <= 0, jt.zeros_like(x), x)


def concat(tensors, dim: int):
    return jt.concat(list(tensors), dim)


def detach(x):
    return x.detach()


def assign(target, source):
    """Give the parameter or buffer `target` the value of `source`, outside any graph."""
    target.update(source.detach().copy())


def from_host(array):
    """A tensor with the values of a NumPy array."""
    return jt.array(array)


def no_grad():
    return jt.no_grad()


def zeros(shape):
    return jt.zeros(tuple(shape))


def randn(shape):
    """Standard normal from the device's own generator."""
    return jt.randn(*shape)


def one_hot(labels, classes: int):
    """(B, H, W) integers to (B, classes, H, W) float32; values outside 0..classes-1 give no class."""
    return (labels.int32().unsqueeze(1) == jt.arange(classes).reshape(1, classes, 1, 1)).float32()


def conv2d(x, weight, bias=None, stride: int = 1, padding: int = 0):
    return nn.conv2d(x, weight, bias, stride, padding)


def interpolate(x, size, mode: str = "nearest"):
    """Resize to (height, width); mode nearest, bilinear or bicubic, half-pixel centres, no antialiasing [F6]."""
    height, width = x.shape[-2:]
    if (height, width) == tuple(size):
        return x
    if mode == "nearest" and height % size[0] == 0 and width % size[1] == 0:
        return x[:, :, ::height // size[0], ::width // size[1]]
    return nn.interpolate(x, size=tuple(size), mode=mode, align_corners=False)


def upsample2(x):
    """Nearest-neighbour enlargement by two."""
    batch, channels, height, width = x.shape
    x = x.reshape(batch, channels, height, 1, width, 1).broadcast((batch, channels, height, 2, width, 2))
    return x.reshape(batch, channels, 2 * height, 2 * width)


def avg_pool2d(x, kernel: int, stride: int, padding: int = 0, count_include_pad: bool = True):
    """Average pooling; Jittor always divides by the whole window and refuses small inputs [F2, F4]."""
    pooled = _window_sum(x, kernel, stride, padding)
    if count_include_pad or not padding:
        return pooled / kernel ** 2
    return pooled / _window_sum(jt.ones((1, 1, *x.shape[-2:])), kernel, stride, padding)


def _window_sum(x, kernel: int, stride: int, padding: int):
    height, width = ((side + 2 * padding - kernel) // stride + 1 for side in x.shape[-2:])
    windows = x.reindex([*x.shape[:2], height, width, kernel, kernel],
                        ["i0", "i1", f"i2*{stride}-{padding}+i4", f"i3*{stride}-{padding}+i5"])
    return windows.sum((4, 5))


def max_pool2d(x, kernel: int, stride: int, padding: int = 0):
    """Maximum pooling; Jittor refuses inputs no larger than the window [F2]."""
    height, width = x.shape[-2:]
    if min(height, width) > kernel:
        return nn.pool(x, kernel, "maximum", padding, stride)
    rows, columns = ((side + 2 * padding - kernel) // stride + 1 for side in (height, width))
    x = nn.pad(x, [0, kernel, 0, kernel], value=-3.4e38)
    return nn.pool(x, kernel, "maximum", padding, stride)[:, :, :rows, :columns]


def mean(x):
    """Mean over all elements, as a scalar; summed axis by axis, because one long float32 sum drifts [N1, N2]."""
    count = x.numel()
    while len(x.shape) > 1:
        x = x.sum(-1)
    return x.sum() / count


def mean_dims(x, dims):
    """Mean over some dimensions, which stay with length 1 [N2]."""
    count = 1
    for dim in dims:
        count *= x.shape[dim]
        x = x.sum(dim, keepdims=True)
    return x / count


def l1_mean(x, y):
    """Mean absolute difference; its gradient is 0 where the two are equal [G1]."""
    difference = x - y
    return mean(jt.ternary(difference == 0, jt.zeros_like(difference), jt.abs(difference)))


def shift2d(x, dy, dx):
    """out[b, :, y, x] = in[b, :, y + dy[b], x + dx[b]], zero outside; dy, dx are (B,) int64 arrays on the host."""
    return x.reindex(x.shape, ["i0", "i1", "i2+@e0(i0)", "i3+@e1(i0)"],
                     extras=[jt.array(dy.astype("int32")), jt.array(dx.astype("int32"))])


def where(condition, x, y):
    """x where the boolean (or 0/1) tensor `condition` holds, y elsewhere; `condition` broadcasts to x and y."""
    return jt.ternary(condition.bool().broadcast(x.shape), x, y)
