"""ImageReward against the paper's parts put together by hand, its file, and the published size."""
import numpy as np
import pytest
import torch
import transformers
from drawn import drawn
from opened import opened

from jittwin.checkpoints.convert import convert
from jittwin.errors import UserError
from jittwin.models.bert import BertConfig
from jittwin.models.blip import CONVERSION, BlipConfig
from jittwin.models.image_reward import ImageRewardConfig, infer_config
from jittwin.models.vit import ViTConfig
from jittwin.weights import read_weights
from jittwin.weights.hub import rename
from torch_models.assess.image_reward import ImageReward

TINY = ImageRewardConfig(BlipConfig(ViTConfig(128, 2, 2, 96, 16, 64, classes=0),
                                    BertConfig(60, 64, 2, 1, 48, 40, 0, pooler=False, image_width=128), 16),
                         (24, 16, 12, 8))      # heads as wide as published
KEEP = (torch.arange(9) < torch.tensor([[9], [4]])).int()
IDS = torch.randint(1, 60, (2, 9), generator=torch.Generator().manual_seed(1)) * KEEP
PIXELS = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(2))
LAYERS = (0, 2, 4, 6, 7)


@pytest.fixture(scope="module")
def ours():
    torch.manual_seed(0)
    network = ImageReward(TINY).eval()
    return drawn(network)


@pytest.fixture(scope="module")
def official(ours, tmp_path_factory):
    """The official file."""
    path, found = tmp_path_factory.mktemp("official") / "ImageReward.pt", {}
    for name, value in ours.state_dict().items():
        if name == "blip.text_encoder.embeddings.word_embeddings.weight":
            found["blip.text_encoder.embeddings.position_ids"] = torch.arange(40)[None]
        found[name] = value
    torch.save(found, path)
    return path


def test_it_equals_the_paper(backend, official, ours):
    """transformers' networks with the layers as a chain of matrices, scaled as the authors' code does."""
    convert(official, official.with_name("a.safetensors"), "image_reward")
    state = {name.removeprefix("blip."): array for name, array in read_weights(official.with_name("a.safetensors")).items()}
    theirs = transformers.BlipForImageTextRetrieval(transformers.BlipConfig(
        vision_config=dict(hidden_size=128, num_hidden_layers=2, num_attention_heads=2, intermediate_size=96,
                           patch_size=16, image_size=64, layer_norm_eps=1e-6),
        text_config=dict(vocab_size=60, hidden_size=64, num_hidden_layers=2, num_attention_heads=1, is_decoder=True,
                         intermediate_size=48, max_position_embeddings=40),
        image_text_hidden_size=16, attn_implementation="eager")).eval()
    named = {rename(name, CONVERSION.back): torch.from_numpy(array) for name, array in state.items()}
    assert theirs.load_state_dict(named, strict=False).missing_keys == ["itm_head.weight", "itm_head.bias"]
    with torch.no_grad():
        image = theirs.vision_model(PIXELS).last_hidden_state
        x = theirs.text_encoder(IDS, KEEP, encoder_hidden_states=image,
                                encoder_attention_mask=torch.ones(image.shape[:2])).last_hidden_state[:, 0]
        for layer in LAYERS:
            x = x @ torch.from_numpy(state[f"mlp.layers.{layer}.weight"]).T
            x = x + torch.from_numpy(state[f"mlp.layers.{layer}.bias"])
        found = ours(PIXELS, IDS, KEEP)
    expected = (x[:, 0] - 0.16717362830052426) / 1.0333394966054072
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    assert found.std() > 0.1


def test_the_published_size():
    with torch.device("meta"):
        network = ImageReward(ImageRewardConfig())
    assert sum(p.numel() for p in network.parameters()) == 446_665_953 and len(network.state_dict()) == 624
    assert sum(p.numel() for p in network.mlp.parameters()) == 927_969
    assert infer_config({n: tuple(v.shape) for n, v in network.state_dict().items()}) == ImageRewardConfig()


def test_the_official_file_both_ways(backend, official, ours, tmp_path):
    found, config = opened(backend, "image_reward", official)
    assert config == TINY
    with torch.no_grad():
        assert torch.equal(found(PIXELS, IDS, KEEP), ours(PIXELS, IDS, KEEP))
    convert(official, tmp_path / "a.safetensors", "image_reward", verify=True)
    report = convert(tmp_path / "a.safetensors", tmp_path / "ImageReward.pt", "image_reward", to="torch", verify=True)
    first, again = read_weights(official), read_weights(tmp_path / "ImageReward.pt")
    assert report.added == ("blip.text_encoder.embeddings.position_ids",)
    assert list(first) == list(again) and all(first[name].dtype == again[name].dtype for name in first)
    assert all(np.array_equal(first[name], again[name]) for name in first)


def test_another_file_is_refused():
    with pytest.raises(UserError, match="^not the weights of an ImageReward, such as .* .'mlp.layers.0.bias'"):
        infer_config({"visual_encoder.cls_token": (1, 1, 48)})
