"""ONNX files of the aesthetic scorer and the SigLIP tower against a plain NumPy forward pass in float64."""
import json
import math
from dataclasses import replace

import numpy as np
import onnx
import pytest
from PIL import Image
from tower import Shapes, random_tower, tower_shapes

from jittwin.checkpoints.adapters import Adapter, write_adapter
from jittwin.draws import Draws
from jittwin.errors import UserError
from jittwin.export import onnx as onnx_export
from jittwin.export.onnx import OnnxNetwork, OnnxPredictor, aesthetic_model, vision_model, write_checked
from jittwin.models.aesthetic import AestheticConfig, distribution, mean_score, trainable_keys
from jittwin.models.lora import LoraConfig, merged
from jittwin.models.siglip import PRESETS, Tower, read_tower
from jittwin.predictors.aesthetic import AestheticPredictor, Scorer, read_scorer
from jittwin.weights import write_weights
from jittwin.weights.initial import initial_weights

TINY = PRESETS["tiny"]
CONFIG = AestheticConfig(TINY, LoraConfig(4, 8))
PREFIX = "vision_model.base_model.model."


def trained() -> dict[str, np.ndarray]:
    """LoRA that changes something, and a head."""
    arrays, draws = initial_weights("aesthetic", trainable_keys(CONFIG, tower_shapes(TINY)), 3), Draws(5)
    return {key: draws.normal(key, a.shape) * np.float32(0.1) if ".lora_B." in key else a for key, a in arrays.items()}


TOWER, TRAINED = random_tower(replace(TINY, head=True), 1), trained()


# ---- the oracle: float64, adapters not merged -----------------------------------------

def linear(arrays, name, x, lora=None):
    y = x @ arrays[f"{name}.weight"].T.astype(np.float64) + arrays[f"{name}.bias"]
    if lora is not None:
        down, up = (lora[f"{PREFIX}{name}.lora_{side}.default.weight"].astype(np.float64) for side in "AB")
        y = y + CONFIG.lora.scaling * x @ down.T @ up.T
    return y


def norm(arrays, name, x):
    centred = x - x.mean(-1, keepdims=True)
    unit = centred / np.sqrt((centred ** 2).mean(-1, keepdims=True) + TINY.layer_norm_eps)
    return unit * arrays[f"{name}.weight"] + arrays[f"{name}.bias"]


def gelu_tanh(x):
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x ** 3)))


def attention(q, k, v):
    def split(x):
        return x.reshape(*x.shape[:2], TINY.num_attention_heads, -1).swapaxes(1, 2)
    q, k, v = split(q), split(k), split(v)
    scores = np.exp(q @ k.swapaxes(2, 3) / math.sqrt(q.shape[-1]))
    mixed = (scores / scores.sum(-1, keepdims=True) @ v).swapaxes(1, 2)
    return mixed.reshape(*mixed.shape[:2], -1)


def forward(arrays, pixels, lora=None):
    """last_hidden_state (B, N, C)."""
    size, side = TINY.patch_size, TINY.image_size // TINY.patch_size
    patches = pixels.astype(np.float64).reshape(-1, 3, side, size, side, size).transpose(0, 2, 4, 1, 3, 5)
    kernel = arrays["embeddings.patch_embedding.weight"].reshape(TINY.hidden_size, -1).T
    x = patches.reshape(len(pixels), side * side, -1) @ kernel + arrays["embeddings.patch_embedding.bias"]
    x = x + arrays["embeddings.position_embedding.weight"]
    for layer in (f"encoder.layers.{index}" for index in range(TINY.num_hidden_layers)):
        y = norm(arrays, f"{layer}.layer_norm1", x)
        mixed = attention(*(linear(arrays, f"{layer}.self_attn.{part}_proj", y, lora) for part in "qkv"))
        x = x + linear(arrays, f"{layer}.self_attn.out_proj", mixed, lora)
        y = gelu_tanh(linear(arrays, f"{layer}.mlp.fc1", norm(arrays, f"{layer}.layer_norm2", x), lora))
        x = x + linear(arrays, f"{layer}.mlp.fc2", y, lora)
    return norm(arrays, "post_layernorm", x)


def logits(pixels):
    x = forward(TOWER, pixels, TRAINED).mean(1)
    for index in (0, 3, 6):
        x = linear(TRAINED, f"aesthetic_head.mlp.{index}", x)
        if index < 6:
            x = 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))
    return x


