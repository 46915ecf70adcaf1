"""BERT against transformers' own: values, gradients, files both ways, and the published size."""
import json

import numpy as np
import pytest
import torch
import transformers
from drawn import drawn
from opened import opened

from jittwin.errors import UserError
from jittwin.models.bert import PRESETS, BertConfig, infer_config
from jittwin.weights import read_weights, write_weights
from torch_models.backbones.bert import Bert

TINY = PRESETS["tiny"]
IDS = torch.randint(1, 60, (3, 9), generator=torch.Generator().manual_seed(1))
KEEP = (torch.arange(9) < torch.tensor([[9], [4], [1]])).int()


@pytest.fixture(scope="module")
def theirs():
    torch.manual_seed(0)
    network = transformers.BertModel(transformers.BertConfig(
        vocab_size=60, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
        max_position_embeddings=16, attn_implementation="eager")).eval()
    return drawn(network)


@pytest.fixture(scope="module")
def folder(theirs, tmp_path_factory):
    """A hub folder that transformers wrote."""
    theirs.save_pretrained(found := tmp_path_factory.mktemp("bert"))
    return found


@pytest.fixture(scope="module")
def ours(backend, folder):
    network, config = opened(backend, "bert", folder)
    assert config == TINY
    return network


def test_it_equals_transformers(ours, theirs):
    ids = IDS * KEEP
    with torch.no_grad():
        found, expected = ours(ids, KEEP), theirs(ids, attention_mask=KEEP).last_hidden_state
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)


def test_padding_changes_nothing(ours):
    with torch.no_grad():
        found, alone = ours(IDS * KEEP, KEEP)[1, :4], ours(IDS[1:2, :4], torch.ones(1, 4))[0]
    torch.testing.assert_close(found, alone, rtol=0, atol=2e-6)


def test_gradients_equal_transformers(ours, theirs):
    ids, weight = IDS * KEEP, torch.randn(3, 9, 32, generator=torch.Generator().manual_seed(2))
    (ours(ids, KEEP) * weight).sum().backward()
    (theirs(ids, attention_mask=KEEP).last_hidden_state * weight).sum().backward()
    expected = {name: p.grad for name, p in theirs.named_parameters() if not name.startswith("pooler.")}
    found = {name: p.grad for name, p in ours.named_parameters() if p.requires_grad}
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-4, msg=name)
    assert not found["embeddings.word_embeddings.weight"][0].any()


def test_dropout_acts_on_weights_and_outputs_in_training(backend, ours):
    sites = {part.site for part in ours.modules() if hasattr(part, "site")}
    assert len(sites) == 1 + 3 * TINY.num_hidden_layers
    ids, still = IDS * KEEP, {**vars(TINY), "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    with torch.no_grad():
        expected = ours(ids, KEEP)
        for kind in ("hidden_dropout_prob", "attention_probs_dropout_prob", None):
            network = Bert(BertConfig(**{**still, kind: 0.5} if kind else still)).train()
            network.load_state_dict(ours.state_dict())
            backend.seed(3)
            assert torch.equal(network(ids, KEEP), expected) == (kind is None)


def test_the_published_size():
    with torch.device("meta"):
        network = Bert(PRESETS["base-uncased"])
    assert sum(p.numel() for p in network.parameters()) == 109_482_240 and len(network.state_dict()) == 199
    assert sum(p.numel() for p in network.pooler.parameters()) == 590_592
    assert infer_config({n: tuple(v.shape) for n, v in network.state_dict().items()}) == PRESETS["base-uncased"]


def test_the_published_file_of_a_whole_model_for_pretraining(backend, folder, ours, tmp_path):
    """It has a prefix, heads, a buffer, and the names that TensorFlow gave to normalisations."""
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    old = {"bert." + name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): a
           for name, a in read_weights(folder / "model.safetensors").items()}
    old |= {"cls.predictions.bias": np.zeros(60, np.float32), "bert.embeddings.position_ids": np.arange(16)[None]}
    write_weights(tmp_path / "pytorch_model.bin", old)
    found, config = opened(backend, "bert", tmp_path)
    assert config == TINY and torch.equal(found(IDS, KEEP), ours(IDS, KEEP))


@pytest.mark.parametrize("change, message", [
    ({"model_type": "roberta"}, "model_type 'roberta'; legal: bert, such as google-bert"),
    ({"hidden_act": "relu"}, "hidden_act is 'relu'; legal: gelu"),
    ({"vocab_size": "60"}, "vocab_size is '60'; legal: a number"),
    ({"num_attention_heads": 5}, "5 heads do not divide a width of 32; fetch the file again"),
    ({"num_attention_heads": 0}, "0 heads do not divide a width of 32; fetch the file again")])
def test_a_config_of_another_model_is_refused(backend, folder, tmp_path, change, message):
    (tmp_path / "config.json").write_text(json.dumps(json.loads((folder / "config.json").read_text()) | change))
    (tmp_path / "model.safetensors").symlink_to(folder / "model.safetensors")
    with pytest.raises(UserError, match=message):
        opened(backend, "bert", tmp_path)


def test_another_file_is_refused():
    with pytest.raises(UserError, match="^not the weights of a BERT, such as .* .'embeddings.word_embeddings.weight'"):
        infer_config({"conv1.weight": (64, 3, 7, 7)})
