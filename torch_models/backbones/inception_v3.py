"""Inception-v3 without classifier: the feature network of perceptual losses, and of FID.

Szegedy et al. 2016, arXiv 1512.00567. Keys are torchvision's, so its ImageNet weights load unchanged, except the
auxiliary classifier (`AuxLogits`) and `fc`, which this network does not have.
"""
from functools import partial

from torch_models.nn import ops
from torch_models.nn.layers import Conv2d, FrozenBatchNorm2d, Module, freeze


def padded_average(x):
    """3x3 mean at every pixel; the border of zeros counts."""
    return ops.avg_pool2d(x, 3, 1, 1)


# The pools of FidInception: the mean and the maximum of the pixels that lie inside the picture.
inner_average = partial(ops.avg_pool2d, kernel=3, stride=1, padding=1, count_include_pad=False)
largest = partial(ops.max_pool2d, kernel=3, stride=1, padding=1)


class BasicConv2d(Module):
    """Convolution, batch normalisation, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size, stride: int = 1, padding=0):
        super().__init__()
        self.conv = Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=False)
        self.bn = FrozenBatchNorm2d(out_channels, eps=1e-3)

    def forward(self, x):
        return ops.relu(self.bn(self.conv(x)))


class InceptionA(Module):
    """35x35 block: (B, in, H, W) to (B, 224 + pool_features, H, W)."""

    def __init__(self, in_channels: int, pool_features: int, pool=padded_average):
        super().__init__()
        self.branch1x1 = BasicConv2d(in_channels, 64, 1)
        self.branch5x5_1 = BasicConv2d(in_channels, 48, 1)
        self.branch5x5_2 = BasicConv2d(48, 64, 5, padding=2)
        self.branch3x3dbl_1 = BasicConv2d(in_channels, 64, 1)
        self.branch3x3dbl_2 = BasicConv2d(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = BasicConv2d(96, 96, 3, padding=1)
        self.branch_pool = BasicConv2d(in_channels, pool_features, 1)
        self.pool = pool

    def forward(self, x):
        five = self.branch5x5_2(self.branch5x5_1(x))
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return ops.concat([self.branch1x1(x), five, double, self.branch_pool(self.pool(x))], 1)


class InceptionB(Module):
    """Halving from 35x35 to 17x17: (B, in, H, W) to (B, 480 + in, (H-1)//2, (W-1)//2)."""

    def __init__(self, in_channels: int):
        super().__init__()
        self.branch3x3 = BasicConv2d(in_channels, 384, 3, stride=2)
        self.branch3x3dbl_1 = BasicConv2d(in_channels, 64, 1)
        self.branch3x3dbl_2 = BasicConv2d(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = BasicConv2d(96, 96, 3, stride=2)

    def forward(self, x):
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return ops.concat([self.branch3x3(x), double, ops.max_pool2d(x, 3, 2)], 1)


class InceptionC(Module):
    """17x17 block with 7x7 convolutions split in two: (B, in, H, W) to (B, 768, H, W)."""

    def __init__(self, in_channels: int, channels_7x7: int, pool=padded_average):
        super().__init__()
        wide = channels_7x7
        row = {"kernel_size": (1, 7), "padding": (0, 3)}
        column = {"kernel_size": (7, 1), "padding": (3, 0)}
        self.branch1x1 = BasicConv2d(in_channels, 192, 1)
        self.branch7x7_1 = BasicConv2d(in_channels, wide, 1)
        self.branch7x7_2 = BasicConv2d(wide, wide, **row)
        self.branch7x7_3 = BasicConv2d(wide, 192, **column)
        self.branch7x7dbl_1 = BasicConv2d(in_channels, wide, 1)
        self.branch7x7dbl_2 = BasicConv2d(wide, wide, **column)
        self.branch7x7dbl_3 = BasicConv2d(wide, wide, **row)
        self.branch7x7dbl_4 = BasicConv2d(wide, wide, **column)
        self.branch7x7dbl_5 = BasicConv2d(wide, 192, **row)
        self.branch_pool = BasicConv2d(in_channels, 192, 1)
        self.pool = pool

    def forward(self, x):
        seven = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return ops.concat([self.branch1x1(x), seven, double, self.branch_pool(self.pool(x))], 1)


class InceptionD(Module):
    """Halving from 17x17 to 8x8: (B, in, H, W) to (B, 512 + in, (H-1)//2, (W-1)//2)."""

    def __init__(self, in_channels: int):
        super().__init__()
        self.branch3x3_1 = BasicConv2d(in_channels, 192, 1)
        self.branch3x3_2 = BasicConv2d(192, 320, 3, stride=2)
        self.branch7x7x3_1 = BasicConv2d(in_channels, 192, 1)
        self.branch7x7x3_2 = BasicConv2d(192, 192, (1, 7), padding=(0, 3))
        self.branch7x7x3_3 = BasicConv2d(192, 192, (7, 1), padding=(3, 0))
        self.branch7x7x3_4 = BasicConv2d(192, 192, 3, stride=2)

    def forward(self, x):
        seven = self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x)))
        three = self.branch3x3_2(self.branch3x3_1(x))
        return ops.concat([three, self.branch7x7x3_4(seven), ops.max_pool2d(x, 3, 2)], 1)


