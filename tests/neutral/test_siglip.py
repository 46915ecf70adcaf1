"""SigLIP's sizes, keys and hub folders, and reading a part of a file."""
import json
from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
from tower import random_tower, tower_shapes

from jittwin.errors import UserError
from jittwin.models.siglip import PRESETS, SiglipVisionConfig, preprocess, read_config, read_tower
from jittwin.weights import content_hash, open_weights, read_weights, write_weights
from jittwin.weights.hub import open_hub
from jittwin.weights.lazy import LazyArrays
from jittwin.weights.state import check_state

TINY = PRESETS["tiny"]
VISION = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, patch_size=8,
              image_size=32)


def scalars(config):
    return sum(int(np.prod(shape)) for shape in tower_shapes(config).values())


def folder(path, arrays, file="model.safetensors", config=None, **more):
    path.mkdir(exist_ok=True)
    content = {"model_type": "siglip", "vision_config": VISION} if config is None else config
    (path / "config.json").write_text(json.dumps(content | more))
    (path / "preprocessor_config.json").write_text('{"resample": 2}')
    write_weights(path / file, arrays)
    return path


def whole(config=replace(TINY, head=True), dtype=np.float32):
    """A checkpoint with both towers."""
    tower = random_tower(config)
    return ({f"vision_model.{name}": tower[name].astype(dtype) for name in tower}
            | {"text_model.embeddings.token_embedding.weight": np.ones((50, 32), dtype), "logit_scale": np.ones(1, dtype)})


def same(found, expected):
    return set(found) == set(expected) and all(np.array_equal(found[name], expected[name]) for name in expected)


def loaded(tower) -> list[str]:
    """The check that every backend makes when it loads arrays."""
    return check_state(tower_shapes(tower.config), tower.arrays)


def test_published_numbers_of_parameters():
    so400m = PRESETS["so400m-patch16-512"]
    assert scalars(so400m) == 413_534_448 and scalars(replace(so400m, head=True)) == 428_772_800
    assert so400m == SiglipVisionConfig() and so400m.tokens == 1024
    assert scalars(replace(PRESETS["base-patch16-224"], head=True)) == 92_884_224
    assert PRESETS["so400m-patch14-384"].tokens == 27 ** 2


@pytest.mark.parametrize("change", [{"num_attention_heads": 5}, {"patch_size": 64}])
def test_sizes_that_do_not_go_together(change):
    with pytest.raises(ValueError):
        replace(TINY, **change)


def test_config_files(tmp_path):
    path = tmp_path / "config.json"
    (tmp_path / "preprocessor_config.json").write_text('{"resample": 2}')
    for content in ({"model_type": "siglip", "vision_config": VISION}, {"model_type": "siglip_vision_model"} | VISION):
        path.write_text(json.dumps(content))
        assert read_config(open_hub(tmp_path)) == TINY
    path.write_text(json.dumps({"model_type": "siglip", "vision_config": {"model_type": "siglip_vision_model"}}))
    assert read_config(open_hub(tmp_path)) == replace(PRESETS["base-patch16-224"])


def test_how_pictures_are_prepared_is_read(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "siglip", "vision_config": VISION}))
    processor = tmp_path / "preprocessor_config.json"
    for number, name in ((2, "bilinear"), (3, "bicubic")):
        processor.write_text(json.dumps({"resample": number, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}))
        assert read_config(open_hub(tmp_path)) == replace(TINY, resample=name)
    for wrong, line in (({"resample": 1}, "resample is 1; legal: 2 or 3"), ({}, "resample is None; legal: 2 or 3"),
                        ({"image_mean": [0.48, 0.46, 0.41]}, "image_mean is"), ({"do_resize": False}, "do_resize is"),
                        ({"do_rescale": 1}, "do_rescale is 1; legal: True"),
                        ({"size": {"height": 64, "width": 64}}, "size is .*; legal: {'height': 32, 'width': 32}")):
        wrong = wrong and {"resample": 2} | wrong
        processor.write_text(json.dumps(wrong))
        with pytest.raises(UserError, match=line):
            read_config(open_hub(tmp_path))


@pytest.mark.parametrize("content, message", [
    (None, "config.json: not found"), ("{", "cannot be read as JSON"), ("[]", "holds a list instead of an object"), ("{}", "model_type None; legal: siglip or"),
    ('{"model_type": "siglip2"}', "model_type 'siglip2' .a NaFlex"), ('{"model_type": "clip"}', "model_type 'clip'; legal"),
    ('{"model_type": "siglip_vision_model", "hidden_act": "relu"}', "hidden_act 'relu'"),
    ('{"model_type": "siglip_vision_model", "patch_size": "16"}', "patch_size is '16'"),
    ('{"model_type": "siglip_vision_model", "patch_size": 0}', "patch_size is 0"),
    ('{"model_type": "siglip_vision_model", "num_attention_heads": 7}', "7 heads do not divide")])
def test_config_files_of_other_models(tmp_path, content, message):
    (tmp_path / "preprocessor_config.json").write_text('{"resample": 2}')
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match=message):
        read_config(open_hub(tmp_path))


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("head", [False, True])
def test_a_tower_is_read_from_a_whole_checkpoint(tmp_path, file, head):
    config = replace(TINY, head=head)
    tower = read_tower(folder(tmp_path / "siglip2-tiny", whole(), file), head)
    assert tower.config == config and tower.name == "siglip2-tiny"
    assert same(tower.arrays, random_tower(config)) and tower.arrays.shapes == tower_shapes(config)
    assert tower.sha256 == content_hash(random_tower(config))


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_short_types_become_float32(tmp_path, dtype):
    tower = read_tower(folder(tmp_path, whole(dtype=dtype), _name_or_path="google/siglip2-tiny"))
    assert tower.name == "google/siglip2-tiny"
    for name, array in random_tower(TINY).items():
        found = tower.arrays[name]
        assert found.dtype == np.float32 and np.array_equal(found, array.astype(dtype).astype(np.float32))


