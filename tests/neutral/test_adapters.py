"""Adapter files: every form read and written, nothing lost, what does not fit refused in one line."""
import argparse
import json
import pickle
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from tower import tower_shapes

from jittwin.checkpoints.adapters import Adapter, check_adapter, describe, read_adapter, state_dict, write_adapter
from jittwin.checkpoints.convert import convert
from jittwin.checkpoints.store import Checkpoints
from jittwin.commands.convert import add_arguments, run
from jittwin.errors import UserError
from jittwin.models.aesthetic import AestheticConfig, trainable_keys
from jittwin.models.lora import LoraConfig
from jittwin.models.siglip import PRESETS, SiglipVisionConfig
from jittwin.weights import read_content, read_weights, write_content, write_weights
from jittwin.weights.initial import initial_weights

TINY = PRESETS["tiny"]
LORA = LoraConfig(4, 8)
PREFIX = "vision_model.base_model.model."


def adapter(tower=TINY, lora=LORA, seed=1):
    arrays = dict(initial_weights("aesthetic", trainable_keys(AestheticConfig(tower, lora), tower_shapes(tower)), seed))
    draws = np.random.default_rng(seed)
    arrays = {key: array if array.any() else draws.standard_normal(array.shape).astype(np.float32)
              for key, array in arrays.items()}
    return Adapter(lora, arrays, "google/siglip2-so400m-patch16-512", tower.hidden_size)


def equal(ours, theirs):
    assert list(ours.arrays) == list(theirs.arrays)
    assert all(np.array_equal(array, theirs.arrays[key]) for key, array in ours.arrays.items())
    assert (ours.config.r, ours.config.alpha, ours.config.targets) == (
        theirs.config.r, theirs.config.alpha, theirs.config.targets)
    assert (ours.model_name, ours.hidden_size, ours.num_classes, ours.tower_sha256) == (
        theirs.model_name, theirs.hidden_size, theirs.num_classes, theirs.tower_sha256)


@pytest.mark.parametrize("compat", [False, True])
@pytest.mark.parametrize("format, name", [("original", "best_lora.pth"), ("peft", "adapter")])
def test_both_forms_there_and_back(tmp_path, format, name, compat):
    ours = replace(adapter(), tower_sha256="0123abc")
    write_adapter(tmp_path / name, ours, format, reference_compat=compat)
    equal(read_adapter(tmp_path / name), ours)
    write_adapter(tmp_path / name, adapter(seed=2), format)     # in place of the first
    equal(read_adapter(tmp_path / name), adapter(seed=2))
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_the_originals_layout(tmp_path):
    write_adapter(tmp_path / "best_lora.pth", adapter(lora=LoraConfig(4, 8.0)), reference_compat=True, dtype="bfloat16")
    content = read_content(tmp_path / "best_lora.pth")
    assert content["config"] == {
        "model_name": "google/siglip2-so400m-patch16-512", "lora_r": 4, "lora_alpha": 8, "lora_dropout": 0.0,
        "lora_target_modules": ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"], "num_classes": 10,
        "hidden_size": 32}
    assert type(content["config"]["lora_alpha"]) is int
    state = content["state_dict"]
    keys = list(state)
    assert len(keys) == 2 * 12 + 6 + 6 and {str(array.dtype) for array in state.values()} == {"bfloat16"}
    assert keys[24] == f"{PREFIX}head.attention.out_proj.lora_A.default.weight"
    assert keys[30:32] == ["aesthetic_head.mlp.0.weight", "aesthetic_head.mlp.0.bias"]
    dead = {key: array for key, array in state.items() if ".head." in key}
    assert len(dead) == 6 and all(bool(array.any()) == ("lora_A" in key) for key, array in dead.items())
    found = read_adapter(tmp_path / "best_lora.pth")
    assert found.dtype == "bfloat16" and found.arrays["aesthetic_head.mlp.0.bias"].dtype == np.float32


def test_a_checkpoint_of_the_original(tmp_path):
    ours = adapter()
    settings = {key: value for key, value in describe(ours).items() if key not in ("hidden_size", "num_classes")}
    write_content(tmp_path / "checkpoint_epoch_3.pth", {
        "epoch": 2, "global_step": 7, "model_state_dict": state_dict(ours, reference_compat=True),
        "optimizer_state_dict": {"state": {0: {"step": np.float32(7).reshape(()), "exp_avg": np.ones((4, 32))}},
                                 "param_groups": [{"lr": 2e-4, "betas": (0.9, 0.999), "foreach": None, "params": [0]}]},
        "scheduler_state_dict": {"lr_lambdas": [{}, {}]}, "metrics": {"emd": np.float64(0.07)}, "best_emd": 0.07,
        "train_config": {**settings, "batch_size": 48}})
    equal(read_adapter(tmp_path / "checkpoint_epoch_3.pth"), ours)