def embeds(pixels):
    hidden = forward(TOWER, pixels)
    weights, biases = (np.split(TOWER[f"head.attention.in_proj_{part}"], 3) for part in ("weight", "bias"))
    probe = np.repeat(TOWER["head.probe"], len(pixels), 0)
    q, k, v = (x @ w.T + b for x, w, b in zip((probe, hidden, hidden), weights, biases))
    x = linear(TOWER, "head.attention.out_proj", attention(q, k, v))
    y = linear(TOWER, "head.mlp.fc1", norm(TOWER, "head.layernorm", x))
    pooled = (x + linear(TOWER, "head.mlp.fc2", gelu_tanh(y)))[:, 0]
    return pooled / np.linalg.norm(pooled, axis=1, keepdims=True)


def aesthetic(dtype="float32", config=CONFIG, **metadata):
    state = Scorer(config, Tower(config.tower, TOWER, ""), TRAINED, random=True).state()
    return aesthetic_model(config, state, dtype, metadata)


# ---- numbers ----------------------------------------------------------------------------

@pytest.mark.parametrize("dtype, close", [("float32", 2e-6), ("float16", 2e-3)])
@pytest.mark.parametrize("kind, oracle", [("aesthetic", logits), ("vision", embeds)])
def test_the_graph_is_the_network(kind, oracle, dtype, close, tmp_path):
    model = aesthetic(dtype) if kind == "aesthetic" else vision_model(replace(TINY, head=True), TOWER, dtype)
    assert write_checked(tmp_path / "m.onnx", model, oracle, dtype) < close
    network, pixels = OnnxNetwork(tmp_path / "m.onnx"), np.random.default_rng(0).uniform(-1, 1, (3, 3, 32, 32))
    found = network(pixels.astype(np.float32))
    assert found.dtype == np.float32 and found.shape == (3, 10 if kind == "aesthetic" else 32)
    np.testing.assert_allclose(found, oracle(pixels), rtol=0, atol=close)
    assert network.result == ("logits" if kind == "aesthetic" else "image_embeds")
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


def test_the_file_is_plain(tmp_path):
    """Opset 17, the pooling head left out, half the size in float16."""
    sizes = {}
    for dtype in ("float32", "float16"):
        write_checked(tmp_path / dtype, aesthetic(dtype, tower="t"), logits, dtype)
        sizes[dtype] = (tmp_path / dtype).stat().st_size
    model = onnx.load(tmp_path / "float32")
    assert [(each.domain, each.version) for each in model.opset_import] == [("", 17)]
    assert not [tensor.name for tensor in model.graph.initializer if tensor.name.startswith("head.")]
    assert {prop.key for prop in model.metadata_props} == {"preprocessing", "tower"}
    assert sizes["float16"] < 0.6 * sizes["float32"]


def test_weights_beyond_protobufs_limit_go_beside_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_export, "MOST_BYTES", 100_000)
    write_checked(tmp_path / "m.onnx", aesthetic(), logits)
    assert {path.name for path in tmp_path.iterdir()} == {"m.onnx", "m.onnx.data"}
    assert (tmp_path / "m.onnx").stat().st_size < 100_000 < (tmp_path / "m.onnx.data").stat().st_size
    pixels = np.zeros((1, 3, 32, 32), np.float32)
    np.testing.assert_allclose(OnnxNetwork(tmp_path / "m.onnx")(pixels), logits(pixels), rtol=0, atol=2e-6)
    monkeypatch.undo()
    write_checked(tmp_path / "m.onnx", aesthetic(), logits)
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


# ---- what must not happen -----------------------------------------------------------------

@pytest.mark.parametrize("change", [lambda x: x + 2e-3, lambda x: x * np.nan])
def test_a_file_that_differs_from_the_twin_is_not_written(change, tmp_path):
    (tmp_path / "m.onnx").write_text("what was there")
    with pytest.raises(UserError, match="m.onnx: not written: ONNX in float32 differs from the twin by"):
        write_checked(tmp_path / "m.onnx", aesthetic(), lambda pixels: change(logits(pixels)))
    assert [path.read_text() for path in tmp_path.iterdir()] == ["what was there"]


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    def full(*arguments, **keywords):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(onnx, "save_model", full)
    with pytest.raises(UserError, match="m.onnx: cannot be written: No space left"):
        write_checked(tmp_path / "m.onnx", aesthetic(), logits)
    assert not list(tmp_path.iterdir())


