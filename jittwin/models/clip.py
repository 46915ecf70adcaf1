"""CLIP: its sizes, its files, and how a picture is prepared for it.

Radford et al. 2021, arXiv 2103.00020. Names and sizes are those of the Hugging Face hub. OpenAI's ViT-L/14 is the
network of CLIPScore; PickScore (Kirstain et al. 2023, arXiv 2305.01569) is a CLIP of ViT-H/14, trained further.
"""
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import isqrt

from jittwin.errors import UserError
from jittwin.models import clip_keys
from jittwin.models.conversion import Conversion, Shapes, Source, counted, stored_config, unfit
from jittwin.preprocessing import Preprocess, as_for_clip
from jittwin.weights.hub import CONFIG, HubFolder, numbers

ACTIVATIONS = ("quick_gelu", "gelu")
LARGEST_ID = 2          # the eos_token_id of the hub's older files, where the end of a text is its largest id
SUCH = "such as openai/clip-vit-large-patch14 or yuvalkirstain/PickScore_v1"
HEAD, WIDEST = 64, 1024     # channels of an attention head, and the widest vision transformer, that OpenAI published


@dataclass(frozen=True)
class ClipTextConfig:
    """Sizes as in config.json. eos_token_id: of the end of a text, whose feature stands for the text."""

    vocab_size: int = 49408
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    max_position_embeddings: int = 77
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    eos_token_id: int = LARGEST_ID


