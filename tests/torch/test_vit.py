"""The vision transformer against transformers' own, its published size, and timm's files."""
import pytest
import torch
import transformers
from drawn import drawn
from opened import opened

from jittwin.checkpoints.convert import convert
from jittwin.errors import UserError
from jittwin.models.vit import PRESETS, ViTConfig, infer_config
from jittwin.weights import write_weights
from torch_models.backbones.vit import VisionTransformer

TINY = PRESETS["tiny"]
NAMES = {"cls_token": "embeddings.cls_token", "pos_embed": "embeddings.position_embeddings",
         "patch_embed.proj.": "embeddings.patch_embeddings.projection.", "blocks.": "layers.",
         ".norm1.": ".layernorm_before.", ".norm2.": ".layernorm_after.", ".attn.proj.": ".attention.o_proj.",
         "norm.weight": "layernorm.weight", "norm.bias": "layernorm.bias"}


def renamed(state):
    """timm's state by the names of transformers 5, without the classifier."""
    found = {}
    for name, value in state.items():
        for theirs, ours in NAMES.items():
            name = name.replace(theirs, ours)
        parts = zip("qkv", value.chunk(3)) if ".attn.qkv." in name else [("", value)]
        found |= {name.replace(".attn.qkv.", f".attention.{part}_proj."): chunk for part, chunk in parts}
    return {name: value for name, value in found.items() if not name.startswith("head.")}


@pytest.fixture(scope="module")
def ours():
    torch.manual_seed(0)
    network = VisionTransformer(TINY).eval()
    return drawn(network)


def test_it_equals_transformers_before_the_last_normalisation(ours):
    theirs = transformers.ViTModel(transformers.ViTConfig(
        hidden_size=48, num_hidden_layers=3, num_attention_heads=4, intermediate_size=96, patch_size=16, image_size=64,
        layer_norm_eps=1e-6, attn_implementation="eager"), add_pooling_layer=False).eval()
    theirs.load_state_dict(renamed(ours.state_dict()))
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected, found = theirs(x, output_hidden_states=True), ours(x)
    assert found.shape == (2, TINY.features)
    torch.testing.assert_close(found, expected.hidden_states[-1][:, 0], rtol=0, atol=2e-5)
    assert (found - expected.last_hidden_state[:, 0]).abs().max() > 1


def test_the_published_size():
    with torch.device("meta"):
        network = VisionTransformer(ViTConfig())
        found = network(torch.empty(1, 3, 224, 224))
    assert found.shape == (1, 1024)
    assert sum(p.numel() for p in network.parameters()) == 304_326_632 and len(network.state_dict()) == 296
    assert infer_config({name: tuple(value.shape) for name, value in network.state_dict().items()}) == ViTConfig()
    assert sum(p.numel() for p in network.head.parameters()) == 304_326_632 - 303_301_632


def test_what_features_do_not_need_is_kept_and_frozen(backend, ours):
    trained = backend.parameters(ours)
    assert set(ours.state_dict()) - set(trained) == {"norm.weight", "norm.bias", "head.weight", "head.bias"}


@pytest.mark.parametrize("sizes", [{"num_attention_heads": 5}, {"patch_size": 48}])
def test_sizes_that_do_not_go_together(sizes):
    with pytest.raises(ValueError, match="do not"):
        ViTConfig(**{**vars(TINY), **sizes})


def test_a_file_with_heads_that_shapes_do_not_tell(backend, tmp_path, ours):
    """Published heads are 64 wide; of others the metadata of our files tell."""
    write_weights(tmp_path / "timm.pth", backend.state_numpy(ours))
    with pytest.raises(UserError, match="timm.pth: not the weights of a vision transformer"):
        opened(backend, "vit", tmp_path / "timm.pth")
    write_weights(tmp_path / "ours.safetensors", backend.state_numpy(ours), {"model": "vit", "config": vars(TINY)})
    convert(tmp_path / "ours.safetensors", tmp_path / "again.safetensors", "vit", verify=True)
    found, config = opened(backend, "vit", tmp_path / "again.safetensors")
    x = torch.randn(1, 3, 64, 64)
    assert config == TINY and torch.equal(found(x), ours(x))
