"""The aesthetic scorer's facts: parameter counts, keys, published vectors of the distance, initial weights, levels."""
import math
from dataclasses import replace

import numpy as np
import pytest
from tower import random_tower, tower_shapes

from jittwin.models.aesthetic import (
    FROZEN,
    TRAINED,
    AestheticConfig,
    distribution,
    emd,
    level,
    mean_score,
    tower_state,
    trainable_keys,
)
from jittwin.models.lora import ENCODER, REFERENCE, LoraConfig, adapter_keys
from jittwin.models.siglip import PRESETS
from jittwin.weights.initial import initial_weights
from jittwin.weights.lazy import shapes_of
from jittwin.weights.state import matches

FULL = PRESETS["so400m-patch16-512"]
TINY = AestheticConfig(PRESETS["tiny"], LoraConfig(4, 8))
KEYS = trainable_keys(TINY, tower_shapes(TINY.tower))
VOTES = np.array([0, 1, 5, 17, 38, 36, 15, 6, 5, 1])        # first row of AVA.txt


def scalars(shapes, part=""):
    return sum(math.prod(shape) for key, shape in shapes.items() if part in key)


@pytest.mark.parametrize("rank, lora, layer", [(16, 8_695_296, 322_048), (32, 17_390_592, 644_096)])
def test_parameters_at_full_size(rank, lora, layer):
    shapes = trainable_keys(AestheticConfig(FULL, LoraConfig(rank, 2 * rank)), tower_shapes(FULL))
    assert (scalars(shapes, ".lora_"), scalars(shapes, "layers.26.")) == (lora, layer)
    assert (scalars(shapes, "aesthetic_head."), scalars(shapes)) == (657_290, lora + 657_290)
    assert len(shapes) == 324 + 6
    reference = adapter_keys(tower_shapes(replace(FULL, head=True)), LoraConfig(rank, 2 * rank, targets=REFERENCE))
    assert (len(reference), scalars(reference)) == (330, {16: 8_906_752, 32: 17_813_504}[rank])


def test_order_is_that_of_the_originals_optimizer():
    names = [key.removeprefix("vision_model.base_model.model.encoder.layers.") for key in KEYS]
    layers = ["self_attn.k_proj", "self_attn.v_proj", "self_attn.q_proj", "self_attn.out_proj", "mlp.fc1", "mlp.fc2"]
    assert names == [f"{index}.{part}.lora_{kind}.default.weight" for index in (0, 1) for part in layers for kind in "AB"] \
        + [f"aesthetic_head.mlp.{index}.{kind}" for index in (0, 3, 6) for kind in ("weight", "bias")]
    assert KEYS["vision_model.base_model.model.encoder.layers.1.mlp.fc1.lora_A.default.weight"] == (4, 32)


@pytest.mark.parametrize("targets", [ENCODER, r".*encoder\.layers\.\d+\.self_attn\.(q|v)_proj"])
@pytest.mark.parametrize("head", [False, True])
def test_every_key_is_either_frozen_or_trained(targets, head):
    tower = replace(PRESETS["tiny"], head=head)
    frozen = tower_state(random_tower(tower), targets)
    trained = trainable_keys(AestheticConfig(tower, LoraConfig(4, 8, targets=targets)), tower_shapes(tower))
    assert all(matches(key, FROZEN) and not matches(key, TRAINED) for key in frozen)
    assert all(matches(key, TRAINED) and not matches(key, FROZEN) for key in trained)
    adapted = [key for key in frozen if key.endswith(".base_layer.weight")]
    assert len(adapted) == (12 if targets == ENCODER else 4) == len([key for key in trained if "lora_A" in key])


def test_a_lazy_tower_stays_lazy():
    tower = random_tower(FULL)
    state = tower_state(tower)
    assert shapes_of(state)["vision_model.base_model.model.encoder.layers.26.mlp.fc1.base_layer.weight"] == (4304, 1152)
    key = "vision_model.base_model.model.post_layernorm.weight"
    np.testing.assert_array_equal(state[key], tower["post_layernorm.weight"])
    plain = tower_state({"post_layernorm.weight": tower["post_layernorm.weight"]})
    assert list(plain) == [key] and plain[key].shape == (1152,)


def test_published_vectors_of_the_distance():
    target = (VOTES / VOTES.sum())[None]
    uniform = distribution(np.zeros((1, 10)))
    assert uniform.dtype == np.float32
    assert emd(uniform, target).item() == pytest.approx(0.16192215, abs=5e-9)
    assert emd(uniform, target, r=1).item() == pytest.approx(0.13951613, abs=5e-9)
    assert (emd(uniform, target) ** 2).item() == pytest.approx(0.02621878, abs=5e-9)
    assert mean_score(target).item() == pytest.approx(5.637097, abs=5e-7)
    spread = (target[0] * (np.arange(1, 11) - mean_score(target)) ** 2).sum() ** 0.5
    assert spread == pytest.approx(1.421804, abs=5e-7)


def test_a_batch_of_distributions():
    logits = np.random.default_rng(0).normal(size=(3, 10)) * 30
    found = distribution(logits)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-6)
    np.testing.assert_array_equal(found.argmax(1), logits.argmax(1))
    assert mean_score(found).shape == emd(found, found[::-1]).shape == (3,)
    assert np.isfinite(distribution(np.array([[1e4, -1e4] + [0] * 8]))).all()


def test_initial_weights():
    shapes = KEYS
    found, again, other = (initial_weights("aesthetic", shapes, seed) for seed in (3, 3, 4))
    assert {key: array.shape for key, array in found.items()} == shapes
    for key, array in found.items():
        assert array.dtype == np.float32
        if "lora_B" in key:
            assert not array.any()
            continue
        inputs = shapes[key.replace(".bias", ".weight")][1]
        assert 0.5 < np.abs(array).max() * inputs ** 0.5 <= 1
        assert (array == again[key]).all() and (array != other[key]).any()


@pytest.mark.parametrize("score, names", [(7.5, ("优秀", "Excellent")), (7.49, ("很好", "Very Good")), (5.5, ("良好", "Good")),
                                          (4.5, ("一般", "Average")), (3.5, ("较差", "Below Average")), (1, ("差", "Poor"))])
def test_levels(score, names):
    assert level(score) == names


@pytest.mark.parametrize("settings", [{"r": 0}, {"r": 2.5}, {"alpha": 0}, {"alpha": "16"}, {"dropout": 1.0}])
def test_impossible_lora(settings):
    with pytest.raises(ValueError, match="legal"):
        LoraConfig(**settings)
