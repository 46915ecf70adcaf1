"""BLIP for judging a picture by a text: its sizes, its files, and how a picture is prepared for it.

Li et al. 2022, arXiv 2201.12086. A vision transformer sees the picture; a BERT reads the text alone, or reads it while
looking at the picture. Names of the weights are those of the official files: model_large.pth, pretrained on 129 million
pictures, is the BLIP of BLIPScore and the beginning of ImageReward.
"""
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jittwin.errors import UserError
from jittwin.models.bert import BertConfig
from jittwin.models.conversion import Conversion, Shapes, Source, below, counted, renaming, stored_config, unfit
from jittwin.models.vit import HEAD, ViTConfig, sizes_of
from jittwin.preprocessing import Preprocess, as_for_clip
from jittwin.text_files import read_object
from jittwin.weights.hub import CONFIG, HubFolder, numbers

VISION, TEXT = "visual_encoder.", "text_encoder."
MED_CONFIG = "med_config.json"      # beside ImageReward.pt: the sizes of the text encoder
SUCH = "such as BLIP's model_large.pth, or a folder of transformers' BlipForImageTextRetrieval"


@dataclass(frozen=True)
class BlipConfig:
    """vision, text: of the two networks. projection: length of the features by which texts and pictures are compared.

    ValueError: a text encoder that looks at pictures of another width, or has types of tokens.
    """

    vision: ViTConfig = ViTConfig(classes=0)
    text: BertConfig = BertConfig(vocab_size=30524, type_vocab_size=0, pooler=False, image_width=1024)
    projection: int = 256

    def __post_init__(self):
        if self.text.image_width != self.vision.hidden_size:
            raise ValueError(f"the text encoder looks at tokens of width {self.text.image_width}, and a picture "
                             f"has {self.vision.hidden_size}")
        if self.text.type_vocab_size or self.text.pooler or self.vision.classes:
            raise ValueError("BLIP has no types of tokens, no pooler and no classifier")

    @property
    def name(self) -> str:
        """The name of the published architecture, or the sizes."""
        return next((f"BLIP {name}" for name, config in PRESETS.items() if config == self),
                    f"BLIP {self.vision.hidden_size}x{self.vision.num_hidden_layers}")


PRESETS = {
    "large": BlipConfig(),
    "tiny": BlipConfig(ViTConfig(48, 3, 4, 96, 16, 64, classes=0),
                       BertConfig(60, 32, 2, 4, 48, 40, 0, pooler=False, image_width=48), 16),
}


def preprocess(config: BlipConfig) -> Preprocess:
    """The preparation of a picture, which is CLIP's."""
    return as_for_clip(config.vision.image_size)


def infer_config(shapes: Shapes, source: Source | None = None) -> BlipConfig:
    """As the metadata of a file of ours say, or a hub folder's config.json, else as the arrays and med_config.json.

    UserError: not the weights of a BLIP, sizes that do not go together.
    """
    if config := stored_config(source, "blip", from_description, "BLIP"):
        return config
    try:
        if source and source.folder:
            return read_config(source.folder)
        return sizes_by_arrays(shapes, source)
    except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
        raise unfit(source, f"not the weights of a BLIP, {SUCH} ({error})") from error


