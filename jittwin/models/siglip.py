"""SigLIP's vision tower: its sizes, its files on the hub, and the preparation of pictures for it.

Zhai et al. 2023, arXiv 2303.15343; Tschannen et al. 2025 (SigLIP 2), arXiv 2502.14786. Checkpoints of fixed resolution
of both generations are supported; names and sizes are those of the Hugging Face hub.
"""
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from jittwin.errors import UserError
from jittwin.models.conversion import Conversion, Source, stored_config, unfit
from jittwin.preprocessing import Preprocess
from jittwin.weights import content_hash
from jittwin.weights.hub import CONFIG, PREPROCESSOR, PROCESSOR, HubFolder
from jittwin.weights.lazy import LazyArrays

ACTIVATION = "gelu_pytorch_tanh"
RESAMPLES = {2: "bilinear", 3: "bicubic"}       # of preprocessor_config.json: SigLIP 2's and SigLIP's
STEPS = ("do_resize", "do_rescale", "do_normalize")     # steps of every published processor


@dataclass(frozen=True)
class SiglipVisionConfig:
    """Sizes as in config.json; image_size is the side of the square input in pixels.

    head: whether the tower has the attention pooling of SigLIP's own image embedding. resample: how pictures are
    resized, "bilinear" or "bicubic". ValueError: sizes that contradict each other.
    """

    hidden_size: int = 1152
    num_hidden_layers: int = 27
    num_attention_heads: int = 16
    intermediate_size: int = 4304
    patch_size: int = 16
    image_size: int = 512
    layer_norm_eps: float = 1e-6
    head: bool = False
    resample: str = "bilinear"

    def __post_init__(self):
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(f"{self.num_attention_heads} heads do not divide a width of {self.hidden_size}")
        if self.patch_size > self.image_size:
            raise ValueError(f"patches of {self.patch_size} pixels are larger than the image of {self.image_size}")

    @property
    def hidden_act(self) -> str:
        return ACTIVATION

    @property
    def tokens(self) -> int:
        """Number of patches of an image; a rest at its right and lower edge is ignored."""
        return (self.image_size // self.patch_size) ** 2


def _family(name: str, width: int, layers: int, heads: int, hidden: int, *inputs: tuple[int, int]) -> dict:
    return {f"{name}-patch{patch}-{side}": SiglipVisionConfig(width, layers, heads, hidden, patch, side)
            for patch, side in inputs}


PRESETS = {
    **_family("base", 768, 12, 12, 3072, (16, 224), (16, 256), (16, 384), (16, 512), (32, 256)),
    **_family("large", 1024, 24, 16, 4096, (16, 256), (16, 384), (16, 512)),
    **_family("so400m", 1152, 27, 16, 4304, (14, 224), (14, 384), (16, 256), (16, 384), (16, 512)),
    **_family("giant-opt", 1536, 40, 16, 6144, (16, 256), (16, 384)),
    "tiny": SiglipVisionConfig(32, 2, 4, 48, 8, 32),
}
# Values, as in transformers, of the keys that a config.json does not have.
_DEFAULTS = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072,
             "patch_size": 16, "image_size": 224, "layer_norm_eps": 1e-6}


# Keys of a whole SigLIP outside the vision tower, and a buffer that transformers wrote until 2023.
BESIDES = ("text_model.*", "logit_scale", "logit_bias", "*embeddings.position_ids")
HEAD = "head."                  # prefix of the keys of the attention pooling
SIGLIP_2 = "such as google/siglip2-so400m-patch16-512"
KINDS = {"siglip": "vision_config", "siglip_vision_model": ""}


def read_config(folder: HubFolder) -> SiglipVisionConfig:
    """The configuration in a hub folder. UserError: a missing or damaged file, or another kind of model."""
    path = folder.path / CONFIG
    if (kind := folder.config.get("model_type")) and "siglip2" in str(kind):
        raise UserError(f"{path}: model_type {kind!r} (a NaFlex model, which takes images of any proportions); legal: "
                        f"{' or '.join(KINDS)}, {SIGLIP_2}")
    vision = folder.section(KINDS, SIGLIP_2)
    if vision.get("hidden_act", ACTIVATION) != ACTIVATION or vision.get("num_channels", 3) != 3:
        raise UserError(f"{path}: hidden_act {vision.get('hidden_act')!r} on {vision.get('num_channels', 3)} channels; "
                        f"legal: {ACTIVATION} on 3")
    sizes = {name: vision.get(name, default) for name, default in _DEFAULTS.items()}
    wrong = [name for name, value in sizes.items()
             if type(value) not in ((int, float) if name == "layer_norm_eps" else (int,)) or value <= 0]
    if wrong:
        raise UserError(f"{path}: {wrong[0]} is {sizes[wrong[0]]!r}; legal: a positive number")
    try:
        return SiglipVisionConfig(**sizes, resample=_resample(folder, sizes["image_size"]))
    except ValueError as error:
        raise UserError(f"{path}: {error}; fetch the file again") from error


