"""A small aesthetic scorer whose adapters do something, for the tests of either twin."""
import numpy as np
import pytest

from jittwin.models.aesthetic import (
    FROZEN, TRAINED, AestheticConfig, initial_trainables, tower_state, trainable_keys)
from jittwin.models.lora import LoraConfig
from jittwin.models.siglip import PRESETS, random_tower

TOWER = PRESETS["tiny"]
CONFIG = AestheticConfig(TOWER, LoraConfig(4, 8))


@pytest.fixture(scope="module")
def tower():
    return dict(random_tower(TOWER))


@pytest.fixture(scope="module")
def trained():
    """LoRA that does something, and a head."""
    arrays, rng = initial_trainables(trainable_keys(CONFIG), 1), np.random.default_rng(0)
    return {key: array if array.any() else rng.normal(0, 0.3, array.shape).astype(np.float32)
            for key, array in arrays.items()}


def build(backend, tower, trained, **options):
    model = backend.build("aesthetic", CONFIG, **options)
    backend.load_numpy(model, tower_state(tower), allow_missing=TRAINED)
    backend.load_numpy(model, trained, allow_missing=FROZEN)
    backend.train_mode(model, False)
    return model
