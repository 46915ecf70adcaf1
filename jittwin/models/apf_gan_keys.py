"""Keys and shapes of the APF-GAN networks, in saved order, for any width.

The keys are those of the authors' Jittor checkpoints; both twins and all upstream formats have them.
"""
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from fnmatch import fnmatch

import numpy as np

from jittwin.models.apf_gan import ModelConfig
from jittwin.models.conversion import Conversion

Shape = tuple[int, ...]
Entries = Iterator[tuple[str, Shape]]
Shapes = Mapping[str, Shape]

# Output widths of the generator's blocks, in units of ngf.
BLOCKS = {"head_0": (16, 16), "G_middle_0": (16, 16), "G_middle_1": (16, 16), "up_0": (16, 8), "up_1": (8, 4),
          "up_2": (4, 2), "up_3": (2, 1), "up_4": (1, 1 / 2)}
ENCODER = (1, 2, 4, 8, 8, 16)
WIDEST_D = 512
# BatchNorm's counter, which files of the official PyTorch code have and Jittor's do not.
COUNTER = "num_batches_tracked"
# Shell patterns of the keys that only some files have: phase 2's noise branch, phase 1's growing heads.
SEG_NOISE, HEADS, COUNTERS = "*.seg_noise_var.*", "inter_conv_img.*", f"*.{COUNTER}"


def _spectral(prefix: str, out: int, into: int, kernel: int, bias: bool = False) -> Entries:
    """A convolution under spectral norm: the raw weight and the two singular vectors."""
    if bias:
        yield f"{prefix}.bias", (out,)
    yield f"{prefix}.weight_orig", (out, into, kernel, kernel)
    yield f"{prefix}.weight_u", (out,)
    yield f"{prefix}.weight_v", (into * kernel * kernel,)


def _conv(prefix: str, out: int, into: int, kernel: int) -> Entries:
    yield f"{prefix}.weight", (out, into, kernel, kernel)
    yield f"{prefix}.bias", (out,)


def _spade(prefix: str, channels: int, config: ModelConfig, seg_noise: bool) -> Entries:
    yield f"{prefix}.param_free_norm.running_mean", (channels,)
    yield f"{prefix}.param_free_norm.running_var", (channels,)
    if seg_noise:
        yield from _conv(f"{prefix}.seg_noise_var", channels, config.label_nc, config.seg_noise_kernel)
    yield from _conv(f"{prefix}.mlp_shared.0", config.spade_hidden, config.label_nc, 3)
    yield from _conv(f"{prefix}.mlp_gamma", channels, config.spade_hidden, 3)
    yield from _conv(f"{prefix}.mlp_beta", channels, config.spade_hidden, 3)


