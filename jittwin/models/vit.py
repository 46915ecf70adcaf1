"""The vision transformer: its sizes, and how a picture is prepared for it.

Dosovitskiy et al. 2021, arXiv 2010.11929. Names of the weights are timm's. The published weights are those of
timm/vit_large_patch16_224.augreg_in21k_ft_in1k (Steiner et al. 2022, arXiv 2106.10270) on the Hugging Face hub;
google/vit-large-patch16-224 was trained in another way.
"""
from dataclasses import dataclass
from math import isqrt

from jittwin.models.conversion import Conversion, Shapes, Source, counted, stored_config, unfit
from jittwin.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocess

# The weights were trained on values from -1 to 1. The assessment models that build on them normalise as for ImageNet.
PREPROCESS = Preprocess(256, "bilinear", IMAGENET_MEAN, IMAGENET_STD, crop=(224, 224))
HEAD = 64       # channels of an attention head, in every published size


@dataclass(frozen=True)
class ViTConfig:
    """image_size: side of the square input in pixels. classes: of the classifier, which features do not need but files
    hold; 0 for none. ValueError: sizes that do not go together."""

    hidden_size: int = 1024
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    intermediate_size: int = 4096
    patch_size: int = 16
    image_size: int = 224
    layer_norm_eps: float = 1e-6
    classes: int = 1000

    def __post_init__(self):
        if self.num_attention_heads < 1 or self.hidden_size % self.num_attention_heads:
            raise ValueError(f"{self.num_attention_heads} heads do not divide a width of {self.hidden_size}")
        if self.image_size % self.patch_size:
            raise ValueError(f"patches of {self.patch_size} pixels do not tile an image of {self.image_size}")

    @property
    def tokens(self) -> int:
        """The patches of a picture and the one that stands for all of it."""
        return (self.image_size // self.patch_size) ** 2 + 1

    @property
    def features(self) -> int:
        """Length of the feature vector."""
        return self.hidden_size


PRESETS = {
    "large-patch16-224": ViTConfig(),
    "tiny": ViTConfig(48, 3, 4, 96, 16, 64, classes=5),
}


def infer_config(shapes: Shapes, source: Source | None = None) -> ViTConfig:
    """As the metadata of a file that `jittwin convert` wrote say, else as the arrays tell. UserError: not the weights
    of a vision transformer as timm has them, sizes that do not go together."""
    if config := stored_config(source, "vit", ViTConfig, "vision transformer"):
        return config
    try:
        return sizes_of(shapes)
    except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
        raise unfit(source, f"not the weights of a vision transformer, as timm has them ({error})") from error


def sizes_of(shapes: Shapes) -> ViTConfig:
    """KeyError, IndexError, ValueError, ZeroDivisionError: not the arrays of a vision transformer as timm has them."""
    width, _, patch, _ = shapes["patch_embed.proj.weight"]
    side, hidden = isqrt(shapes["pos_embed"][1] - 1) * patch, shapes["blocks.0.mlp.fc1.weight"][0]
    return ViTConfig(width, counted(shapes, "blocks.{}.norm1.weight"), width // HEAD, hidden, patch, side,
                     classes=shapes.get("head.bias", (0,))[0])


CONVERSION = Conversion(infer_config)
