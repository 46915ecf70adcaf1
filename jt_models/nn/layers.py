"""Layers with the same names in both twins. Parameters have the upstream attribute names."""
from jittwin.draws import key
from jt_models.boot import jt, nn
from jt_models.nn import ops, processes
from jt_models.nn.kernels.checkpoint import Checkpoint
from jt_models.nn.kernels.kernel import total
from jt_models.nn.kernels.norm import Normalize

ModuleList, Sequential = nn.ModuleList, nn.Sequential


class Module(nn.Module):
    """An nn.Module that records which Vars are buffers: Jittor takes every Var attribute for a parameter [S1]."""

    def register_buffer(self, name: str, value):
        self.__dict__.setdefault("buffer_names", set()).add(name)
        setattr(self, name, value.stop_grad())

    def register_scalar(self, name: str):
        """A parameter without dimensions: here a vector of one element [P10], which the state shows as a scalar."""
        self.__dict__.setdefault("scalar_names", set()).add(name)
        setattr(self, name, jt.zeros((1,)))


class Linear(Module):
    """y = x W^T + b; weight (out, in)."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True):
        super().__init__()
        self.weight = jt.zeros((out_features, in_features))
        self.bias = jt.zeros((out_features,)) if bias else None

    def execute(self, x):
        return ops.linear(x, self.weight, self.bias)


class Embedding(Module):
    """Rows of weight (num, channels) selected by number. The row padding_idx gets no gradient."""

    def __init__(self, num_embeddings: int, embedding_dim: int, padding_idx: int | None = None):
        super().__init__()
        self.padding_idx = padding_idx
        self.weight = jt.zeros((num_embeddings, embedding_dim))

    def execute(self, numbers):
        return ops.embedding(numbers, self.weight, self.padding_idx)


class Conv2d(Module):
    """Convolution; weight (out, in / groups, height, width). Kernel, stride, padding: a number or (height, width)."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size, stride=1, padding=0, bias: bool = True,
                 groups: int = 1):
        super().__init__()
        kernel = kernel_size if isinstance(kernel_size, tuple) else (kernel_size, kernel_size)
        self.stride = stride
        self.padding = padding
        self.groups = groups
        self.weight = jt.zeros((out_channels, in_channels // groups, *kernel))
        self.bias = jt.zeros((out_channels,)) if bias else None

    def execute(self, x):
        return ops.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.groups)


class DepthwiseConv2d(Module):
    """Convolution of each channel with its own kernel, stride 1; weight (channels, 1, kernel_size, kernel_size)."""

    def __init__(self, channels: int, kernel_size: int, padding: int = 0):
        super().__init__()
        self.padding = padding
        self.weight = jt.zeros((channels, 1, kernel_size, kernel_size))
        self.bias = jt.zeros((channels,))

    def execute(self, x):
        return ops.depthwise_conv2d(x, self.weight, self.bias, self.padding)


class SpectralConv2d(Module):
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
        self.bias = jt.zeros((out_channels,)) if bias else None
        self.weight_orig = jt.zeros((out_channels, in_channels, kernel_size, kernel_size))
        self.register_buffer("weight_u", jt.zeros((out_channels,)))
        self.register_buffer("weight_v", jt.zeros((in_channels * kernel_size ** 2,)))

    def weight(self):
        if self.spectral == "off":
            return self.weight_orig
        matrix = self.weight_orig.reshape(self.weight_orig.shape[0], -1)
        u, v = self.weight_u, self.weight_v
        if self.is_training() and self.track:
            with jt.no_grad():
                v = total(matrix * u.reshape(-1, 1), [0])
                v = v / jt.maximum(total(v * v, [0]).sqrt(), 1e-12)
                u = total(matrix * v, [1])
                u = u / jt.maximum(total(u * u, [0]).sqrt(), 1e-12)
            u, v = u.detach(), v.detach()
            self.weight_u.update(u)
            self.weight_v.update(v)
        largest = total(u * total(matrix * v, [1]), [0])
        return self.weight_orig / ops.expand(largest.reshape(1, 1, 1, 1), self.weight_orig.shape)

    def execute(self, x):
        return ops.conv2d(x, self.weight(), self.bias, self.stride, self.padding)


class BatchNorm2d(Module):
    """Batch normalisation over (B, H, W) (Ioffe and Szegedy 2015, arXiv 1502.03167) [N3, N4, N5].

    affine=False stores only the running statistics. running_variance: whether the "unbiased" (PyTorch) or the "biased"
    (Jittor) variance of the batch enters them. joint: several processes normalise by the statistics of the whole batch.
    """

    def __init__(self, channels: int, eps: float = 1e-5, momentum: float = 0.1, affine: bool = True,
                 running_variance: str = "unbiased"):
        super().__init__()
        self.eps = eps
        self.momentum = momentum
        self.running_variance = running_variance
        self.weight = jt.ones((channels,)) if affine else None
        self.bias = jt.zeros((channels,)) if affine else None
        self.register_buffer("running_mean", jt.zeros((channels,)))
        self.register_buffer("running_var", jt.ones((channels,)))
        self.track = True
        self.joint = True

    def execute(self, x):
        batch, channels, height, width = x.shape
        if self.is_training():
            y = self.normalize_batch(x.reshape(batch, channels, height * width)).reshape(x.shape)
        else:
            inverse = 1 / (self.running_var + self.eps).sqrt()
            y = (x - self.running_mean.reshape(1, -1, 1, 1)) * inverse.reshape(1, -1, 1, 1)
        return y if self.weight is None else _scaled(y, self.weight, self.bias)

    def modulated(self, x, gain, shift, index, slope: float):
        """x normalised, without weight and bias, then `ops.modulate` and the leaky ReLU of a slope; 1 for none."""
        if self.is_training():
            share = processes.share() if self.joint else None
            count = counted(x, share)
            y, mean, variance = ops.normalize_modulate(x, gain, shift, index, self.eps, slope, share is not None)
            self._record(mean, variance, count)
            return y
        gain = gain / jt.sqrt(self.running_var + self.eps)
        return ops.modulate(x, gain, shift - gain * self.running_mean, index, slope)

    def normalize_batch(self, x):
        y, mean, variance, count = normalized(x, self, self.joint)
        self._record(mean, variance, count)
        return y

    def _record(self, mean, variance, count) -> None:
        """Move the running statistics towards those of a batch, of which `variance` is the biased one."""
        if self.track:
            mean, variance = mean.detach(), variance.detach()
            if self.running_variance == "unbiased":
                variance = variance * (count / (count - 1))
            self.running_mean.update(self.running_mean + self.momentum * (mean - self.running_mean))
            self.running_var.update(self.running_var + self.momentum * (variance - self.running_var))


class BatchNorm1d(BatchNorm2d):
    """Batch normalisation of (B, C)."""

    def execute(self, x):
        return super().execute(x.reshape(*x.shape, 1, 1)).reshape(x.shape)


def _scaled(x, weight, bias):
    """x (B, C, H, W) times a weight (C,) plus a bias (C,)."""
    weight, bias = (ops.expand(each.reshape(1, -1, 1, 1), x.shape) for each in (weight, bias))
    return x * weight + bias


def normalized(x, norm, joint: bool = True):
    """x (B, C, S) with mean 0 and variance 1 over B and S but for the epsilon of `norm`, the mean and biased variance
    (C,), and the number of values per channel. joint: of the whole batch, if several processes share it. ValueError:
    one value per channel.
    """
    share = processes.share() if joint else None
    count = counted(x, share)
    normalize = Normalize(norm.eps, share is not None)
    return *normalize(x), normalize.count if share else count


def counted(x, share=None) -> int:
    """The values of x (B, C, …) per channel, with the rows of all processes that share it. ValueError: only one."""
    count = x.numel() // x.shape[0] // x.shape[1] * (share.total if share else x.shape[0])
    if count < 2:
        raise ValueError(f"batch normalisation needs more than one value per channel, got input {tuple(x.shape)}")
    return count


class FrozenBatchNorm2d(Module):
    """Batch normalisation with the same result in training and inference; its statistics never change.

    batch_statistics: normalise by the mean and variance of the input, else by the stored ones.
    """

    def __init__(self, channels: int, eps: float = 1e-5, batch_statistics: bool = False):
        super().__init__()
        self.eps = eps
        self.batch_statistics = batch_statistics
        self.weight = jt.ones((channels,))
        self.bias = jt.zeros((channels,))
        self.register_buffer("running_mean", jt.zeros((channels,)))
        self.register_buffer("running_var", jt.ones((channels,)))

    def execute(self, x):
        batch, channels, height, width = x.shape
        if self.batch_statistics:
            y = normalized(x.reshape(batch, channels, height * width), self)[0].reshape(x.shape)
        else:
            inverse = 1 / (self.running_var + self.eps).sqrt()
            y = (x - self.running_mean.reshape(1, -1, 1, 1)) * inverse.reshape(1, -1, 1, 1)
        return _scaled(y, self.weight, self.bias)


class InstanceNorm2d(Module):
    """Instance normalisation without parameters or running statistics (arXiv 1607.08022) [N3, N6]."""

    def __init__(self, eps: float = 1e-5):
        super().__init__()
        self.eps = eps

    def execute(self, x):
        batch, channels, height, width = x.shape
        y, _, _ = Normalize(self.eps)(x.reshape(1, batch * channels, height * width))
        return y.reshape(x.shape)


class LayerNorm(Module):
    """Normalisation of each row of (…, C) (Ba, Kiros and Hinton 2016, arXiv 1607.06450)."""

    def __init__(self, channels: int, eps: float = 1e-5):
        super().__init__()
        self.eps = eps
        self.weight = jt.ones((channels,))
        self.bias = jt.zeros((channels,))

    def execute(self, x):
        return ops.layer_norm(x, self.weight, self.bias, self.eps)


class LeakyReLU(Module):
    def __init__(self, slope: float = 0.2):
        super().__init__()
        self.slope = slope

    def execute(self, x):
        return ops.leaky_relu(x, self.slope)


class ReLU(Module):
    def execute(self, x):
        return ops.relu(x)


class GELU(Module):
    def execute(self, x):
        return ops.gelu(x)


class Dropout(Module):
    """In training mode each element becomes zero with probability p. Counters decide which: see nn.ops.dropout.

    site: set by `name_dropouts`.
    """

    def __init__(self, p: float):
        super().__init__()
        self.p = p
        self.site = 0

    def rate(self) -> float:
        """The probability in force."""
        return self.p if self.is_training() else 0.0

    def execute(self, x):
        return ops.dropout(x, self.rate(), self.site)


class DropPath(Module):
    """In training mode each sample becomes zero with probability p. Counters decide which: see nn.ops.drop_path.

    site: set by `name_dropouts`.
    """

    def __init__(self, p: float):
        super().__init__()
        self.p = p
        self.site = 0

    def execute(self, x):
        return ops.drop_path(x, self.p, self.site) if self.is_training() else x


class MaxPool2d(Module):
    def __init__(self, kernel_size: int, stride: int, padding: int = 0):
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = stride
        self.padding = padding

    def execute(self, x):
        return ops.max_pool2d(x, self.kernel_size, self.stride, self.padding)


class AvgPool2d(Module):
    def __init__(self, kernel_size: int, stride: int, padding: int = 0, count_include_pad: bool = True):
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = stride
        self.padding = padding
        self.count_include_pad = count_include_pad

    def execute(self, x):
        return ops.avg_pool2d(x, self.kernel_size, self.stride, self.padding, self.count_include_pad)


def parameter(*shape):
    """Zeros of a shape, for an attribute that is trained and no layer of its own."""
    return jt.zeros(shape)


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
    parameters = [value for value in module.state_dict().values() if value.requires_grad]
    return Checkpoint(module, parameters)(*arguments, *parameters)


def track(network, kind: type, flag: bool):
    """Whether training passes update what the layers of a kind keep: running statistics, singular vectors."""
    for module in network.modules():
        if isinstance(module, kind):
            module.track = flag


def freeze(module):
    """Stop the gradients of all parameters of the module; gradients still pass through it."""
    for value in module.state_dict().values():
        value.stop_grad()
