"""SigLIP's vision tower: its sizes, its keys, its files on the hub, and how a picture is prepared for it.

Zhai et al. 2023, arXiv 2303.15343; Tschannen et al. 2025 (SigLIP 2), arXiv 2502.14786. The checkpoints of fixed
resolution are meant, of either generation; names and sizes are those of the Hugging Face hub.
"""
import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from jittwin.draws import Draws
from jittwin.errors import UserError
from jittwin.preprocessing import Preprocess
from jittwin.weights import fingerprint, open_weights
from jittwin.weights.lazy import LazyArrays
from jittwin.weights.state import differences

PREFIX = "vision_model."        # of the tower's keys in a checkpoint
ACTIVATION = "gelu_pytorch_tanh"
RESAMPLES = {2: "bilinear", 3: "bicubic"}       # of preprocessor_config.json: SigLIP 2's and SigLIP's


@dataclass(frozen=True)
class SiglipVisionConfig:
    """Sizes as in config.json; image_size is the side of the square input in pixels.

    head: with the attention pooling of SigLIP's own image embedding. resample: how pictures are resized, bilinear or
    bicubic. ValueError: sizes that do not go together.
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
    def tokens(self) -> int:
        """Patches of an image; what is left over at its right and lower edge is not looked at."""
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
# What a config.json leaves out has these values, as in transformers.
_DEFAULTS = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072,
             "patch_size": 16, "image_size": 224, "layer_norm_eps": 1e-6}


def expected_keys(config: SiglipVisionConfig) -> dict[str, tuple[int, ...]]:
    """The tower's keys, in the order of its definition, with their shapes."""
    width, hidden = config.hidden_size, config.intermediate_size
    keys = {}

    def linear(name: str, inputs: int, outputs: int) -> None:
        keys.update({f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)})

    def norm(name: str) -> None:
        keys.update({f"{name}.weight": (width,), f"{name}.bias": (width,)})

    keys["embeddings.patch_embedding.weight"] = (width, 3, config.patch_size, config.patch_size)
    keys["embeddings.patch_embedding.bias"] = (width,)
    keys["embeddings.position_embedding.weight"] = (config.tokens, width)
    for layer in (f"encoder.layers.{index}" for index in range(config.num_hidden_layers)):
        norm(f"{layer}.layer_norm1")
        for part in "kvq":
            linear(f"{layer}.self_attn.{part}_proj", width, width)
        linear(f"{layer}.self_attn.out_proj", width, width)
        norm(f"{layer}.layer_norm2")
        linear(f"{layer}.mlp.fc1", width, hidden)
        linear(f"{layer}.mlp.fc2", hidden, width)
    norm("post_layernorm")
    if config.head:
        keys["head.probe"] = (1, 1, width)
        keys["head.attention.in_proj_weight"] = (3 * width, width)
        keys["head.attention.in_proj_bias"] = (3 * width,)
        linear("head.attention.out_proj", width, width)
        norm("head.layernorm")
        linear("head.mlp.fc1", width, hidden)
        linear("head.mlp.fc2", hidden, width)
    return keys


def read_config(folder) -> SiglipVisionConfig:
    """From config.json and preprocessor_config.json of a hub folder; without the latter, pictures are prepared as for
    SigLIP 2. UserError: missing, damaged, or that of another kind of model."""
    return _config(Path(folder))[0]


def _config(folder: Path) -> tuple[SiglipVisionConfig, dict]:
    """The vision tower's configuration, and the whole config.json."""
    path = folder / "config.json"
    if not path.exists():
        raise UserError(f"{path}: not found; give a folder as the hub has it, with config.json and model.safetensors "
                        "(or pytorch_model.bin)")
    content = _json(path)
    kind = content.get("model_type") if isinstance(content, dict) else None
    vision = content.get("vision_config", {}) if kind == "siglip" else content
    if kind not in ("siglip", "siglip_vision_model") or not isinstance(vision, dict):
        naflex = " (a NaFlex model, which takes images of any proportions)" if kind and "siglip2" in kind else ""
        raise UserError(f"{path}: model_type {kind!r}{naflex}; legal: siglip or siglip_vision_model, such as "
                        "google/siglip2-so400m-patch16-512")
    if vision.get("hidden_act", ACTIVATION) != ACTIVATION or vision.get("num_channels", 3) != 3:
        raise UserError(f"{path}: hidden_act {vision.get('hidden_act')!r} on {vision.get('num_channels', 3)} channels; "
                        f"legal: {ACTIVATION} on 3")
    sizes = {name: vision.get(name, default) for name, default in _DEFAULTS.items()}
    wrong = [name for name, value in sizes.items()
             if type(value) not in ((int, float) if name == "layer_norm_eps" else (int,)) or value <= 0]
    if wrong:
        raise UserError(f"{path}: {wrong[0]} is {sizes[wrong[0]]!r}; legal: a positive number")
    try:
        return SiglipVisionConfig(**sizes, resample=_resample(folder / "preprocessor_config.json")), content
    except ValueError as error:
        raise UserError(f"{path}: {error}; fetch the file again") from error


