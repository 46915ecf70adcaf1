"""Gradients at points where a function has none: exact ties, which ReLU and zero padding make common [G1-G5]."""
from functools import cache

from parity.fingerprints.fingerprint import fingerprint
from parity.fingerprints.layers import fixed_windows, pair
from parity.fingerprints.losses import reduced
from parity.fingerprints.patch import rerouted


@cache
def ruled() -> type:
    """A function with a given gradient: Ruled.apply(values, slopes, x) returns `values`; its slope in x is `slopes`."""
    import torch

    class Ruled(torch.autograd.Function):
        @staticmethod
        def forward(context, values, slopes, x):
            context.save_for_backward(slopes)
            return values.clone()

        @staticmethod
        def backward(context, gradient):
            return None, None, gradient * context.saved_tensors[0]

    return Ruled


def with_slope(values, slopes, x):
    return ruled().apply(values.detach(), slopes.detach().to(x.dtype), x)


@fingerprint("G1", "the gradient of |x| at 0 is 1, not 0", "jt.ternary(x == 0, 0, jt.abs(x))")
def _():
    def absolute(x):
        return with_slope(x.abs(), (x >= 0).to(x.dtype) * 2 - 1, x)

    def abs(original, x, **_):
        return absolute(x) if x.is_floating_point() else original(x)

    def l1_loss(original, input, target, size_average=None, reduce=None, reduction="mean", weight=None):
        return reduced(absolute(input - target), reduction)

    return rerouted(abs=abs, absolute=abs, l1_loss=l1_loss)


@fingerprint("G2", "maximum and minimum of equal numbers give the whole gradient to the second; clamp gives none "
             "at its bounds", "jt.ternary with the condition that gives PyTorch's gradient")
def _():
    import torch

    def clamp(original, x, min=None, max=None, **_):
        for limit, keeps in ((min, torch.gt), (max, torch.lt)):
            if limit is not None:
                limit = torch.as_tensor(limit, dtype=x.dtype)
                x = x.where(keeps(x, limit), limit)
        return x

    return rerouted(maximum=lambda original, x, y, **_: x.where(x > y, y),
                    minimum=lambda original, x, y, **_: x.where(x < y, y), clamp=clamp, clip=clamp,
                    clamp_min=lambda original, x, min: clamp(original, x, min),
                    clamp_max=lambda original, x, max: clamp(original, x, None, max))


def shared_maximum(x, dims, keepdim: bool):
    """The maximum over dims. Every element that attains it gets the whole gradient."""
    import torch
    top = x.detach().amax(dims, keepdim=True)
    attains = (x.detach() == top).to(x.dtype)
    spread = (attains * x).sum(dims, keepdim=True)          # its gradient is `attains`
    result = top + (spread - spread.detach())
    return result if keepdim else torch.squeeze(result, dims)


@fingerprint("G3", "the gradient of a maximum goes to every element that attains it, whole",
             "index with the argmax")
def _():
    import torch
    from torch.nn import functional as F

    def largest(original, x, dim=None, keepdim=False, **_):
        if not x.is_floating_point() or isinstance(dim, torch.Tensor):
            return original(x) if dim is None else original(x, dim)
        if dim is None:
            return shared_maximum(x, tuple(range(x.dim())), False)
        found = original(x, dim, keepdim)
        return type(found)((shared_maximum(x, (dim,), keepdim), found.indices))

    def amax(original, x, dim=(), keepdim=False, **_):
        dims = (dim,) if isinstance(dim, int) else tuple(dim) or tuple(range(x.dim()))
        return shared_maximum(x, dims, keepdim)

    def adaptive_max_pool2d(original, x, output_size, return_indices=False):
        if return_indices:
            return original(x, output_size, True)
        kernel, stride = fixed_windows(x, output_size)
        windows = F.unfold(x, kernel, stride=stride).reshape(*x.shape[:2], kernel[0] * kernel[1], -1)
        return shared_maximum(windows, (2,), False).reshape(*x.shape[:2], *pair(output_size))

    return rerouted(max=largest, amax=amax, adaptive_max_pool2d=adaptive_max_pool2d)


@fingerprint("G4", "the gradient of PReLU at 0 is 1 + w, not w", "jt.ternary(x > 0, x, w * x)")
def _():
    def prelu(original, x, weight):
        w = weight.reshape(-1, *[1] * (x.dim() - 2)) if weight.numel() > 1 else weight
        positive = with_slope(x.clamp(min=0), x >= 0, x)
        return positive + w * with_slope(x.clamp(max=0), x <= 0, x)

    return rerouted(prelu=prelu)


@fingerprint("G5", "relu(NaN) is 0", "jt.ternary(x <= 0, 0, x)")
def _():
    import torch

    def relu(original, x, inplace=False):
        return torch.where(x > 0, x, torch.zeros_like(x))

    return rerouted(relu=relu)
