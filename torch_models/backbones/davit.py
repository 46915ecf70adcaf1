"""DaViT, a vision transformer that attends within windows and between channels (Ding et al. 2022, arXiv 2204.03645).

As in Florence-2 it has no normalisation at its end. Keys are those of transformers' Florence-2.
"""
from torch_models.nn import ops
from torch_models.nn.layers import GELU, Conv2d, DepthwiseConv2d, DropPath, LayerNorm, Linear, Module, ModuleList


def to_tokens(x):
    """(B, C, H, W) to (B, H W, C), row by row."""
    return x.reshape(*x.shape[:2], -1).permute(0, 2, 1)


def to_map(x, height: int, width: int):
    """(B, height width, C) to (B, C, height, width)."""
    return x.permute(0, 2, 1).reshape(x.shape[0], x.shape[2], height, width)


class ConvEmbed(Module):
    """(B, in, H, W) to a coarser map (B, out, h, w): four times in the first stage, twice in the others.

    The first stage normalises the channels after its convolution, the others before it.
    """

    def __init__(self, in_channels: int, channels: int, first: bool):
        super().__init__()
        self.first = first
        kernel_size, stride, padding = (7, 4, 3) if first else (3, 2, 1)
        self.conv = Conv2d(in_channels, channels, kernel_size, stride, padding)
        self.norm = LayerNorm(channels if first else in_channels)

    def forward(self, x):
        return self.normalised(self.conv(x)) if self.first else self.conv(self.normalised(x))

    def normalised(self, x):
        return to_map(self.norm(to_tokens(x)), *x.shape[2:])


class WindowAttention(Module):
    """Attention of the tokens of each square window of a map, given as (B, height width, C) row by row.

    The last windows of a map that they do not tile have tokens of zeros to the right and below.
    """

    def __init__(self, channels: int, heads: int, window_size: int):
        super().__init__()
        self.heads = heads
        self.window_size = window_size
        self.qkv = Linear(channels, 3 * channels)
        self.proj = Linear(channels, channels)

    def forward(self, x, height: int, width: int):
        batch, _, channels = x.shape
        side = self.window_size
        x = filled(filled(x.reshape(batch, height, width, channels), 1, side), 2, side)
        rows, columns = x.shape[1] // side, x.shape[2] // side
        x = x.reshape(batch, rows, side, columns, side, channels).permute(0, 1, 3, 2, 4, 5)
        x = self.qkv(x.reshape(batch * rows * columns, side * side, channels))
        q, k, v = (x[:, :, at:at + channels] for at in (0, channels, 2 * channels))
        x = self.proj(ops.attention(q, k, v, self.heads))
        x = x.reshape(batch, rows, columns, side, side, channels).permute(0, 1, 3, 2, 4, 5)
        x = x.reshape(batch, rows * side, columns * side, channels)[:, :height, :width]
        return x.reshape(batch, height * width, channels)


def filled(x, dim: int, side: int):
    """x with zeros at the end of `dim`, so that its length is a multiple of `side`."""
    shape = list(x.shape)
    shape[dim] = -shape[dim] % side
    return ops.concat([x, ops.zeros(shape)], dim) if shape[dim] else x


class ChannelAttention(Module):
    """Attention of the channels of each group to one another, for tokens (B, N, C).

    The products of channels are sums over the tokens, divided by sqrt(N).
    """

    def __init__(self, channels: int, groups: int):
        super().__init__()
        self.groups = groups
        self.qkv = Linear(channels, 3 * channels)
        self.proj = Linear(channels, channels)

    def forward(self, x):
        batch, tokens, channels = x.shape
        each = channels // self.groups
        x = self.qkv(x).reshape(batch, tokens, 3, self.groups, each).permute(2, 0, 4, 3, 1)
        q, k, v = (x[part].reshape(batch, each, self.groups * tokens) for part in range(3))
        x = ops.attention(q, k, v, self.groups).reshape(batch, each, self.groups, tokens)
        return self.proj(x.permute(0, 3, 2, 1).reshape(batch, tokens, channels))


class Mlp(Module):
    def __init__(self, channels: int):
        super().__init__()
        self.activation_fn = GELU()
        self.fc1 = Linear(channels, 4 * channels)
        self.fc2 = Linear(4 * channels, channels)

    def forward(self, x):
        return self.fc2(self.activation_fn(self.fc1(x)))


class HalfBlock(Module):
    """(B, C, H, W) to the same shape: attention, then a small network, each after a 3x3 depthwise convolution, whose
    zero padding tells places apart. A subclass says in `attend` what attends to what."""

    def __init__(self, channels: int, drop_path: float):
        super().__init__()
        self.conv1 = DepthwiseConv2d(channels, 3, padding=1)
        self.norm1 = LayerNorm(channels)
        self.drop_path1 = DropPath(drop_path)
        self.conv2 = DepthwiseConv2d(channels, 3, padding=1)
        self.norm2 = LayerNorm(channels)
        self.ffn = Mlp(channels)
        self.drop_path2 = DropPath(drop_path)

    def forward(self, x):
        height, width = x.shape[2:]
        x = to_tokens(x + self.conv1(x))
        x = to_map(x + self.drop_path1(self.attend(self.norm1(x), height, width)), height, width)
        x = to_tokens(x + self.conv2(x))
        return to_map(x + self.drop_path2(self.ffn(self.norm2(x))), height, width)


class SpatialBlock(HalfBlock):
    def __init__(self, channels: int, heads: int, window_size: int, drop_path: float):
        super().__init__(channels, drop_path)
        self.window_attn = WindowAttention(channels, heads, window_size)

    def attend(self, x, height: int, width: int):
        return self.window_attn(x, height, width)


class ChannelBlock(HalfBlock):
    def __init__(self, channels: int, groups: int, drop_path: float):
        super().__init__(channels, drop_path)
        self.channel_attn = ChannelAttention(channels, groups)

    def attend(self, x, height: int, width: int):
        return self.channel_attn(x)


class Block(Module):
    """(B, C, H, W) to the same shape: attention between places, then between channels."""

    def __init__(self, config, stage: int, drop_paths):
        super().__init__()
        channels, (spatial, channel) = config.embed_dim[stage], drop_paths
        self.spatial_block = SpatialBlock(channels, config.num_heads[stage], config.window_size, spatial)
        self.channel_block = ChannelBlock(channels, config.num_groups[stage], channel)

    def forward(self, x):
        return self.channel_block(self.spatial_block(x))


class DaViT(Module):
    """Pictures (B, 3, H, W) to a map (B, C, H / 32, W / 32).

    config: a jittwin.models.florence2.DaViTConfig. The weights must be loaded.
    """

    def __init__(self, config):
        super().__init__()
        wide, stages = config.embed_dim, range(4)
        self.convs = ModuleList([ConvEmbed(wide[i - 1] if i else 3, wide[i], first=not i) for i in stages])
        last = max(2 * sum(config.depths) - 1, 1)
        rates = iter([config.drop_path_rate * number / last for number in range(last + 1)])
        self.blocks = ModuleList([ModuleList([
            Block(config, i, (next(rates), next(rates))) for _ in range(config.depths[i])]) for i in stages])

    def forward(self, x, call=None):
        """call: the function (block, map) by which a block is run; None to run it simply."""
        for embed, blocks in zip(self.convs, self.blocks, strict=True):
            x = embed(x)
            for block in blocks:
                x = call(block, x) if call else block(x)
        return x
