"""BERT as a text encoder (Devlin et al. 2019, arXiv 1810.04805), and as BLIP has it, which can also look at a picture.

Keys are those of the Hugging Face hub.
"""
from torch_models.nn import ops
from torch_models.nn.layers import Dropout, Embedding, LayerNorm, Linear, Module, ModuleList, freeze, name_dropouts


class Embeddings(Module):
    """Token ids (B, N) to (B, N, C): the sum of word, type and position embeddings.

    Every token has type 0, if the network knows types.
    """

    def __init__(self, config):
        super().__init__()
        width = config.hidden_size
        self.word_embeddings = Embedding(config.vocab_size, width, padding_idx=config.pad_token_id)
        self.position_embeddings = Embedding(config.max_position_embeddings, width)
        self.typed = config.type_vocab_size > 0
        if self.typed:
            self.token_type_embeddings = Embedding(config.type_vocab_size, width)
        self.LayerNorm = LayerNorm(width, config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout_prob)

    def forward(self, ids):
        x = self.word_embeddings(ids)
        if self.typed:
            x = x + ops.expand(self.token_type_embeddings.weight[:1].reshape(1, 1, -1), x.shape)
        return self.dropout(self.LayerNorm(x + self.position_embeddings.weight[:ids.shape[1]]))


class SelfAttention(Module):
    """Tokens x (B, N, C) look at `seen`, (B, M, D): at themselves, or at the tokens of a picture."""

    def __init__(self, config, seen_width: int):
        super().__init__()
        width = config.hidden_size
        self.heads = config.num_attention_heads
        self.query = Linear(width, width)
        self.key = Linear(seen_width, width)
        self.value = Linear(seen_width, width)
        self.dropout = Dropout(config.attention_probs_dropout_prob)     # of the attention weights

    def forward(self, x, seen, mask=None):
        return ops.attention(self.query(x), self.key(seen), self.value(seen), self.heads, mask,
                             self.dropout.rate(), self.dropout.site)


class Output(Module):
    """The end of either half of a layer: x (B, N, in) is projected, added to the half's input and normalised."""

    def __init__(self, config, in_features: int):
        super().__init__()
        self.dense = Linear(in_features, config.hidden_size)
        self.LayerNorm = LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout_prob)

    def forward(self, x, kept):
        return self.LayerNorm(self.dropout(self.dense(x)) + kept)


class Attention(Module):
    def __init__(self, config, seen_width: int):
        super().__init__()
        self.self = SelfAttention(config, seen_width)
        self.output = Output(config, config.hidden_size)

    def forward(self, x, seen, mask=None):
        return self.output(self.self(x, seen, mask), x)


class Intermediate(Module):
    def __init__(self, config):
        super().__init__()
        self.dense = Linear(config.hidden_size, config.intermediate_size)

    def forward(self, x):
        return ops.gelu(self.dense(x))


class Layer(Module):
    """Tokens (B, N, C) to the same shape. image: tokens (B, M, D) of a picture to look at, None for a text alone."""

    def __init__(self, config):
        super().__init__()
        self.attention = Attention(config, config.hidden_size)
        if config.image_width:
            self.crossattention = Attention(config, config.image_width)
        self.intermediate = Intermediate(config)
        self.output = Output(config, config.intermediate_size)

    def forward(self, x, mask, image=None):
        x = self.attention(x, x, mask)
        if image is not None:
            x = self.crossattention(x, image)
        return self.output(self.intermediate(x), x)


class Encoder(Module):
    def __init__(self, config):
        super().__init__()
        self.layer = ModuleList([Layer(config) for _ in range(config.num_hidden_layers)])

    def forward(self, x, mask, image=None):
        for layer in self.layer:
            x = layer(x, mask, image)
        return x


class Pooler(Module):
    """What a file holds for the classification of whole texts."""

    def __init__(self, config):
        super().__init__()
        self.dense = Linear(config.hidden_size, config.hidden_size)


class Bert(Module):
    """Token ids (B, N), and which of them are text (B, N), 1 or 0, to (B, N, C).

    config: a jittwin.models.bert.BertConfig. image: tokens (B, M, D) of a picture for every text, which the text looks
    at, in a network with cross-attention; None reads the text alone. The pooler is part of the state alone, and frozen.
    The weights are to be loaded.
    """

    def __init__(self, config):
        super().__init__()
        self.embeddings = Embeddings(config)
        self.encoder = Encoder(config)
        if config.pooler:
            self.pooler = Pooler(config)
            freeze(self.pooler)
        name_dropouts(self)

    def forward(self, ids, keep, image=None):
        return self.encoder(self.embeddings(ids), ops.padding_mask(keep), image)
