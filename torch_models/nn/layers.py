"""Layers with the same names in both twins. Parameters have the upstream attribute names."""
import torch
from torch import nn
from torch.utils import checkpoint as recomputing

from jittwin.draws import key
from torch_models.nn import ops, processes
from torch_models.nn.kernels.functions import JointNormalize

Module, ModuleList, Sequential, Linear, Embedding = nn.Module, nn.ModuleList, nn.Sequential, nn.Linear, nn.Embedding


class Conv2d(nn.Module):
    """Convolution; weight (out, in / groups, height, width). Kernel, stride, padding: a number or (height, width)."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size, stride=1, padding=0, bias: bool = True,
                 groups: int = 1):
        super().__init__()
        kernel = kernel_size if isinstance(kernel_size, tuple) else (kernel_size, kernel_size)
        self.stride = stride
        self.padding = padding
        self.groups = groups
        self.weight = nn.Parameter(torch.zeros(out_channels, in_channels // groups, *kernel))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None

    def forward(self, x):
        return ops.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.groups)


class DepthwiseConv2d(nn.Module):
    """Convolution of each channel with its own kernel, stride 1; weight (channels, 1, kernel_size, kernel_size)."""

    def __init__(self, channels: int, kernel_size: int, padding: int = 0):
        super().__init__()
        self.padding = padding
        self.weight = nn.Parameter(torch.zeros(channels, 1, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x):
        return ops.depthwise_conv2d(x, self.weight, self.bias, self.padding)


class SpectralConv2d(nn.Module):
    """Convolution stored as `weight_orig`, `weight_u`, `weight_v` (Miyato et al. 2018, arXiv 1802.05957).

    spectral="off" convolves with `weight_orig` itself, which is what the published Jittor code computes. "on" divides
    it by its largest singular value, with one power iteration per training pass unless `track` is off.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, padding: int = 0,
                 bias: bool = True, spectral: str = "off"):
        super().__init__()
        self.stride = stride
        self.padding = padding
        self.spectral = spectral
        self.track = True
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.weight_orig = nn.Parameter(torch.zeros(out_channels, in_channels, kernel_size, kernel_size))
        self.register_buffer("weight_u", torch.zeros(out_channels))
        self.register_buffer("weight_v", torch.zeros(in_channels * kernel_size ** 2))

    def weight(self):
        if self.spectral == "off":
            return self.weight_orig
        matrix = self.weight_orig.flatten(1)
        if self.training and self.track:
            with torch.no_grad():
                v = matrix.t().mv(self.weight_u)
                v = v / v.norm().clamp(min=1e-12)
                u = matrix.mv(v)
                self.weight_v.copy_(v)
                self.weight_u.copy_(u / u.norm().clamp(min=1e-12))
        # Copies, because a second forward pass in the same step would change what backward has kept.
        u, v = self.weight_u.clone(), self.weight_v.clone()
        return self.weight_orig / torch.dot(u, matrix.mv(v))

    def forward(self, x):
        return ops.conv2d(x, self.weight(), self.bias, self.stride, self.padding)


class BatchNorm2d(nn.Module):
    """Batch normalisation over (B, H, W) (Ioffe and Szegedy 2015, arXiv 1502.03167).

    affine=False stores only the running statistics. running_variance: whether the "unbiased" (PyTorch) or the "biased"
    (Jittor) variance of the batch enters them. joint: several processes normalise by the statistics of the whole batch.
    """

    def __init__(self, channels: int, eps: float = 1e-5, momentum: float = 0.1, affine: bool = True,
                 running_variance: str = "unbiased"):
        super().__init__()
        self.eps = eps
        self.momentum = momentum
        self.running_variance = running_variance
        self.weight = nn.Parameter(torch.ones(channels)) if affine else None
        self.bias = nn.Parameter(torch.zeros(channels)) if affine else None
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.track = True
        self.joint = True

    def forward(self, x):
        if not self.training:
            return nn.functional.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias,
                                            False, 0.0, self.eps)
        y, mean, biased, unbiased = normalized(x, self, self.joint)
        self._record(mean, biased if self.running_variance == "biased" else unbiased)
        return y

    def modulated(self, x, gain, shift, index, slope: float):
        """x normalised, without weight and bias, then `ops.modulate` and the leaky ReLU of a slope; 1 for none."""
        if self.training:
            share = processes.share() if self.joint else None
            count = counted(x, share)
            y, mean, variance = ops.normalize_modulate(x, gain, shift, index, self.eps, slope, share is not None)
            self._record(mean, variance if self.running_variance == "biased" else variance * (count / (count - 1)))
            return y
        gain = gain * (self.running_var + self.eps).rsqrt()
        return ops.modulate(x, gain, shift - gain * self.running_mean, index, slope)

    def _record(self, mean, variance) -> None:
        """Move the running statistics towards those of a batch."""
        if self.track:
            self.running_mean += self.momentum * (mean - self.running_mean)
            self.running_var += self.momentum * (variance - self.running_var)


class BatchNorm1d(BatchNorm2d):
    """Batch normalisation of (B, C)."""


