"""BLIP against transformers' own: cosines, texts with pictures, files both ways, and the published size."""
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers
from drawn import drawn
from opened import opened

from jittwin.checkpoints.convert import convert
from jittwin.errors import UserError
from jittwin.models.bert import BertConfig
from jittwin.models.blip import MED_CONFIG, BlipConfig, infer_config
from jittwin.models.vit import ViTConfig
from jittwin.weights import read_weights, write_weights
from torch_models.backbones.blip import Blip

TINY = BlipConfig(ViTConfig(128, 2, 2, 96, 16, 64, classes=0),
                  BertConfig(60, 64, 2, 1, 48, 40, 0, pooler=False, image_width=128), 16)   # heads as wide as published
KEEP = (torch.arange(9) < torch.tensor([[9], [4]])).int()
IDS = torch.randint(1, 60, (2, 9), generator=torch.Generator().manual_seed(1)) * KEEP
PIXELS = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(2))


@pytest.fixture(scope="module")
def theirs():
    torch.manual_seed(0)
    vision, text = TINY.vision, TINY.text
    config = transformers.BlipConfig(
        vision_config=dict(hidden_size=vision.hidden_size, num_hidden_layers=vision.num_hidden_layers,
                           num_attention_heads=vision.num_attention_heads, intermediate_size=vision.intermediate_size,
                           patch_size=vision.patch_size, image_size=vision.image_size, layer_norm_eps=1e-6),
        text_config=dict(vocab_size=text.vocab_size, hidden_size=text.hidden_size,
                         num_hidden_layers=text.num_hidden_layers, num_attention_heads=text.num_attention_heads,
                         intermediate_size=text.intermediate_size, is_decoder=True, hidden_dropout_prob=0.1,
                         attention_probs_dropout_prob=0.1, max_position_embeddings=text.max_position_embeddings),
        image_text_hidden_size=TINY.projection, attn_implementation="eager")
    network = transformers.BlipForImageTextRetrieval(config).eval()
    return drawn(network)


@pytest.fixture(scope="module")
def folder(theirs, tmp_path_factory):
    """A hub folder that transformers wrote."""
    theirs.save_pretrained(found := tmp_path_factory.mktemp("blip"))
    return found


@pytest.fixture(scope="module")
def ours(backend, folder):
    network, config = opened(backend, "blip", folder)
    assert config == TINY
    return network


@pytest.fixture(scope="module")
def official(backend, ours, tmp_path_factory):
    """A file as BLIP's authors wrote it after pretraining, with the sizes of its text encoder beside it."""
    state = backend.state_numpy(ours)
    copies = {name.replace(".", "_m.", 1): array + 1 for name, array in state.items()}
    training = {"image_queue": np.zeros((16, 3), np.float32), "queue_ptr": np.zeros(1, np.int64),
                "temp": np.array(0.07, np.float32), "text_decoder.cls.predictions.bias": np.zeros(60, np.float32),
                "text_encoder.embeddings.position_ids": np.arange(40)[None],
                "itm_head.weight": np.ones((2, 64), np.float32), "itm_head.bias": np.zeros(2, np.float32)}
    path = tmp_path_factory.mktemp("official") / "model_large.pth"
    torch.save({"model": {name: torch.from_numpy(array) for name, array in (state | copies | training).items()},
                "epoch": 19}, path)
    (path.parent / MED_CONFIG).write_text(json.dumps({"hidden_size": 64, "num_attention_heads": 1, "vocab_size": 60,
                                                      "encoder_width": 768}))
    return path


def test_it_equals_transformers(ours, theirs):
    """A picture, a text, a text read while looking at a picture, and the cosines."""
    with torch.no_grad():
        image = theirs.vision_model(PIXELS).last_hidden_state
        text, both = (theirs.text_encoder(IDS, KEEP, **looked).last_hidden_state for looked in (
            {}, {"encoder_hidden_states": image, "encoder_attention_mask": torch.ones(image.shape[:2])}))
        cosines = theirs(IDS, PIXELS, attention_mask=KEEP, use_itm_head=False).itm_score
        torch.testing.assert_close(ours.look(PIXELS), image, rtol=0, atol=2e-5)
        torch.testing.assert_close(ours.read(IDS, KEEP)[:, 0], text[:, 0], rtol=0, atol=2e-6)
        torch.testing.assert_close(ours.read(IDS, KEEP, image)[:, 0], both[:, 0], rtol=0, atol=5e-6)
        torch.testing.assert_close(ours(PIXELS, IDS, KEEP), cosines.diag(), rtol=0, atol=1e-6)
    assert (both - text).abs().max() > 0.1


