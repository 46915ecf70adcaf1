"""Hub folders: caches, shards, renames, how pictures are prepared, and everything that a download can leave behind."""
import json
import re

import numpy as np
import pytest

from jittwin.errors import UserError
from jittwin.models.siglip import read_tower
from jittwin.weights import read_weights, write_weights
from jittwin.weights.hub import open_hub, renamed
from jittwin.weights.lazy import LazyArrays

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 1815\n"
PAGE = "<!DOCTYPE html>\n<html><body>Access to this model is restricted</body></html>"
ARRAYS = {"vision_model.a": np.arange(4, dtype=np.float32), "text_model.b": np.zeros(2, np.float16)}


def written(folder, **files):
    """A hub folder; files: text by name with _ for ., in place of the usual ones."""
    folder.mkdir(parents=True, exist_ok=True)
    write_weights(folder / "model.safetensors", ARRAYS)
    for name, text in {"config_json": '{"model_type": "siglip", "vision_config": {}}', **files}.items():
        (folder / re.sub("_(?=json$)", ".", name)).write_text(text)
    return folder


@pytest.fixture
def cached(tmp_path):
    """A model in the hub's cache, and its snapshot."""
    snapshot = written(tmp_path / "models--google--siglip2-tiny" / "snapshots" / "0123abc")
    return snapshot.parent.parent, snapshot


def same(found, expected):
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[key], array) and found[key].dtype == array.dtype for key, array in expected.items())


def test_a_model_of_the_cache_is_its_snapshot(cached):
    model, snapshot = cached
    for where in (model, snapshot):
        found = open_hub(where)
        assert found.path == snapshot and found.name == "google/siglip2-tiny"
        same(found.arrays(), ARRAYS)
    written(model / "snapshots" / "fedcba9")
    with pytest.raises(UserError, match="refs/main is missing, among its 2 snapshots; fetch the model again, or give"):
        open_hub(model)
    (model / "refs").mkdir()
    (model / "refs/main").write_text("0123abc\n")
    assert open_hub(model).path == snapshot
    (model / "refs/main").write_text("777")
    with pytest.raises(UserError, match="refs/main names '777', which is not among its 2 snapshots"):
        open_hub(model)


def test_names(tmp_path):
    assert open_hub(written(tmp_path / "siglip-x")).name == "siglip-x"
    assert open_hub(written(tmp_path / "b", config_json='{"_name_or_path": "google/x"}')).name == "google/x"


def test_settings_of_pictures_are_found_where_either_generation_writes_them(tmp_path):
    folder = open_hub(written(tmp_path, processor_config_json='{"processor_class": "SiglipProcessor"}'))
    assert folder.processor() is None
    (tmp_path / "preprocessor_config.json").write_text('{"resample": 2}')
    assert folder.processor() == ({"resample": 2}, tmp_path / "preprocessor_config.json")
    (tmp_path / "processor_config.json").write_text('{"image_processor": {"resample": 3}}')
    assert folder.processor() == ({"resample": 3}, tmp_path / "processor_config.json")


def test_without_settings_of_pictures_nothing_is_guessed(tmp_path):
    with pytest.raises(UserError) as caught:
        read_tower(written(tmp_path))
    message = str(caught.value)
    assert "\n" not in message and message.startswith(f"{tmp_path}: holds neither preprocessor_config.json nor processor_")
    (tmp_path / "preprocessor_config.json").write_text(re.search(r'write one with (\{.*?\})', message)[1])
    with pytest.raises(UserError, match="its arrays have num_hidden_layers 0"):      # which is another matter
        read_tower(tmp_path)


@pytest.mark.parametrize("text, message", [
    (POINTER, "is a pointer of git LFS in place of the file itself; run git lfs pull"),
    (PAGE, "is a web page in place of the file itself"), ("\ufeff " + PAGE, "is a web page"),
    ('{"model_type": "siglip", ', r"cannot be read as JSON \(Expecting property"), ("", "cannot be read as JSON"),
    ("[1]", "holds a list instead of an object"), ('{"model_type": ["siglip"]}', r"model_type \['siglip'\]; legal: siglip"),
    ('{"model_type": "bert"}', "model_type 'bert'; legal: siglip or siglip_vision_model, such as google/siglip2-so400m"),
    ('{"model_type": "siglip", "vision_config": 3}', "model_type 'siglip'; legal"), ("[" * 100_000, "cannot be read as JSON")])
