"""Florence-2 without its decoder: its sizes, its files, and how a picture is prepared for it.

Xiao et al. 2023, arXiv 2311.06242, with DaViT (Ding et al. 2022, arXiv 2204.03645) and the encoder of BART (Lewis et
al. 2019, arXiv 1910.13461). Names of the weights are those of florence-community/Florence-2-* on the Hugging Face hub,
without the prefix "model."; the names of microsoft/Florence-2-* are read as well.
"""
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from jittwin.errors import UserError
from jittwin.models.conversion import Conversion, Shapes, Source, counted, frozen, stored_config, unfit
from jittwin.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from jittwin.weights.hub import CONFIG, HubFolder, Renames

STRIDE = 32                 # pixels per token along either side
CHANNELS = 32               # of an attention head and of a channel group, in every published size
HEAD = 64                   # channels of an attention head of the text encoder, in every published size
OFFSET = 2                  # rows of BART's table of positions before the first position
SUCH = "such as microsoft/Florence-2-base or florence-community/Florence-2-large"
VISION, PROJECTOR, TEXT = "vision_tower.", "multi_modal_projector.", "language_model."


@dataclass(frozen=True)
class DaViTConfig:
    """Sizes of the four stages, for those of Florence-2-base.

    drop_path_rate: the probability in training that the last block adds nothing to a picture; it grows from 0 with the
    depth. max_position_embeddings: tokens along either side of a picture at most. ValueError: sizes that do not go
    together.
    """

    embed_dim: tuple[int, ...] = (128, 256, 512, 1024)
    depths: tuple[int, ...] = (1, 1, 9, 1)
    num_heads: tuple[int, ...] = (4, 8, 16, 32)
    num_groups: tuple[int, ...] = (4, 8, 16, 32)
    window_size: int = 12
    drop_path_rate: float = 0.1
    max_position_embeddings: int = 50
    max_temporal_embeddings: int = 100

    def __post_init__(self):
        if not 4 == len(self.embed_dim) == len(self.depths) == len(self.num_heads) == len(self.num_groups):
            raise ValueError(f"DaViT has four stages, and widths, depths, heads and groups are {self.embed_dim}, "
                             f"{self.depths}, {self.num_heads} and {self.num_groups}")
        for parts in (self.num_heads, self.num_groups):
            for width, count in zip(self.embed_dim, parts):
                if count < 1 or width % count:
                    raise ValueError(f"{count} heads or groups do not divide a width of {width}")


@dataclass(frozen=True)
class BartConfig:
    """Sizes of the text encoder as in config.json, for those of Florence-2-base. The dropouts are probabilities in
    training. ValueError: heads that do not divide the width."""

    vocab_size: int = 51289
    d_model: int = 768
    encoder_layers: int = 6
    encoder_attention_heads: int = 12
    encoder_ffn_dim: int = 3072
    max_position_embeddings: int = 1024
    pad_token_id: int = 1
    dropout: float = 0.1
    attention_dropout: float = 0.1
    activation_dropout: float = 0.1

    def __post_init__(self):
        if self.encoder_attention_heads < 1 or self.d_model % self.encoder_attention_heads:
            raise ValueError(f"{self.encoder_attention_heads} heads do not divide a width of {self.d_model}")


@dataclass(frozen=True)
class Florence2Config:
    """vision, text: of the two networks."""

    vision: DaViTConfig = DaViTConfig()
    text: BartConfig = BartConfig()

    @property
    def name(self) -> str:
        """The name of the published architecture, or the sizes."""
        return next((f"Florence-2-{name}" for name, config in PRESETS.items() if config == self),
                    f"Florence-2 {self.vision.embed_dim[-1]}-{self.text.d_model}x{self.text.encoder_layers}")

    @property
    def largest_side(self) -> int:
        """Of a picture, in pixels."""
        return STRIDE * self.vision.max_position_embeddings


PRESETS = {
    "base": Florence2Config(),
    "large": Florence2Config(DaViTConfig((256, 512, 1024, 2048), num_heads=(8, 16, 32, 64), num_groups=(8, 16, 32, 64)),
                             BartConfig(d_model=1024, encoder_layers=12, encoder_attention_heads=16,
                                        encoder_ffn_dim=4096, max_position_embeddings=4096)),
    # Learns from nothing on a CPU.
    "small": Florence2Config(DaViTConfig((16, 32, 48, 64), (0, 1, 0, 1), (2, 4, 6, 8), (2, 4, 6, 8), window_size=4,
                                         drop_path_rate=0.0, max_position_embeddings=6, max_temporal_embeddings=3),
                             BartConfig(60, 64, 1, 4, 128, 128, dropout=0.0, attention_dropout=0.0,
                                        activation_dropout=0.0)),
    "tiny": Florence2Config(DaViTConfig((16, 24, 32, 48), (1, 1, 2, 1), (2, 3, 4, 6), (2, 3, 4, 6), window_size=5,
                                        max_position_embeddings=6, max_temporal_embeddings=3),
                            BartConfig(60, 32, 2, 4, 48, 64)),
}


