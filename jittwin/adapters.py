"""Adapter files of the aesthetic scorer: the original's .pth, peft's folders, and checkpoints of this project."""
import os
from dataclasses import dataclass

import numpy as np

from jittwin.models.aesthetic import CLASSES
from jittwin.models.lora import LoraConfig
from jittwin.models.siglip import SiglipVisionConfig

FORMATS = ("original", "peft")


@dataclass(frozen=True)
class Adapter:
    """What was trained: LoRA and head.

    arrays: float32, by the scorer's keys in the order of jittwin.models.aesthetic.trainable_keys. model_name: of the
    tower it belongs to, "" when the file does not tell. dtype: the file's own. source: the file.
    """

    config: LoraConfig
    arrays: dict[str, np.ndarray]
    model_name: str
    hidden_size: int
    num_classes: int = CLASSES
    dtype: str = "float32"
    source: str = ""


def read_adapter(path: str | os.PathLike) -> Adapter:
    """An adapter from a file of the original, a peft folder, a checkpoint or a run (its latest; RUN/best: its best).

    Adapters of the tower's pooling head, which the scorer does not use, are left out. UserError: anything else.
    """
    raise NotImplementedError


def write_adapter(path: str | os.PathLike, adapter: Adapter, format: str = "original",
                  reference_compat: bool = False, dtype: str = "float32") -> None:
    """Writes what the original's code ("original", a .pth) or peft ("peft", a folder) loads."""
    raise NotImplementedError


def check_adapter(adapter: Adapter, tower: SiglipVisionConfig) -> None:
    """UserError unless the adapter has the tower's width and depth; names both values."""
    raise NotImplementedError


def describe(adapter: Adapter) -> dict:
    """The `config` of an original file: model_name, lora_r, lora_alpha, lora_dropout, lora_target_modules …"""
    raise NotImplementedError