def _resample(path: Path) -> str:
    """How pictures are resized. UserError: they are prepared in another way than every published SigLIP's."""
    content = _json(path) if path.exists() else {}
    given = {"resample": 2, "image_mean": [0.5] * 3, "image_std": [0.5] * 3} | (
        content if isinstance(content, dict) else {})
    for key, legal in (("resample", [*RESAMPLES]), ("image_mean", [[0.5] * 3]), ("image_std", [[0.5] * 3])):
        if given[key] not in legal:
            raise UserError(f"{path}: {key} is {given[key]!r}; legal: {' or '.join(map(str, legal))}")
    return RESAMPLES[given["resample"]]


def _json(path: Path):
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({error}); fetch the file again") from error


@dataclass(frozen=True)
class Tower:
    """A vision tower: arrays are float32, by the keys of `expected_keys`, and read when they are asked for.

    name: the model's name on the hub where its config.json tells it, else that of its folder.
    """

    config: SiglipVisionConfig
    arrays: LazyArrays
    name: str

    @cached_property
    def sha256(self) -> str:
        """Of the arrays: the same for every file that holds them. Reads them all."""
        return fingerprint(self.arrays)


def read_tower(where, head: bool = False) -> Tower:
    """The vision tower of a hub folder; of a whole SigLIP the text tower is not read.

    head: with the attention pooling. UserError: a file that is missing or damaged, keys or shapes that are not those
    of config.json.
    """
    folder = Path(where)
    config, content = _config(folder)
    config = replace(config, head=head)
    names = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
    path = next((folder / name for name in names if (folder / name).is_file()), None)
    if path is None:
        raise UserError(f"{folder}: no weights found; legal: {', '.join(names)}")
    expected = expected_keys(config)

    def wanted(key: str) -> bool:
        name = key.removeprefix(PREFIX)
        return name in expected or name.startswith("encoder.")      # also layers that config.json does not know of

    arrays = open_weights(path, wanted)
    found = arrays.renamed({key.removeprefix(PREFIX): key for key in arrays})
    problems = differences(expected, found.shapes)
    if problems:
        raise UserError(f"{path}: does not hold the vision tower that config.json describes: {problems}; fetch the "
                        "files again")
    tower = LazyArrays(expected, lambda name: found[name].astype(np.float32, copy=False))
    return Tower(config, tower, str(content.get("_name_or_path") or folder.resolve().name))


def random_tower(config: SiglipVisionConfig, seed: int = 0) -> LazyArrays:
    """Weights that keep signals of order one through the depth; each array depends on seed and name only."""
    shapes, draws = expected_keys(config), Draws(seed)

    def make(name: str) -> np.ndarray:
        values = draws.normal(name, shapes[name])
        if name.endswith("bias"):
            return values * np.float32(0.1)
        if values.ndim == 1:                    # the gain of a normalisation
            return 1 + values * np.float32(0.1)
        fan_in = 1 if name == "embeddings.position_embedding.weight" else np.prod(shapes[name][1:])
        return values * np.float32(fan_in ** -0.5)

    return LazyArrays(shapes, make)


def preprocess(config: SiglipVisionConfig) -> Preprocess:
    """A picture to float32 (3, S, S) in [-1, 1]: squashed to a square, as SigLIP's processor does."""
    side, half = config.image_size, (0.5, 0.5, 0.5)
    return Preprocess((side, side), config.resample, half, half)