def test_the_published_size():
    with torch.device("meta"):
        network = Blip(BlipConfig())
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in network.named_children()}
    assert counts == {"visual_encoder": 303_301_632, "text_encoder": 141_977_088, "vision_proj": 262_400,
                      "text_proj": 196_864}
    assert infer_config({n: tuple(v.shape) for n, v in network.state_dict().items()}) == BlipConfig()
    assert {part: sum(name.startswith(part) for name in network.state_dict()) for part in counts} == {
        "visual_encoder": 294, "text_encoder": 316, "vision_proj": 2, "text_proj": 2}


def test_the_official_file(backend, ours, official):
    found, config = opened(backend, "blip", official)
    assert config == TINY
    with torch.no_grad():
        assert torch.equal(found(PIXELS, IDS, KEEP), ours(PIXELS, IDS, KEEP))


def test_conversion_to_transformers_and_back(backend, official, theirs, tmp_path):
    report = convert(official, tmp_path / "ours.safetensors", "blip", verify=True)
    assert "text_encoder_m.embeddings.LayerNorm.weight" in report.dropped and "temp" in report.dropped
    convert(tmp_path / "ours.safetensors", tmp_path / "pytorch_model.bin", "blip", to="torch", verify=True)
    written = read_weights(tmp_path / "pytorch_model.bin")
    expected = {name: value.numpy() for name, value in theirs.state_dict().items() if not name.startswith("itm_head.")}
    assert written.keys() == expected.keys() | {"itm_head.weight", "itm_head.bias"}
    assert all(np.array_equal(written[name], value) for name, value in expected.items())
    theirs.config.save_pretrained(tmp_path)
    convert(tmp_path, tmp_path / "again.safetensors", "blip")
    first, again = (read_weights(tmp_path / f"{name}.safetensors") for name in ("ours", "again"))
    assert first.keys() == again.keys() and all(np.array_equal(first[name], again[name]) for name in first)


def test_a_wrapped_network(backend, ours, tmp_path):
    write_weights(tmp_path / "a.pth", {f"module.{name}": array for name, array in backend.state_numpy(ours).items()})
    (tmp_path / MED_CONFIG).write_text('{"num_attention_heads": 4, "hidden_dropout_prob": 0.2}')
    text = opened(backend, "blip", tmp_path / "a.pth")[1].text
    assert text == replace(TINY.text, num_attention_heads=4, hidden_dropout_prob=0.2)


def test_sizes_of_another_text_encoder_are_refused(backend, ours, tmp_path):
    write_weights(tmp_path / "a.pth", backend.state_numpy(ours))
    (tmp_path / MED_CONFIG).write_text('{"hidden_size": 768}')
    with pytest.raises(UserError, match="med_config.json: hidden_size is 768, and .*a.pth has 64; give the files of"):
        opened(backend, "blip", tmp_path / "a.pth")


@pytest.mark.parametrize("change, message", [
    ({"model_type": "clip"}, "model_type 'clip'; legal: blip, such as BLIP's model_large.pth"),
    ({"text_config": {"hidden_act": "relu"}}, "its text_config describes no network with gelu"),
    ({"vision_config": {"image_size": "64"}}, "vision_config image_size is '64'; legal: a number"),
    ({"vision_config": {"num_attention_heads": 7}}, "not the weights of a BLIP, .*7 heads do not divide a width")])
def test_a_config_of_another_model_is_refused(backend, folder, tmp_path, change, message):
    (tmp_path / "config.json").write_text(json.dumps(json.loads((folder / "config.json").read_text()) | change))
    (tmp_path / "model.safetensors").symlink_to(folder / "model.safetensors")
    with pytest.raises(UserError, match=message):
        opened(backend, "blip", tmp_path)


def test_another_file_is_refused():
    with pytest.raises(UserError, match="^not the weights of a BLIP, such as .* .'patch_embed.proj.weight'"):
        infer_config({"conv1.weight": (64, 3, 7, 7)})