def generator(config: ModelConfig, seg_noise: bool, heads: bool) -> Entries:
    for block, widths in BLOCKS.items():
        into, out = (int(width * config.ngf) for width in widths)
        middle = min(into, out)
        yield from _spectral(f"{block}.conv_0", middle, into, 3, bias=True)
        yield from _spectral(f"{block}.conv_1", out, middle, 3, bias=True)
        if into != out:
            yield from _spectral(f"{block}.conv_s", out, into, 1)
        yield from _spade(f"{block}.norm_0", into, config, seg_noise)
        yield from _spade(f"{block}.norm_1", middle, config, seg_noise)
        if into != out:
            yield from _spade(f"{block}.norm_s", into, config, seg_noise)
    if heads:
        for level in range(config.num_D - 1):
            yield from _conv(f"inter_conv_img.{level}", 3, config.ngf * 2 ** level, 3)
    yield from _conv("out_conv_img", 3, config.ngf // 2, 3)


def encoder(config: ModelConfig) -> Entries:
    into = config.label_nc
    for layer, width in enumerate(ENCODER, 1):
        yield from _spectral(f"layer{layer}.0", width * config.ngf, into, 3)
        into = width * config.ngf
    for head in ("fc_mu", "fc_var"):  # stored, never used
        yield f"{head}.weight", (256, 8 * 16 * config.ngf)
        yield f"{head}.bias", (256,)


def discriminator(config: ModelConfig) -> Entries:
    pixels = config.label_nc + 3
    for k in range(config.num_D):
        prefix = f"multiscale_discriminator_{k}"
        for j in range(k, -1, -1):
            yield from _conv(f"{prefix}.toRGB_extra{j}.0", config.ndf >> j, pixels, 4)
        for j in range(k, 0, -1):
            yield from _spectral(f"{prefix}.extra{j}.0.0", config.ndf >> j - 1, config.ndf >> j, 4)
        into = config.ndf
        for n in range(config.n_layers_D):
            out = min(into * 2, WIDEST_D)
            yield from _spectral(f"{prefix}.model{n}.0.0", out, into, 4)
            into = out
        yield from _conv(f"{prefix}.model{config.n_layers_D}.0", 1, into, 4)


def holds(pattern: str, keys: Iterable[str]) -> bool:
    """Whether any key matches, for example SEG_NOISE."""
    return any(fnmatch(key, pattern) for key in keys)


def infer_config(model: str, shapes: Shapes) -> ModelConfig:
    """The sizes of the network in a file, from a few of its shapes; the default if a shape is absent."""
    def size(key: str, axis: int, default: int) -> int:
        shape = shapes.get(key, ())
        return shape[axis] if axis < len(shape) else default

    config = ModelConfig()
    if model == "apf_gan.encoder":
        return replace(config, ngf=size("layer1.0.weight_orig", 0, config.ngf),
                       label_nc=size("layer1.0.weight_orig", 1, config.label_nc))
    if model == "apf_gan.discriminator":
        first = "multiscale_discriminator_0"
        return replace(config, ndf=size(f"{first}.toRGB_extra0.0.weight", 0, config.ndf),
                       label_nc=size(f"{first}.toRGB_extra0.0.weight", 1, config.label_nc + 3) - 3,
                       num_D=_highest(shapes, "multiscale_discriminator_", config.num_D - 1) + 1,
                       n_layers_D=_highest(shapes, f"{first}.model", config.n_layers_D))
    norm = "head_0.norm_0"
    return replace(config, ngf=2 * size("out_conv_img.weight", 1, config.ngf // 2),
                   label_nc=size(f"{norm}.mlp_shared.0.weight", 1, config.label_nc),
                   spade_hidden=size(f"{norm}.mlp_shared.0.weight", 0, config.spade_hidden),
                   seg_noise_kernel=size(f"{norm}.seg_noise_var.weight", 2, config.seg_noise_kernel),
                   num_D=_highest(shapes, "inter_conv_img.", config.num_D - 2) + 2)


def _highest(shapes: Shapes, prefix: str, default: int) -> int:
    """The largest number that follows `prefix` in any key."""
    found = (key[len(prefix):].split(".")[0] for key in shapes if key.startswith(prefix))
    return max((int(number) for number in found if number.isdecimal()), default=default)


# The fields of the configuration that a file of each model determines.
SIZES = {"apf_gan.generator": ("label_nc", "ngf", "spade_hidden", "seg_noise_kernel"),
         "apf_gan.encoder": ("label_nc", "ngf"),
         "apf_gan.discriminator": ("label_nc", "ndf", "num_D", "n_layers_D")}
MODELS = ("apf_gan.generator", "apf_gan.encoder", "apf_gan.discriminator")


def expected_keys(model: str, config: ModelConfig, seg_noise: bool = False,
                  heads: bool = False) -> dict[str, Shape]:
    """{key: shape} in saved order.

    seg_noise: with the noise branch of phase 2; heads: with the growing heads of
    phase 1. Both concern the generator only.
    """
    if model == "apf_gan.generator":
        return dict(generator(config, seg_noise, heads))
    return dict(encoder(config) if model == "apf_gan.encoder" else discriminator(config))


def conversion(model: str) -> Conversion:
    """The conversion record of one of MODELS, for the authors' Jittor files and those of the official PyTorch code.

    The latter also have counters. The generator's noise branch and growing heads are optional; each must be complete.
    """
    return Conversion(
        infer=lambda shapes, source: infer_config(model, shapes),
        expected=lambda config, shapes: expected_keys(model, config, holds(SEG_NOISE, shapes), holds(HEADS, shapes)),
        left_out=(f"*.param_free_norm.{COUNTER}",), restore=with_counters, extras=COUNTERS,
        describe=lambda config: {name: getattr(config, name) for name in SIZES[model]})


def with_counters(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays, with a zero counter after each running variance as in PyTorch's files."""
    result = {}
    for key, array in arrays.items():
        result[key] = array
        if key.endswith(".running_var"):
            result[key.replace("running_var", COUNTER)] = np.zeros((), np.int64)
    return result
