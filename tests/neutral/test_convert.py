"""`jittwin convert`: key tables against the published counts, strictness, every direction byte for byte."""
import argparse
import math

import numpy as np
import pytest

from jittwin.checkpoints.convert import check, convert
from jittwin.commands.convert import add_arguments, run
from jittwin.errors import UserError
from jittwin.models.apf_gan import ModelConfig
from jittwin.models.apf_gan_keys import expected_keys, infer_config
from jittwin.weights import content_hash, read_metadata, read_weights, write_weights

TINY = ModelConfig(ngf=8, ndf=8, crop_size=256)
G, E, D = "apf_gan.generator", "apf_gan.encoder", "apf_gan.discriminator"


@pytest.fixture(autouse=True)
def without_framework(monkeypatch):
    """APF-GAN's files are checked by its key table."""
    def refused():
        raise AssertionError
    monkeypatch.setattr("jittwin.checkpoints.convert.any_backend", refused)


def filled(model: str, **groups) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {key: rng.standard_normal(shape).astype(np.float32)
            for key, shape in expected_keys(model, TINY, **groups).items()}


# Keys and scalars of the authors' files, counted in their own networks.
@pytest.mark.parametrize("model, groups, keys, scalars", [
    (G, {"heads": True}, 255, 93_196_012), (G, {}, 249, 93_183_907),
    (G, {"seg_noise": True, "heads": True}, 297, 93_529_132), (G, {"seg_noise": True}, 291, 93_517_027),
    (E, {}, 22, 12_853_701), (D, {}, 94, 28_207_388)])
def test_published_counts(model, groups, keys, scalars):
    shapes = expected_keys(model, ModelConfig(), **groups)
    assert (len(shapes), sum(map(math.prod, shapes.values()))) == (keys, scalars)


@pytest.mark.parametrize("model, config", [
    (G, ModelConfig(ngf=8, label_nc=5, spade_hidden=16, seg_noise_kernel=3, num_D=3)),
    (E, ModelConfig(ngf=16, label_nc=5)), (D, ModelConfig(ndf=16, label_nc=5, num_D=2, n_layers_D=3))])
def test_sizes_are_read_off_the_shapes(model, config):
    shapes = expected_keys(model, config, seg_noise=True, heads=True)
    assert infer_config(model, shapes) == config


@pytest.mark.parametrize("model, groups", [
    (G, {}), (G, {"seg_noise": True}), (G, {"heads": True}), (E, {}), (D, {})])
def test_every_direction(tmp_path, model, groups):
    arrays = filled(model, **groups)
    first = tmp_path / "a.pkl"
    write_weights(first, arrays)
    previous = first
    for name in ("b.pth", "c.safetensors", "d.npz", "e.bin", "f.pkl"):
        report = convert(previous, tmp_path / name, model, verify=True)
        assert report.sha256 == content_hash(arrays) and report.verified and not report.added + report.dropped
        previous = tmp_path / name
    assert previous.read_bytes() == first.read_bytes()
    assert (report.tensors, report.dtypes) == (len(arrays), {"float32": len(arrays)})


def test_metadata(tmp_path):
    write_weights(tmp_path / "g.safetensors", filled(G, seg_noise=True), {"step": "7"})
    convert(tmp_path / "g.safetensors", tmp_path / "h.safetensors", G)
    metadata = read_metadata(tmp_path / "h.safetensors")
    assert metadata.pop("sha256") == content_hash(read_weights(tmp_path / "g.safetensors"))
    assert metadata == {"step": "7", "model": G, "source": "g.safetensors",
                        "config": {"label_nc": 29, "ngf": 8, "spade_hidden": 128, "seg_noise_kernel": 1}}


def test_counters_of_the_official_pytorch_tree(tmp_path):
    arrays = filled(G, seg_noise=True)
    write_weights(tmp_path / "g.pkl", arrays)
    report = convert(tmp_path / "g.pkl", tmp_path / "g.pth", G, to="torch")
    written = read_weights(tmp_path / "g.pth")
    assert len(report.added) == 21 and len(written) == 312
    keys = list(written)
    at = keys.index("head_0.norm_0.param_free_norm.num_batches_tracked")
    assert keys[at - 1] == "head_0.norm_0.param_free_norm.running_var"
    assert written[keys[at]].dtype == np.int64 and written[keys[at]].shape == ()
    report = convert(tmp_path / "g.pth", tmp_path / "back.pkl", G)
    assert len(report.dropped) == 21
    assert (tmp_path / "back.pkl").read_bytes() == (tmp_path / "g.pkl").read_bytes()
    # The other networks have no BatchNorm.
    write_weights(tmp_path / "e.pkl", filled(E))
    assert convert(tmp_path / "e.pkl", tmp_path / "e.pth", E, to="torch").added == ()
    with pytest.raises(UserError, match="name the model"):
        convert(tmp_path / "g.pkl", tmp_path / "x.pth", "any", to="torch")