def test_runs_and_checkpoints_of_this_project(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    for epoch in (1, 2, 3):
        best = {"emd": {"checkpoint": "1", "score": 0.1}, "srcc": {"checkpoint": "2", "score": 0.5}}
        checkpoints.save(str(epoch), [("model", adapter(seed=epoch).arrays)], {"best": best},
                         {"adapter": describe(replace(adapter(), tower_sha256="0123abc"))})
    for place, seed in (("", 3), ("best", 1), ("best_emd", 1), ("best_srcc", 2), ("checkpoints/2", 2),
                        ("checkpoints/1/model.safetensors", 1)):
        equal(read_adapter(tmp_path / place), replace(adapter(seed=seed), tower_sha256="0123abc"))
    with pytest.raises(UserError, match="best_mse: this run has no such best checkpoint.*best_emd, best_srcc"):
        read_adapter(tmp_path / "best_mse")


def test_a_peft_folder_that_adapts_only_some_layers(tmp_path):
    lora = replace(LORA, targets=r".*encoder\.layers\.\d+\.(self_attn\.v_proj|self_attn\.q_proj)")
    ours = adapter(lora=lora)
    assert len(ours.arrays) == 8 + 6
    for name, format in (("a", "peft"), ("a.pth", "original")):
        write_adapter(tmp_path / name, ours, format)
        found = read_adapter(tmp_path / name)
        assert list(found.arrays) == list(ours.arrays)
        check_adapter(found, TINY, tower_shapes(TINY))
        assert describe(found)["lora_target_modules"] == ["q_proj", "v_proj"]


@pytest.mark.parametrize("tower, lora, message", [
    (replace(TINY, hidden_size=64), None, "width 32, but the tower has 64.*siglip2-so400m"),
    (replace(TINY, num_hidden_layers=3), None, "depth 2, but the tower has 3"),
    (replace(TINY, intermediate_size=40), None, r"of another shape: .*fc1.lora_B.default.weight \(48, 4\) instead of \(40, 4\)"),
    (TINY, LoraConfig(16, 8), "rank 4, but the run is set to 16"),
    (TINY, LoraConfig(4, 32), "alpha 8, but the run is set to 32")])
def test_an_adapter_of_another_size_is_refused(tower, lora, message):
    with pytest.raises(UserError, match=message) as caught:
        check_adapter(adapter(), tower, tower_shapes(tower), lora)
    assert "\n" not in str(caught.value)


def test_an_adapter_that_fits():
    check_adapter(adapter(), TINY, tower_shapes(TINY), LORA)
    other = SiglipVisionConfig(24, 1, 4, 40, 16, 64)
    check_adapter(adapter(SiglipVisionConfig(24, 1, 2, 40, 8, 16)), other, tower_shapes(other))


def broken(tmp_path, change):
    """A file of the original after `change` of its content."""
    ours = adapter()
    content = {"config": describe(ours), "state_dict": dict(ours.arrays)}
    change(content)
    write_content(tmp_path / "a.pth", content)
    return tmp_path / "a.pth"


A = f"{PREFIX}encoder.layers.1.mlp.fc2.lora_A.default.weight"


@pytest.mark.parametrize("change, message", [
    (lambda c: c.pop("config"), "no adapter: it lacks the dictionaries 'config' and 'state_dict'"),
    (lambda c: c["config"].pop("lora_r"), "describe no LoRA \\('lora_r' is missing\\)"),
    (lambda c: c["config"].update(lora_r=8), "settings say rank 8, its arrays have rank 4"),
    (lambda c: c["config"].update(lora_alpha="x"), "describe no LoRA"),
    (lambda c: c["config"].update(lora_alpha=[[8]]), "setting lora_alpha is a list"),
    (lambda c: c["config"].update(hidden_size=64), "settings say width 64, its arrays 32"),
    (lambda c: c["config"].update(num_classes=5), "settings say classes 5, its arrays 10"),
    (lambda c: c["state_dict"].pop(A), "1 missing: .*layers.1.mlp.fc2.lora_A"),
    (lambda c: c["state_dict"].update({A: np.zeros((4, 40), np.float32)}), r"\(4, 40\) instead of \(4, 48\)"),
    (lambda c: c["state_dict"].update({A: np.zeros(4, np.float32)}), "two dimensions"),
    (lambda c: c["state_dict"].update({A: "text"}), "holds str instead of an array"),
    (lambda c: c["state_dict"].update({"vision_model.encoder.layers.0.mlp.fc1.weight": np.zeros((2, 2))}), "neither LoRA"),
    (lambda c: [c["state_dict"].pop(k) for k in list(c["state_dict"]) if "head" in k], "holds no head"),
    (lambda c: [c["state_dict"].pop(k) for k in list(c["state_dict"]) if "lora" in k], "holds no LoRA"),
])
def test_broken_files(tmp_path, change, message):
    with pytest.raises(UserError, match=message) as caught:
        read_adapter(broken(tmp_path, change))
    assert str(tmp_path / "a.pth") in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name, content, message", [
    ("adapter_config.json", b"{", "cannot be read as JSON .*save it again"),
    ("adapter_config.json", b'{"r": 4, "lora_alpha": 8, "use_dora": true}', "use_dora is True; only plain LoRA"),
    ("adapter_config.json", b'{"r": 4, "lora_alpha": 8, "rank_pattern": {"q_proj": 8}}', "rank_pattern is {'q_proj': 8}"),
    ("adapter_config.json", b'{"r": 4, "lora_alpha": 8, "layers_to_transform": [0]}', "layers_to_transform is .0."),
    ("adapter_config.json", b'{"r": 4, "lora_alpha": 8, "init_lora_weights": "pissa_niter_4"}',
     "init_lora_weights is 'pissa_niter_4', with which peft also changes"),
    ("adapter_config.json", b'{"r": 4, "lora_alpha": 8, "init_lora_weights": "OLoRA"}', "init_lora_weights is 'OLoRA'"),
    ("adapter_config.json", b'{"lora_alpha": 8}', "'lora_r' is missing"),
    ("adapter_model.safetensors", None, "lacks adapter_model.safetensors or adapter_model.bin"),
    ("aesthetic_head.safetensors", None, "lacks aesthetic_head.safetensors")])
