"""The aesthetic scorer's Jittor twin against its closed form in NumPy."""
import math

import numpy as np
import pytest
from scorer import (  # noqa: F401  (two fixtures and three tests)
    CONFIG,
    KEYS,
    TOWER,
    build,
    test_dropout_follows_the_seed,
    test_predictors_keep_their_precision,
    test_weights_that_no_network_computes_with_are_told_with_their_file,
    test_predictors_of_equal_weights_share_their_network,
    tower,
    trained,
)

from jittwin.checkpoints.adapters import Adapter, read_adapter, write_adapter
from jittwin.errors import UserError
from jittwin.models.aesthetic import FROZEN, TOWER_PREFIX, TRAINED, emd, tower_state
from jittwin.models.lora import LoraConfig
from jittwin.weights.initial import initial_weights
from jt_models.assess import aesthetic
from jt_models.boot import jt
from jt_models.nn import lora
from jt_models.nn.layers import Linear, Module


@pytest.fixture(scope="module")
def pixels(backend):
    return backend.asarray(np.random.default_rng(1).uniform(-1, 1, (3, 3, 32, 32)).astype(np.float32))


@pytest.fixture(scope="module")
def target(backend):
    return backend.asarray(np.random.default_rng(2).dirichlet(np.ones(10), 3).astype(np.float32))


def logits(model, pixels):
    with jt.no_grad():
        return model(pixels).numpy()


def adapted(tower, trained):
    """The tower's weights with W + (alpha / r) B A in the adapted layers, in float64."""
    arrays = {key: array.astype(np.float64) for key, array in tower.items()}
    for key in trained:
        if "lora_A" in key:
            path = key.removeprefix(TOWER_PREFIX).removesuffix(".lora_A.default.weight")
            a, b = (trained[key.replace("lora_A", kind)].astype(np.float64) for kind in ("lora_A", "lora_B"))
            arrays[f"{path}.weight"] = arrays[f"{path}.weight"] + 2 * b @ a
    return arrays


def head(trained, x):
    """The head of three layers with the exact GELU, in float64."""
    error = np.vectorize(math.erf)
    for index in (0, 3, 6):
        weight, bias = (trained[f"aesthetic_head.mlp.{index}.{kind}"].astype(np.float64) for kind in ("weight", "bias"))
        x = x @ weight.T + bias
        if index < 6:
            x = x * (1 + error(x / 2 ** 0.5)) / 2
    return x


def test_logits_are_the_closed_form(backend, tower, trained, pixels):
    plain = backend.build("siglip", TOWER)
    backend.load_numpy(plain, adapted(tower, trained))
    with jt.no_grad():
        tokens = plain(pixels).numpy().astype(np.float64)
    model = build(backend, tower, trained)
    with jt.no_grad():
        np.testing.assert_allclose(model.embed(pixels).numpy(), tokens.mean(1), atol=1e-5)
    np.testing.assert_allclose(logits(model, pixels), head(trained, tokens.mean(1)), atol=1e-5)
    untrained = build(backend, tower, dict(initial_weights("aesthetic", KEYS, 1)) | {
        key: array for key, array in trained.items() if "head" in key})
    assert np.abs(logits(untrained, pixels) - logits(model, pixels)).max() > 1e-3


def test_trainable_parameters_and_their_order(backend, tower, trained, pixels, target):
    model = build(backend, tower, trained)

    def check():
        assert list(backend.parameters(model)) == list(KEYS)

    check()
    state = backend.state_numpy(model)
    assert set(state) == set(tower_state(tower)) | set(trained)
    assert set(backend.state_numpy(model, exclude=FROZEN)) == set(trained)
    # Neither modes, nor merging, nor training makes the tower trainable or a part of the model frozen.
    for flag in (True, False, True):
        backend.train_mode(model, flag)
        check()
    optimizer = backend.optimizer("adamw", [{"params": backend.parameters(model), "lr": 1e-2}])
    backend.step(optimizer, model.loss(pixels, target)["EMD"], clip=1.0)
    check()
    after = backend.state_numpy(model)
    assert {key for key in state if not np.array_equal(state[key], after[key])} == set(trained)
    model.merge()
    check()
    model.unmerge()
    check()


def test_merged_is_the_same_and_can_be_undone(backend, tower, trained, pixels):
    model = build(backend, tower, trained)
    before, weights = logits(model, pixels), backend.state_numpy(model)
    model.merge()
    model.merge()
    merged = backend.state_numpy(model)
    for path, array in adapted(tower, trained).items():
        key = next(iter(tower_state({path: array})))
        np.testing.assert_allclose(merged[key], array, atol=1e-6)
    np.testing.assert_allclose(logits(model, pixels), before, atol=1e-5)
    model.unmerge()
    model.unmerge()
    for name, array in backend.state_numpy(model).items():
        np.testing.assert_allclose(array, weights[name], atol=1e-6)


def gradients(backend, model, pixels, target):
    parameters = backend.parameters(model)
    return {name: value.numpy() for name, value in
            zip(parameters, jt.grad(model.loss(pixels, target)["EMD"], list(parameters.values())), strict=True)}


def test_gradients_with_and_without_recomputing(backend, tower, trained, pixels, target):
    found = []
    for recompute in (False, True):
        model = build(backend, tower, trained, gradient_checkpointing=recompute)
        backend.train_mode(model, True)
        backend.seed(7)
        found.append(gradients(backend, model, pixels, target))
    for name, ours in found[0].items():
        assert np.abs(ours).max() > 0
        np.testing.assert_allclose(ours, found[1][name], atol=1e-7)