def sizes_by_arrays(shapes: Shapes, source: Source | None) -> BlipConfig:
    """KeyError, IndexError, ValueError, ZeroDivisionError: not the arrays of a BLIP."""
    vision, text = sizes_of(below(shapes, VISION)), below(shapes, TEXT)
    words, width = text["embeddings.word_embeddings.weight"]
    seen = text["encoder.layer.0.crossattention.self.key.weight"][1]
    sizes = {"vocab_size": words, "hidden_size": width,
             "num_hidden_layers": counted(text, "encoder.layer.{}.output.dense.weight"),
             "intermediate_size": text["encoder.layer.0.intermediate.dense.weight"][0],
             "max_position_embeddings": text["embeddings.position_embeddings.weight"][0]}
    heads = {"num_attention_heads": width // HEAD, **med_config(source, sizes)}
    return BlipConfig(vision, BertConfig(**sizes, **heads, type_vocab_size=0, pooler=False, image_width=seen),
                      shapes["text_proj.weight"][0])


def med_config(source: Source | None, sizes: Mapping[str, int]) -> dict[str, Any]:
    """What med_config.json beside the file says and the arrays do not tell; {} where there is none.

    UserError: it describes another text encoder.
    """
    path = Path(source.where).with_name(MED_CONFIG) if source else None
    if path is None or not path.is_file():
        return {}
    found = read_object(path)
    for name, size in sizes.items():
        if found.get(name, size) != size:
            raise UserError(f"{path}: {name} is {found[name]!r}, and {source.where} has {size}; give the files of one "
                            "model")
    told = ("num_attention_heads", "layer_norm_eps", "hidden_dropout_prob", "attention_probs_dropout_prob")
    return {name: found[name] for name in told if name in found}


# What config.json of a hub folder leaves out where it has transformers' own defaults, and its names for our sizes.
HUB_VISION = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072,
              "patch_size": 16, "image_size": 384, "layer_norm_eps": 1e-5}
HUB_TEXT = {"vocab_size": 30524, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 8,
            "intermediate_size": 3072, "max_position_embeddings": 512, "layer_norm_eps": 1e-12,
            "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def read_config(folder: HubFolder) -> BlipConfig:
    """The sizes in a hub folder's config.json. UserError: another kind of model. ValueError: sizes that do not fit."""
    found, path = folder.section({"blip": ""}, SUCH), folder.path / CONFIG
    parts = []
    for part, defaults in (("vision_config", HUB_VISION), ("text_config", HUB_TEXT)):
        given = found.get(part) or {}
        if not isinstance(given, dict) or given.get("hidden_act", "gelu") != "gelu":
            raise UserError(f"{path}: its {part} describes no network with gelu; legal: {SUCH}")
        parts.append(numbers(given, defaults, f"{path}: {part}"))
    vision, text = ViTConfig(**parts[0], classes=0), parts[1]
    return BlipConfig(vision, BertConfig(**text, type_vocab_size=0, pooler=False, image_width=vision.hidden_size),
                      found.get("image_text_hidden_size", 256))


def from_description(vision: Mapping, text: Mapping, **rest) -> BlipConfig:
    """The inverse of dataclasses.asdict. TypeError, ValueError: a description of something else."""
    return BlipConfig(ViTConfig(**vision), BertConfig(**text), **rest)


# Names in our files and in transformers'; {} stands for the number of a block.
HUB_NAMES = (("visual_encoder.cls_token", "vision_model.embeddings.class_embedding"),
             ("visual_encoder.pos_embed", "vision_model.embeddings.position_embedding"),
             ("visual_encoder.patch_embed.proj.", "vision_model.embeddings.patch_embedding."),
             ("visual_encoder.norm.", "vision_model.post_layernorm."),
             ("visual_encoder.blocks.{}.attn.qkv.", "vision_model.encoder.layers.{}.self_attn.qkv."),
             ("visual_encoder.blocks.{}.attn.proj.", "vision_model.encoder.layers.{}.self_attn.projection."),
             ("visual_encoder.blocks.{}.norm1.", "vision_model.encoder.layers.{}.layer_norm1."),
             ("visual_encoder.blocks.{}.norm2.", "vision_model.encoder.layers.{}.layer_norm2."),
             ("visual_encoder.blocks.{}.mlp.", "vision_model.encoder.layers.{}.mlp."))


# Of training, the official file holds momentum copies, queues of features, a temperature and a decoder of captions.
TRAINING = ("*_m.*", "*image_queue", "*text_queue", "*queue_ptr", "*ptr_queue", "*text_decoder.*", "temp",
            "module.temp", "*logit_scale")
POSITION_IDS = "*embeddings.position_ids"
CONVERSION = Conversion(
    infer_config, renames=((r"^module\.", ""), *(renaming(theirs, ours) for ours, theirs in HUB_NAMES)),
    back=tuple(renaming(ours, theirs) for ours, theirs in HUB_NAMES), left_out=(*TRAINING, POSITION_IDS),
    beside=("itm_head.*",), describe=asdict, extras="keys of training and positions")
