"""The trunk of VGG-16 and VGG-19 against a plain restatement, their published sizes, and torchvision's files."""
import numpy as np
import pytest
import torch
from opened import opened

from jittwin.errors import UserError
from jittwin.models.vgg import PRESETS, VGGConfig, infer_config
from jittwin.weights import write_weights
from torch_models.backbones.vgg import VGG, VGG19

SMALL = VGGConfig(((4, 4), (6,), (8, 5)))
CLASSIFIER = (25088 * 4096 + 4096) + (4096 * 4096 + 4096) + (4096 * 1000 + 1000)


@pytest.mark.parametrize("name, parameters, last", [("vgg16", 138_357_544, 28), ("vgg19", 143_667_240, 34)])
def test_published_sizes(name, parameters, last):
    with torch.device("meta"):
        network = VGG(PRESETS[name])
        found = network(torch.empty(2, 3, 224, 224))
    assert found.shape == (2, 512) == (2, PRESETS[name].features)
    assert sum(p.numel() for p in network.parameters()) == parameters - CLASSIFIER
    assert list(network.state_dict())[-1] == f"features.{last}.bias"
    assert infer_config({name: tuple(value.shape) for name, value in network.state_dict().items()}) == PRESETS[name]


def test_the_perceptual_network_is_the_beginning_of_vgg19():
    with torch.device("meta"):
        trunk, beginning = VGG(PRESETS["vgg19"]).state_dict(), VGG19().state_dict()
    assert {n: v.shape for n, v in beginning.items()} == {n: v.shape for n, v in trunk.items() if n in beginning}


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    network = VGG(SMALL)
    for value in network.state_dict().values():
        value.copy_(torch.randn_like(value) * (2 / value[0].numel()) ** 0.5)
    return network


def test_it_equals_a_plain_network(network):
    layers = [("4", 3), ("4", 4), "M", ("6", 4), "M", ("8", 6), ("5", 8), "M"]
    plain = torch.nn.Sequential()
    for layer in layers:
        if layer == "M":
            plain.append(torch.nn.MaxPool2d(2, 2))
        else:
            plain.extend([torch.nn.Conv2d(layer[1], int(layer[0]), 3, padding=1), torch.nn.ReLU()])
    plain.load_state_dict({n.removeprefix("features."): v for n, v in network.state_dict().items()})
    x = torch.randn(2, 3, 17, 20)
    torch.testing.assert_close(network(x), torch.nn.functional.adaptive_avg_pool2d(plain(x), 1).flatten(1))


def test_a_whole_classifier_file_gives_the_trunk(backend, tmp_path, network):
    beside = {"classifier.0.weight": np.zeros((2, 3), np.float32), "classifier.6.bias": np.zeros(2, np.float32)}
    write_weights(tmp_path / "vgg.pth", backend.state_numpy(network) | beside)
    found, config = opened(backend, "vgg", tmp_path / "vgg.pth")
    x = torch.randn(1, 3, 16, 16)
    assert config == SMALL and torch.equal(found(x), network(x))
    with pytest.raises(UserError, match="not the weights of a VGG without batch normalisation"):
        infer_config({"features.0.weight": (64, 3, 3, 3), "features.1.weight": (64,)})
