"""What SigLIP's tower, dropout by counters and gradient checkpointing owe, as tests that either twin must pass.

The truth is NumPy in float64, from the papers' formulas. tests/torch/test_siglip.py and tests/jittor/test_siglip.py
inherit TowerFacts.
"""
import importlib
from dataclasses import replace

import numpy as np
import pytest

from jittwin.backend import PACKAGES
from jittwin.draws import key
from jittwin.models.siglip import PRESETS
from jittwin.weights.initial import initial_weights
from jittwin.weights.lazy import LazyArrays

TINY = replace(PRESETS["tiny"], head=True)
PIXELS = np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32)


def tower_shapes(config) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of the tower as the hub's files have them, in the order of transformers' definition."""
    width, hidden = config.hidden_size, config.intermediate_size

    def pair(name, *shape):
        return {f"{name}.weight": shape, f"{name}.bias": (shape[0],)}

    found = pair("embeddings.patch_embedding", width, 3, config.patch_size, config.patch_size)
    found["embeddings.position_embedding.weight"] = ((config.image_size // config.patch_size) ** 2, width)
    for layer in (f"encoder.layers.{index}" for index in range(config.num_hidden_layers)):
        found |= pair(f"{layer}.layer_norm1", width)
        for part in ("k", "v", "q", "out"):
            found |= pair(f"{layer}.self_attn.{part}_proj", width, width)
        found |= (pair(f"{layer}.layer_norm2", width) | pair(f"{layer}.mlp.fc1", hidden, width)
                  | pair(f"{layer}.mlp.fc2", width, hidden))
    found |= pair("post_layernorm", width)
    if config.head:
        found |= {"head.probe": (1, 1, width), "head.attention.in_proj_weight": (3 * width, width),
                  "head.attention.in_proj_bias": (3 * width,), **pair("head.attention.out_proj", width, width),
                  **pair("head.layernorm", width), **pair("head.mlp.fc1", hidden, width),
                  **pair("head.mlp.fc2", width, hidden)}
    return found


def random_tower(config, seed: int = 0) -> LazyArrays:
    return initial_weights("siglip", tower_shapes(config), seed)


class Shapes:
    """Of a backend what tells the shapes of a tower, for tests without a framework."""
    rank, world_size, share = 0, 1, None

    def state_shapes(self, name, config):
        assert name == "siglip"
        return tower_shapes(config)


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x ** 3)))


def tower(arrays, config, pixels):
    """Tokens and pooled embedding, float64."""
    w = {name: arrays[name].astype(np.float64) for name in arrays}
    width, heads, patch = config.hidden_size, config.num_attention_heads, config.patch_size

    def linear(x, name):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(x, name):
        centred = x - x.mean(-1, keepdims=True)
        scale = np.sqrt(np.square(centred).mean(-1, keepdims=True) + config.layer_norm_eps)
        return centred / scale * w[f"{name}.weight"] + w[f"{name}.bias"]

    def attention(q, k, v):
        q, k, v = (x.reshape(*x.shape[:2], heads, -1).swapaxes(1, 2) for x in (q, k, v))
        odds = np.exp(q @ k.swapaxes(2, 3) / np.sqrt(width / heads))
        y = odds / odds.sum(-1, keepdims=True) @ v
        return y.swapaxes(1, 2).reshape(y.shape[0], -1, width)

    def mlp(x, name):
        return linear(gelu(linear(x, f"{name}.fc1")), f"{name}.fc2")

    side = config.image_size // patch
    patches = pixels.astype(np.float64).reshape(-1, 3, side, patch, side, patch).transpose(0, 2, 4, 1, 3, 5)
    kernel = w["embeddings.patch_embedding.weight"].reshape(width, -1)
    x = patches.reshape(len(pixels), side * side, -1) @ kernel.T + w["embeddings.patch_embedding.bias"]
    x = x + w["embeddings.position_embedding.weight"]
    for name in (f"encoder.layers.{index}" for index in range(config.num_hidden_layers)):
        y = norm(x, f"{name}.layer_norm1")
        y = attention(*(linear(y, f"{name}.self_attn.{part}_proj") for part in "qkv"))
        x = x + linear(y, f"{name}.self_attn.out_proj")
        x = x + mlp(norm(x, f"{name}.layer_norm2"), f"{name}.mlp")
    x = norm(x, "post_layernorm")
    query = np.broadcast_to(w["head.probe"], (len(x), 1, width))
    parts = [slice(at * width, (at + 1) * width) for at in range(3)]
    given = [t @ w["head.attention.in_proj_weight"][part].T + w["head.attention.in_proj_bias"][part]
             for t, part in zip((query, x, x), parts)]
    pooled = linear(attention(*given), "head.attention.out_proj")
    return x, (pooled + mlp(norm(pooled, "head.layernorm"), "head.mlp"))[:, 0]


def kept(seed: int, site: int, count: int, p: float) -> np.ndarray:
    """Which elements dropout keeps: the definition, in plain integers of 64 bits."""
    numbers, mask = key("dropout", seed, site), np.uint64(0xFFFFFFFF)
    first, second = np.uint64(numbers & 0xFFFFFFFF), np.uint64(numbers >> 32 & 0xFFFFFFFF)
    h = (first + np.uint64(0x9E3779B1) * np.arange(count, dtype=np.uint64)) & mask
    h = ((h ^ h >> np.uint64(16)) * np.uint64(0x85EBCA6B) & mask) ^ second
    h = (h ^ h >> np.uint64(13)) * np.uint64(0xC2B2AE35) & mask
    return (h ^ h >> np.uint64(16)) >> np.uint64(8) >= round(p * 2 ** 24)


class TowerFacts:
    @pytest.fixture(scope="class")
    @classmethod
    def ops(cls, backend):
        return importlib.import_module(f"{PACKAGES[backend.name]}.nn.ops")

    @pytest.fixture(scope="class")
    @classmethod
    def layers(cls, backend):
        return importlib.import_module(f"{PACKAGES[backend.name]}.nn.layers")

    def built(self, backend, config=TINY, **options):
        module = backend.build("siglip", config, **options)
        backend.load_numpy(module, random_tower(config))
        backend.train_mode(module, False)
        return module

    def gradients(self, backend, parameters, loss):
        optimizer = backend.optimizer("sgd", [{"params": parameters, "lr": 1.0}])
        optimizer.accumulate(loss)
        return {name: backend.numpy(gradient) for name, gradient in optimizer.gradients.items()}

    @pytest.mark.parametrize("head", [False, True])
    def test_keys_their_order_and_shapes(self, backend, head):
        config = replace(TINY, head=head)
        state = backend.state_numpy(backend.build("siglip", config))
        assert [(name, value.shape) for name, value in state.items()] == list(tower_shapes(config).items())

    @pytest.mark.parametrize("head", [False, True])
    def test_shapes_without_arrays(self, backend, head):
        config = replace(TINY, head=head)
        assert list(backend.state_shapes("siglip", config).items()) == list(tower_shapes(config).items())

    def test_values(self, backend):
        module = self.built(backend)
        with backend.no_grad():
            hidden = module(backend.asarray(PIXELS))
            pooled = module.pool(hidden)
        for found, expected in zip((hidden, pooled), tower(random_tower(TINY), TINY, PIXELS)):
            np.testing.assert_allclose(backend.numpy(found), expected, rtol=0, atol=1e-5)

    def test_checkpointing_changes_no_value_and_no_gradient(self, backend, ops):
        found = []
        for option in (False, True):
            module = self.built(backend, gradient_checkpointing=option)
            backend.train_mode(module, True)
            hidden = module(backend.asarray(PIXELS))
            found.append(self.gradients(backend, backend.parameters(module), ops.mean(hidden * hidden * hidden)))
        assert set(found[0]) == set(found[1]) and len(found[0]) == len(tower_shapes(replace(TINY, head=False)))
        for name, gradient in found[0].items():
            # The slope of a key's bias is 0: it adds the same to all scores of a query.
            if not name.endswith("k_proj.bias"):
                np.testing.assert_allclose(found[1][name], gradient, rtol=0, atol=1e-6 * np.abs(gradient).max())
                assert np.abs(gradient).max() > 1e-4

    def test_checkpointing_passes_frozen_weights(self, backend, layers, ops):
        """Gradients reach the input and the one trainable layer; dropout is the same the second time."""
        block = layers.Sequential(layers.Linear(8, 8), layers.Dropout(0.5), layers.Linear(8, 8))
        rng = np.random.default_rng(3)
        shapes = {name: value.shape for name, value in backend.state_numpy(block).items()}
        backend.load_numpy(block, {n: rng.standard_normal(shape).astype(np.float32) for n, shape in shapes.items()})
        backend.train_mode(block, True)
        outer = layers.LayerNorm(8)
        layers.freeze(block[2])
        x, found = backend.asarray(rng.standard_normal((64, 8)).astype(np.float32)), []
        for through in (layers.checkpoint, lambda module, *arguments: module(*arguments)):
            backend.seed(11)
            y = through(block, outer(x))
            parameters = {f"outer.{n}": p for n, p in backend.parameters(outer).items()} | backend.parameters(block)
            found.append(self.gradients(backend, parameters, ops.mean(y * y)) | {"y": backend.numpy(y)})
        assert set(found[0]) == set(found[1]) == {"outer.weight", "outer.bias", "0.weight", "0.bias", "y"}
        for name, value in found[0].items():
            np.testing.assert_allclose(value, found[1][name], rtol=0, atol=1e-6 * np.abs(value).max())

    @pytest.mark.parametrize("p", [0.1, 0.75, 1.0])
    def test_dropout_keeps_what_the_counters_say(self, backend, ops, p):
        count = 70_001      # more than one block of either twin
        x = np.random.default_rng(1).standard_normal((7, count // 7)).astype(np.float32)
        ops.seed_dropout(21)
        found = backend.numpy(ops.dropout(backend.asarray(x), p, 5))
        mask = kept(21, 5, x.size, p).reshape(x.shape)
        np.testing.assert_allclose(found, x * mask / (1 - p) if p < 1 else 0 * x, rtol=3e-7)
        assert abs(mask.mean() - (1 - p)) < 5 * np.sqrt(p * (1 - p) / count) + 1e-12

    def test_dropout_masks_are_independent(self, backend, ops):
        def mask(seed, site):
            ops.seed_dropout(seed)
            return backend.numpy(ops.dropout(backend.asarray(np.ones(60_000, np.float32)), 0.5, site)) > 0

        first = mask(1, 1)
        for other in (mask(1, 2), mask(2, 1), np.roll(first, 1), np.roll(first, 4304)):
            assert abs((first == other).mean() - 0.5) < 5 * 0.5 / np.sqrt(60_000)
        assert np.array_equal(first, mask(1, 1))

    def test_dropouts_are_named_by_their_paths(self, backend, layers):
        def sites():
            module = layers.Sequential(layers.Dropout(0.1), layers.Sequential(layers.Dropout(0.1), layers.Dropout(0.1)))
            layers.name_dropouts(module)
            return [part.site for part in (module[0], module[1][0], module[1][1])]

        assert sites() == [key("site", path) & 0x7FFFFFFF for path in ("0", "1.0", "1.1")]

    def test_dropout_is_off_in_inference(self, backend, layers):
        layer, x = layers.Dropout(0.5), backend.asarray(np.ones((4, 9), np.float32))
        backend.train_mode(layer, False)
        assert np.array_equal(backend.numpy(layer(x)), np.ones((4, 9)))

    def test_gelu_with_tanh(self, backend, ops):
        x = np.concatenate([np.linspace(-12, 12, 1001), [-1e4, 1e4, 0]]).astype(np.float32)
        np.testing.assert_allclose(backend.numpy(ops.gelu_tanh(backend.asarray(x))), gelu(x.astype(np.float64)),
                                   rtol=1e-6, atol=1e-6)

    def test_autocast_rounds_products_alone(self, backend, ops):
        module, x = self.built(backend), backend.asarray(PIXELS)
        with backend.no_grad():
            exact = backend.numpy(module(x))
            ops.set_precision("bfloat16")
            try:
                with ops.autocast():
                    rough = backend.numpy(module(x))
                after = backend.numpy(module(x))
            finally:
                ops.set_precision("float32")
            with ops.autocast():
                plain = backend.numpy(module(x))
        assert rough.dtype == np.float32
        assert 1e-3 < np.abs(rough - exact).max() < 0.1
        assert np.array_equal(after, exact) and np.array_equal(plain, exact)