def test_other_dtypes_are_refused():
    with pytest.raises(UserError, match="'bfloat16'.*choose from float32, float16"):
        aesthetic("bfloat16")


# ---- predicting ----------------------------------------------------------------------------

@pytest.fixture
def pictures(tmp_path):
    paths = [tmp_path / f"{index}.png" for index in range(3)]
    for index, path in enumerate(paths):
        noise = np.random.default_rng(index).integers(0, 256, (4, 4 + index, 3), np.uint8)
        Image.fromarray(noise).resize((50, 40 + index)).save(path)
    return paths


@pytest.mark.parametrize("resample", ["bilinear", "bicubic"])
def test_predictor(pictures, resample, tmp_path):
    config = replace(CONFIG, tower=replace(CONFIG.tower, resample=resample))
    write_checked(tmp_path / "m.onnx", aesthetic(config=config, random_weights="True", tower="t"), logits)
    predictor = OnnxPredictor(tmp_path / "m.onnx", num_threads=1, batch=2)
    assert predictor.random and predictor.provenance["tower"] == "t"
    scores, distributions = predictor.predict_batch(pictures)
    assert distributions.dtype == np.float32 and distributions.shape == (3, 10) and type(scores[0]) is float
    for path, score, shares in zip(pictures, scores, distributions):
        small = Image.open(path).resize((32, 32), Image.Resampling[resample.upper()])
        pixels = np.asarray(small, np.float64) / 127.5 - 1
        expected = distribution(logits(pixels.transpose(2, 0, 1)[None]))[0]
        np.testing.assert_allclose(shares, expected, rtol=0, atol=1e-6)
        assert score == pytest.approx(mean_score(expected), abs=1e-5)
        one, alone = predictor.predict(path)
        assert one == pytest.approx(score, abs=1e-5) and predictor.predict_score_only(path) == one
        np.testing.assert_allclose(alone, shares, rtol=0, atol=1e-6)
    assert predictor.predict_batch([])[1].shape == (0, 10)
    (tmp_path / "bad.jpg").write_bytes(b"nothing")
    with pytest.raises(UserError, match="bad.jpg: cannot be read"):
        predictor.predict_batch([*pictures, tmp_path / "bad.jpg"])


def test_predictor_takes_no_other_file(tmp_path):
    write_checked(tmp_path / "v.onnx", vision_model(replace(TINY, head=True), TOWER), embeds)
    (tmp_path / "w.onnx").write_text("none")
    for name, message in (("v.onnx", "gives 'image_embeds', not the aesthetic scorer's logits"),
                          ("w.onnx", "not an ONNX model"), ("absent.onnx", "absent.onnx: not an ONNX model")):
        with pytest.raises(UserError, match=message):
            OnnxPredictor(tmp_path / name)


# ---- which scorer ----------------------------------------------------------------------------

@pytest.fixture
def adapter(tmp_path):
    def write(name):
        write_adapter(tmp_path / "best_lora.pth", Adapter(CONFIG.lora, TRAINED, name, TINY.hidden_size))
        return tmp_path / "best_lora.pth"
    return write


def test_an_untrained_tower_is_rebuilt_and_marked(adapter):
    scorer = read_scorer(Shapes().state_shapes, adapter("random:tiny:1"), random=True)
    assert scorer.random and scorer.tower.name == "random:tiny:1" and scorer.config.lora.scaling == 2
    np.testing.assert_array_equal(scorer.tower.arrays["post_layernorm.bias"], TOWER["post_layernorm.bias"])
    state = scorer.state()
    key = "encoder.layers.1.mlp.fc1"
    np.testing.assert_array_equal(state[f"{PREFIX}{key}.base_layer.weight"], TOWER[f"{key}.weight"])
    np.testing.assert_array_equal(state["aesthetic_head.mlp.6.bias"], TRAINED["aesthetic_head.mlp.6.bias"])


