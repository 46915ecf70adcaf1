"""Inception-v4 and the vision transformer against timm, where it is installed: pip install --no-deps timm.

timm imports torchvision, for which there need not be a build beside the newest PyTorch. Its networks do without, so a
stand-in lies in its place while timm is imported.
"""
import importlib
import sys
import types

import pytest
import torch

from jittwin.models.inception_v4 import InceptionV4Config
from jittwin.models.vit import PRESETS
from torch_models.backbones.inception_v4 import InceptionV4
from torch_models.backbones.vit import VisionTransformer

PARTS = ("datasets", "models", "models.feature_extraction", "ops", "ops.misc", "transforms", "transforms.functional",
         "utils")


class StandIn(type):
    """A class whose attributes, as far as they are public, are their own names."""

    def __getattr__(cls, name):
        if name.startswith("_"):
            raise AttributeError(name)
        return name


class Module(types.ModuleType):
    """A module that holds a class of any public name."""

    __path__ = []

    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(name)
        return StandIn(name, (), {})


@pytest.fixture(scope="module")
def timm():
    """timm.models"""
    with pytest.MonkeyPatch.context() as patch:
        try:
            importlib.import_module("torchvision")
        except Exception:
            for name in ("torchvision", *(f"torchvision.{part}" for part in PARTS)):
                module = Module(name)
                patch.setitem(sys.modules, name, module)
                if "." in name:
                    setattr(sys.modules[name.rpartition(".")[0]], name.rpartition(".")[2], module)
        try:
            return importlib.import_module("timm.models")
        except ModuleNotFoundError as error:
            pytest.skip(f"{error}: pip install --no-deps timm")


def drawn(network):
    """The network with random weights and statistics, for inference."""
    torch.manual_seed(0)
    for name, value in network.state_dict().items():
        if value.is_floating_point():
            gain = value.ndim == 1 and not name.endswith(("bias", "mean"))
            value.copy_(torch.rand_like(value) + 0.5 if gain else
                        torch.randn_like(value) * (2 / value[0].numel()) ** 0.5)
    return network.eval()


def test_inception_v4(timm):
    with torch.device("meta"):
        theirs = timm.create_model("inception_v4", pretrained=False)
    ours = drawn(InceptionV4(InceptionV4Config()))
    theirs.load_state_dict(ours.state_dict(), strict=False, assign=True)
    theirs.eval()
    x = torch.randn(1, 3, 139, 107)
    with torch.no_grad():
        found, expected = ours(x), theirs.forward_head(theirs.forward_features(x), pre_logits=True)
    assert found.std() > 0.1 * found.mean()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * expected.std().item())


def test_vision_transformer(timm):
    config = PRESETS["tiny"]
    theirs = drawn(timm.VisionTransformer(
        config.image_size, config.patch_size, num_classes=config.classes, embed_dim=config.hidden_size,
        depth=config.num_hidden_layers, num_heads=config.num_attention_heads,
        mlp_ratio=config.intermediate_size / config.hidden_size))
    ours, seen = VisionTransformer(config).eval(), []
    ours.load_state_dict(theirs.state_dict())
    theirs.blocks[-1].register_forward_hook(lambda module, inputs, output: seen.append(output[:, 0]))
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        theirs(x)
        torch.testing.assert_close(ours(x), seen[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name, build", [
    ("inception_v4", lambda: InceptionV4(InceptionV4Config())),
    ("vit_large_patch16_224", lambda: VisionTransformer(PRESETS["large-patch16-224"]))])
def test_names_and_shapes_of_the_published_networks(timm, name, build):
    with torch.device("meta"):
        theirs, ours = timm.create_model(name, pretrained=False), build()
    expected = {name: tuple(value.shape) for name, value in theirs.state_dict().items()
                if not name.endswith("num_batches_tracked")}
    assert {name: tuple(value.shape) for name, value in ours.state_dict().items()} == expected
