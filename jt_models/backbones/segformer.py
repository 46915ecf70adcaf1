"""SegFormer for semantic segmentation (Xie et al. 2021, arXiv 2105.15203).

Keys are those of the Hugging Face hub. All layer norms have epsilon 1e-5, whatever the hub's config.json says. Dropout
and stochastic depth, which only training from scratch uses, are left out.
"""
from jt_models.nn import ops
from jt_models.nn.layers import GELU, BatchNorm2d, Conv2d, DepthwiseConv2d, LayerNorm, Linear, Module, ModuleList, ReLU


def to_tokens(x):
    """(B, C, H, W) to (B, H W, C)."""
    return x.reshape(*x.shape[:2], -1).transpose(0, 2, 1)


def to_map(x, height: int, width: int):
    """(B, height width, C) to (B, C, height, width)."""
    return x.transpose(0, 2, 1).reshape(x.shape[0], x.shape[2], height, width)


class OverlapPatchEmbeddings(Module):
    """(B, in, H, W) to tokens (B, h w, out), h and w."""

    def __init__(self, in_channels: int, channels: int, patch_size: int, stride: int):
        super().__init__()
        self.proj = Conv2d(in_channels, channels, patch_size, stride, padding=patch_size // 2)
        self.layer_norm = LayerNorm(channels)

    def execute(self, x):
        x = self.proj(x)
        return self.layer_norm(to_tokens(x)), x.shape[2], x.shape[3]


class EfficientSelfAttention(Module):
    """Every token attends to a grid of tokens that is `sr_ratio` times coarser along either side."""

    def __init__(self, channels: int, heads: int, sr_ratio: int):
        super().__init__()
        self.heads = heads
        self.query = Linear(channels, channels)
        self.key = Linear(channels, channels)
        self.value = Linear(channels, channels)
        self.sr = None
        if sr_ratio > 1:
            self.sr = Conv2d(channels, channels, sr_ratio, stride=sr_ratio)
            self.layer_norm = LayerNorm(channels)

    def execute(self, x, height: int, width: int):
        context = x
        if self.sr is not None:
            context = self.layer_norm(to_tokens(self.sr(to_map(x, height, width))))
        return ops.attention(self.query(x), self.key(context), self.value(context), self.heads)


class SelfOutput(Module):
    def __init__(self, channels: int):
        super().__init__()
        self.dense = Linear(channels, channels)

    def execute(self, x):
        return self.dense(x)


class Attention(Module):
    def __init__(self, channels: int, heads: int, sr_ratio: int):
        super().__init__()
        self.self = EfficientSelfAttention(channels, heads, sr_ratio)
        self.output = SelfOutput(channels)

    def execute(self, x, height: int, width: int):
        return self.output(self.self(x, height, width))


class DepthwiseMixer(Module):
    """A 3x3 depthwise convolution of the tokens' map. Its zero padding replaces position embeddings."""

    def __init__(self, channels: int):
        super().__init__()
        self.dwconv = DepthwiseConv2d(channels, 3, padding=1)

    def execute(self, x, height: int, width: int):
        return to_tokens(self.dwconv(to_map(x, height, width)))


class MixFFN(Module):
    def __init__(self, channels: int, hidden: int):
        super().__init__()
        self.dense1 = Linear(channels, hidden)
        self.dwconv = DepthwiseMixer(hidden)
        self.intermediate_act_fn = GELU()
        self.dense2 = Linear(hidden, channels)

    def execute(self, x, height: int, width: int):
        return self.dense2(self.intermediate_act_fn(self.dwconv(self.dense1(x), height, width)))


class Block(Module):
    """Tokens (B, N, C), N = height width, to the same shape."""

    def __init__(self, channels: int, heads: int, sr_ratio: int, mlp_ratio: int):
        super().__init__()
        self.layer_norm_1 = LayerNorm(channels)
        self.attention = Attention(channels, heads, sr_ratio)
        self.layer_norm_2 = LayerNorm(channels)
        self.mlp = MixFFN(channels, channels * mlp_ratio)

    def execute(self, x, height: int, width: int):
        x = x + self.attention(self.layer_norm_1(x), height, width)
        return x + self.mlp(self.layer_norm_2(x), height, width)


class Encoder(Module):
    """(B, 3, H, W) to the maps of the stages, with strides 4, 8, 16 and 32."""

    def __init__(self, config):
        super().__init__()
        wide = config.hidden_sizes
        stages = range(len(wide))
        self.patch_embeddings = ModuleList([
            OverlapPatchEmbeddings(wide[i - 1] if i else 3, wide[i], config.patch_sizes[i], config.strides[i])
            for i in stages])
        self.block = ModuleList([ModuleList([
            Block(wide[i], config.num_attention_heads[i], config.sr_ratios[i], config.mlp_ratio)
            for _ in range(config.depths[i])]) for i in stages])
        self.layer_norm = ModuleList([LayerNorm(channels) for channels in wide])

    def execute(self, x):
        maps = []
        for embed, blocks, norm in zip(self.patch_embeddings, self.block, self.layer_norm, strict=True):
            x, height, width = embed(x)
            for block in blocks:
                x = block(x, height, width)
            x = to_map(norm(x), height, width)
            maps.append(x)
        return maps


class Backbone(Module):
    def __init__(self, config):
        super().__init__()
        self.encoder = Encoder(config)

    def execute(self, x):
        maps = self.encoder(x)
        return maps[-1], maps


class Projection(Module):
    """(B, C, h, w) to tokens (B, h w, channels)."""

    def __init__(self, in_channels: int, channels: int):
        super().__init__()
        self.proj = Linear(in_channels, channels)

    def execute(self, x):
        return self.proj(to_tokens(x))


class DecodeHead(Module):
    """Maps of the stages to logits (B, num_labels, H/4, W/4)."""

    def __init__(self, config):
        super().__init__()
        wide = config.decoder_hidden_size
        self.linear_c = ModuleList([Projection(channels, wide) for channels in config.hidden_sizes])
        self.linear_fuse = Conv2d(wide * len(config.hidden_sizes), wide, 1, bias=False)
        self.batch_norm = BatchNorm2d(wide)
        self.activation = ReLU()
        self.classifier = Conv2d(wide, config.num_labels, 1)

    def execute(self, maps):
        size = tuple(maps[0].shape[2:])
        projected = [ops.interpolate(to_map(project(x), *x.shape[2:]), size, "bilinear")
                     for project, x in zip(self.linear_c, maps, strict=True)]
        fused = self.linear_fuse(ops.concat(projected[::-1], 1))
        return self.classifier(self.activation(self.batch_norm(fused)))


class SegFormer(Module):
    """Pictures (B, 3, H, W), normalised by ImageNet's mean and deviation, to logits (B, num_labels, H/4, W/4).

    config: a jittwin.models.segformer.SegFormerConfig.
    """

    def __init__(self, config):
        super().__init__()
        self.segformer = Backbone(config)
        self.decode_head = DecodeHead(config)

    def execute(self, x):
        return self.decode_head(self.segformer(x)[1])
