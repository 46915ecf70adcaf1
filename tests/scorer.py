"""A small aesthetic scorer whose adapters do something, for the tests of either twin."""
import numpy as np
import pytest
from tower import random_tower, tower_shapes

from jittwin.aesthetic import AestheticPredictor
from jittwin.checkpoints.adapters import Adapter, write_adapter
from jittwin.errors import UserError
from jittwin.models.aesthetic import FROZEN, TRAINED, AestheticConfig, tower_state, trainable_keys
from jittwin.models.lora import LoraConfig
from jittwin.models.siglip import PRESETS, read_tower
from jittwin.predictors.aesthetic import ScorerPredictor, read_scorer
from jittwin.predictors.towers import Towers
from jittwin.weights import write_weights
from jittwin.weights.initial import initial_weights

TOWER = PRESETS["tiny"]
CONFIG = AestheticConfig(TOWER, LoraConfig(4, 8))
KEYS = trainable_keys(CONFIG, tower_shapes(TOWER))


@pytest.fixture(scope="module")
def tower():
    return dict(random_tower(TOWER))


@pytest.fixture(scope="module")
def trained():
    """LoRA that does something, and a head."""
    arrays, rng = dict(initial_weights("aesthetic", KEYS, 1)), np.random.default_rng(0)
    return {key: array if array.any() else rng.normal(0, 0.3, array.shape).astype(np.float32)
            for key, array in arrays.items()}


def build(backend, tower, trained, **options):
    model = backend.build("aesthetic", CONFIG, **options)
    backend.load_numpy(model, tower_state(tower), allow_missing=TRAINED)
    backend.load_numpy(model, trained, allow_missing=FROZEN)
    backend.train_mode(model, False)
    return model


def test_predictors_keep_their_precision(backend, trained, tmp_path):
    """Whatever another one, made later, computes in."""
    write_adapter(tmp_path / "a.pth", Adapter(CONFIG.lora, trained, "random:tiny:0", TOWER.hidden_size))
    pictures = np.random.default_rng(2).integers(0, 256, (3, 40, 50, 3), np.uint8)

    def made(dtype):
        return AestheticPredictor(tmp_path / "a.pth", dtype=dtype, backend=backend.name, random_model=True)

    predictor = made("float32")
    (before, _), (rough, _) = predictor.score_arrays(pictures), made("bfloat16").score_arrays(pictures)
    after, _ = predictor.score_arrays(pictures)
    assert np.array_equal(after, before) and 0 < np.abs(rough - before).max() < 0.1


def test_weights_that_no_network_computes_with_are_told_with_their_file(backend, tower, trained, tmp_path):
    """NaN, infinity and integers, in adapters, towers and whatever else a network is given."""
    key = "aesthetic_head.mlp.0.weight"
    pictures = np.zeros((1, 40, 50, 3), np.uint8)
    for bad, words in ((np.nan, "1 NaN or infinite numbers of"), (-np.inf, "1 NaN or infinite numbers of")):
        spoilt = trained | {key: np.where(np.arange(trained[key].size).reshape(trained[key].shape) == 7, bad, trained[key])}
        write_adapter(tmp_path / "a.pth", Adapter(CONFIG.lora, spoilt, "random:tiny:0", TOWER.hidden_size))
        with pytest.raises(UserError, match=f"a.pth: {key} holds {words}"):
            AestheticPredictor(tmp_path / "a.pth", backend=backend.name, random_model=True).score_arrays(pictures)
        with pytest.raises(UserError, match=f"^{key} holds {words}"):
            build(backend, tower, spoilt)
    with pytest.raises(UserError, match=f"^{key} holds int8, where floating-point numbers are expected"):
        build(backend, tower, trained | {key: trained[key].astype(np.int8)})
    write_weights(tmp_path / "tower.safetensors", tower | {"post_layernorm.bias": np.full(TOWER.hidden_size, np.nan, "f4")},
                  {"model": "siglip", "config": vars(TOWER)})
    with pytest.raises(UserError, match="tower.safetensors: post_layernorm.bias holds 32 NaN or infinite numbers of 32"):
        backend.load_numpy(backend.build("siglip", TOWER), read_tower(tmp_path / "tower.safetensors").arrays)


def test_dropout_follows_the_seed(backend, tower, trained, pixels):
    model = build(backend, tower, trained)
    sites = [part.site for part in model.modules() if hasattr(part, "site")]
    assert len(sites) == 12 + 2 == len(set(sites))

    def logits():
        with backend.no_grad():
            return backend.numpy(model(pixels))

    plain = logits()
    backend.train_mode(model, True)
    found = []
    for seed in (1, 1, 2):
        backend.seed(seed)
        found.append(logits())
    assert (found[0] == found[1]).all() and (found[0] != found[2]).any() and (found[0] != plain).any()


def test_predictors_of_equal_weights_share_their_network(backend, pixels):
    """Adapters are merged into it once: both give what a predictor of its own gives."""
    towers, alone = Towers(), ScorerPredictor(backend, read_scorer(backend.state_shapes, None, "tiny", random=True))
    first, second = (ScorerPredictor(backend, read_scorer(backend.state_shapes, None, "tiny", random=True), towers=towers)
                     for _ in range(2))
    assert first.network is second.network is not alone.network
    images = backend.numpy(pixels)
    assert np.array_equal(first.logits(images), alone.logits(images))
    assert np.array_equal(second.logits(images), alone.logits(images))
