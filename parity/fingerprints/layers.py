"""Pools, resampling, activations and embeddings [F1-F19, S10]."""
from parity.fingerprints.fingerprint import Refused, fingerprint
from parity.fingerprints.numeric import LOWEST
from parity.fingerprints.patch import rerouted, swapped


def pair(value) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)


def fixed_windows(x, output_size) -> tuple[tuple[int, int], tuple[int, int]]:
    """The kernel and stride of the window of fixed size that Jittor slides to get `output_size`."""
    sizes = list(zip(x.shape[-2:], pair(output_size)))
    outputs = [side if out is None else out for side, out in sizes]
    strides = tuple(side // out for (side, _), out in zip(sizes, outputs))
    return tuple(side - (out - 1) * stride for (side, _), out, stride in zip(sizes, outputs, strides)), strides


@fingerprint("F1", "adaptive pools slide one window of fixed size; PyTorch's windows vary",
             "average from floor(i*H/o) to ceil((i+1)*H/o) yourself, or choose sizes that divide")
def _():
    from torch.nn import functional as F

    def average(original, x, output_size):
        return F.avg_pool2d(x, *fixed_windows(x, output_size))

    def maximum(original, x, output_size, return_indices=False):
        return F.max_pool2d(x, *fixed_windows(x, output_size), return_indices=return_indices)

    return rerouted(adaptive_avg_pool2d=average, adaptive_max_pool2d=maximum)


@fingerprint("F2", "pools refuse a picture that is not larger than their window",
             "take the mean or the maximum over the whole picture, or pad it")
def _():
    def smaller(original, x, kernel_size, *arguments, **keywords):
        if any(side <= k for side, k in zip(x.shape[-2:], pair(kernel_size))):
            raise Refused("size of var should be larger than kernel_size")
        return original(x, kernel_size, *arguments, **keywords)

    return rerouted(avg_pool2d=smaller, max_pool2d=smaller)


def padded_for_ceil(x, kernel, stride, padding, value: float):
    """x padded so that a pool without padding or ceil_mode has exactly the windows of Jittor's ceil_mode."""
    from torch.nn import functional as F
    sides = []
    for side, k, s, p in zip(x.shape[-2:], pair(kernel), pair(stride), pair(padding)):
        count = (side + 2 * p - k + s - 1) // s + 1
        sides.append((p, (count - 1) * s + k - side - p))
    (top, bottom), (left, right) = sides
    return F.pad(x, (left, right, top, bottom), value=value)


@fingerprint("F3", "ceil_mode of max pools keeps a last window that starts in the padding",
             "compute PyTorch's output size and cut the last row and column")
def _():
    def max_pool2d(original, x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False,
                   return_indices=False):
        stride = stride or kernel_size
        if not ceil_mode:
            return original(x, kernel_size, stride, padding, dilation, False, return_indices)
        x = padded_for_ceil(x, kernel_size, stride, padding, LOWEST)
        return original(x, kernel_size, stride, 0, dilation, False, return_indices)

    return rerouted(max_pool2d=max_pool2d)


@fingerprint("F4", "average pools count the padding: count_include_pad=False has no effect without ceil_mode, and "
             "with it windows over the edge are divided by the whole kernel",
             "sum the windows and divide by PyTorch's count")
def _():
    def avg_pool2d(original, x, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True,
                   divisor_override=None):
        stride = stride or kernel_size
        if not ceil_mode:
            return original(x, kernel_size, stride, padding)
        counted = original(padded_for_ceil(x, kernel_size, stride, padding, 0.0), kernel_size, stride)
        if count_include_pad and pair(padding) != (0, 0):
            return counted
        inside = padded_for_ceil(x.new_ones((1, 1, *x.shape[-2:])), kernel_size, stride, padding, 0.0)
        return counted / original(inside, kernel_size, stride)

    return rerouted(avg_pool2d=avg_pool2d)


def interpolate_with(change):
    """A patch of interpolate. change(arguments by name) returns the arguments to replace."""
    def interpolate(original, input, size=None, scale_factor=None, mode="nearest", align_corners=None,
                    recompute_scale_factor=None, antialias=False):
        asked = {"size": size, "scale_factor": scale_factor, "mode": mode, "align_corners": align_corners,
                 "recompute_scale_factor": recompute_scale_factor, "antialias": antialias}
        return original(input, **{**asked, **change(asked)})
    return rerouted(interpolate=interpolate)


@fingerprint("F6", "interpolate is bilinear by default, PyTorch's is nearest", "pass mode to interpolate")
def _():
    return interpolate_with(lambda asked: {
        "mode": "bilinear", "align_corners": False, "recompute_scale_factor": asked["scale_factor"] and True,
    } if asked["mode"] == "nearest" else {})


@fingerprint("F6.scale", "interpolate works out the scale from the sizes, not from scale_factor",
             "pass size; PyTorch does the same with recompute_scale_factor=True")
def _():
    return interpolate_with(lambda asked: {"recompute_scale_factor": asked["scale_factor"] and True})


@fingerprint("F7", "UpsamplingBilinear2d does not align corners", "interpolate(size, mode='bilinear', "
             "align_corners=True)")
def _():
    return interpolate_with(lambda asked: {"align_corners": False} if asked["align_corners"] else {})


@fingerprint("F13", "GELU has no tanh form", "write 0.5*x*(1 + tanh(sqrt(2/pi)*(x + 0.044715*x^3)))")
def _():
    return rerouted(gelu=lambda original, x, **_: original(x))


@fingerprint("F14", "the row padding_idx of an embedding gets a gradient", "multiply the row's gradient by zero")
def _():
    def embedding(original, input, weight, padding_idx=None, *arguments, **keywords):
        return original(input, weight, None, *arguments, **keywords)

    return rerouted(embedding=embedding)


@fingerprint("F16", "weight_norm takes the norm over dim, PyTorch over all dims but that one",
             "compute g * v / |v| with the norm over every other dim")
def _():
    def norm_except_dim(original, v, pow=2, dim=0):
        return v.norm(2, dim, keepdim=True)

    def weight_norm(original, v, g, dim=0):
        return v * (g / v.norm(2, dim, keepdim=True))

    return rerouted(norm_except_dim=norm_except_dim, _weight_norm=weight_norm)


@fingerprint("F19", "PReLU with a slope for each channel takes (B, C, H, W) only",
             "write jt.ternary(x > 0, x, w * x) with w reshaped to (1, C, 1, …)")
def _():
    def prelu(original, x, weight):
        if weight.numel() > 1 and x.dim() != 4:
            raise Refused("self.weight.broadcast(x, [0,2,3])")
        return original(x, weight)

    return rerouted(prelu=prelu)


@fingerprint("S10", "a fresh model is in evaluation mode for Dropout", "call .train() or .eval() before using it")
def _():
    from torch.nn.modules import dropout

    def asleep(build):
        def __init__(self, *arguments, **keywords):
            build(self, *arguments, **keywords)
            self.training = False
        return __init__

    return swapped((dropout._DropoutNd, "__init__", asleep))
