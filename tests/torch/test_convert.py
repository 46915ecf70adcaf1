"""`jittwin convert` of the networks whose keys the twins themselves tell, hub folders among its sources."""
import importlib
import json
import pkgutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers
from tower import TINY, random_tower

import parity.cases
from jittwin.checkpoints.convert import convert
from jittwin.errors import UserError
from jittwin.metrics.mask_accuracy import MaskAccuracy
from jittwin.models.catalog import BY_NAME, MODELS
from jittwin.models.segformer import preset
from jittwin.models.siglip import read_tower
from jittwin.weights import content_hash, read_metadata, read_weights, write_weights
from jittwin.weights.choice import prefix
from jittwin.weights.lazy import LazyArrays

# A model without a configuration, and what upstream's files of it have besides.
FILES = {
    "vgg19": {"features.34.weight": (512, 512, 3, 3), "classifier.6.bias": (1000,)},
    "inception_v3": {"AuxLogits.fc.bias": (1000,), "fc.weight": (1000, 2048), "Mixed_5b.branch1x1.bn.num_batches_tracked": ()},
    "inception_fid": {"fc.weight": (1008, 2048), "fc.bias": (1008,)},
}


def drawn(shapes) -> dict[str, np.ndarray]:
    """A byte a number: only names, shapes and bytes matter here."""
    rng = np.random.default_rng(0)
    return {key: rng.integers(-9, 9, shape, np.int8) for key, shape in shapes.items()}


@pytest.mark.parametrize("model", FILES)
def test_there_and_back(backend, tmp_path, model):
    arrays = drawn(backend.state_shapes(model, None) | FILES[model])
    first = previous = tmp_path / "a.pkl"
    write_weights(first, arrays)
    for name, to in (("b.pth", "torch"), ("c.safetensors", "jittor"), ("d.pkl", "torch")):
        report = convert(previous, tmp_path / name, model, verify=True, to=to)
        assert report.sha256 == content_hash(arrays) and not report.added + report.dropped
        previous = tmp_path / name
    assert previous.read_bytes() == first.read_bytes()
    assert read_metadata(tmp_path / "c.safetensors")["model"] == model
    arrays["stray"] = arrays.pop(next(iter(arrays)))
    write_weights(first, arrays)
    with pytest.raises(UserError, match=f"a.pkl: not an {model}: 1 missing: .*; 1 unexpected: stray.*; legal: its"):
        convert(first, tmp_path / "e.pth", model)
    assert not (tmp_path / "e.pth").exists()


def test_the_two_inceptions_are_told_apart(backend, tmp_path):
    write_weights(tmp_path / "a.pth", drawn(backend.state_shapes("inception_v3", None) | FILES["inception_v3"]))
    with pytest.raises(UserError, match=r"a.pth: fc.weight is \(1000, 2048\), not \(1008, 2048\): FID takes pytorch-fid's"):
        convert(tmp_path / "a.pth", tmp_path / "b.pth", "inception_fid")


@pytest.fixture(scope="module")
def b0(tmp_path_factory):
    """A hub folder of SegFormer B0, as transformers writes it."""
    folder = tmp_path_factory.mktemp("segformer")
    torch.manual_seed(0)
    sizes = {"depths": (2, 2, 2, 2), "hidden_sizes": (32, 64, 160, 256), "num_attention_heads": (1, 2, 5, 8)}
    network = transformers.SegformerForSemanticSegmentation(transformers.SegformerConfig(**sizes, num_labels=29))
    network.save_pretrained(folder)
    return folder


def test_a_hub_folder_of_segformer(backend, b0, tmp_path):
    arrays = read_weights(b0 / "model.safetensors")
    report = convert(b0, tmp_path / "b0.safetensors", "segformer")
    assert report.sha256 == content_hash(arrays) and list(read_weights(tmp_path / "b0.safetensors")) == list(arrays)
    assert read_metadata(tmp_path / "b0.safetensors")["config"]["hidden_sizes"] == [32, 64, 160, 256]
    convert(tmp_path / "b0.safetensors", b0 / "pytorch_model.bin", "segformer", to="torch")
    (b0 / "model.safetensors").rename(tmp_path / "apart")
    network, told = transformers.SegformerForSemanticSegmentation.from_pretrained(b0, output_loading_info=True)
    assert not told["missing_keys"] and not told["unexpected_keys"]
    seen = [MaskAccuracy(backend, where) for where in (b0, tmp_path / "b0.safetensors")]
    assert seen[0].weights == seen[1].weights and seen[0].variant == "B0"
    (b0 / "config.json").write_text(json.dumps({"model_type": "siglip"}))
    with pytest.raises(UserError, match="config.json: model_type 'siglip'; legal: segformer, such as nvidia/segformer-b5"):
        convert(b0, tmp_path / "other.pth", "segformer")
    with pytest.raises(UserError, match="config.json: model_type 'siglip'"):
        MaskAccuracy(backend, b0)