def test_broken_peft_folders(tmp_path, name, content, message):
    write_adapter(tmp_path / "a", adapter(), "peft")
    (tmp_path / "a" / name).write_bytes(content) if content else (tmp_path / "a" / name).unlink()
    with pytest.raises(UserError, match=message):
        read_adapter(tmp_path / "a")


@pytest.mark.parametrize("start", [True, False, "gaussian", "Gaussian", "eva", "orthogonal"])
def test_how_peft_started_from_an_unchanged_tower_does_not_matter(tmp_path, start):
    write_adapter(tmp_path / "a", adapter(), "peft")
    file = tmp_path / "a" / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "init_lora_weights": start}))
    equal(read_adapter(tmp_path / "a"), adapter())


def test_what_is_no_adapter(tmp_path):
    write_weights(tmp_path / "w.safetensors", {"x": np.zeros(1)})
    (tmp_path / "empty").mkdir()
    for name, message in (("w.safetensors", "metadata name no adapter"), ("empty", "no adapter here; legal"),
                          ("absent.pth", "cannot be read"), ("best", "no adapter here|no such best")):
        with pytest.raises(UserError, match=message):
            read_adapter(tmp_path / name)


def test_nothing_is_lost_where_an_adapter_cannot_be_written(tmp_path):
    (tmp_path / "photographs").mkdir()
    (tmp_path / "photographs" / "a.jpg").write_bytes(b"x")
    with pytest.raises(UserError, match="holds files that belong to no adapter"):
        write_adapter(tmp_path / "photographs", adapter(), "peft")
    write_adapter(tmp_path / "a", adapter(), "peft")
    for arguments, message in ((("keras",), "unknown adapter format"), (("peft", False, "int8"), "adapters in 'int8'")):
        with pytest.raises(UserError, match=message):
            write_adapter(tmp_path / "a", adapter(), *arguments)
    wrong = replace(adapter(), model_name=object())
    with pytest.raises(TypeError):
        write_adapter(tmp_path / "a", wrong, "peft")
    equal(read_adapter(tmp_path / "a"), adapter())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "photographs"]


def test_a_head_as_peft_sees_it(tmp_path):
    write_adapter(tmp_path / "a", adapter(), "peft", reference_compat=True)
    settings = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    assert (settings["peft_type"], settings["r"], settings["lora_alpha"]) == ("LORA", 4, 8)
    assert settings["target_modules"] == ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]
    keys = list(read_weights(tmp_path / "a" / "adapter_model.safetensors"))
    assert "base_model.model.encoder.layers.0.self_attn.q_proj.lora_A.weight" in keys
    assert "base_model.model.head.mlp.fc2.lora_B.weight" in keys and len(keys) == 30


