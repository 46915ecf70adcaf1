"""The encoder of BART (Lewis et al. 2019, arXiv 1910.13461). Keys are those of the Hugging Face hub."""
from jittwin.models.florence2 import OFFSET
from jt_models.nn import ops
from jt_models.nn.layers import Dropout, Embedding, LayerNorm, Linear, Module, ModuleList


class SelfAttention(Module):
    """mask: as in ops.attention; None if every token attends to all."""

    def __init__(self, config):
        super().__init__()
        width = config.d_model
        self.heads = config.encoder_attention_heads
        self.k_proj = Linear(width, width)
        self.v_proj = Linear(width, width)
        self.q_proj = Linear(width, width)
        self.out_proj = Linear(width, width)
        self.dropout = Dropout(config.attention_dropout)        # of the attention weights

    def execute(self, x, mask=None):
        return self.out_proj(ops.attention(self.q_proj(x), self.k_proj(x), self.v_proj(x), self.heads, mask,
                                           self.dropout.rate(), self.dropout.site))


class EncoderLayer(Module):
    """Tokens (B, N, C) to the same shape; normalised after each sum."""

    def __init__(self, config):
        super().__init__()
        self.self_attn = SelfAttention(config)
        self.attention_dropout = Dropout(config.dropout)
        self.self_attn_layer_norm = LayerNorm(config.d_model)
        self.fc1 = Linear(config.d_model, config.encoder_ffn_dim)
        self.activation_dropout = Dropout(config.activation_dropout)
        self.fc2 = Linear(config.encoder_ffn_dim, config.d_model)
        self.dropout = Dropout(config.dropout)
        self.final_layer_norm = LayerNorm(config.d_model)

    def execute(self, x, mask=None):
        x = self.self_attn_layer_norm(x + self.attention_dropout(self.self_attn(x, mask)))
        hidden = self.activation_dropout(ops.gelu(self.fc1(x)))
        return self.final_layer_norm(x + self.dropout(self.fc2(hidden)))


class BartEncoder(Module):
    """Embeddings (B, N, C) of tokens to tokens (B, N, C).

    config: a jittwin.models.florence2.BartConfig. The weights must be loaded.
    """

    def __init__(self, config):
        super().__init__()
        self.embed_positions = Embedding(config.max_position_embeddings + OFFSET, config.d_model)
        self.layers = ModuleList([EncoderLayer(config) for _ in range(config.encoder_layers)])
        self.layernorm_embedding = LayerNorm(config.d_model)
        self.dropout = Dropout(config.dropout)

    def execute(self, x, mask=None, call=None):
        """mask: as in ops.attention. call: the function (layer, tokens[, mask]) by which a layer is run; None to run
        it simply. ValueError: more tokens than positions."""
        positions = self.embed_positions.weight[OFFSET:OFFSET + x.shape[1]]
        if positions.shape[0] != x.shape[1]:
            raise ValueError(f"{x.shape[1]} tokens, and the table of positions has {positions.shape[0]}")
        x = self.dropout(self.layernorm_embedding(x + positions))
        masks = () if mask is None else (mask,)
        for layer in self.layers:
            x = call(layer, x, *masks) if call else layer(x, *masks)
        return x