def test_adapters_of_some_layers(tmp_path):
    """What is not adapted keeps its place, in the model and in the ONNX file."""
    some = {key: array for key, array in TRAINED.items() if "lora" not in key or "q_proj" in key or "v_proj" in key}
    write_adapter(tmp_path / "qv.pth", Adapter(CONFIG.lora, some, "random:tiny:1", TINY.hidden_size))
    scorer = read_scorer(Shapes().state_shapes, tmp_path / "qv.pth", random=True)
    layer, keys = f"{PREFIX}encoder.layers.0.self_attn.", set(scorer.state())
    assert {f"{layer}q_proj.base_layer.weight", f"{layer}k_proj.weight"} <= keys
    assert not {f"{layer}q_proj.weight", f"{layer}k_proj.base_layer.weight"} & keys
    whole = merged(scorer.state(), scorer.config.lora)
    changed = {key.split(".")[-2] for key in TOWER
               if PREFIX + key in whole and not np.array_equal(whole[PREFIX + key], TOWER[key])}
    assert changed == {"q_proj", "v_proj"}


@pytest.mark.parametrize("name, tower, random, message", [
    ("random:tiny:1", None, False, "was trained on an untrained tower"),
    ("random:tiny:1", ".", False, "was trained on an untrained tower .random:tiny:1., not on ."),
    ("google/x", None, False, "was trained on 'google/x', which is not a folder here"),
    ("google/x", "no/folder", False, "and 'no/folder' is not a folder"),
    ("", None, False, "does not tell its tower"),
    ("google/x", None, True, "no untrained tower 'google/x'"),
    ("random:tinny:1", None, True, "did you mean 'tiny'"),
    ("random:tiny:x", None, True, "no untrained tower 'random:tiny:x'"),
    ("random:so400m-patch16-512:1", None, True, "width 32, but the tower has 1152")])
def test_towers_that_do_not_go_with_the_adapter(name, tower, random, message, adapter):
    with pytest.raises(UserError, match=message):
        read_scorer(Shapes().state_shapes, adapter(name), tower, random)


def test_the_name_of_an_architecture_is_no_folder(tmp_path, monkeypatch, adapter):
    """Whatever the working folder holds, --random-weights with such a name means an untrained tower."""
    monkeypatch.chdir(tmp_path)
    adapter("random:tiny:1")
    (tmp_path / "tiny").mkdir()
    for name in (None, "tiny"):
        assert read_scorer(Shapes().state_shapes, None, name, random=True).tower.name == "random:tiny:0"
    assert read_scorer(Shapes().state_shapes, "best_lora.pth", None, random=True).tower.name == "random:tiny:1"
    for name, random in (("./tiny", True), (tmp_path / "tiny", True)):
        with pytest.raises(UserError, match="tiny/config.json: not found"):
            read_scorer(Shapes().state_shapes, None, name, random)
    with pytest.raises(UserError, match="tiny/config.json: not found"):     # without it, the name is a folder's
        read_scorer(Shapes().state_shapes, adapter("google/x"), "tiny")


def test_another_tower_of_the_same_sizes_is_refused(tmp_path):
    """SigLIP and SigLIP 2 have such: an adapter that knows its tower's weights fits no others."""
    towers = []
    for seed in (1, 2):
        towers.append(tmp_path / f"tower{seed}")
        towers[-1].mkdir()
        sizes = {key: value for key, value in vars(TINY).items() if key != "head"}
        (towers[-1] / "config.json").write_text(json.dumps({"model_type": "siglip_vision_model", **sizes}))
        (towers[-1] / "preprocessor_config.json").write_text(json.dumps({"resample": 2}))
        write_weights(towers[-1] / "model.safetensors", dict(random_tower(TINY, seed)))
    hashed = Adapter(CONFIG.lora, TRAINED, "siglip", TINY.hidden_size, tower_sha256=read_tower(towers[0]).sha256)
    for name, format in (("a.pth", "original"), ("a", "peft")):
        write_adapter(tmp_path / name, hashed, format)
        assert read_scorer(Shapes().state_shapes, tmp_path / name, towers[0]).trained_on == "siglip"
        with pytest.raises(UserError, match=r"was trained on 'siglip' of SHA-256 .*tower2 has .*--aesthetic-tower"):
            read_scorer(Shapes().state_shapes, tmp_path / name, towers[1])


@pytest.mark.parametrize("weights, keywords", [
    ("absent.pth", {}), (None, {}), (None, {"random_model": True, "backend": "torhc"}),
    (None, {"random_model": True, "num_threads": 0})])
def test_the_predictors_errors_are_value_errors(weights, keywords):
    with pytest.raises(ValueError) as caught:
        AestheticPredictor(weights, **keywords)
    assert isinstance(caught.value, UserError) and "\n" not in str(caught.value)