def preprocess(side: int = 768) -> Preprocess:
    """The preparation of a picture as on the hub: resized to a square of this many pixels."""
    return Preprocess((side, side), "bicubic", IMAGENET_MEAN, IMAGENET_STD)


def infer_config(shapes: Shapes, source: Source | None = None) -> Florence2Config:
    """As the metadata of a file of ours say, else as the arrays tell, and a hub folder's config.json what they do not.

    UserError: not the weights of a Florence-2, sizes that do not go together.
    """
    if config := stored_config(source, "florence2", from_description, "Florence-2"):
        return config
    try:
        return sizes_by_arrays(shapes, source.folder if source else None)
    except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
        raise unfit(source, f"not the weights of a Florence-2, {SUCH} ({error})") from error


def sizes_by_arrays(shapes: Shapes, folder: HubFolder | None = None) -> Florence2Config:
    """KeyError, IndexError, ValueError, ZeroDivisionError: not the arrays of a Florence-2. UserError: a config.json of
    another model."""
    words, width = shapes[f"{TEXT}shared.weight"]
    widths = tuple(shapes[f"{VISION}convs.{stage}.conv.bias"][0] for stage in range(4))
    depths = tuple(counted(shapes, f"{VISION}blocks.{stage}.{{}}.spatial_block.norm1.weight") for stage in range(4))
    vision = {"embed_dim": widths, "depths": depths,
              "max_position_embeddings": shapes[f"{PROJECTOR}image_position_embed.row_embeddings.weight"][0],
              "max_temporal_embeddings": shapes[f"{PROJECTOR}visual_temporal_embed.pos_idx_to_embed"][0]}
    text = {"vocab_size": words, "d_model": width,
            "encoder_layers": counted(shapes, f"{TEXT}encoder.layers.{{}}.fc1.weight"),
            "encoder_ffn_dim": shapes[f"{TEXT}encoder.layers.0.fc1.weight"][0],
            "max_position_embeddings": shapes[f"{TEXT}encoder.embed_positions.weight"][0] - OFFSET}
    parts = tuple(size // CHANNELS for size in widths)
    vision_told = {"num_heads": parts, "num_groups": parts}
    text_told = {"encoder_attention_heads": width // HEAD}
    if folder:
        vision_told |= told(folder, "vision_config", HUB_VISION, vision)
        text_told |= told(folder, "text_config", HUB_TEXT, text)
    return Florence2Config(DaViTConfig(**vision, **vision_told), BartConfig(**text, **text_told))


# What arrays do not tell, with the values where a hub's config.json leaves it out.
HUB_VISION = {"num_heads": (4, 8, 16, 32), "num_groups": (4, 8, 16, 32), "window_size": 12, "drop_path_rate": 0.1}
HUB_TEXT = {"encoder_attention_heads": 16, "pad_token_id": 1, "dropout": 0.1, "attention_dropout": 0.0,
            "activation_dropout": 0.0}
# What every published Florence-2 has, under the names of config.json.
FIXED = {"patch_size": [7, 3, 3, 3], "patch_stride": [4, 2, 2, 2], "patch_padding": [3, 1, 1, 1],
         "patch_prenorm": [False, True, True, True], "mlp_ratio": 4.0, "qkv_bias": True, "activation_function": "gelu",
         "scale_embedding": False, "image_feature_source": ["spatial_avg_pool", "temporal_avg_pool"]}


def told(folder: HubFolder, part: str, names: Mapping[str, Any], sizes: Mapping[str, Any]) -> dict[str, Any]:
    """What a part of config.json says under `names`.

    sizes: those of the arrays, which must agree with it where it names them. UserError: another kind of model, other
    sizes, something that no number is.
    """
    path = folder.path / CONFIG
    found = folder.section({"florence2": ""}, SUCH).get(part) or {}
    if not isinstance(found, dict):
        raise UserError(f"{path}: its {part} is no object; fetch the file again")
    found = {"dim_embed": found["embed_dim"], **found} if "embed_dim" in found else found    # the other form's name
    for name, legal in FIXED.items():
        if found.get(name, legal) != legal:
            raise UserError(f"{path}: {part} {name} is {found[name]!r}; legal: {legal!r}, {SUCH}")
    for name, size in sizes.items():
        stated = found.get("dim_embed" if name == "embed_dim" else name, size)
        if (tuple(stated) if isinstance(stated, list) else stated) != size:
            raise UserError(f"{path}: {part} {name} is {stated!r}, and the arrays have {size}: they are not of one "
                            "model; fetch both files again")
    values = {}
    for name, default in names.items():
        value = found.get(name, default)
        value = tuple(value) if isinstance(value, list) else value
        if not all(type(number) in ((int, float) if isinstance(default, float) else (int,)) and number >= 0
                   for number in (value if isinstance(default, tuple) and isinstance(value, tuple) else (value,))):
            raise UserError(f"{path}: {part} {name} is {value!r}; legal: as in {default}")
        values[name] = value
    return values


def from_description(vision: Mapping, text: Mapping) -> Florence2Config:
    """The inverse of dataclasses.asdict. TypeError, ValueError: a description of something else."""
    return Florence2Config(DaViTConfig(**{name: frozen(value) for name, value in vision.items()}), BartConfig(**text))


def renames(prefix: str = "") -> Renames:
    """Pairs for Conversion from the names of microsoft/Florence-2-*, below a prefix, to ours."""
    start = "^" + prefix.replace(".", r"\.")
    block = start + r"(vision_tower\.blocks\.\d+\.\d+\.(?:spatial|channel)_block)\."
    return (
        (start + r"vision_tower\.convs\.(\d+)\.proj\.", prefix + r"vision_tower.convs.\1.conv."),
        (block + r"(conv[12])\.fn\.dw\.", prefix + r"\1.\2."),
        (block + r"(?:window|channel)_attn\.norm\.", prefix + r"\1.norm1."),
        (block + r"(window|channel)_attn\.fn\.", prefix + r"\1.\2_attn."),
        (block + r"ffn\.norm\.", prefix + r"\1.norm2."),
        (block + r"ffn\.fn\.net\.", prefix + r"\1.ffn."),
        (start + r"image_projection$", f"{prefix}{PROJECTOR}image_projection.weight"),
        (start + r"image_proj_norm\.", f"{prefix}{PROJECTOR}image_proj_norm."),
        (start + r"image_pos_embed\.", f"{prefix}{PROJECTOR}image_position_embed."),
        (start + r"visual_temporal_embed\.", f"{prefix}{PROJECTOR}visual_temporal_embed."),
        (start + r"language_model\.model\.", f"{prefix}{TEXT}"),
        (start + r"(?:language_model\.)?(?:encoder\.embed_tokens|lm_head)\.", f"{prefix}{TEXT}shared."),
    )


def microsofts(prefix: str = "") -> Renames:
    """The pairs for the reverse of `renames`."""
    start = "^" + prefix.replace(".", r"\.")
    block = start + r"(vision_tower\.blocks\.\d+\.\d+\.(?:spatial|channel)_block)\."
    half = start + r"(vision_tower\.blocks\.\d+\.\d+)\."
    projector = start + r"multi_modal_projector\."
    return (
        (start + r"vision_tower\.convs\.(\d+)\.conv\.", prefix + r"vision_tower.convs.\1.proj."),
        (block + r"(conv[12])\.", prefix + r"\1.\2.fn.dw."),
        (block + r"(window|channel)_attn\.", prefix + r"\1.\2_attn.fn."),
        (block + r"ffn\.", prefix + r"\1.ffn.fn.net."),
        (half + r"spatial_block\.norm1\.", prefix + r"\1.spatial_block.window_attn.norm."),
        (half + r"channel_block\.norm1\.", prefix + r"\1.channel_block.channel_attn.norm."),
        (block + r"norm2\.", prefix + r"\1.ffn.norm."),
        (projector + r"image_projection\.weight$", f"{prefix}image_projection"),
        (projector + r"image_position_embed\.", f"{prefix}image_pos_embed."),
        (projector, prefix),
        (start + r"language_model\.", f"{prefix}language_model.model."),
    )


# The matrix that microsoft/Florence-2-* holds transposed.
TRANSPOSED = "*image_projection"
# Names of the one table of tokens.
TABLE = ("*language_model*.shared.weight", "*encoder.embed_tokens.weight", "*lm_head.weight")
CONVERSION = Conversion(
    infer_config, own=("model",), renames=((r"^model\.", ""), *renames()), back=((r"^", "model."),),
    left_out=("*decoder.*", "*final_logits_bias"), transposed=(TRANSPOSED,), tied=TABLE, describe=asdict,
    extras="keys of the decoder, and further names of the table of tokens")