def test_keys_without_a_prefix_and_shards(tmp_path):
    arrays = dict(random_tower(TINY))
    assert same(read_tower(folder(tmp_path / "a", arrays)).arrays, arrays)
    where = folder(tmp_path / "b", {}, "unused.safetensors")
    names, index = list(arrays), {}
    for number, part in enumerate((names[::2], names[1::2])):
        write_weights(where / f"model-{number}.safetensors", {f"vision_model.{n}": arrays[n] for n in part})
        index |= {f"vision_model.{n}": f"model-{number}.safetensors" for n in part}
    # The shard of the text tower alone need not be there.
    index["text_model.final_layer_norm.weight"] = "model-2.safetensors"
    (where / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    assert same(read_tower(where).arrays, arrays)
    (where / "model-1.safetensors").unlink()
    with pytest.raises(UserError, match="model-1.safetensors"):
        read_tower(where)


def test_incomplete_towers_are_refused(tmp_path):
    arrays = whole(TINY)
    with pytest.raises(UserError, match="no weights found; legal: model.safetensors"):
        read_tower(folder(tmp_path / "none", {}, "other.safetensors"))
    for name, value in (("num_hidden_layers", 1), ("num_hidden_layers", 3), ("hidden_size", 64), ("patch_size", 16),
                        ("intermediate_size", 40), ("image_size", 64)):
        with pytest.raises(UserError, match=r"model.safetensors: its arrays have .* \d+, but .*config.json says \d+"):
            read_tower(folder(tmp_path / "other", arrays, vision_config=VISION | {name: value}))
    with pytest.raises(UserError, match="headless/model.safetensors: .* 11 missing: head.probe, head.attention.in_proj_w"):
        loaded(read_tower(folder(tmp_path / "headless", arrays), head=True))
    del arrays["vision_model.encoder.layers.1.mlp.fc2.bias"]
    arrays["vision_model.post_layernorm.bias"] = np.ones(33, np.float32)
    arrays["vision_model.extra"] = np.ones(3, np.float32)
    with pytest.raises(UserError, match=r"torn/model.safetensors: .*1 missing: encoder.layers.1.mlp.fc2.bias; "
                       "1 unexpected: extra; 1 of another shape: post_layernorm.bias"):
        loaded(read_tower(folder(tmp_path / "torn", arrays)))


def test_what_is_no_part_of_the_tower_is_left_out(tmp_path):
    arrays = whole(TINY) | {"logit_bias": np.ones(1), "vision_model.embeddings.position_ids": np.arange(16)[None]}
    assert same(read_tower(folder(tmp_path, arrays)).arrays, random_tower(TINY))


def test_only_what_is_kept_is_read(tmp_path):
    """Damage elsewhere in the file is not even seen: in a zip it would fail the entry's checksum."""
    arrays = {"a.weight": np.arange(3000, dtype=np.float32), "b.weight": np.full(3000, 7, np.float32)}
    path = tmp_path / "w.pth"
    write_weights(path, arrays)
    content = bytearray(path.read_bytes())
    content[content.index(arrays["b.weight"].tobytes()) + 40] ^= 255
    path.write_bytes(content)
    assert same(read_weights(path, lambda key: key[0] == "a"), {"a.weight": arrays["a.weight"]})
    with pytest.raises(UserError, match="CRC"):
        read_weights(path)
    for name in ("w.npz", "w.pkl", "w.safetensors"):
        write_weights(tmp_path / name, arrays)
        assert same(read_weights(tmp_path / name, lambda key: key[0] == "b"), {"b.weight": arrays["b.weight"]})


def test_open_weights_reads_when_asked(tmp_path):
    path = tmp_path / "w.safetensors"
    write_weights(path, {"a": np.arange(4.0), "b": np.zeros((2, 3), np.int32)})
    opened = open_weights(path)
    assert opened.shapes == {"a": (4,), "b": (2, 3)}
    first = opened["a"]
    first[:] = 0            # the caller's own
    assert opened["a"][3] == 3
    with pytest.raises(KeyError):
        opened["c"]
    path.unlink()
    with pytest.raises(UserError, match="w.safetensors: cannot be read"):
        opened["a"]


def test_lazy_arrays_are_checked_without_being_made():
    def never(name):
        raise AssertionError

    arrays = LazyArrays({"a": (2,), "b": (3,)}, never)
    assert check_state({"c": (2,)}, arrays.renamed({"c": "a"})) == ["c"]
    with pytest.raises(UserError, match=r"a \(2,\) instead of \(5,\)"):
        check_state({"a": (5,), "b": (3,)}, arrays)


def test_pictures_are_squashed():
    image = np.zeros((10, 200, 3), np.uint8)
    image[:, 100:] = 255
    found = preprocess(TINY)(image)
    assert found.shape == (3, 32, 32) and found.dtype == np.float32
    assert (found[:, :, :15] == -1).all() and (found[:, :, 17:] == 1).all()