class InceptionE(Module):
    """8x8 block with forked branches: (B, in, H, W) to (B, 2048, H, W)."""

    def __init__(self, in_channels: int, pool=padded_average):
        super().__init__()
        self.branch1x1 = BasicConv2d(in_channels, 320, 1)
        self.branch3x3_1 = BasicConv2d(in_channels, 384, 1)
        self.branch3x3_2a = BasicConv2d(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3_2b = BasicConv2d(384, 384, (3, 1), padding=(1, 0))
        self.branch3x3dbl_1 = BasicConv2d(in_channels, 448, 1)
        self.branch3x3dbl_2 = BasicConv2d(448, 384, 3, padding=1)
        self.branch3x3dbl_3a = BasicConv2d(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3dbl_3b = BasicConv2d(384, 384, (3, 1), padding=(1, 0))
        self.branch_pool = BasicConv2d(in_channels, 192, 1)
        self.pool = pool

    def forward(self, x):
        three = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        return ops.concat([
            self.branch1x1(x), self.branch3x3_2a(three), self.branch3x3_2b(three),
            self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double), self.branch_pool(self.pool(x))], 1)


class InceptionV3(Module):
    """(B, 3, H, W) to four features: after the first and the second max-pool (64 and 192 channels),
    after Mixed_6e (768), and the mean over the last map (B, 2048, 1, 1). Frozen.

    For 384x512 pictures their sizes are 94x126, 45x61, 22x30 and 1x1. H and W must be at least 75. `config` is unused.
    batch_statistics: every call normalises by the mean and variance of its own batch, as the published APF-GAN does,
    and not by the stored statistics. Training mode makes no difference.
    """

    def __init__(self, config=None, batch_statistics: bool = True, pool=padded_average, last_pool=padded_average):
        super().__init__()
        self.Conv2d_1a_3x3 = BasicConv2d(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = BasicConv2d(32, 32, 3)
        self.Conv2d_2b_3x3 = BasicConv2d(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1 = BasicConv2d(64, 80, 1)
        self.Conv2d_4a_3x3 = BasicConv2d(80, 192, 3)
        self.Mixed_5b = InceptionA(192, pool_features=32, pool=pool)
        self.Mixed_5c = InceptionA(256, pool_features=64, pool=pool)
        self.Mixed_5d = InceptionA(288, pool_features=64, pool=pool)
        self.Mixed_6a = InceptionB(288)
        self.Mixed_6b = InceptionC(768, channels_7x7=128, pool=pool)
        self.Mixed_6c = InceptionC(768, channels_7x7=160, pool=pool)
        self.Mixed_6d = InceptionC(768, channels_7x7=160, pool=pool)
        self.Mixed_6e = InceptionC(768, channels_7x7=192, pool=pool)
        self.Mixed_7a = InceptionD(768)
        self.Mixed_7b = InceptionE(1280, pool)
        self.Mixed_7c = InceptionE(2048, last_pool)
        for part in self.modules():
            if isinstance(part, FrozenBatchNorm2d):
                part.batch_statistics = batch_statistics
        freeze(self)

    def forward(self, x):
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        first = ops.max_pool2d(x, 3, 2)
        second = ops.max_pool2d(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(first)), 3, 2)
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(second)))
        third = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(third)))
        return [first, second, third, ops.mean_dims(x, (2, 3))]


class FidInception(InceptionV3):
    """The network that FID uses: images (B, 3, H, W) in [0, 1] to features (B, 2048).

    It is TensorFlow's Inception of 2015 in the layout of pytorch-fid. Its pools differ from torchvision's, and its
    file has a classifier of 1008 classes, which the host computes. Images are resized to 299x299 without
    antialiasing. pool_padding: "excluded" as in TensorFlow, "included" as in the published APF-GAN, whose framework
    counts the zeros of the border.
    """

    def __init__(self, config=None, pool_padding: str = "excluded"):
        pool = {"excluded": inner_average, "included": padded_average}[pool_padding]
        super().__init__(config, batch_statistics=False, pool=pool, last_pool=largest)

    def resized(self, x):
        """Images (B, 3, H, W) as the network sees them, (B, 3, 299, 299). Of this size they stay as they are."""
        return ops.interpolate(x, (299, 299), "bilinear")

    def forward(self, x):
        *_, pooled = super().forward(2 * self.resized(x) - 1)
        return pooled.reshape(x.shape[0], -1)
