"""SegFormer's configuration, its files, and the mapping from ADE20K's 150 classes to the challenge's 29.

Xie et al. 2021, arXiv 2105.15203. Names and sizes are those of the config.json and the weights on the Hugging Face hub.
"""
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from jittwin.classes import CLASS_NUMBER, CLASSES
from jittwin.errors import UserError, choose_from
from jittwin.models.conversion import Source

ADE_CLASSES = 150


@dataclass(frozen=True)
class SegFormerConfig:
    """Sizes of a SegFormer; the tuples have one value per stage.

    sr_ratios: factors by which the resolution of keys and values is reduced.
    """

    depths: tuple[int, ...] = (2, 2, 2, 2)
    hidden_sizes: tuple[int, ...] = (32, 64, 160, 256)
    num_attention_heads: tuple[int, ...] = (1, 2, 5, 8)
    sr_ratios: tuple[int, ...] = (8, 4, 2, 1)
    patch_sizes: tuple[int, ...] = (7, 3, 3, 3)
    strides: tuple[int, ...] = (4, 2, 2, 2)
    mlp_ratio: int = 4
    decoder_hidden_size: int = 256
    num_labels: int = ADE_CLASSES


WIDE = (64, 128, 320, 512)
PRESETS = {
    "B0": SegFormerConfig(),
    "B1": SegFormerConfig(hidden_sizes=WIDE),
    "B2": SegFormerConfig((3, 4, 6, 3), WIDE, decoder_hidden_size=768),
    "B3": SegFormerConfig((3, 4, 18, 3), WIDE, decoder_hidden_size=768),
    "B4": SegFormerConfig((3, 8, 27, 3), WIDE, decoder_hidden_size=768),
    "B5": SegFormerConfig((3, 6, 40, 3), WIDE, decoder_hidden_size=768),
}

# The ADE20K class, counted from 0, with the name of each of the 29 classes except "other", in their order.
_ADE = (16, 2, 21, 26, 34, 4, 13, 68, 60, 46, 94, 1, 9, 17, 12, 76, 113, 0, 140, 52, 128, 61, 29, 6, 38, 32, 103, 25)


def landscape_classes() -> np.ndarray:
    """uint8 (150,): the challenge's class of each ADE20K class; 122 of them become "other"."""
    table = np.full(ADE_CLASSES, CLASS_NUMBER["other"], np.uint8)
    table[list(_ADE)] = np.arange(CLASSES - 1)
    return table


def preset(name: str, num_labels: int = ADE_CLASSES) -> SegFormerConfig:
    """The configuration of a variant, B0 to B5. UserError: no variant of this name."""
    if name not in PRESETS:
        raise UserError(f"no SegFormer {name!r}{choose_from(name, PRESETS)}")
    return replace(PRESETS[name], num_labels=num_labels)


def infer_preset(shapes: Mapping[str, tuple[int, ...]]) -> tuple[str, int]:
    """(variant, number of classes) of a state, for example ("B5", 150). UserError: not a SegFormer B0 to B5."""
    try:
        classes, wide = shapes["decode_head.classifier.weight"][:2]
        sizes = tuple(shapes[f"segformer.encoder.layer_norm.{stage}.weight"][0] for stage in range(4))
    except (KeyError, ValueError, IndexError) as error:
        raise UserError(f"not the weights of a SegFormer for segmentation ({error} is missing), as the hub has "
                        "them in model.safetensors or pytorch_model.bin") from error
    depths = tuple(sum(f"segformer.encoder.block.{stage}.{layer}.layer_norm_1.weight" in shapes
                       for layer in range(len(shapes))) for stage in range(4))
    for name, config in PRESETS.items():
        if (config.depths, config.hidden_sizes, config.decoder_hidden_size) == (depths, sizes, wide):
            return name, classes
    raise UserError(f"depths {depths}, widths {sizes} and a decoder of {wide} are no SegFormer B0 to B5")


def infer_config(shapes: Mapping[str, tuple[int, ...]], source: Source | None = None) -> SegFormerConfig:
    """The configuration of a state. UserError: not a SegFormer B0 to B5, or the config.json of another model."""
    if source and source.folder:
        source.folder.section({"segformer": ""}, "such as nvidia/segformer-b5-finetuned-ade-640-640")
    return preset(*infer_preset(shapes))


def variant_of(config: SegFormerConfig) -> str:
    """The name in PRESETS of a configuration with any number of classes."""
    return next(name for name, other in PRESETS.items() if replace(other, num_labels=config.num_labels) == config)
