"""BERT: its sizes. Devlin et al. 2019, arXiv 1810.04805. Names of the weights and sizes are the Hugging Face hub's."""
from dataclasses import dataclass, fields

from jittwin.errors import UserError
from jittwin.models.conversion import Conversion, Shapes, Source, counted, stored_config, unfit
from jittwin.weights.hub import CONFIG, HubFolder, numbers

HEAD = 64       # channels of an attention head, in every size that Google published
SUCH = "such as google-bert/bert-base-uncased"


@dataclass(frozen=True)
class BertConfig:
    """Sizes as in config.json, for those of bert-base-uncased. The dropouts are probabilities in training.

    type_vocab_size: 0 for a network without types of tokens, which is BLIP's. pooler: with the layer that follows the
    first token, which features do not need but files hold. image_width: channels of the tokens of pictures that texts
    can look at; 0 for a network without cross-attention. ValueError: sizes that do not go together.
    """

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    pad_token_id: int = 0
    layer_norm_eps: float = 1e-12
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    pooler: bool = True
    image_width: int = 0

    def __post_init__(self):
        if self.num_attention_heads < 1 or self.hidden_size % self.num_attention_heads:
            raise ValueError(f"{self.num_attention_heads} heads do not divide a width of {self.hidden_size}")


PRESETS = {
    "base-uncased": BertConfig(),
    "tiny": BertConfig(vocab_size=60, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
                       max_position_embeddings=16),
}


def read_config(folder: HubFolder, pooler: bool) -> BertConfig:
    """UserError: a missing or damaged file, another kind of model."""
    found, path = folder.section({"bert": ""}, SUCH), folder.path / CONFIG
    for name, legal in (("hidden_act", "gelu"), ("position_embedding_type", "absolute")):
        if found.get(name, legal) != legal:
            raise UserError(f"{path}: {name} is {found[name]!r}; legal: {legal}, {SUCH}")
    sizes = numbers(found, {field.name: field.default for field in fields(BertConfig)}, f"{path}:")
    try:
        return BertConfig(**{**sizes, "pooler": pooler})
    except ValueError as error:
        raise UserError(f"{path}: {error}; fetch the file again") from error


def infer_config(shapes: Shapes, source: Source | None = None) -> BertConfig:
    """As config.json says, or the metadata of a file that `jittwin convert` wrote, else as the arrays tell. UserError:
    not the weights of a BERT, sizes that do not go together."""
    if config := stored_config(source, "bert", BertConfig, "BERT"):
        return config
    pooler = "pooler.dense.weight" in shapes
    if source and source.folder:
        return read_config(source.folder, pooler)
    try:
        words, width = shapes["embeddings.word_embeddings.weight"]
        places, kinds = (shapes[f"embeddings.{name}_embeddings.weight"][0] for name in ("position", "token_type"))
        hidden = shapes["encoder.layer.0.intermediate.dense.weight"][0]
        layers = counted(shapes, "encoder.layer.{}.output.dense.weight")
        return BertConfig(words, width, layers, width // HEAD, hidden, places, kinds, pooler=pooler)
    except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
        raise unfit(source, f"not the weights of a BERT, {SUCH} ({error})") from error


# Files of whole models for pretraining have a prefix, and old ones other names for what a normalisation learns.
CONVERSION = Conversion(
    infer_config, own=("bert",), renames=((r"^bert\.", ""), (r"LayerNorm\.gamma$", "LayerNorm.weight"),
                           (r"LayerNorm\.beta$", "LayerNorm.bias")),
    left_out=("cls.*", "*embeddings.position_ids"), extras="keys of the heads for pretraining")
