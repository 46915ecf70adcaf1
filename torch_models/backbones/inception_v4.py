"""Inception-v4 (Szegedy et al. 2016, arXiv 1602.07261).

Keys are those of Remi Cadene's port: `features.<index>.…` and `last_linear.…`. Sizes in docstrings are those of the
maps for a picture of 299x299. Functions that make a block take `narrow`, by which they divide all channels.
"""
from torch_models.nn import ops
from torch_models.nn.layers import AvgPool2d, BatchNorm2d, Conv2d, Linear, MaxPool2d, Module, Sequential, freeze

POINT, SQUARE, ROW, COLUMN = (1, 1), (3, 3), (1, 7), (7, 1)
SHRINKING, HALVING = (SQUARE, 1, False), (SQUARE, 2, False)     # kernel, stride, padded


class BasicConv2d(Module):
    """Convolution, batch normalisation, ReLU. padded: at stride 1 the map keeps its size."""

    def __init__(self, in_channels: int, out_channels: int, kernel, stride: int = 1, padded: bool = True):
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2) if padded else 0
        self.conv = Conv2d(in_channels, out_channels, kernel, stride, padding, bias=False)
        self.bn = BatchNorm2d(out_channels, eps=1e-3)

    def forward(self, x):
        return ops.relu(self.bn(self.conv(x)))


def conv(narrow: int, in_channels: int, out_channels: int, *shape):
    """A BasicConv2d whose channels are divided by `narrow`. shape: kernel, stride, padded."""
    return BasicConv2d(in_channels // narrow, out_channels // narrow, *shape)


def chain(narrow: int, channels: int, *steps):
    """Convolutions one after the other. A step is (output channels, kernel, stride, padded)."""
    layers = []
    for wide, *shape in steps:
        layers.append(conv(narrow, channels, wide, *shape))
        channels = wide
    return Sequential(*layers)


def averaged(narrow: int, in_channels: int, out_channels: int):
    """A 3x3 average pool that counts only pixels inside the map, and a 1x1 convolution."""
    return Sequential(AvgPool2d(3, 1, 1, count_include_pad=False), conv(narrow, in_channels, out_channels, POINT))


class Mixed(Module):
    """Parallel branches by name. All get the same map; their output channels are concatenated in order."""

    def __init__(self, **branches):
        super().__init__()
        self.order = list(branches)
        for name, branch in branches.items():
            setattr(self, name, branch)

    def forward(self, x):
        return ops.concat([getattr(self, name)(x) for name in self.order], 1)


def mixed_3a(narrow: int):
    """64 channels, 147x147, to 160, 73x73."""
    return Mixed(pool=MaxPool2d(3, 2), conv=conv(narrow, 64, 96, *HALVING))


def mixed_4a(narrow: int):
    """160 channels, 73x73, to 192, 71x71."""
    return Mixed(
        branch0=chain(narrow, 160, (64, POINT), (96, *SHRINKING)),
        branch1=chain(narrow, 160, (64, POINT), (64, ROW), (64, COLUMN), (96, *SHRINKING)))


def mixed_5a(narrow: int):
    """192 channels, 71x71, to 384, 35x35."""
    return Mixed(conv=conv(narrow, 192, 192, *HALVING), pool=MaxPool2d(3, 2))


def inception_a(narrow: int):
    """384 channels, 35x35."""
    return Mixed(
        branch0=conv(narrow, 384, 96, POINT),
        branch1=chain(narrow, 384, (64, POINT), (96, SQUARE)),
        branch2=chain(narrow, 384, (64, POINT), (96, SQUARE), (96, SQUARE)),
        branch3=averaged(narrow, 384, 96))


def reduction_a(narrow: int):
    """384 channels, 35x35, to 1024, 17x17."""
    return Mixed(
        branch0=conv(narrow, 384, 384, *HALVING),
        branch1=chain(narrow, 384, (192, POINT), (224, SQUARE), (256, *HALVING)),
        pool=MaxPool2d(3, 2))


def inception_b(narrow: int):
    """1024 channels, 17x17."""
    return Mixed(
        branch0=conv(narrow, 1024, 384, POINT),
        branch1=chain(narrow, 1024, (192, POINT), (224, ROW), (256, COLUMN)),
        branch2=chain(narrow, 1024, (192, POINT), (192, COLUMN), (224, ROW), (224, COLUMN), (256, ROW)),
        branch3=averaged(narrow, 1024, 128))


def reduction_b(narrow: int):
    """1024 channels, 17x17, to 1536, 8x8."""
    return Mixed(
        branch0=chain(narrow, 1024, (192, POINT), (192, *HALVING)),
        branch1=chain(narrow, 1024, (256, POINT), (256, ROW), (320, COLUMN), (320, *HALVING)),
        pool=MaxPool2d(3, 2))


class InceptionC(Module):
    """1536 channels, 8x8. Two branches fork at their ends."""

    def __init__(self, narrow: int):
        super().__init__()
        self.branch0 = conv(narrow, 1536, 256, POINT)
        self.branch1_0 = conv(narrow, 1536, 384, POINT)
        self.branch1_1a = conv(narrow, 384, 256, (1, 3))
        self.branch1_1b = conv(narrow, 384, 256, (3, 1))
        self.branch2_0 = conv(narrow, 1536, 384, POINT)
        self.branch2_1 = conv(narrow, 384, 448, (3, 1))
        self.branch2_2 = conv(narrow, 448, 512, (1, 3))
        self.branch2_3a = conv(narrow, 512, 256, (1, 3))
        self.branch2_3b = conv(narrow, 512, 256, (3, 1))
        self.branch3 = averaged(narrow, 1536, 256)

    def forward(self, x):
        one = self.branch1_0(x)
        two = self.branch2_2(self.branch2_1(self.branch2_0(x)))
        return ops.concat([self.branch0(x), self.branch1_1a(one), self.branch1_1b(one), self.branch2_3a(two),
                           self.branch2_3b(two), self.branch3(x)], 1)


class InceptionV4(Module):
    """Pictures (B, 3, H, W), prepared as jittwin.models.inception_v4 says, to features (B, config.features).

    H and W at least 75. config: a jittwin.models.inception_v4.InceptionV4Config. The features are the mean over the
    last map; the classifier is part of the state only, and frozen. The weights must be loaded.
    """

    def __init__(self, config):
        super().__init__()
        narrow, (a, b, c) = config.divisor, config.blocks
        self.features = Sequential(
            BasicConv2d(3, 32 // narrow, *HALVING), conv(narrow, 32, 32, *SHRINKING), conv(narrow, 32, 64, SQUARE),
            mixed_3a(narrow), mixed_4a(narrow), mixed_5a(narrow),
            *[inception_a(narrow) for _ in range(a)], reduction_a(narrow),
            *[inception_b(narrow) for _ in range(b)], reduction_b(narrow),
            *[InceptionC(narrow) for _ in range(c)])
        if config.classes:
            self.last_linear = Linear(config.features, config.classes)
            freeze(self.last_linear)

    def forward(self, x):
        return ops.mean_dims(self.features(x), (2, 3)).reshape(x.shape[0], -1)
