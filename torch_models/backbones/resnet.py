"""ResNet without classifier (He et al. 2016, arXiv 1512.03385).

Keys are torchvision's, so its ImageNet weights load unchanged, except `fc`, which this network does not have. As in
torchvision, a bottleneck that halves its map does so in its 3x3 convolution.
"""
from torch_models.nn import ops
from torch_models.nn.layers import BatchNorm2d, Conv2d, LeakyReLU, Module, ReLU, Sequential


def shortcut(in_channels: int, channels: int, stride: int):
    """The projection of a block's input that is added to its result; None if the input has the result's shape."""
    if stride == 1 and in_channels == channels:
        return None
    return Sequential(Conv2d(in_channels, channels, 1, stride, bias=False), BatchNorm2d(channels))


class Block(Module):
    """A residual block: (B, in, H, W) to (B, out, ceil(H / stride), ceil(W / stride))."""

    def __init__(self, negative_slope: float):
        super().__init__()
        self.activation = LeakyReLU(negative_slope) if negative_slope else ReLU()

    def forward(self, x):
        kept = x if self.downsample is None else self.downsample(x)
        return self.activation(self.residual(x) + kept)


class BasicBlock(Block):
    """Two 3x3 convolutions; out is `channels`."""

    expansion = 1

    def __init__(self, in_channels: int, channels: int, stride: int, negative_slope: float):
        super().__init__(negative_slope)
        self.conv1 = Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = BatchNorm2d(channels)
        self.conv2 = Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = BatchNorm2d(channels)
        self.downsample = shortcut(in_channels, channels, stride)

    def residual(self, x):
        return self.bn2(self.conv2(self.activation(self.bn1(self.conv1(x)))))


class Bottleneck(Block):
    """A 3x3 convolution between two 1x1 convolutions; out is four times `channels`."""

    expansion = 4

    def __init__(self, in_channels: int, channels: int, stride: int, negative_slope: float):
        super().__init__(negative_slope)
        self.conv1 = Conv2d(in_channels, channels, 1, bias=False)
        self.bn1 = BatchNorm2d(channels)
        self.conv2 = Conv2d(channels, channels, 3, stride, padding=1, bias=False)
        self.bn2 = BatchNorm2d(channels)
        self.conv3 = Conv2d(channels, self.expansion * channels, 1, bias=False)
        self.bn3 = BatchNorm2d(self.expansion * channels)
        self.downsample = shortcut(in_channels, self.expansion * channels, stride)

    def residual(self, x):
        x = self.activation(self.bn1(self.conv1(x)))
        x = self.activation(self.bn2(self.conv2(x)))
        return self.bn3(self.conv3(x))


class ResNet(Module):
    """Pictures (B, 3, H, W), prepared as jittwin.models.resnet says, to features (B, config.features).

    config: a jittwin.models.resnet.ResNetConfig. The weights must be loaded.
    """

    def __init__(self, config):
        super().__init__()
        block, channels = Bottleneck if config.bottleneck else BasicBlock, config.widths[0]
        self.conv1 = Conv2d(3, channels, 7, stride=2, padding=3, bias=False)
        self.bn1 = BatchNorm2d(channels)
        self.stages = len(config.depths)
        for stage, (depth, wide) in enumerate(zip(config.depths, config.widths, strict=True), 1):
            blocks = []
            for index in range(depth):
                stride = 2 if stage > 1 and index == 0 else 1
                blocks.append(block(channels, wide, stride, config.negative_slope))
                channels = block.expansion * wide
            setattr(self, f"layer{stage}", Sequential(*blocks))

    def forward(self, x):
        x = ops.max_pool2d(ops.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        for stage in range(1, self.stages + 1):
            x = getattr(self, f"layer{stage}")(x)
        return ops.mean_dims(x, (2, 3)).reshape(x.shape[0], -1)
