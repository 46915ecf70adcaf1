"""The settings of APF-GAN's networks and the schedule of progressive growing, which both twins share.

APF-GAN, Computational Visual Media 10(1):187-192, 2024,
doi 10.1007/s41095-023-0357-1. The defaults reproduce the authors' Jittor code.
"""
from dataclasses import dataclass, field
from typing import ClassVar, Literal, get_args

from jittwin.classes import CLASSES
from jittwin.errors import UserError
from jittwin.imaging import check_sides

MULTIPLE = 64  # sides must be multiples, because the encoder halves the picture six times

# Differentiable augmentations, in the order of the published command.
Augmentation = Literal["color", "crop", "translation"]
AUGMENTATIONS: tuple[Augmentation, ...] = get_args(Augmentation)

# Ways to compute what depends on the labels alone.
Modulation = Literal["auto", "dense", "distinct"]
# Up to this share of distinct neighbourhoods among the pixels, computing those alone takes less time and memory in
# both twins than convolutions over all pixels, by `python scripts/bench.py modulation`.
WORTHWHILE = 0.4


@dataclass(frozen=True)
class Semantics:
    """Behaviours of the published Jittor code in which another implementation would differ.

    The first value of each setting is the published behaviour ("reference"), the second is the repair.
    """
    PRESETS: ClassVar[dict[str, dict]] = {"reference": {}, "repaired": {
        "spectral": "on", "label_resize": "nearest", "pool_padding": "excluded", "scale_order": "aligned",
        "running_variance": "unbiased", "batchnorm_updates": "once", "vertical_crop": "random",
        "seg_noise_init": "zero", "warm_start": "copy", "inception_bn": "running", "adam": "torch",
        "phase2_optimizer": "continue"}}

    # Spectral norm computes a normalised weight, but the convolution uses the raw weight.
    spectral: Literal["off", "on"] = "off"
    # Jittor's interpolate defaults to bilinear, so below full size D sees soft labels.
    label_resize: Literal["bilinear", "nearest"] = "bilinear"
    image_resize: Literal["bilinear", "nearest"] = "bilinear"
    # Jittor's average pool ignores count_include_pad=False.
    pool_padding: Literal["included", "excluded"] = "included"
    # While growing, D_k sees the k-th size from below; from pg_niter on D_0 sees the largest.
    scale_order: Literal["reversed", "aligned"] = "reversed"
    # BatchNorm's running variance takes the biased batch variance.
    running_variance: Literal["biased", "unbiased"] = "biased"
    # The D step runs G again in train mode, which updates the running statistics twice a step.
    batchnorm_updates: Literal["twice", "once"] = "twice"
    # The vertical crop offset is bounded by the crop width, so it is always the top.
    vertical_crop: Literal["top", "random"] = "top"
    # The general initialisation overwrites the zeros meant for the noise scales.
    seg_noise_init: Literal["normal", "zero"] = "normal"
    # In the first fade epoch of a level the grown discriminator computes with its parent's variables.
    warm_start: Literal["alias", "copy"] = "alias"
    # The perceptual Inception is never put in eval mode.
    inception_bn: Literal["batch", "running"] = "batch"
    # Epsilon before bias correction, one step count for all, unused parameters count as zero gradient.
    adam: Literal["jittor", "torch"] = "jittor"
    # Adam's moments are never saved, so the second phase starts without them.
    phase2_optimizer: Literal["restart", "continue"] = "restart"

    @property
    def initial_rule(self) -> str:
        """Name of the rule of the initial weights in jittwin.weights.initial."""
        return "apf_gan" if self.seg_noise_init == "normal" else "apf_gan.silent"


REPAIRED = Semantics(**Semantics.PRESETS["repaired"])


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of encoder, generator and discriminator.

    `crop_size` is the width in pixels and `aspect_ratio` width over height; both
    sides must be multiples of MULTIPLE. `modulation` changes the speed alone: whether the normalisations'
    scale and shift are computed at each pixel ("dense"), for each distinct neighbourhood of class ids
    ("distinct"), or for each size in the way that is faster for the label maps at hand ("auto").
    """
    label_nc: int = CLASSES
    ngf: int = 64
    ndf: int = 64
    crop_size: int = 512
    aspect_ratio: float = 4 / 3
    num_D: int = 4
    n_layers_D: int = 4
    pg_niter: int = 180
    spade_hidden: int = 128
    seg_noise_kernel: int = 1
    modulation: Modulation = "auto"
    semantics: Semantics = field(default_factory=Semantics)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the finished image, pixels."""
        return round(self.crop_size / self.aspect_ratio), self.crop_size

    @property
    def modulation_limit(self) -> float:
        """The share of distinct neighbourhoods among the pixels up to which they are computed one by one."""
        return {"auto": WORTHWHILE, "distinct": 1, "dense": 0}[self.modulation]

    def validate(self) -> None:
        """UserError if no network of these sizes can be built."""
        if self.aspect_ratio <= 0:
            raise UserError(f"aspect_ratio={self.aspect_ratio:g}: width over height must be positive")
        if self.ngf < 2 or self.ngf % 2:
            raise UserError(f"ngf={self.ngf} must be a positive even number: the last block has half of it")
        check_sides("image", self.size, MULTIPLE, f"crop_size={self.crop_size}, aspect_ratio={self.aspect_ratio:g}")
        if self.num_D < 2 or self.num_D > 4:
            raise UserError(f"num_D={self.num_D}: progressive growing needs 2, 3 or 4 discriminators")
        if self.pg_niter < 1 or self.pg_niter % (self.num_D - 1):
            raise UserError(f"pg_niter={self.pg_niter} is not a positive multiple of num_D-1={self.num_D - 1}: "
                            "the last epochs would have no discriminator")
        if self.seg_noise_kernel % 2 == 0:
            raise UserError(f"seg_noise_kernel={self.seg_noise_kernel}: the kernel must be odd")
        if self.ndf % 2 ** (self.num_D - 1):
            raise UserError(f"ndf={self.ndf} must be divisible by {2 ** (self.num_D - 1)} (2^(num_D-1))")


@dataclass(frozen=True)
class Stage:
    """The position of an epoch in progressive growing.

    level: index of the resolution, from the smallest. alpha: weight of the next level while it is
    faded in, else 0. full: whether growing is over. first_fade: whether this is the first fading epoch
    of its level, in which a new discriminator starts from the weights of its parent.
    """
    level: int
    alpha: float
    full: bool
    first_fade: bool = False


def stage(epoch: int, pg_niter: int, num_D: int) -> Stage:
    """The stage of an epoch, counted from 1."""
    if epoch >= pg_niter:
        return Stage(num_D - 1, 0.0, True)
    span = pg_niter // (num_D - 1)
    level, position = divmod(epoch, span)
    alpha = max(0.0, position / (span / 2) - 1)
    previous = max(0.0, (position - 1) / (span / 2) - 1)
    return Stage(level, alpha, False, alpha > 0 and previous == 0)


def discriminator_order(at: Stage, num_D: int, semantics: Semantics) -> list[int]:
    """Indices of the discriminators that see the image, the image at half size, at a quarter, and so on."""
    if at.full:
        return list(range(num_D)) if semantics.scale_order == "reversed" else list(reversed(range(num_D)))
    top = at.level + (1 if at.alpha > 0 else 0)
    return list(range(top, -1, -1))
