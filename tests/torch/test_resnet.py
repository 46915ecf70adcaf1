"""ResNet against transformers' own, its published sizes, and torchvision's files."""
import re

import numpy as np
import pytest
import torch
import transformers
from opened import opened

from jittwin.errors import UserError
from jittwin.models.resnet import PRESETS, ResNetConfig, infer_config
from jittwin.weights import write_weights
from torch_models.backbones.resnet import ResNet

STAGES = {"depths": (1, 2, 1), "widths": (8, 12, 16)}


def torchvision_name(name: str) -> str:
    """torchvision's name of an entry of transformers' state."""
    name = name.replace("embedder.embedder.convolution", "conv1").replace("embedder.embedder.normalization", "bn1")
    name = name.replace("shortcut.convolution", "downsample.0").replace("shortcut.normalization", "downsample.1")
    name = re.sub(r"encoder\.stages\.(\d+)\.layers\.", lambda found: f"layer{int(found[1]) + 1}.", name)
    return re.sub(r"layer\.(\d)\.(convolution|normalization)",
                  lambda found: f"{'conv' if found[2] == 'convolution' else 'bn'}{int(found[1]) + 1}", name)


def drawn(network):
    """The network with random weights and statistics."""
    torch.manual_seed(0)
    for name, value in network.state_dict().items():
        if value.is_floating_point():
            value.copy_(torch.rand_like(value) + 0.5 if value.ndim == 1 and not name.endswith(("bias", "mean"))
                        else torch.randn_like(value) / value[0].numel() ** 0.5)
    return network


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("bottleneck", [False, True])
def test_it_equals_transformers_resnet(bottleneck, training):
    widths = tuple(wide * (4 if bottleneck else 1) for wide in STAGES["widths"])
    theirs = drawn(transformers.ResNetModel(transformers.ResNetConfig(
        embedding_size=STAGES["widths"][0], depths=STAGES["depths"], hidden_sizes=widths,
        layer_type="bottleneck" if bottleneck else "basic"))).train(training)
    config = ResNetConfig(**STAGES, bottleneck=bottleneck)
    ours = ResNet(config).train(training)
    ours.load_state_dict({torchvision_name(name): value for name, value in theirs.state_dict().items()
                          if not name.endswith("num_batches_tracked")})
    x = torch.randn(2, 3, 65, 96)
    found, expected = ours(x), theirs(x).pooler_output.flatten(1)
    assert found.shape == (2, config.features) and found.std() > 0.1
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    for name, value in theirs.named_buffers():
        if value.is_floating_point():
            torch.testing.assert_close(ours.state_dict()[torchvision_name(name)], value, rtol=1e-6, atol=1e-6)


# torchvision's numbers of the classifiers, less `fc`; its files hold num_batches_tracked beside these entries or not.
@pytest.mark.parametrize("name, parameters, entries, features", [
    ("resnet18", 11_689_512 - 513_000, 100, 512), ("resnet50", 25_557_032 - 2_049_000, 265, 2048)])
def test_published_sizes(name, parameters, entries, features):
    with torch.device("meta"):
        network = ResNet(PRESETS[name])
        found = network(torch.empty(1, 3, 224, 224))
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert len(network.state_dict()) == entries and found.shape == (1, features) == (1, PRESETS[name].features)


def test_torchvisions_names():
    with torch.device("meta"):
        state = {name: tuple(value.shape) for name, value in ResNet(PRESETS["resnet50"]).state_dict().items()}
    for name, shape in {
            "conv1.weight": (64, 3, 7, 7), "bn1.running_mean": (64,), "layer1.0.downsample.0.weight": (256, 64, 1, 1),
            "layer1.0.conv1.weight": (64, 64, 1, 1), "layer2.0.conv2.weight": (128, 128, 3, 3),
            "layer2.3.bn3.bias": (512,), "layer3.5.conv3.weight": (1024, 256, 1, 1),
            "layer4.0.downsample.1.running_var": (2048,), "layer4.2.bn2.weight": (512,)}.items():
        assert state[name] == shape
    assert "layer1.1.downsample.0.weight" not in state


def test_the_slope_of_blocks_leaves_the_first_activation_alone():
    ours, leaky = (drawn(ResNet(ResNetConfig((1,), (4,), negative_slope=slope))).eval() for slope in (0.0, 0.01))
    x = torch.randn(1, 3, 16, 16)
    first = torch.nn.functional.max_pool2d(ours.bn1(ours.conv1(x)).relu(), 3, 2, 1)
    block, slope = leaky.layer1[0], torch.nn.functional.leaky_relu
    y = slope(block.bn2(block.conv2(slope(block.bn1(block.conv1(first)), 0.01))) + first, 0.01)
    torch.testing.assert_close(leaky(x), y.mean((2, 3)))
    assert not torch.equal(ours(x), leaky(x))


@pytest.mark.parametrize("bottleneck", [False, True])
@pytest.mark.parametrize("counted", [False, True])
def test_torchvisions_files_of_either_age(backend, tmp_path, bottleneck, counted):
    config = ResNetConfig(**STAGES, bottleneck=bottleneck)
    source = drawn(ResNet(config)).eval()
    beside = {"fc.weight": np.zeros((10, 3), np.float32), "fc.bias": np.zeros(10, np.float32)}
    beside |= {"bn1.num_batches_tracked": np.int64(3), "layer1.0.bn1.num_batches_tracked": np.int64(3)} if counted else {}
    write_weights(tmp_path / "resnet.pth", backend.state_numpy(source) | beside)
    found, told = opened(backend, "resnet", tmp_path / "resnet.pth")
    x = torch.randn(1, 3, 40, 40)
    assert told == config and torch.equal(found(x), source(x))


def test_sizes_are_read_from_the_shapes():
    for config in PRESETS.values():
        with torch.device("meta"):
            shapes = {name: tuple(value.shape) for name, value in ResNet(config).state_dict().items()}
        assert infer_config(shapes) == config
    with pytest.raises(UserError, match="^not the weights of a ResNet .layer1.0.conv2.weight is missing"):
        infer_config({"conv1.weight": (64, 3, 7, 7)})
