"""The vision transformer (Dosovitskiy et al. 2021, arXiv 2010.11929).

Keys are timm's. Dropout and stochastic depth, which only training from scratch uses, are left out.
"""
from torch_models.nn import ops
from torch_models.nn.layers import GELU, Conv2d, LayerNorm, Linear, Module, Sequential, freeze, parameter


class PatchEmbed(Module):
    """(B, 3, S, S) to tokens (B, N, C), one for each patch, row by row."""

    def __init__(self, config):
        super().__init__()
        self.proj = Conv2d(3, config.hidden_size, config.patch_size, stride=config.patch_size)

    def forward(self, pixels):
        x = self.proj(pixels)
        return x.reshape(*x.shape[:2], -1).permute(0, 2, 1)


class Attention(Module):
    """Self-attention of tokens (B, N, C). One matrix holds the projections of queries, keys and values."""

    def __init__(self, config):
        super().__init__()
        width = config.hidden_size
        self.heads = config.num_attention_heads
        self.qkv = Linear(width, 3 * width)
        self.proj = Linear(width, width)

    def forward(self, x):
        width, x = x.shape[2], self.qkv(x)
        q, k, v = (x[:, :, at:at + width] for at in (0, width, 2 * width))
        return self.proj(ops.attention(q, k, v, self.heads))


class Mlp(Module):
    def __init__(self, config):
        super().__init__()
        self.fc1 = Linear(config.hidden_size, config.intermediate_size)
        self.act = GELU()
        self.fc2 = Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x):
        return self.fc2(self.act(self.fc1(x)))


class Block(Module):
    """Tokens (B, N, C) to the same shape."""

    def __init__(self, config):
        super().__init__()
        self.norm1 = LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.attn = Attention(config)
        self.norm2 = LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.mlp = Mlp(config)

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class VisionEncoder(Module):
    """Pictures (B, 3, S, S) to tokens (B, 1 + N, C), normalised; the first stands for the whole picture.

    config: a jittwin.models.vit.ViTConfig. The weights must be loaded.
    """

    def __init__(self, config):
        super().__init__()
        width = config.hidden_size
        self.cls_token = parameter(1, 1, width)
        self.pos_embed = parameter(1, config.tokens, width)
        self.patch_embed = PatchEmbed(config)
        self.blocks = Sequential(*[Block(config) for _ in range(config.num_hidden_layers)])
        self.norm = LayerNorm(width, config.layer_norm_eps)

    def tokens(self, pixels):
        """The tokens after the last block, before the normalisation."""
        x = self.patch_embed(pixels)
        first = ops.zeros((x.shape[0], 1, x.shape[2])) + self.cls_token
        return self.blocks(ops.concat([first, x], 1) + self.pos_embed)

    def forward(self, pixels):
        return self.norm(self.tokens(pixels))


class VisionTransformer(VisionEncoder):
    """Pictures (B, 3, S, S), prepared as jittwin.models.vit says, to features (B, C).

    config: a jittwin.models.vit.ViTConfig. The features are the first token after the last block. The normalisation
    and the classifier that follow are part of the state only, and frozen. The weights must be loaded.
    """

    def __init__(self, config):
        super().__init__(config)
        freeze(self.norm)
        if config.classes:
            self.head = Linear(config.hidden_size, config.classes)
            freeze(self.head)

    def forward(self, pixels):
        return self.tokens(pixels)[:, 0]
