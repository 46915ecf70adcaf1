"""The detector of structural distortion: its heads, sizes and files, and what it is asked about a picture.

The winners' system of the structure track of NTIRE 2025 (arXiv 2505.16314): Florence-2's encoder reads a generated
picture with an instruction that holds its prompt. One head draws a map of the implausible places, the other gives a
score from 0, bad, to 1. Names of the weights are "florence2" and ours of that trunk, and those of the original's heads.
"""
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isqrt
from typing import Any

import numpy as np

from jittwin.errors import UserError, choose_from
from jittwin.models import florence2
from jittwin.models.conversion import Conversion, Shapes, Source, below, stored_config, unfit
from jittwin.models.florence2 import STRIDE, Florence2Config
from jittwin.models.lora import SUFFIXES, LoraConfig, inner_name, merged
from jittwin.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from jittwin.text import Tokenizer, Tokens
from jittwin.weights.lazy import LazyArrays

SCORE_HEADS = ("linear", "linear_cls", "linear2", "linear2_cls", "conv")
MASK_HEADS = ("concat", "last", "concat_cls")
TEXT_LENGTHS = {"reference": 1024, "fast": 192}     # tokens of a text at most, by mode, if the trunk has the positions
SCORES = np.linspace(0, 1, 13)                      # of the classes of a "_cls" score head: thirds from 1 to 5
LEVELS = np.array([0, 64, 127, 180, 255]) / 255     # of the classes of a "_cls" mask head, by annotators who agree
SHRINKING = 4               # tokens by which the convolutions of the score head "conv" shorten either side
INSTRUCTION = ("Here's an AI image generated with prompt: {}. \nIdentify unusual or implausible areas in the image and "
               "rate the implausibility score, focusing on distorted objects, distorted human part, unnatural "
               "lighting, or illogical spatial relationships.\n")
TRUNK = "florence2."
ADAPTED = f"{TRUNK}base_model.model."       # of a trunk with LoRA, as peft names it
# What the original adapts: patch embeddings, the attention of both encoders without BART's output, and what follows it.
LORA_TARGETS = r"vision_tower\.convs\.\d+\.conv|.*\.(q_proj|k_proj|v_proj|qkv|proj|fc[12])"
LORA_ALPHA, LORA_DROPOUT = 8, 0.05
# Patterns of the trunk's weights that LoRA leaves alone. The names of LoRA's own end with "default.weight".
LORA_FROZEN = (f"{TRUNK}*[!t].weight", f"{TRUNK}*.bias", f"{TRUNK}*.pos_idx_to_embed")