def test_configurations_that_are_none(tmp_path, text, message):
    with pytest.raises(UserError, match=f"config.json: {message}") as caught:
        read_tower(written(tmp_path, config_json=text, preprocessor_config_json='{"resample": 2}'))
    assert "\n" not in str(caught.value)


def test_a_byte_order_mark_does_no_harm(tmp_path):
    assert open_hub(written(tmp_path, config_json='\ufeff{"a": 1}')).config == {"a": 1}


@pytest.mark.parametrize("text, message", [(POINTER, "is a pointer of git LFS"), (PAGE, "is a web page"), ("", "empty")])
@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "model.safetensors.index.json"])
def test_weights_that_are_none(tmp_path, text, message, name):
    written(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / name).write_text(text)
    for read in (open_hub(tmp_path).arrays, lambda: read_weights(tmp_path / name)):
        with pytest.raises(UserError, match=f"{name}: {message}") as caught:
            read()
        assert "\n" not in str(caught.value)


def test_shards(tmp_path):
    written(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    index = {}
    for number, (key, array) in enumerate(ARRAYS.items()):
        write_weights(tmp_path / f"m-{number}.safetensors", {key: array})
        index[key] = f"m-{number}.safetensors"
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    same(open_hub(tmp_path).arrays(), ARRAYS)
    (tmp_path / "m-1.safetensors").unlink()
    same(open_hub(tmp_path).arrays(lambda key: key.startswith("vision_model.")), {"vision_model.a": ARRAYS["vision_model.a"]})
    with pytest.raises(UserError, match="index.json: 1 of its 2 shards are not there: m-1.safetensors; the download is"):
        open_hub(tmp_path).arrays()


def test_downloads_that_stopped(cached, tmp_path):
    model, snapshot = cached
    blobs = model / "blobs"
    blobs.mkdir()
    (blobs / "99.incomplete").write_text("")
    (snapshot / "model.safetensors").unlink()
    with pytest.raises(UserError, match="no weights found; legal: .*; the download is unfinished .99.incomplete is left"):
        open_hub(snapshot).arrays()
    (snapshot / "model.safetensors").symlink_to(blobs / "99")
    with pytest.raises(UserError, match="no weights found; .*model.safetensors points to .*99, which is not there"):
        open_hub(snapshot).arrays()
    (snapshot / "config.json").unlink()
    (snapshot / "config.json").symlink_to(blobs / "98")
    with pytest.raises(UserError, match="config.json: points to .*98, which is not there: fetch it again; the download is"):
        open_hub(snapshot).config
    local = tmp_path / "local/.cache/huggingface/download"
    local.mkdir(parents=True)
    (local / "x.incomplete").write_text("")
    with pytest.raises(UserError, match="config.json: not found; the download is unfinished .x.incomplete is left over"):
        open_hub(tmp_path / "local").config
    with pytest.raises(UserError, match="absent: is not a folder"):
        open_hub(tmp_path / "absent")


def test_renames():
    arrays = LazyArrays({"vision_model.b": (1,), "x.gamma": (2,), "c": (3,)}, lambda name: name, "w.bin")
    found = renamed(arrays, ((r"^vision_model\.", ""), (r"\.gamma$", ".weight")))
    assert found.shapes == {"b": (1,), "x.weight": (2,), "c": (3,)} and found.source == "w.bin"
    assert (found["b"], found["x.weight"], found["c"]) == ("vision_model.b", "x.gamma", "c")
    with pytest.raises(UserError, match="w.bin: vision_model.b and c are both b in the model"):
        renamed(arrays, ((r"^vision_model\.", ""), ("^c$", "b")))


def test_a_folder_of_something_else_is_told_as_what_it_is(tmp_path):
    """An unpacked PyTorch file, and checkpoints beside each other."""
    (tmp_path / "model.pth" / "archive").mkdir(parents=True)
    (tmp_path / "model.pth" / "archive" / "data.pkl").write_bytes(b"")
    for folder in (tmp_path / "model.pth", tmp_path / "model.pth" / "archive"):
        with pytest.raises(UserError, match="is a folder, into which a PyTorch file was unpacked; fetch the file again"):
            open_hub(folder)
    (tmp_path / "best.pth").write_bytes(b"")
    with pytest.raises(UserError, match="config.json: not found; give a hub folder, .* or one of the files in it, such as best"):
        open_hub(tmp_path)