def normalized(x, norm, joint: bool = True):
    """x (B, C, …) with mean 0 and variance 1 per channel, then the weight and bias of `norm` if it has them; the mean,
    the biased and the unbiased variance (C,). joint: of the whole batch, if several processes share it. ValueError: one
    value per channel.
    """
    share = processes.share() if joint else None
    count = counted(x, share)
    if share is None:
        mean, variance = torch.zeros_like(norm.running_mean), torch.zeros_like(norm.running_var)
        # With momentum 1 the native kernel stores this batch's mean and unbiased variance in the two tensors.
        y = nn.functional.batch_norm(x, mean, variance, norm.weight, norm.bias, True, 1.0, norm.eps)
        return y, mean, variance * ((count - 1) / count), variance
    y, mean, variance, count = JointNormalize.apply(x, norm.weight, norm.bias, norm.eps)
    return y, mean, variance, variance * (count / (count - 1))


def counted(x, share=None) -> int:
    """The values of x (B, C, …) per channel, with the rows of all processes that share it. ValueError: only one."""
    count = x.numel() // x.shape[0] // x.shape[1] * (share.total if share else x.shape[0])
    if count < 2:
        raise ValueError(f"batch normalisation needs more than one value per channel, got input {tuple(x.shape)}")
    return count


class FrozenBatchNorm2d(nn.Module):
    """Batch normalisation with the same result in training and inference; its statistics never change.

    batch_statistics: normalise by the mean and variance of the input, else by the stored ones.
    """

    def __init__(self, channels: int, eps: float = 1e-5, batch_statistics: bool = False):
        super().__init__()
        self.eps = eps
        self.batch_statistics = batch_statistics
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x):
        if not self.batch_statistics:
            return nn.functional.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias,
                                            False, 0.0, self.eps)
        return normalized(x, self)[0]


class InstanceNorm2d(nn.Module):
    """Instance normalisation without parameters or running statistics (arXiv 1607.08022)."""

    def __init__(self, eps: float = 1e-5):
        super().__init__()
        self.eps = eps

    def forward(self, x):
        if x.shape[2] * x.shape[3] == 1:
            return x - x  # as in Jittor: F.instance_norm refuses a single pixel
        return nn.functional.instance_norm(x, eps=self.eps)


class LayerNorm(nn.Module):
    """Normalisation of each row of (…, C) (Ba, Kiros and Hinton 2016, arXiv 1607.06450)."""

    def __init__(self, channels: int, eps: float = 1e-5):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x):
        return ops.layer_norm(x, self.weight, self.bias, self.eps)


class LeakyReLU(nn.Module):
    def __init__(self, slope: float = 0.2):
        super().__init__()
        self.slope = slope

    def forward(self, x):
        return ops.leaky_relu(x, self.slope)


class ReLU(nn.Module):
    def forward(self, x):
        return ops.relu(x)


class GELU(nn.Module):
    def forward(self, x):
        return ops.gelu(x)


class Dropout(nn.Module):
    """In training mode each element becomes zero with probability p. Counters decide which: see nn.ops.dropout.

    site: set by `name_dropouts`.
    """

    def __init__(self, p: float):
        super().__init__()
        self.p = p
        self.site = 0

    def rate(self) -> float:
        """The probability in force."""
        return self.p if self.training else 0.0

    def forward(self, x):
        return ops.dropout(x, self.rate(), self.site)


class DropPath(nn.Module):
    """In training mode each sample becomes zero with probability p. Counters decide which: see nn.ops.drop_path.

    site: set by `name_dropouts`.
    """

    def __init__(self, p: float):
        super().__init__()
        self.p = p
        self.site = 0

    def forward(self, x):
        return ops.drop_path(x, self.p, self.site) if self.training else x


class MaxPool2d(nn.Module):
    def __init__(self, kernel_size: int, stride: int, padding: int = 0):
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = stride
        self.padding = padding

    def forward(self, x):
        return ops.max_pool2d(x, self.kernel_size, self.stride, self.padding)


class AvgPool2d(nn.Module):
    def __init__(self, kernel_size: int, stride: int, padding: int = 0, count_include_pad: bool = True):
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = stride
        self.padding = padding
        self.count_include_pad = count_include_pad

    def forward(self, x):
        return ops.avg_pool2d(x, self.kernel_size, self.stride, self.padding, self.count_include_pad)


def parameter(*shape):
    """Zeros of a shape, for an attribute that is trained and no layer of its own."""
    return nn.Parameter(torch.zeros(shape))


def name_dropouts(module):
    """Set the site of every Dropout and DropPath from its path, so that no two have the same mask.

    A model's constructor calls this last.
    """
    for path, part in module.named_modules():
        if isinstance(part, (Dropout, DropPath)):
            part.site = key("site", path) & 0x7FFFFFFF


def checkpoint(module, *arguments):
    """module(*arguments). Its inner results are not kept but computed again for the gradient.

    Chen et al. 2016, arXiv 1604.06174.
    """
    return recomputing.checkpoint(module, *arguments, use_reentrant=False, preserve_rng_state=False)


def track(network, kind: type, flag: bool):
    """Whether training passes update what the layers of a kind keep: running statistics, singular vectors."""
    for module in network.modules():
        if isinstance(module, kind):
            module.track = flag


def freeze(module):
    """Stop the gradients of all parameters of the module; gradients still pass through it."""
    module.requires_grad_(False)