@dataclass(frozen=True)
class DistortionConfig:
    """score_head, mask_head: of SCORE_HEADS and MASK_HEADS.

    "_cls" is a distribution over classes, of which the mean counts. A mask head "concat" sees the tokens of the picture
    before and after they were read together with the text, "last" those after. The score heads "linear" see the first
    token after, "linear2" also before; "conv" sees what the mask head sees.
    image_size: side of the square picture in pixels, and of the map. text_mode: "reference" pads every text to
    text_length tokens, and the padding is attended to, as in the original; "fast" does not attend to padding and cuts
    texts longer than text_length. head_width: of the widest layer of the mask head; those of the others follow.
    ValueError: sizes that do not go together.
    """

    trunk: Florence2Config = florence2.PRESETS["large"]
    score_head: str = "linear"
    mask_head: str = "concat"
    image_size: int = 768
    text_mode: str = "reference"
    text_length: int = 1024
    head_width: int = 1024

    def __post_init__(self):
        for name, legal in (("score_head", SCORE_HEADS), ("mask_head", MASK_HEADS), ("text_mode", TEXT_LENGTHS)):
            if getattr(self, name) not in legal:
                raise ValueError(f"{name} is {getattr(self, name)!r}{choose_from(getattr(self, name), legal)}")
        least = STRIDE * (SHRINKING + 1 if self.score_head == "conv" else 1)
        if self.image_size % STRIDE or not least <= self.image_size <= self.trunk.largest_side:
            raise ValueError(f"image_size is {self.image_size}; legal: multiples of {STRIDE} from {least} to "
                             f"{self.trunk.largest_side}")
        if not 2 <= self.text_length <= self.most_text:
            raise ValueError(f"text_length is {self.text_length}; legal: 2 to {self.most_text}, the positions of the "
                             f"trunk without the {self.image_tokens} of the picture")
        if self.head_width < STRIDE or self.head_width % STRIDE:
            raise ValueError(f"head_width is {self.head_width}; legal: multiples of {STRIDE}")

    @property
    def image_tokens(self) -> int:
        """The tokens of a picture and the one that stands for all of it."""
        return 1 + (self.image_size // STRIDE) ** 2

    @property
    def most_text(self) -> int:
        """Tokens for which the trunk has positions beside those of the picture."""
        return self.trunk.text.max_position_embeddings - self.image_tokens

    @property
    def map_channels(self) -> int:
        """Channels of what the mask head sees."""
        return self.trunk.text.d_model * (1 if self.mask_head == "last" else 2)

    @property
    def score_features(self) -> int:
        """Length of the vector that the linear layers of the score head see."""
        if self.score_head == "conv":
            return self.score_widths[-1] * (self.image_size // STRIDE - SHRINKING) ** 2
        return self.trunk.text.d_model * (2 if self.score_head.startswith("linear2") else 1)

    @property
    def map_widths(self) -> tuple[int, ...]:
        """Channels of the mask head: of two layers at the tokens' resolution, then of five that each double it."""
        return tuple(self.head_width // part for part in (1, 2, 4, 4, 8, 16, 32))

    @property
    def score_widths(self) -> tuple[int, ...]:
        """Channels of the convolutions of the score head "conv"."""
        return tuple(self.head_width // part for part in (1, 2, 8, 16))

    @property
    def map_classes(self) -> int:
        return len(LEVELS) if self.mask_head == "concat_cls" else 1

    @property
    def score_classes(self) -> int:
        return len(SCORES) if self.score_head.endswith("_cls") else 1

    @property
    def name(self) -> str:
        return f"{self.trunk.name} with heads {self.mask_head} and {self.score_head}"


# Side of the pictures in pixels and width of the heads, by the name of the trunk's sizes.
SIZES = {"base": (768, 1024), "large": (768, 1024), "small": (128, 256), "tiny": (96, 64)}


def make_config(size: str = "large", score_head: str = "linear", mask_head: str = "concat",
                text_mode: str = "reference", text_length: int | None = None,
                image_size: int | None = None) -> DistortionConfig:
    """A detector of a published size, or a tiny one of the same parts.

    text_length: None for the mode's, or the most that the trunk has positions for. image_size: None for the published.
    UserError: a value that is not legal.
    """
    if size not in SIZES:
        raise UserError(f"size={size}{choose_from(size, SIZES)}")
    trunk, (side, width) = florence2.PRESETS[size], SIZES[size]
    try:
        return sized(trunk, score_head, mask_head, side if image_size is None else image_size, text_mode, text_length,
                     width)
    except ValueError as error:
        raise UserError(str(error)) from error


def sized(trunk: Florence2Config, score_head: str, mask_head: str, image_size: int, text_mode: str,
          text_length: int | None, head_width: int) -> DistortionConfig:
    """A config whose text_length may be None, for the mode's or the most that the trunk has positions for."""
    if text_length is None:
        most = trunk.text.max_position_embeddings - 1 - (image_size // STRIDE) ** 2
        text_length = min(TEXT_LENGTHS.get(text_mode, 2), most)
    return DistortionConfig(trunk, score_head, mask_head, image_size, text_mode, text_length, head_width)


def preprocess(config: DistortionConfig) -> Preprocess:
    """The preparation of a picture: resized to a square, without keeping its proportions."""
    return Preprocess((config.image_size, config.image_size), "lanczos", IMAGENET_MEAN, IMAGENET_STD)


def encode_prompts(config: DistortionConfig, tokenizer: Tokenizer, prompts: Sequence[str]) -> Tokens:
    """Token ids of the instruction with each prompt. In the mode "reference" all have text_length tokens."""
    texts = [INSTRUCTION.format(prompt) for prompt in prompts]
    if config.text_mode == "reference":
        return tokenizer(texts, length=config.text_length)
    return tokenizer(texts, at_most=config.text_length)


def adapters(rank: int) -> LoraConfig:
    """The original's LoRA of the trunk: rank-stabilised, of a fixed strength."""
    return LoraConfig(rank, LORA_ALPHA, LORA_DROPOUT, LORA_TARGETS, stabilised=True)


def adapted_names(keys: Iterable[str], lora: LoraConfig) -> dict[str, str]:
    """The keys of a detector whose trunk has LoRA, without LoRA's own, and for each the key of one without."""
    return {ADAPTED + inner_name(key.removeprefix(TRUNK), lora) if key.startswith(TRUNK) else key: key for key in keys}


def without_adapters(arrays: Mapping[str, np.ndarray], lora: LoraConfig) -> dict[str, np.ndarray]:
    """The arrays of a detector without LoRA that computes the same as one with it."""
    trunk = merged(below(arrays, ADAPTED), lora)
    return {TRUNK + key: array for key, array in trunk.items()} | {
        key: array for key, array in arrays.items() if not key.startswith(TRUNK)}


def without_originals_adapters(arrays: LazyArrays) -> LazyArrays:
    """The arrays of a file of the original, LoRA added to the weights. UserError: a part of LoRA is missing or does not
    fit."""
    if not (first := next((key for key in arrays if key.endswith(SUFFIXES[0])), None)) or first.startswith(ADAPTED):
        return arrays
    try:
        return merged(arrays, adapters(arrays.shapes[first][0]))
    except (KeyError, ValueError) as error:
        raise UserError(f"{arrays.source}: its LoRA is not complete ({error}); save the detector again") from error


def infer_config(shapes: Shapes, source: Source | None = None) -> DistortionConfig:
    """As the metadata of a file of ours say, else as the arrays tell, which the original trained in the mode
    "reference" and with pictures of 768 pixels. UserError: not the weights of a detector, sizes that do not go
    together."""
    if config := stored_config(source, "distortion", from_description, "detector of distortion"):
        return config
    if adapted := next((key for key in shapes if ".lora_A." in key), None):
        raise unfit(source, f"it holds LoRA beside the weights of a detector, such as {adapted}; give a file of a "
                    "detector that was trained without LoRA")
    try:
        trunk = florence2.sizes_by_arrays(below(shapes, TRUNK))
        channels, classes = (shapes[f"heatmap_predictor.{name}"] for name in (
            "conv_layers.0.weight", "final_layers.0.bias"))
        features, scores = shapes["score_predictor.fc_layers.0.weight"][1], shapes["score_predictor.fc_layers.6.bias"]
        side = min(SIZES["large"][0], trunk.largest_side)
        if "score_predictor.conv_layers.0.0.weight" in shapes:
            score_head = "conv"
            side = STRIDE * (SHRINKING + isqrt(features // (channels[0] // 16)))
        else:
            score_head = ("linear" if features == trunk.text.d_model else "linear2") + ("_cls" if scores[0] > 1 else "")
        mask_head = "concat_cls" if classes[0] > 1 else "concat" if channels[1] > trunk.text.d_model else "last"
        return sized(trunk, score_head, mask_head, side, "reference", None, channels[0])
    except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
        raise unfit(source, "not the weights of a detector of distortion, such as last.pth of the original "
                    f"({error})") from error


def from_description(trunk: Mapping, **rest) -> DistortionConfig:
    """The inverse of dataclasses.asdict. TypeError, ValueError: a description of something else."""
    if trunk.keys() != {"vision", "text"}:
        raise ValueError("its trunk is described by something else than vision and text")
    return DistortionConfig(florence2.from_description(**trunk), **rest)


def original(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The content of the original's files."""
    return {"model": dict(arrays)}


# The original holds the encoder beside the rest of the trunk, both under the names of microsoft/Florence-2-*. With
# LoRA, both are below base_model.model, as peft puts them.
CONVERSION = Conversion(
    infer_config,
    renames=((r"^module\.", ""), (r"^florence2\.base_model\.model\.(model|encoder)\.", r"florence2.\1."),
             (r"^florence2\.model\.", TRUNK), (r"^florence2\.encoder\.", f"{TRUNK}language_model.encoder."),
             *florence2.renames(TRUNK)),
    back=(*florence2.microsofts(TRUNK),
          (r"^florence2\.language_model\.model\.shared\.", "florence2.encoder.embed_tokens."),
          (r"^florence2\.language_model\.model\.encoder\.", "florence2.encoder."),
          (r"^florence2\.(?!encoder\.)", "florence2.model.")),
    regroup=without_originals_adapters, left_out=("*decoder.*", "*final_logits_bias"),
    transposed=(florence2.TRANSPOSED,), tied=florence2.TABLE, beside=("*.num_batches_tracked",), describe=asdict,
    compose=original, extras="keys of the decoder, and further names of the table of tokens")
