"""A PyTorch module and its Jittor port, as users write them, with all that makes pairs hard: other names, tied
weights, a scalar parameter, dropout, integers, a table, an argument by name, and several outputs."""
import numpy as np

WORDS, WIDTH = 11, 8


def lengths() -> np.ndarray:
    return np.array([3, 5], np.float32)


def torch_module(p: float = 0.3):
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(WORDS, WIDTH)
            self.register_buffer("table", torch.arange(5.0)[:, None].repeat(1, WIDTH) / 10)
            self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
            self.layers = nn.ModuleList([nn.Linear(WIDTH, WIDTH) for _ in range(2)])
            self.norm = nn.LayerNorm(WIDTH)
            self.drop = nn.Dropout(p)
            self.scale = nn.Parameter(torch.tensor(1.0))
            self.head = nn.Linear(WIDTH, WORDS, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, words, lengths, bias=None):
            x = self.embed(words) + self.table + lengths[:, None, None]
            for layer in self.layers:
                x = self.drop(torch.relu(layer(x)))
            x = self.norm(x * self.scale + bias)
            return {"logits": self.head(x), "states": (x, None)}

    return Net()


def jittor_module(p: float = 0.3, detached: bool = False):
    import jittor as jt
    from jittor import nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(WORDS, WIDTH)
            self.blocks = nn.ModuleList([nn.Linear(WIDTH, WIDTH) for _ in range(2)])
            self.ln = nn.LayerNorm(WIDTH)
            self.drop = nn.Dropout(p)
            self.scale = jt.array([1.0])
            self.head = nn.Linear(WIDTH, WORDS, bias=False)
            self.head.weight = self.embed.weight

        def execute(self, words, lengths, bias=None):
            table = jt.arange(5).float()[:, None] / 10
            x = self.embed(words) + table + lengths[:, None, None]
            for layer in self.blocks:
                x = self.drop(nn.relu(layer(x)))
            scale = self.scale.detach() if detached else self.scale
            x = self.ln(x * scale + bias)
            return {"logits": self.head(x), "states": (x, None)}

    return Net()


def torch_mean():
    from torch import nn

    class Mean(nn.Module):
        def forward(self, x):
            return (x * 0 + 1).mean()

    return Mean()


def jittor_mean():
    from jittor import nn

    class Mean(nn.Module):
        def execute(self, x):
            return (x * 0 + 1).mean()

    return Mean()


def torch_norm():
    from torch import nn
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.LeakyReLU(0.2))


def jittor_norm():
    from jittor import nn
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.LeakyReLU(0.2))
