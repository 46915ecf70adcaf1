"""TIER's files: how sizes follow from the shapes of their arrays, and how metadata describe them."""
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from jittwin.errors import UserError
from jittwin.models import bert, inception_v4, resnet, vgg, vit
from jittwin.models.conversion import Conversion, Shapes, Source, below, frozen, stored_config, unfit
from jittwin.models.tier import (
    IMAGES,
    LEAKY,
    MODES,
    REGRESSOR,
    SIDE,
    SIDES,
    TEXT,
    ImageConfig,
    TierConfig,
)

PICTURES = ("encoder.image_encoder.", "backbone.")      # with and without text
# Module of each backbone, a key that it alone has, and what more the keys begin with.
KINDS = ((vit, "cls_token", "vit."), (resnet, "conv1.weight", ""), (inception_v4, "features.0.conv.weight", ""),
         (vgg, "features.0.weight", ""))
PARTS = ("encoder", "backbone", "regressor")            # state dictionaries of the original's files
LAYERS = (0, 3, 6)      # those of VGG's classifier that have weights
OURS = "give best_model.pt of the original, a file of `jittwin convert`, or a run"


def infer_config(shapes: Shapes, source: Source | None = None) -> TierConfig:
    """As the metadata of a file of ours say, else as the arrays and source.mode tell.

    The modes "nr" and "pr" have the same arrays, so a file without metadata needs source.mode; shapes without a file
    are taken for "nr". UserError: not the weights of a TIER or of a baseline, sizes that do not go together, a mode
    that the arrays do not have or do not tell.
    """
    asked = source.mode if source else MODES[0]
    if config := stored_config(source, "tier", from_description, "TIER"):
        if asked not in (None, config.mode):
            raise unfit(source, f"mode {asked} is asked for, and its metadata say {config.mode}; leave the mode out")
        return config
    kind, prefix = backbone_in(shapes)
    taken = shapes.get(f"{REGRESSOR}fc1.weight", ())
    if kind is None or len(taken) != 2:
        raise unfit(source, f"not the weights of a TIER or of a baseline of its paper: {prefix}* of a known backbone "
                    f"or {REGRESSOR}fc1.weight is missing; {OURS}")
    try:
        words = bert.infer_config(below(shapes, TEXT)) if prefix.startswith("encoder.") else None
        backbone, image = sizes_of(kind, below(shapes, prefix), words is not None)
    except UserError as error:
        raise unfit(source, f"not the weights of a TIER: {error}; {OURS}") from error
    length = image.features + (words.hidden_size if words else 0)
    widths = {length: ("nr", "pr"), length + image.features: ("fr",)}
    if taken[1] not in widths:
        raise unfit(source, f"its {REGRESSOR}fc1.weight has {taken[1]} inputs; legal beside its {backbone}: "
                    f"{' or '.join(map(str, widths))}; {OURS}")
    modes = widths[taken[1]]
    if source and asked not in (None, *modes):
        raise unfit(source, f"mode {asked} is asked for, and its arrays are of mode {' or '.join(modes)}; choose from "
                    "these")
    if asked is None and len(modes) > 1:
        raise unfit(source, f"modes {' and '.join(modes)} have the same arrays, and it does not tell which it was "
                    "trained in; say it: --mode to convert it, --tier-mode to score with it")
    return TierConfig(asked if asked in modes else modes[0], backbone, image, words, side_of(backbone, image))


def backbone_in(shapes: Shapes) -> tuple[Any, str]:
    """(module of jittwin.models that describes the backbone, None if there is none; what its keys begin with)."""
    prefix = PICTURES[not any(key.startswith("encoder.") for key in shapes)]
    return next(((module, prefix + extra) for module, key, extra in KINDS if prefix + extra + key in shapes),
                (None, prefix))


def sizes_of(kind, shapes: Shapes, text: bool) -> tuple[str, ImageConfig]:
    """(name, sizes) of a backbone. kind: the module of jittwin.models that describes it."""
    image = kind.infer_config(shapes)
    if kind is resnet:
        slope = LEAKY if not text and not image.bottleneck else 0.0
        return "resnet50" if image.bottleneck else "resnet18", replace(image, negative_slope=slope)
    if kind is vgg:
        widths = tuple(shapes[key][0] for key in map("classifier.{}.bias".format, LAYERS) if key in shapes)
        return "vgg19" if len(image.blocks[2:3] and image.blocks[2]) > 3 else "vgg16", replace(image, classifier=widths)
    return "vit" if kind is vit else "inceptionv4", image


def side_of(backbone: str, image: ImageConfig) -> int:
    """The side of the pictures: told by a ViT's positions, else as published, or tiny if the sizes are tiny."""
    if backbone == "vit":
        return image.image_size
    size = "full" if image.features == IMAGES["full"][backbone].features else "tiny"
    return SIDES[size].get(backbone, SIDE[size])


def describe(config: TierConfig) -> dict[str, Any]:
    """The config as metadata hold it; `from_description` reads it."""
    return asdict(config)


def from_description(backbone: str, image: Mapping, text: Mapping | None, **rest) -> TierConfig:
    """The inverse of `describe`. TypeError, ValueError: a description of something else."""
    if backbone not in IMAGES["full"]:
        raise ValueError(f"backbone {backbone!r}")
    kind = type(IMAGES["full"][backbone])
    return TierConfig(backbone=backbone, image=kind(**{key: frozen(value) for key, value in image.items()}),
                      text=bert.BertConfig(**text) if text else None, **rest)


def original(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The content of the original's best_model.pt, without the optimizer.

    metadata: epoch and rho_best are taken over, the test set's rank correlation at that epoch; either may be missing.
    """
    found = {part: below(arrays, f"{part}.") for part in PARTS}
    facts = {name: kind(metadata[name]) for name, kind in (("epoch", int), ("rho_best", float)) if name in metadata}
    return {key: value for key, value in (facts | found).items() if value != {}}


CONVERSION = Conversion(infer_config, left_out=("*embeddings.position_ids",), beside=("*.num_batches_tracked",),
                        describe=describe, parts=PARTS, compose=original, modes=MODES)
