"""Functions with gradients of their own: scale and shift of every pixel by rows of a table."""
import torch
import torch.nn.functional as F


class Modulate(torch.autograd.Function):
    """As nn.ops.modulate, some thousand pixels at a time."""
    PIXELS = 4096

    @staticmethod
    def forward(context, x, gain, shift, index):
        context.save_for_backward(x, gain, index)
        y, pixels = _empty_pixels(x), _pixels(x)
        for part, rows in Modulate.parts(index):
            torch.addcmul(shift.index_select(0, rows), pixels[part], gain.index_select(0, rows), out=_pixels(y)[part])
        return y

    @staticmethod
    def backward(context, gradient):
        x, gain, index = context.saved_tensors
        dx, pixels, gradients = _empty_pixels(x), _pixels(x), _pixels(gradient)
        dgain, dshift = (torch.zeros_like(gain, dtype=torch.float64) for _ in range(2))
        for part, rows in Modulate.parts(index):
            torch.mul(gradients[part], gain.index_select(0, rows), out=_pixels(dx)[part])
            dgain.index_add_(0, rows, (gradients[part] * pixels[part]).double())
            dshift.index_add_(0, rows, gradients[part].double())
        return dx, dgain.to(gain.dtype), dshift.to(gain.dtype), None

    @staticmethod
    def parts(index):
        for start in range(0, index.numel(), Modulate.PIXELS):
            part = slice(start, start + Modulate.PIXELS)
            yield part, index.view(-1)[part]


class NormalizeModulate(torch.autograd.Function):
    """As nn.ops.normalize_modulate. It keeps x and the result, from which the gradient computes what it needs of the
    maps in between."""

    @staticmethod
    def forward(context, x, gain, shift, index, eps, slope):
        x, count = x.contiguous(memory_format=torch.channels_last), x.numel() // x.shape[1]
        mean, variance = x.new_zeros(x.shape[1]), x.new_zeros(x.shape[1])
        # With momentum 1 the native kernel stores this batch's mean and unbiased variance in the two tensors.
        y, centre, inverse = torch.native_batch_norm(x, None, None, mean, variance, True, 1.0, eps)
        y = y.contiguous(memory_format=torch.channels_last)     # no copy; `pixels` must be a view
        pixels = _pixels(y)
        for part, rows in Modulate.parts(index):
            torch.addcmul(shift.index_select(0, rows), pixels[part], gain.index_select(0, rows), out=pixels[part])
            F.leaky_relu_(pixels[part], slope)
        variance *= (count - 1) / count
        context.save_for_backward(x, gain, index, y, centre, inverse)
        context.settings = eps, slope
        context.mark_non_differentiable(mean, variance)
        return y, mean, variance

    @staticmethod
    def backward(context, gradient, *_):
        x, gain, index, y, centre, inverse = context.saved_tensors
        eps, slope = context.settings
        dy, pixels, results, gradients = _empty_pixels(x), _pixels(x), _pixels(y), _pixels(gradient)
        dgain, dshift = (torch.zeros_like(gain, dtype=torch.float64) for _ in range(2))
        for part, rows in Modulate.parts(index):
            slopes = torch.where(results[part] > 0, gradients[part], gradients[part] * slope)
            torch.mul(slopes, gain.index_select(0, rows), out=_pixels(dy)[part])
            dgain.index_add_(0, rows, (slopes * ((pixels[part] - centre) * inverse)).double())
            dshift.index_add_(0, rows, slopes.double())
        dx, _, _ = torch.ops.aten.native_batch_norm_backward(dy, x, None, None, None, centre, inverse, True, eps,
                                                             [True, False, False])
        return dx, dgain.to(gain.dtype), dshift.to(gain.dtype), None, None, None


def _pixels(x):
    """x (B, C, H, W) as rows (B H W, C): a view if the channels of a pixel lie side by side, else a copy."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def _empty_pixels(x):
    """A tensor like x whose channels of a pixel lie side by side in memory."""
    return torch.empty_like(x, memory_format=torch.channels_last)
