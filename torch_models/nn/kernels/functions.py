"""Transfer to the device; and functions with gradients of their own: normalisation over several processes, rows of a
table at every pixel."""
import torch
import torch.nn.functional as F

from torch_models.nn import processes


class JointNormalize(torch.autograd.Function):
    """x (B, C, …) with zero mean and unit variance in each channel over the rows of all processes, then the weight and
    bias if there are any; the mean and biased variance (C,), and the number of values. One exchange forward and one
    backward."""

    @staticmethod
    def forward(context, x, weight, bias, eps):
        mean, variance, count = _joint_statistics(x)
        context.save_for_backward(x, weight, mean, variance, _term(count))
        context.eps = eps
        context.mark_non_differentiable(mean, variance, count)
        return F.batch_norm(x, mean, variance, weight, bias, False, 0.0, eps), mean, variance, count

    @staticmethod
    def backward(context, gradient, *_):
        x, weight, mean, variance, term = context.saved_tensors
        dx, along, total = _joint_gradient(gradient, x, weight, mean, variance, context.eps, term)
        return dx, *((None, None) if weight is None else (along, total)), None


def _joint_statistics(x):
    """The mean and biased variance (C,) of x over the rows of all processes, and the number of values."""
    kind = torch.promote_types(x.dtype, torch.float32)
    unused = [torch.zeros(x.shape[1], dtype=kind, device=x.device) for _ in range(2)]
    own = torch.stack(torch.batch_norm_update_stats(x, *unused, 0.0))
    return processes.statistics(own, x.numel() // x.shape[1])


def _term(count):
    """What a value of this process adds to the mean of so many values of all processes."""
    return (1.0 if processes.share().rows else 0.0) / count


def _joint_gradient(gradient, x, weight, mean, variance, eps: float, term):
    """The gradient of x, and this process's own sums (C,) of the gradient times the normalised x, and of it alone."""
    _, along, total = torch.ops.aten.native_batch_norm_backward(
        gradient, x, weight, mean, variance, None, None, False, eps, [False, True, True])
    scale = (variance + eps).rsqrt() * (1 if weight is None else weight)
    sums = processes.all_sum(torch.stack((along, total))) * (-term * scale)
    dx = F.batch_norm(x, mean, variance, *sums, False, 0.0, eps)
    return dx.addcmul_(gradient, scale.reshape(-1, *[1] * (x.ndim - 2)).to(x.dtype)), along, total


def placed(array, device):
    """A tensor on the device with the values of a NumPy array.

    A GPU copies pinned memory while it computes; PyTorch keeps that memory until it is copied.
    """
    tensor, device = torch.from_numpy(array), torch.device(device)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


PIXELS = 4096       # that are taken at a time


def _parts(index):
    """Some pixels after others, and their rows of the table."""
    for start in range(0, index.numel(), PIXELS):
        part = slice(start, start + PIXELS)
        yield part, index.view(-1)[part]


class AddNoise(torch.autograd.Function):
    """As nn.ops.add_noise."""

    @staticmethod
    def forward(context, x, noise, scale, index):
        context.save_for_backward(noise, scale, index)
        y, pixels, noise = _empty_pixels(x), _pixels(x), noise.reshape(-1, 1)
        for part, rows in _parts(index):
            torch.addcmul(pixels[part], noise[part], scale.index_select(0, rows), out=_pixels(y)[part])
        return y

    @staticmethod
    def backward(context, gradient):
        noise, scale, index = context.saved_tensors
        gradients, values = _pixels(gradient), noise.reshape(-1, 1)
        dscale = torch.zeros_like(scale, dtype=torch.float64)
        dnoise = noise.new_empty(noise.shape) if context.needs_input_grad[1] else None
        for part, rows in _parts(index):
            dscale.index_add_(0, rows, (gradients[part] * values[part]).double())
            if dnoise is not None:
                dnoise.view(-1)[part] = (gradients[part] * scale.index_select(0, rows)).sum(1)
        return gradient, dnoise, dscale.to(scale.dtype), None


class Modulate(torch.autograd.Function):
    """As nn.ops.modulate."""

    @staticmethod
    def forward(context, x, gain, shift, index, slope):
        y, pixels = _empty_pixels(x), _pixels(x)
        for part, rows in _parts(index):
            here = _pixels(y)[part]
            torch.addcmul(shift.index_select(0, rows), pixels[part], gain.index_select(0, rows), out=here)
            F.leaky_relu_(here, slope)
        context.save_for_backward(x, gain, index, y)
        context.slope = slope
        return y

    @staticmethod
    def backward(context, gradient):
        x, gain, index, y = context.saved_tensors
        dx, pixels, results, gradients = _empty_pixels(x), _pixels(x), _pixels(y), _pixels(gradient)
        dgain, dshift = (torch.zeros_like(gain, dtype=torch.float64) for _ in range(2))
        for part, rows in _parts(index):
            slopes = torch.where(results[part] > 0, gradients[part], gradients[part] * context.slope)
            torch.mul(slopes, gain.index_select(0, rows), out=_pixels(dx)[part])
            dgain.index_add_(0, rows, (slopes * pixels[part]).double())
            dshift.index_add_(0, rows, slopes.double())
        return dx, dgain.to(gain.dtype), dshift.to(gain.dtype), None, None


class NormalizeModulate(torch.autograd.Function):
    """As nn.ops.normalize_modulate. It keeps x and the result, from which the gradient computes what it needs of the
    maps in between."""

    @staticmethod
    def forward(context, x, gain, shift, index, eps, slope, joint):
        x, count = x.contiguous(memory_format=torch.channels_last), x.numel() // x.shape[1]
        if joint:
            mean, variance, total = _joint_statistics(x)
            y = F.batch_norm(x, mean, variance, None, None, False, 0.0, eps)
            term, centre, inverse = _term(total), mean, (variance + eps).rsqrt()
        else:
            mean, variance = x.new_zeros(x.shape[1]), x.new_zeros(x.shape[1])
            # With momentum 1 the native kernel stores this batch's mean and unbiased variance in the two tensors.
            y, centre, inverse = torch.native_batch_norm(x, None, None, mean, variance, True, 1.0, eps)
            variance *= (count - 1) / count
            term = None
        y = y.contiguous(memory_format=torch.channels_last)     # no copy; `pixels` must be a view
        pixels = _pixels(y)
        for part, rows in _parts(index):
            torch.addcmul(shift.index_select(0, rows), pixels[part], gain.index_select(0, rows), out=pixels[part])
            F.leaky_relu_(pixels[part], slope)
        context.save_for_backward(x, gain, index, y, centre, inverse, variance, term)
        context.settings = eps, slope
        context.mark_non_differentiable(mean, variance)
        return y, mean, variance

    @staticmethod
    def backward(context, gradient, *_):
        x, gain, index, y, centre, inverse, variance, term = context.saved_tensors
        eps, slope = context.settings
        dy, pixels, results, gradients = _empty_pixels(x), _pixels(x), _pixels(y), _pixels(gradient)
        dgain, dshift = (torch.zeros_like(gain, dtype=torch.float64) for _ in range(2))
        for part, rows in _parts(index):
            slopes = torch.where(results[part] > 0, gradients[part], gradients[part] * slope)
            torch.mul(slopes, gain.index_select(0, rows), out=_pixels(dy)[part])
            dgain.index_add_(0, rows, (slopes * ((pixels[part] - centre) * inverse)).double())
            dshift.index_add_(0, rows, slopes.double())
        if term is None:
            dx, _, _ = torch.ops.aten.native_batch_norm_backward(dy, x, None, None, None, centre, inverse, True, eps,
                                                                 [True, False, False])
        else:
            dx, _, _ = _joint_gradient(dy, x, None, centre, variance, eps, term)
        return dx, dgain.to(gain.dtype), dshift.to(gain.dtype), None, None, None, None


def _pixels(x):
    """x (B, C, H, W) as rows (B H W, C): a view if the channels of a pixel lie side by side, else a copy."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def _empty_pixels(x):
    """A tensor like x whose channels of a pixel lie side by side in memory."""
    return torch.empty_like(x, memory_format=torch.channels_last)