def test_strict(tmp_path):
    arrays = filled(G)
    arrays["up_1.conv_0.wieght_orig"] = arrays.pop("up_1.conv_0.weight_orig")
    arrays["up_2.conv_s.weight_u"] = np.zeros(3, np.float32)
    for number in range(7):
        arrays[f"stray{number}"] = np.zeros(1)
    with pytest.raises(UserError) as caught:
        check(G, arrays, "g.pkl")
    message = str(caught.value)
    assert "\n" not in message and message.startswith(f"g.pkl: not an {G}: ")
    assert "1 missing: up_1.conv_0.weight_orig;" in message
    assert "up_1.conv_0.wieght_orig (did you mean 'up_1.conv_0.weight_orig'?)" in message
    assert "8 unexpected" in message and "stray3" in message and "stray4" not in message
    assert "1 of another shape: up_2.conv_s.weight_u (3,) instead of (16,)" in message


@pytest.mark.parametrize("key", ["inter_conv_img.1.bias", "up_0.norm_s.seg_noise_var.weight"])
def test_optional_groups_come_whole_or_not_at_all(key):
    arrays = filled(G, seg_noise=True, heads=True)
    check(G, arrays, "g.pkl")
    del arrays[key]
    with pytest.raises(UserError, match=f"1 missing: {key}"):
        check(G, arrays, "g.pkl")


def test_wrong_model_leaves_the_destination(tmp_path):
    write_weights(tmp_path / "e.pkl", filled(E))
    (tmp_path / "d.pth").write_bytes(b"before")
    with pytest.raises(UserError, match="22 unexpected"):
        convert(tmp_path / "e.pkl", tmp_path / "d.pth", D)
    with pytest.raises(UserError, match="did you mean 'apf_gan.encoder'"):
        convert(tmp_path / "e.pkl", tmp_path / "d.pth", "apf_gan.encode")
    assert (tmp_path / "d.pth").read_bytes() == b"before"
    convert(tmp_path / "e.pkl", tmp_path / "d.pth", "any")
    assert read_metadata(tmp_path / "d.pth") == {}


def test_dtype(tmp_path):
    arrays = {"w": np.array([1 / 3, 1e300]), "n": np.array(3)}
    write_weights(tmp_path / "a.npz", arrays)
    convert(tmp_path / "a.npz", tmp_path / "b.pkl", "any")
    assert read_weights(tmp_path / "b.pkl")["w"].dtype == np.float64
    with pytest.raises(UserError, match="a.npz: w holds 1e.300, beyond the range of float32"):
        convert(tmp_path / "a.npz", tmp_path / "c.pkl", "any", dtype="float32")
    arrays["w"][1] = np.inf
    write_weights(tmp_path / "a.npz", arrays)
    report = convert(tmp_path / "a.npz", tmp_path / "c.pkl", "any", dtype="float32", verify=True)
    assert report.dtypes == {"float32": 1, "int64": 1}
    np.testing.assert_array_equal(read_weights(tmp_path / "c.pkl")["w"], arrays["w"].astype(np.float32))
    assert convert(tmp_path / "a.npz", tmp_path / "c.pth", "any", dtype="bfloat16").dtypes["bfloat16"] == 1
    with pytest.raises(UserError, match="did you mean 'float32'"):
        convert(tmp_path / "a.npz", tmp_path / "c.pth", "any", dtype="float23")


def test_verify_notices(tmp_path, monkeypatch):
    write_weights(tmp_path / "a.npz", {"w": np.ones(3)})
    monkeypatch.setattr("jittwin.checkpoints.convert.write_weights",
                        lambda path, arrays, metadata: write_weights(path, {"w": np.zeros(3)}))
    with pytest.raises(UserError, match="reads back differently"):
        convert(tmp_path / "a.npz", tmp_path / "b.npz", "any", verify=True)


def test_command(tmp_path, capsys):
    write_weights(tmp_path / "e.pkl", filled(E))
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    arguments = [str(tmp_path / "e.pkl"), str(tmp_path / "e.pth"), "--model", E, "--verify"]
    assert run(parser.parse_args(arguments)) == 0
    out = capsys.readouterr().out
    assert "22 tensors (22 float32)" in out and content_hash(filled(E)) in out and "verified" in out
