"""The settings of low-rank adapters of linear layers (LoRA; Hu et al. 2022, arXiv 2106.09685).

y = W x + b + (alpha / r) B A dropout(x), with A (r, in) and B (out, r), each adapted layer with its own dropout mask.
For a convolution, A is one with r channels and the same kernel, stride and padding, and B one with a kernel of 1.
"""
import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from jittwin.weights.lazy import LazyArrays, shapes_of

# All six linear layers of every block of the SigLIP encoder. As in peft, the pattern must match the whole path.
ENCODER = r".*encoder\.layers\.\d+\.(self_attn\.(q|k|v|out)_proj|mlp\.fc[12])"
# The layers that the original's list of names matches. The pooling head is among them, although its output is not used.
REFERENCE = r".*(q_proj|k_proj|v_proj|out_proj|fc1|fc2)"
LAYER_NAMES = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")
SUFFIXES = ("lora_A.default.weight", "lora_B.default.weight")


@dataclass(frozen=True)
class LoraConfig:
    """r: rank. alpha: strength. dropout: fraction of inputs dropped in training. targets: pattern of adapted modules.

    stabilised: the strength is divided by the root of the rank (arXiv 2312.03732). ValueError: an illegal value.
    """

    r: int = 32
    alpha: float = 64
    dropout: float = 0.1
    targets: str = ENCODER
    stabilised: bool = False

    def __post_init__(self):
        if not isinstance(self.r, int) or self.r < 1:
            raise ValueError(f"LoRA rank {self.r!r}: legal are whole numbers from 1")
        if not isinstance(self.alpha, (int, float)) or not 0 < self.alpha < float("inf"):
            raise ValueError(f"LoRA alpha {self.alpha!r}: legal are finite numbers above 0")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"LoRA dropout {self.dropout}: legal are fractions from 0 to below 1")

    @property
    def scaling(self) -> float:
        return self.alpha / (self.r ** 0.5 if self.stabilised else self.r)

    def adapts(self, path: str) -> bool:
        """Whether the module at `path` of the tower gets an adapter."""
        return re.fullmatch(self.targets, path) is not None


def adapter_keys(shapes: Mapping[str, tuple[int, ...]], config: LoraConfig) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of A and B for a model with these shapes, in its order; "<path>.lora_A.default.weight" …"""
    found = {}
    for key, shape in shapes.items():
        path, _, kind = key.rpartition(".")
        if kind == "weight" and config.adapts(path):
            for suffix, size in zip(SUFFIXES, ((config.r, *shape[1:]), (shape[0], config.r, *(1,) * (len(shape) - 2)))):
                found[f"{path}.{suffix}"] = size
    return found


def inner_name(key: str, config: LoraConfig) -> str:
    """The key of a model's array inside the adapted model; those of adapted layers have one level more."""
    path, _, kind = key.rpartition(".")
    return f"{path}.base_layer.{kind}" if config.adapts(path) else key


def merged(arrays: Mapping[str, np.ndarray], config: LoraConfig) -> LazyArrays:
    """The arrays of an adapted model under the keys of the model without adapters, which are added to its weights.

    KeyError: an A without its B or its layer. ValueError: an A or B of another shape.
    """
    shapes, layers = shapes_of(arrays), {}
    for key, shape in shapes.items():
        path, dot, kind = key.rpartition(".")
        if not key.endswith(SUFFIXES):
            layers[path.removesuffix(".base_layer") + dot + kind] = key
        elif key.endswith(SUFFIXES[0]):
            layer = path.removesuffix(".lora_A.default")
            out, rank = shapes[f"{layer}.{SUFFIXES[1]}"][:2]
            if (out, *shape[1:]) != shapes[f"{layer}.base_layer.weight"] or rank != shape[0]:
                raise ValueError(f"{key} has the shape {shape}, which does not fit its B and its layer")

    def make(name: str) -> np.ndarray:
        array, layer = arrays[layers[name]], name.removesuffix(".weight")
        if not layers[name].endswith(".base_layer.weight") or f"{layer}.{SUFFIXES[0]}" not in shapes:
            return array
        a, b = (arrays[f"{layer}.{suffix}"] for suffix in SUFFIXES)
        change = b.reshape(len(b), -1) @ a.reshape(len(a), -1)
        return array + np.float32(config.scaling) * change.reshape(array.shape)

    return LazyArrays({name: shapes[key] for name, key in layers.items()}, make, getattr(arrays, "source", ""))