@dataclass(frozen=True)
class ClipVisionConfig:
    """Sizes as in config.json. image_size: side of the square input in pixels."""

    hidden_size: int = 1024
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    intermediate_size: int = 4096
    patch_size: int = 14
    image_size: int = 224
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5

    @property
    def tokens(self) -> int:
        """The patches of a picture and the one that stands for all of it."""
        return (self.image_size // self.patch_size) ** 2 + 1


@dataclass(frozen=True)
class ClipConfig:
    """text, vision: of the two networks. projection_dim: length of the features by which texts and pictures are
    compared. ValueError: sizes that do not go together, an unknown activation."""

    text: ClipTextConfig = ClipTextConfig()
    vision: ClipVisionConfig = ClipVisionConfig()
    projection_dim: int = 768

    def __post_init__(self):
        for part in (self.text, self.vision):
            if part.num_attention_heads < 1 or part.hidden_size % part.num_attention_heads:
                raise ValueError(f"{part.num_attention_heads} heads do not divide a width of {part.hidden_size}")
            if part.hidden_act not in ACTIVATIONS:
                raise ValueError(f"its activation is {part.hidden_act!r}, not {' or '.join(ACTIVATIONS)}")
        if not 0 < self.vision.patch_size <= self.vision.image_size:
            raise ValueError(f"patches of {self.vision.patch_size} pixels in an image of {self.vision.image_size}")

    @property
    def name(self) -> str:
        """The name of the published architecture, or the sizes."""
        vision = self.vision
        sizes = next((name for name, config in NAMED.items() if config.vision == vision),
                     f"{vision.hidden_size}x{vision.num_hidden_layers}")
        return f"CLIP {sizes}"


PRESETS = {
    "l14": ClipConfig(),
    "h14": ClipConfig(ClipTextConfig(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16,
                                     intermediate_size=4096, hidden_act="gelu"),
                      ClipVisionConfig(1280, 32, 16, 5120, hidden_act="gelu"), 1024),
    "tiny": ClipConfig(ClipTextConfig(60, 32, 2, 4, 48, 16), ClipVisionConfig(48, 3, 4, 96, 16, 64), 24),
}
NAMED = {"ViT-L/14": PRESETS["l14"], "ViT-H/14": PRESETS["h14"]}


def preprocess(config: ClipConfig) -> Preprocess:
    """The preparation of a picture."""
    return as_for_clip(config.vision.image_size)


def infer_config(shapes: Shapes, source: Source | None = None) -> ClipConfig:
    """As the metadata of a file of ours say, or config.json in the same folder, else as OpenAI's files are.

    UserError: not the weights of a CLIP; arrays alone, which tell neither heads nor activation unless OpenAI's.
    """
    if config := stored_config(source, "clip", from_description, "CLIP"):
        return config
    try:
        if source and source.folder:
            return read_config(source.folder)
        sizes = sizes_by_arrays(shapes)
    except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
        raise unfit(source, f"not the weights of a CLIP with a vision transformer, {SUCH} ({error})") from error
    if source and source.regrouped and sizes.vision.hidden_size <= WIDEST:
        return sizes
    raise unfit(source, "arrays alone do not tell a CLIP's heads and activation, unless they are OpenAI's; give the "
                f"hub folder, with {CONFIG}, {SUCH}")


def sizes_by_arrays(shapes: Shapes) -> ClipConfig:
    """With OpenAI's heads and activation. KeyError, IndexError, ValueError, ZeroDivisionError: not arrays of a CLIP."""
    text, vision = "text_model.", "vision_model."
    words, width = shapes[f"{text}embeddings.token_embedding.weight"]
    wide, _, patch, _ = shapes[f"{vision}embeddings.patch_embedding.weight"]
    layers, hidden = "encoder.layers.{}.layer_norm1.weight", "encoder.layers.0.mlp.fc1.weight"
    side = isqrt(shapes[f"{vision}embeddings.position_embedding.weight"][0] - 1) * patch
    return ClipConfig(
        ClipTextConfig(words, width, counted(shapes, text + layers), width // HEAD, shapes[text + hidden][0],
                       shapes[f"{text}embeddings.position_embedding.weight"][0]),
        ClipVisionConfig(wide, counted(shapes, vision + layers), wide // HEAD, shapes[vision + hidden][0], patch, side),
        shapes["visual_projection.weight"][0])


# What config.json of a hub folder leaves out where it has transformers' own defaults.
HUB_TEXT = {"vocab_size": 49408, "hidden_size": 512, "num_hidden_layers": 12, "num_attention_heads": 8,
            "intermediate_size": 2048, "max_position_embeddings": 77, "layer_norm_eps": 1e-5, "eos_token_id": 49407}
HUB_VISION = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072,
              "patch_size": 32, "image_size": 224, "layer_norm_eps": 1e-5}


def read_config(folder: HubFolder) -> ClipConfig:
    """The sizes in a hub folder's config.json. UserError: another kind of model. ValueError: sizes that do not fit."""
    found, path = folder.section({"clip": ""}, SUCH), folder.path / CONFIG
    parts = []
    for part, defaults in (("text_config", HUB_TEXT), ("vision_config", HUB_VISION)):
        given = found.get(part) or {}, found.get(f"{part}_dict") or {}      # older files say the same twice
        if not all(isinstance(each, Mapping) for each in given):
            raise UserError(f"{path}: its {part} is no object; fetch the file again")
        given = given[0] | given[1]
        activation = given.get("hidden_act", ACTIVATIONS[0])
        if activation not in ACTIVATIONS:
            raise UserError(f"{path}: {part} hidden_act is {activation!r}; legal: {' or '.join(ACTIVATIONS)}")
        parts.append({**numbers(given, defaults, f"{path}: {part}"), "hidden_act": activation})
    dim = numbers(found, {"projection_dim": 512}, f"{path}:")
    return ClipConfig(ClipTextConfig(**parts[0]), ClipVisionConfig(**parts[1]), **dim)


def from_description(text: Mapping, vision: Mapping, **rest) -> ClipConfig:
    """The inverse of dataclasses.asdict. TypeError, ValueError: a description of something else."""
    return ClipConfig(ClipTextConfig(**text), ClipVisionConfig(**vision), **rest)


# OpenAI's archives hold three sizes beside the weights; old files of the hub hold the numbers of places.
CONVERSION = Conversion(
    infer_config, renames=((r"^module\.", ""), *clip_keys.RENAMES), back=clip_keys.BACK, regroup=clip_keys.regroup,
    ungroup=clip_keys.ungroup, transposed=clip_keys.TRANSPOSED,
    left_out=("*position_ids", "*input_resolution", "*context_length", "*vocab_size"),
    describe=asdict, extras="numbers of places and sizes")