def _resample(folder: HubFolder, side: int) -> str:
    """How pictures are resized, from the settings of the image processor.

    config.json does not tell SigLIP, whose pictures are resized bicubically, from SigLIP 2. UserError: no settings, or
    settings that no published SigLIP has.
    """
    found = folder.processor()
    if found is None:
        raise UserError(f"{folder.path}: holds neither {PREPROCESSOR} nor {PROCESSOR}, and {CONFIG} does not tell "
                        f"whether pictures are resized bicubically (SigLIP) or bilinearly (SigLIP 2): fetch "
                        f"{PREPROCESSOR} from the model's page, or write one with {{\"resample\": 3}} for SigLIP, "
                        "{\"resample\": 2} for SigLIP 2")
    settings, path = found
    half = [0.5] * 3
    for key, legal in (("resample", [*RESAMPLES]), ("image_mean", [half]), ("image_std", [half]),
                       ("size", [{"height": side, "width": side}]), *((name, [True]) for name in STEPS)):
        value = settings.get(key, None if key == "resample" else legal[0])
        if value not in legal or isinstance(value, bool) != (key in STEPS):
            raise UserError(f"{path}: {key} is {value!r}; legal: {' or '.join(map(str, legal))}")
    return RESAMPLES[settings["resample"]]


@dataclass(frozen=True)
class Tower:
    """A vision tower.

    arrays: float32, by the keys of the twins' SiglipVisionModel, each read when it is accessed; a backend's load_numpy
    checks that they are complete. name: the model's name on the hub if a file states it, else the folder's name.
    """

    config: SiglipVisionConfig
    arrays: LazyArrays
    name: str

    @cached_property
    def sha256(self) -> str:
        """Hash of the arrays, the same for every file that holds them. Reads all arrays."""
        return content_hash(self.arrays)


def read_tower(where, head: bool = False) -> Tower:
    """The vision tower of a hub folder; the text tower of a whole SigLIP is not read.

    where: a hub folder (see open_hub), or a file that `jittwin convert` wrote. head: also read the attention pooling.
    UserError: a missing or damaged file, or sizes that are not those of config.json.
    """
    source = CONVERSION.open(where)
    config = replace(CONVERSION.infer(source.arrays.shapes, source), head=head)
    kept = {key: key for key in source.arrays if head or not key.startswith(HEAD)}
    name = source.folder.name if source.folder else source.metadata.get("name") or Path(where).stem
    return Tower(config, source.arrays.renamed(kept).cast(np.float32), str(name))


def infer_config(shapes: Mapping[str, tuple[int, ...]], source: Source | None) -> SiglipVisionConfig:
    """The configuration from config.json, or from the metadata of a file that `jittwin convert` wrote.

    UserError: there is neither, or the arrays have other sizes.
    """
    if config := stored_config(source, "siglip", SiglipVisionConfig, "tower"):
        path = "its metadata"
    elif source and source.folder:
        config, path = read_config(source.folder), source.folder.path / CONFIG
    else:
        raise unfit(source, "arrays alone do not tell a tower's heads, nor how pictures are prepared; give the hub "
                    f"folder, with {CONFIG} and {PREPROCESSOR}")
    check_sizes(config, shapes, path, source.arrays.source)
    return replace(config, head=any(key.startswith(HEAD) for key in shapes))


CONVERSION = Conversion(infer_config, renames=((r"^vision_model\.", ""),), back=((r"^", "vision_model."),),
                        left_out=BESIDES, own=("vision_model",),
                        extras="keys of the text tower and of the comparison with it")


def read_sizes(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """The fields of SiglipVisionConfig that follow from the shapes of a tower's arrays, and its number of tokens."""
    layers = [int(match[1]) for key in shapes if (match := re.match(r"encoder\.layers\.(\d+)\.", key))]
    found = {"num_hidden_layers": 1 + max(layers, default=-1)}
    for name, key, axis in (("hidden_size", "post_layernorm.weight", 0),
                            ("intermediate_size", "encoder.layers.0.mlp.fc1.weight", 0),
                            ("patch_size", "embeddings.patch_embedding.weight", -1),
                            ("tokens", "embeddings.position_embedding.weight", 0)):
        if shapes.get(key):
            found[name] = shapes[key][axis]
    return found


def check_sizes(config: SiglipVisionConfig, shapes: Mapping[str, tuple[int, ...]], path, source: str) -> None:
    """UserError if the config, from the file `path`, and the arrays of the file `source` belong to different models."""
    for name, value in read_sizes(shapes).items():
        if value != getattr(config, name):
            raise UserError(f"{source}: its arrays have {name} {value}, but {path} says {getattr(config, name)}: they "
                            "are not of one model; fetch both files again")


def preprocess(config: SiglipVisionConfig) -> Preprocess:
    """The preparation of a picture to float32 (3, S, S) in [-1, 1]: resized to a square as by SigLIP's processor."""
    side, half = config.image_size, (0.5, 0.5, 0.5)
    return Preprocess((side, side), config.resample, half, half)