@pytest.mark.parametrize("part", ["encoder.layers.0.self_attn.q_proj.lora_A", "encoder.layers.1.mlp.fc2.lora_B",
                                  "aesthetic_head.mlp.0"])
def test_gradients_are_the_slope_of_the_loss(backend, tower, trained, pixels, target, part):
    model = build(backend, tower, trained)
    name = next(key for key in trained if part in key)
    gradient = gradients(backend, model, pixels, target)[name]
    step = 0.02 * gradient / np.abs(gradient).max()
    losses = []
    for sign in (1, -1):
        backend.load_numpy(model, {name: trained[name] + sign * step}, allow_missing=("*",))
        losses.append(backend.scalar(model.loss(pixels, target)["EMD"]))
    assert losses[0] - losses[1] == pytest.approx(2 * (gradient * step).sum(), rel=0.02)


def test_loss_is_the_distance(backend):
    rng = np.random.default_rng(0)
    x, target = rng.normal(size=(4, 10)).astype(np.float32), rng.dirichlet(np.ones(10), 4).astype(np.float32)
    p = np.exp(x) / np.exp(x).sum(1, keepdims=True)
    votes = np.array([[0, 1, 5, 17, 38, 36, 15, 6, 5, 1]], np.float32)

    def loss(x, target, r):
        return backend.scalar(aesthetic.emd(backend.asarray(x), backend.asarray(target), r))

    for r in (1, 2):
        assert loss(x, target, r) == pytest.approx(emd(p, target, r).mean(), abs=1e-7)
    for r, value in ((2, 0.16192215), (1, 0.13951613)):
        assert loss(np.zeros((1, 10), np.float32), votes / 124, r) == pytest.approx(value, abs=2e-8)
    with pytest.raises(ValueError, match="legal: 1 or 2"):
        loss(x, target, 3)


@pytest.mark.parametrize("r", [1, 2])
def test_gradient_is_finite_where_the_distributions_are_equal(backend, r):
    x = backend.asarray(np.zeros((2, 10), np.float32))
    loss = aesthetic.emd(x, backend.asarray(np.full((2, 10), 0.1, np.float32)), r)
    gradient = jt.grad(loss, x).numpy()
    assert np.isfinite(gradient).all() and np.abs(gradient).max() < 1e-3 and backend.scalar(loss) < 2e-6


def test_files_of_either_form(backend, tower, trained, pixels, tmp_path):
    expected = logits(build(backend, tower, trained), pixels)
    for name, format in (("lora.pth", "original"), ("lora", "peft")):
        write_adapter(tmp_path / name, Adapter(CONFIG.lora, trained, "", 32), format, reference_compat=True)
        model = build(backend, tower, read_adapter(tmp_path / name).arrays)
        np.testing.assert_array_equal(logits(model, pixels), expected)


def test_what_does_not_fit_is_refused(backend, tower, trained):
    model = backend.build("aesthetic", CONFIG)
    with pytest.raises(UserError, match="2 missing.*aesthetic_head.mlp.6"):
        backend.load_numpy(model, {key: array for key, array in trained.items() if "mlp.6" not in key},
                           allow_missing=FROZEN)
    with pytest.raises(UserError, match="base_layer"):
        backend.load_numpy(model, {TOWER_PREFIX + key: array for key, array in tower.items()}, allow_missing=TRAINED)
    with pytest.raises(ValueError, match="no linear layer"):
        lora.adapt(backend.build("siglip", TOWER), LoraConfig(4, 8, targets="nothing"))


def test_lower_precision_stays_close(backend, tower, trained, pixels, target):
    full = logits(build(backend, tower, trained), pixels)
    try:
        backend.setup(precision="bfloat16")
        model = build(backend, tower, trained)
        found = logits(model, pixels)
        assert found.dtype == np.float32 and 0 < np.abs(found - full).max() < 0.02
        assert all(array.dtype == np.float32 for array in gradients(backend, model, pixels, target).values())
        with pytest.raises(UserError, match="unknown precision 'bf16'.*choose from float32, bfloat16, float16"):
            backend.setup(precision="bf16")
    finally:
        backend.setup()


def test_a_layer_outside_the_scorer(backend):
    """Bias or none, other paths: as peft has it."""

    class Pair(Module):
        def __init__(self):
            super().__init__()
            self.first = Linear(6, 5)
            self.second = Linear(5, 4, bias=False)

        def execute(self, x):
            return self.second(self.first(x))

    model = lora.adapt(Pair(), LoraConfig(2, 3, 0.0, r"second"))
    assert list(backend.parameters(model)) == [f"base_model.model.second.lora_{kind}.default.weight" for kind in "AB"]
    rng = np.random.default_rng(0)
    arrays = {key: rng.standard_normal(value.shape).astype(np.float32)
              for key, value in backend.state_numpy(model).items()}
    backend.load_numpy(model, arrays)
    x = rng.standard_normal((7, 6)).astype(np.float32)
    w = {key.removeprefix("base_model.model.").replace(".default", ""): array for key, array in arrays.items()}
    hidden = x @ w["first.weight"].T + w["first.bias"]
    expected = hidden @ (w["second.base_layer.weight"] + 1.5 * w["second.lora_B.weight"] @ w["second.lora_A.weight"]).T
    np.testing.assert_allclose(logits(model, backend.asarray(x)), expected, atol=1e-5)
