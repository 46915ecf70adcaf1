"""SigLIP's vision tower (Zhai et al. 2023, arXiv 2303.15343).

Keys are those of the Hugging Face hub without the prefix "vision_model.".
"""
from jt_models.boot import jt
from jt_models.nn import ops
from jt_models.nn.layers import GELU, Conv2d, Embedding, LayerNorm, Linear, Module, ModuleList, checkpoint


class Embeddings(Module):
    """(B, 3, S, S) to tokens (B, N, C): the patches row by row, each plus the embedding of its position."""

    def __init__(self, config):
        super().__init__()
        self.patch_embedding = Conv2d(3, config.hidden_size, config.patch_size, stride=config.patch_size)
        self.position_embedding = Embedding(config.tokens, config.hidden_size)

    def execute(self, pixels):
        x = self.patch_embedding(pixels)
        x = x.reshape(x.shape[0], x.shape[1], -1).transpose(0, 2, 1)
        return x + self.position_embedding(jt.arange(x.shape[1]).reshape(1, -1))


class Attention(Module):
    """Tokens (B, N, C) look at themselves. mask: see ops.attention."""

    def __init__(self, config):
        super().__init__()
        width = config.hidden_size
        self.heads = config.num_attention_heads
        self.k_proj = Linear(width, width)
        self.v_proj = Linear(width, width)
        self.q_proj = Linear(width, width)
        self.out_proj = Linear(width, width)

    def execute(self, x, mask=None):
        return self.out_proj(ops.attention(self.q_proj(x), self.k_proj(x), self.v_proj(x), self.heads, mask))


class GELUTanh(Module):
    def execute(self, x):
        return ops.gelu_tanh(x)


class QuickGELU(Module):
    def execute(self, x):
        return ops.quick_gelu(x)


ACTIVATIONS = {"gelu_pytorch_tanh": GELUTanh, "quick_gelu": QuickGELU, "gelu": GELU}     # by their names on the hub


class MLP(Module):
    def __init__(self, config):
        super().__init__()
        self.activation_fn = ACTIVATIONS[config.hidden_act]()
        self.fc1 = Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = Linear(config.intermediate_size, config.hidden_size)

    def execute(self, x):
        return self.fc2(self.activation_fn(self.fc1(x)))


class EncoderLayer(Module):
    """Tokens (B, N, C) to the same shape. mask: see ops.attention."""

    def __init__(self, config):
        super().__init__()
        self.layer_norm1 = LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.self_attn = Attention(config)
        self.layer_norm2 = LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.mlp = MLP(config)

    def execute(self, x, mask=None):
        x = x + self.self_attn(self.layer_norm1(x), mask)
        return x + self.mlp(self.layer_norm2(x))


class Encoder(Module):
    def __init__(self, config):
        super().__init__()
        self.layers = ModuleList([EncoderLayer(config) for _ in range(config.num_hidden_layers)])

    def execute(self, x, mask=None):
        for layer in self.layers:
            x = layer(x, mask)
        return x


class PooledAttention(Module):
    """Attention of a query (B, 1, C) to tokens (B, N, C). One matrix holds the projections of query, keys, values."""

    def __init__(self, config):
        super().__init__()
        width = config.hidden_size
        self.heads = config.num_attention_heads
        self.in_proj_weight = jt.zeros((3 * width, width))
        self.in_proj_bias = jt.zeros((3 * width,))
        self.out_proj = Linear(width, width)

    def execute(self, query, x):
        width = x.shape[-1]
        q, k, v = (ops.linear(tokens, self.in_proj_weight[at:at + width], self.in_proj_bias[at:at + width])
                   for tokens, at in ((query, 0), (x, width), (x, 2 * width)))
        return ops.linear(ops.attention(q, k, v, self.heads), self.out_proj.weight, self.out_proj.bias)


class PoolingHead(Module):
    """Tokens (B, N, C) to (B, C): a learnt query attends to them."""

    def __init__(self, config):
        super().__init__()
        self.probe = jt.zeros((1, 1, config.hidden_size))
        self.attention = PooledAttention(config)
        self.layernorm = LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.mlp = MLP(config)

    def execute(self, x):
        pooled = self.attention(self.probe.broadcast((x.shape[0], 1, x.shape[2])), x)
        return (pooled + self.mlp(self.layernorm(pooled)))[:, 0]


class SiglipVisionModel(Module):
    """Pictures (B, 3, S, S) in [-1, 1] to tokens (B, N, C), after the last normalisation.

    config: a jittwin.models.siglip.SiglipVisionConfig. gradient_checkpointing: compute each layer again for its
    gradient instead of keeping its inner results. The weights must be loaded.
    """

    def __init__(self, config, gradient_checkpointing: bool = False):
        super().__init__()
        self.embeddings = Embeddings(config)
        self.encoder = Encoder(config)
        self.post_layernorm = LayerNorm(config.hidden_size, config.layer_norm_eps)
        if config.head:
            self.head = PoolingHead(config)
        self.gradient_checkpointing = gradient_checkpointing

    def execute(self, pixels):
        x = self.embeddings(pixels)
        for layer in self.encoder.layers:
            x = checkpoint(layer, x) if self.gradient_checkpointing else layer(x)
        return self.post_layernorm(x)

    def pool(self, hidden):
        """Tokens (B, N, C) to SigLIP's embedding of the image (B, C); only if config.head is true."""
        return self.head(hidden)