@pytest.fixture
def hub(tmp_path):
    """A hub folder of a whole SigLIP, bicubic; its text tower is incomplete."""
    folder = tmp_path / "models--google--siglip-tiny/snapshots/01"
    folder.mkdir(parents=True)
    sizes = {key: value for key, value in vars(TINY).items() if key not in ("head", "resample")}
    (folder / "config.json").write_text(json.dumps({"model_type": "siglip", "vision_config": sizes}))
    (folder / "preprocessor_config.json").write_text('{"resample": 3}')
    arrays = {f"vision_model.{key}": array for key, array in random_tower(TINY).items()}
    write_weights(folder / "model.safetensors", arrays | {"text_model.a": np.zeros(1), "logit_scale": np.zeros(1)})
    return folder


def test_a_tower_of_the_hub_there_and_back(hub, tmp_path):
    report = convert(hub.parent.parent, tmp_path / "tower.safetensors", "siglip", verify=True)
    assert report.sha256 == content_hash(random_tower(TINY)) and report.dropped == ("text_model.a", "logit_scale")
    assert "dropped 2 keys of the text tower" in str(report)
    tower = read_tower(tmp_path / "tower.safetensors")       # a file that tells how pictures are prepared
    assert tower.config == replace(TINY, head=False, resample="bicubic") and tower.name == "google/siglip-tiny"
    assert tower.sha256 == read_tower(hub).sha256
    report = convert(tmp_path / "tower.safetensors", tmp_path / "back.pkl", "siglip", to="torch")
    assert not report.added + report.dropped
    whole = read_weights(hub / "model.safetensors", lambda key: key.startswith("vision_model."))
    assert list(read_weights(tmp_path / "back.pkl")) == list(whole) and report.sha256 == content_hash(whole)
    write_weights(hub / "model.safetensors", read_weights(tmp_path / "back.pkl"), {"format": "pt"})
    network, told = transformers.SiglipVisionModel.from_pretrained(hub, output_loading_info=True)
    assert not told["missing_keys"] and not told["unexpected_keys"]
    write_weights(tmp_path / "once.pkl", whole)
    assert (tmp_path / "once.pkl").read_bytes() == (tmp_path / "back.pkl").read_bytes()


def test_what_a_file_of_a_tower_does_not_tell(hub, tmp_path):
    assert convert(hub / "model.safetensors", tmp_path / "a.pth", "siglip").tensors == 48     # beside its config.json
    with pytest.raises(UserError, match="a.pth: arrays alone do not tell a tower's heads.*; give the hub folder"):
        convert(tmp_path / "a.pth", tmp_path / "b.pth", "siglip")
    arrays = read_weights(tmp_path / "a.pth")
    write_weights(tmp_path / "c.safetensors", arrays, {"model": "siglip", "config": {"hidden_size": 32, "wide": 3}})
    with pytest.raises(UserError, match="c.safetensors: its metadata describe no tower .*wide.*; convert it again"):
        read_tower(tmp_path / "c.safetensors")
    write_weights(tmp_path / "d.safetensors", arrays, {"model": "siglip", "config": vars(replace(TINY, hidden_size=64))})
    with pytest.raises(UserError, match="d.safetensors: its arrays have hidden_size 32, but its metadata says 64"):
        read_tower(tmp_path / "d.safetensors")


def test_sizes_of_segformers_are_told_by_the_arrays(backend):
    config = preset("B2", 29)
    assert BY_NAME["segformer"].conversion.infer(backend.state_shapes("segformer", config), None) == config


def cases() -> dict[str, object]:
    found = {}
    for module in pkgutil.iter_modules(parity.cases.__path__):
        for case in getattr(importlib.import_module(f"parity.cases.{module.name}"), "CASES", ()):
            found.setdefault(case.name, case)
    return found


@pytest.mark.parametrize("model", [record.name for record in MODELS if record.conversion])
def test_names_of_every_model_are_told_from_what_wrappers_put_before_them(backend, tmp_path, capsys, model):
    """Ours and upstream's keep their names; whatever is put before all of them, in layers, is left out."""
    case, conversion = cases()[model], BY_NAME[model].conversion
    side = SimpleNamespace(backend=backend, ops=importlib.import_module("torch_models.nn.ops"))
    arrays = backend.state_numpy(case.build(side, "tiny", case.modes[0]))
    arrays = {key: np.zeros(array.shape, np.float16) for key, array in arrays.items()}
    upstream, _ = conversion.upstream(LazyArrays({key: a.shape for key, a in arrays.items()}, arrays.__getitem__))
    for whose, names in (("ours", arrays), ("theirs", upstream)):
        assert not prefix(names, conversion.own)
        for put in ("module.", "_orig_mod.", "module._orig_mod.", "net_x.", "lit.model_.module."):
            assert prefix([put + name for name in names], conversion.own) == put
            paths = tmp_path / f"{put}{whose}.npz", tmp_path / "plain.npz"
            write_weights(paths[0], {put + name: array for name, array in names.items()})
            write_weights(paths[1], names)
            wrapped, plain = map(conversion.open, paths)
            assert wrapped.arrays.shapes == plain.arrays.shapes and wrapped.left_out == plain.left_out
            assert not capsys.readouterr().err, "told before it is known whose names these are"
            next(iter(wrapped.arrays.values()))
            assert f"every name begins with {put!r}" in capsys.readouterr().err