def test_convert(tmp_path, capsys):
    write_adapter(tmp_path / "best_lora.pth", adapter(), dtype="bfloat16")
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    source, folder, back = (str(tmp_path / name) for name in ("best_lora.pth", "adapter", "back.pth"))
    assert run(parser.parse_args([source, folder, "--model", "aesthetic", "--verify"])) == 0
    assert "30 tensors (30 bfloat16)" in capsys.readouterr().out
    report = convert(folder, back, "aesthetic", verify=True)
    assert report.verified and (tmp_path / "back.pth").read_bytes() == (tmp_path / "best_lora.pth").read_bytes()
    assert "added 6 adapters of the pooling head" in str(convert(folder, back, "aesthetic", reference_compat=True))
    assert convert(folder, back, "aesthetic", dtype="float32").dtypes == {"float32": 30}
    equal(read_adapter(back), read_adapter(source))


@pytest.mark.parametrize("target, options, message", [
    ("a.safetensors", {}, "NAME.pth"), ("a.pth", {"to": "torch"}, "--to torch is for whole networks"),
    ("a.pth", {"dtype": "float64"}, "adapters in 'float64'")])
def test_convert_refuses(tmp_path, target, options, message):
    write_adapter(tmp_path / "best_lora.pth", adapter())
    with pytest.raises(UserError, match=message):
        convert(tmp_path / "best_lora.pth", tmp_path / target, "aesthetic", **options)
    assert [path.name for path in tmp_path.iterdir()] == ["best_lora.pth"]


# ---- nested .pth content ---------------------------------------------------------------

CONTENT = {"epoch": 3, "none": None, "flags": [True, False], "rate": 2e-4, "inf": float("inf"), "big": 2 ** 70,
           "name": "大き", "tuple": (1, (), ("a", 2.5)), "empty": [{}, [], ()], 5: {"x": 1},
           "arrays": {"f": np.arange(6, dtype=np.float32).reshape(2, 3), "i": np.array([1, 2]), "s": np.array(2.0),
                      "b": np.array([True, False]), "e": np.zeros((0, 3), np.float16)}}


def same(ours, theirs):
    assert type(ours) is type(theirs)
    if isinstance(ours, np.ndarray):
        assert ours.dtype == theirs.dtype and ours.shape == theirs.shape and ours.tobytes() == theirs.tobytes()
    elif isinstance(ours, dict):
        assert list(ours) == list(theirs)
        [same(ours[key], theirs[key]) for key in ours]
    elif isinstance(ours, (list, tuple)):
        assert len(ours) == len(theirs)
        [same(*pair) for pair in zip(ours, theirs)]
    else:
        assert ours == theirs


def test_nested_content_comes_back_as_it_was(tmp_path):
    write_content(tmp_path / "a.pth", CONTENT)
    same(read_content(tmp_path / "a.pth"), CONTENT)
    write_content(tmp_path / "b.pth", read_content(tmp_path / "a.pth"))
    assert (tmp_path / "b.pth").read_bytes() == (tmp_path / "a.pth").read_bytes()


def test_numpy_scalars_become_numbers(tmp_path):
    write_content(tmp_path / "a.pth", {"emd": np.float64(0.25), "n": np.int64(3)})
    same(read_content(tmp_path / "a.pth"), {"emd": 0.25, "n": 3})


@pytest.mark.parametrize("content", [{"x": object()}, {"x": b"bytes"}, {"x": {1, 2}}, {"x": np.array(["text"])}])
def test_content_that_cannot_be_written(tmp_path, content):
    with pytest.raises(UserError, match="a.pth"):
        write_content(tmp_path / "a.pth", content)
    assert not list(tmp_path.iterdir())


def test_content_of_another_file(tmp_path):
    write_weights(tmp_path / "a.npz", {"x": np.zeros(1)})
    with pytest.raises(UserError, match="what is read here is a PyTorch .pth"):
        read_content(tmp_path / "a.npz")


def test_a_hostile_file_neither_runs_nor_fills_the_memory(tmp_path):
    def zipped(description: bytes):
        with zipfile.ZipFile(tmp_path / "a.pth", "w") as archive:
            archive.writestr("archive/data.pkl", description)
        return tmp_path / "a.pth"

    many = [0] * 10
    for _ in range(30):                     # 10^31 numbers, were each mention a copy
        many = [many] * 10
    found = read_content(zipped(pickle.dumps({"x": many}, 2)))
    assert len(found["x"]) == 10 and found["x"][0] is found["x"][9]
    circle = []
    circle.append(circle)
    for content, message in ((circle, "damaged"), ({"x": print}, "refused: .*print")):
        with pytest.raises(UserError, match=message):
            read_content(zipped(pickle.dumps(content, 2)))
