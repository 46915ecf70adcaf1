"""The aesthetic scorer: a frozen SigLIP2 tower with LoRA, mean-pooled, and a small head for ten ratings.

Bin k of the output, from 0, is the rating k + 1, as in AVA (Murray et al. 2012). The loss is the distance between
cumulative distributions of NIMA (Talebi and Milanfar 2018, arXiv 1709.05424).
"""
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from jittwin.models.lora import ENCODER, LoraConfig, adapter_keys, inner_name
from jittwin.models.siglip import SiglipVisionConfig
from jittwin.weights.lazy import LazyArrays

CLASSES = 10
TOWER_PREFIX = "vision_model.base_model.model."     # peft's names inside the scorer
HEAD_PREFIX = "aesthetic_head."
HEAD_SIZES = (512, 128)     # hidden layers of the head
# Patterns of the keys that are not trained; checkpoints exclude them.
FROZEN = (f"{TOWER_PREFIX}*.base_layer.*", f"{TOWER_PREFIX}embeddings.*", f"{TOWER_PREFIX}*layer_norm?.*",
          f"{TOWER_PREFIX}post_layernorm.*", f"{TOWER_PREFIX}*_proj.weight", f"{TOWER_PREFIX}*_proj.bias",
          f"{TOWER_PREFIX}*.fc?.weight", f"{TOWER_PREFIX}*.fc?.bias", f"{TOWER_PREFIX}head.*")
TRAINED = (f"{TOWER_PREFIX}*.lora_?.default.weight", f"{HEAD_PREFIX}*")     # every other key
# A level's lowest score and its names.
LEVELS = ((7.5, "优秀", "Excellent"), (6.5, "很好", "Very Good"), (5.5, "良好", "Good"), (4.5, "一般", "Average"),
          (3.5, "较差", "Below Average"), (-np.inf, "差", "Poor"))
DISTANCES = (1, 2)          # legal exponents of the loss
SOFTENING = 1e-12           # added under the root of the loss, because the slope of the root is infinite at 0


@dataclass(frozen=True)
class AestheticConfig:
    """Sizes of the scorer.

    tower: of the vision tower. head_dropout: after each hidden layer of the head. num_classes: number of ratings.
    """

    tower: SiglipVisionConfig = field(default_factory=SiglipVisionConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)
    head_dropout: float = 0.1
    num_classes: int = CLASSES


def head_keys(hidden_size: int, num_classes: int = CLASSES) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of the head."""
    sizes = (hidden_size, *HEAD_SIZES, num_classes)
    found = {}
    for index, (wide, narrow) in enumerate(zip(sizes, sizes[1:])):
        found[f"{HEAD_PREFIX}mlp.{3 * index}.weight"] = (narrow, wide)
        found[f"{HEAD_PREFIX}mlp.{3 * index}.bias"] = (narrow,)
    return found


def trainable_keys(config: AestheticConfig, tower: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of the trained weights, as in the original's optimizer: LoRA in `tower`'s order, then the head.

    tower: shapes of the tower's arrays in the order of definition, as a backend's state_shapes returns them.
    """
    adapters = adapter_keys(tower, config.lora)
    return ({TOWER_PREFIX + key: shape for key, shape in adapters.items()}
            | head_keys(config.tower.hidden_size, config.num_classes))


def tower_state(arrays: Mapping[str, np.ndarray], targets: str = ENCODER) -> Mapping[str, np.ndarray]:
    """A tower's arrays under their keys in the scorer; those of adapted layers have one level more."""
    lora = LoraConfig(targets=targets)
    names = {TOWER_PREFIX + inner_name(key, lora): key for key in arrays}
    if isinstance(arrays, LazyArrays):
        return arrays.renamed(names)
    return {name: arrays[key] for name, key in names.items()}


def distribution(logits) -> np.ndarray:
    """Softmax of logits (N, 10), float32."""
    logits = np.asarray(logits, np.float64)
    odds = np.exp(logits - logits.max(-1, keepdims=True))
    return (odds / odds.sum(-1, keepdims=True)).astype(np.float32)


def mean_score(probabilities) -> np.ndarray:
    """Expected rating of distributions (N, 10): (N,) float64 between 1 and 10."""
    probabilities = np.asarray(probabilities, np.float64)
    return probabilities @ np.arange(1, probabilities.shape[-1] + 1)


def emd(probabilities, targets, r: int = 2) -> np.ndarray:
    """Distance (N,) of each distribution (N, 10) from its target: (mean |difference of cumulative sums|^r)^(1/r)."""
    gap = np.cumsum(np.asarray(probabilities, np.float64) - np.asarray(targets, np.float64), -1)
    return (np.abs(gap) ** r).mean(-1) ** (1 / r)


def level(score: float) -> tuple[str, str]:
    """The (Chinese, English) name of a score's level."""
    return next((chinese, english) for least, chinese, english in LEVELS if score >= least)
