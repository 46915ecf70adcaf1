"""torch.nn.TransformerEncoderLayer (Vaswani et al. 2017, arXiv 1706.03762) in plain Jittor."""
import jittor as jt
from jittor import nn


class SelfAttention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.in_proj_weight = jt.zeros((3 * width, width))
        self.in_proj_bias = jt.zeros((3 * width,))
        self.out_proj = nn.Linear(width, width)

    def execute(self, x):
        batch, length, width = x.shape
        x = nn.linear(x, self.in_proj_weight, self.in_proj_bias)
        q, k, v = x.reshape(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        scores = nn.bmm_transpose(q, k) / q.shape[-1] ** 0.5
        x = nn.bmm(nn.softmax(scores, dim=-1), v)
        return self.out_proj(x.transpose(0, 2, 1, 3).reshape(batch, length, width))


class EncoderLayer(nn.Module):
    def __init__(self, d_model, nhead, dim_feedforward):
        super().__init__()
        self.self_attn = SelfAttention(d_model, nhead)
        self.linear1 = nn.Linear(d_model, dim_feedforward)
        self.linear2 = nn.Linear(dim_feedforward, d_model)
        self.norm1 = nn.LayerNorm(d_model)
        self.norm2 = nn.LayerNorm(d_model)

    def execute(self, src):
        x = self.norm1(src + self.self_attn(src))
        return self.norm2(x + self.linear2(nn.relu(self.linear1(x))))
