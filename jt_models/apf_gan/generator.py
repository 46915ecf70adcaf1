"""The SPADE generator of APF-GAN with progressive heads and segmentation-guided noise.

SPADE: Park et al. 2019, arXiv 1903.07291.
"""
from jittwin.models.apf_gan import ModelConfig, Stage
from jittwin.models.neighbourhoods import Neighbourhoods, neighbourhoods
from jt_models.nn import ops
from jt_models.nn.layers import BatchNorm2d, Conv2d, Module, ModuleList, ReLU, Sequential, SpectralConv2d


def device_noise(index: int, shape):
    """Noise for the index-th normalisation of a forward pass, from the device's generator."""
    return ops.randn(shape)


class Condition:
    """A batch of one-hot label maps (B, label_nc, H, W), on which the generator's normalisations depend.

    `noise(index, shape)` gives the standard normal (B, 1, h, w) for the index-th of the 21
    normalisations. With `keep` set, everything that depends on the labels alone is computed
    once and serves any number of forward passes: one label map, many noise seeds.

    label: the class ids (B, H, W) of `seg`. With them, what depends on the labels is computed for each distinct
    neighbourhood of class ids instead of each pixel, where the former are at most `limit` times the latter.
    """

    def __init__(self, seg, noise=device_noise, keep: bool = False, label=None, limit: float = 1.0):
        self.seg = seg
        self.noise = noise
        self.keep = keep
        self.label = None if label is None else ops.to_host(label)
        self.limit = limit
        self.sizes = {}
        self.distinct = {}
        self.modulations = {}
        self.index = 0

    def begin(self):
        self.index = 0

    def resized(self, size):
        if size not in self.sizes:
            self.sizes[size] = ops.interpolate(self.seg, size, "nearest")
        return self.sizes[size]

    def neighbourhoods(self, size) -> Neighbourhoods | None:
        """The distinct ones at a size that divides the size of the label maps; None if there are too many."""
        if self.label is None:
            return None
        if size not in self.distinct:
            (height, width), (rows, columns) = size, self.label.shape[1:]
            found = neighbourhoods(self.label[:, ::rows // height, ::columns // width], self.seg.shape[1])
            few = found.share <= self.limit
            self.distinct[size] = Neighbourhoods(*map(ops.from_host, found)) if few else None
        return self.distinct[size]

    def modulation(self, spade, size):
        if not self.keep:
            return spade.modulation(self, size)
        if spade not in self.modulations:
            self.modulations[spade] = spade.modulation(self, size)
        return self.modulations[spade]

    def draw(self, batch: int, size):
        self.index += 1
        return self.noise(self.index - 1, (batch, 1, *size))


def in_centres(conv, patches):
    """What a convolution gives in the centres of patches (V, k, k) of class ids that its kernel covers: (V, C)."""
    seen = ops.one_hot(patches, conv.weight.shape[1]).reshape(patches.shape[0], -1)
    return ops.linear(seen, conv.weight.reshape(conv.weight.shape[0], -1), conv.bias)


class SPADE(Module):
    """Batch normalisation, scaled and shifted by functions of the label map. Noise is added before it normalises."""

    def __init__(self, channels: int, config: ModelConfig, seg_noise: bool):
        super().__init__()
        kernel, hidden = config.seg_noise_kernel, config.spade_hidden
        self.param_free_norm = BatchNorm2d(channels, affine=False,
                                           running_variance=config.semantics.running_variance)
        self.seg_noise_var = Conv2d(config.label_nc, channels, kernel, padding=kernel // 2) if seg_noise else None
        self.mlp_shared = Sequential(Conv2d(config.label_nc, hidden, 3, padding=1), ReLU())
        self.mlp_gamma = Conv2d(hidden, channels, 3, padding=1)
        self.mlp_beta = Conv2d(hidden, channels, 3, padding=1)

    def modulation(self, condition: Condition, size):
        """What depends on the labels alone: (1 + gamma, beta, index, scale).

        1 + gamma and beta are (B, C, h, w), and index None; or they have a row for each distinct neighbourhood, and
        index (B, h, w) is the row of each pixel. scale, that of the noise, is None, or (B, C, h, w), or has such rows.
        """
        found = condition.neighbourhoods(size)
        scale = self.noise_scale(condition, size, found)
        if found is None:
            hidden = self.mlp_shared(condition.resized(size))
            return 1 + self.mlp_gamma(hidden), self.mlp_beta(hidden), None, scale
        gamma, beta = self.rows(found)
        return 1 + gamma, beta, found.index, scale

    def noise_scale(self, condition: Condition, size, found: Neighbourhoods | None):
        """Without `found`, and if the kernel reaches further than a patch, (B, C, h, w); else (U, C), that in the
        centres of the distinct 5x5 neighbourhoods; None without noise."""
        if self.seg_noise_var is None:
            return None
        reach = self.seg_noise_var.weight.shape[2] // 2
        if found is None or reach > 1:
            return self.seg_noise_var(condition.resized(size))
        patches = found.patches[:, 1 - reach:2 + reach, 1 - reach:2 + reach]
        return ops.embedding(found.around[:, 4], in_centres(self.seg_noise_var, patches))

    def rows(self, found: Neighbourhoods):
        """gamma and beta (U, C) in the centres of the distinct 5x5 neighbourhoods. At a pixel outside the map the
        hidden features are zero, as the padding of the second convolution has them."""
        shared, relu = self.mlp_shared
        hidden = relu(in_centres(shared, found.patches))
        hidden = ops.concat([hidden, ops.zeros((1, hidden.shape[1]))], 0)
        around = ops.embedding(found.around, hidden).reshape(found.around.shape[0], -1)
        return [ops.linear(around, conv.weight.permute(0, 2, 3, 1).reshape(conv.weight.shape[0], -1), conv.bias)
                for conv in (self.mlp_gamma, self.mlp_beta)]

    def execute(self, x, condition: Condition, slope: float = 1.0):
        """slope: of the leaky ReLU that follows; 1 for none."""
        size = tuple(x.shape[-2:])
        gain, beta, index, scale = condition.modulation(self, size)
        if scale is not None:
            noise = condition.draw(x.shape[0], size)
            x = x + noise * scale if len(scale.shape) == 4 else ops.add_noise(x, noise, scale, index)
        if index is not None:
            return self.param_free_norm.modulated(x, gain, beta, index, slope)
        y = self.param_free_norm(x) * gain + beta
        return y if slope == 1 else ops.leaky_relu(y, slope)


class SPADEResnetBlock(Module):
    """Residual block of two normalised convolutions, with a learned 1x1 shortcut if the width changes."""

    def __init__(self, fin: int, fout: int, config: ModelConfig, seg_noise: bool):
        super().__init__()
        spectral, middle = config.semantics.spectral, min(fin, fout)
        self.learned_shortcut = fin != fout
        self.conv_0 = SpectralConv2d(fin, middle, 3, padding=1, spectral=spectral)
        self.conv_1 = SpectralConv2d(middle, fout, 3, padding=1, spectral=spectral)
        if self.learned_shortcut:
            self.conv_s = SpectralConv2d(fin, fout, 1, bias=False, spectral=spectral)
        self.norm_0 = SPADE(fin, config, seg_noise)
        self.norm_1 = SPADE(middle, config, seg_noise)
        if self.learned_shortcut:
            self.norm_s = SPADE(fin, config, seg_noise)

    def execute(self, x, condition: Condition):
        skip = self.conv_s(self.norm_s(x, condition)) if self.learned_shortcut else x
        dx = self.conv_0(self.norm_0(x, condition, 0.2))
        dx = self.conv_1(self.norm_1(dx, condition, 0.2))
        return skip + dx


class Generator(Module):
    """z (B, 16*ngf, H/64, W/64) and labels to an image (B, 3, H, W) in [-1, 1].

    seg_noise: segmentation-guided noise in every normalisation (phase 2 and test).
    heads: the RGB heads of the smaller sizes, needed while growing.
    """

    def __init__(self, config: ModelConfig, seg_noise: bool = True, heads: bool = False):
        super().__init__()
        ngf = config.ngf
        self.head_0 = SPADEResnetBlock(16 * ngf, 16 * ngf, config, seg_noise)
        self.G_middle_0 = SPADEResnetBlock(16 * ngf, 16 * ngf, config, seg_noise)
        self.G_middle_1 = SPADEResnetBlock(16 * ngf, 16 * ngf, config, seg_noise)
        self.up_0 = SPADEResnetBlock(16 * ngf, 8 * ngf, config, seg_noise)
        self.up_1 = SPADEResnetBlock(8 * ngf, 4 * ngf, config, seg_noise)
        self.up_2 = SPADEResnetBlock(4 * ngf, 2 * ngf, config, seg_noise)
        self.up_3 = SPADEResnetBlock(2 * ngf, ngf, config, seg_noise)
        self.up_4 = SPADEResnetBlock(ngf, ngf // 2, config, seg_noise)
        self.inter_conv_img = ModuleList([Conv2d(ngf * 2 ** i, 3, 3, padding=1)
                                          for i in range(config.num_D - 1)]) if heads else None
        self.out_conv_img = Conv2d(ngf // 2, 3, 3, padding=1)
        self.num_D = config.num_D

    def drop_heads(self):
        """Remove the heads of the smaller sizes, as the original does when growing ends."""
        self.inter_conv_img = None

    def execute(self, condition: Condition, z, stage: Stage | None = None):
        """The image at the size of `stage`; at full size if there is no stage or the stage is full."""
        condition.begin()
        x = self.head_0(z, condition)
        x = self.G_middle_0(ops.upsample2(x), condition)
        x = self.G_middle_1(x, condition)
        last = 4 if stage is None or stage.full else 5 - self.num_D + stage.level
        for number in range(last + 1):
            x = self.grow(x, number, condition)
        image = self.picture(x, last)
        if stage is not None and stage.alpha > 0:
            larger = self.picture(self.grow(x, last + 1, condition), last + 1)
            smaller = ops.interpolate(image, tuple(larger.shape[-2:]), "bilinear")
            image = stage.alpha * larger + (1 - stage.alpha) * smaller
        return image

    def grow(self, x, number: int, condition: Condition):
        return getattr(self, f"up_{number}")(ops.upsample2(x), condition)

    def picture(self, x, number: int):
        """RGB from the output of block up_`number`."""
        head = self.out_conv_img if number == 4 else self.inter_conv_img[3 - number]
        return ops.tanh(head(ops.leaky_relu(x, 0.2)))
