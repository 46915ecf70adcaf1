"""Inception-v4: values that timm's network gave, published facts, and files of either age. See also test_timm.py."""
import numpy as np
import pytest
import torch
from opened import opened

from jittwin.draws import Draws
from jittwin.errors import UserError
from jittwin.models.inception_v4 import InceptionV4Config, infer_config
from jittwin.weights import write_weights
from torch_models.backbones.inception_v4 import InceptionV4

# Of timm 1.0.31 in float64, with the weights and the picture below: a feature of each branch, and all of them.
GOLDEN = {1: 0.88707, 257: 0.6046144, 515: 0.5825495, 768: 0.2358392, 1025: 0.4011505, 1281: 0.7747378}
MEAN, DEVIATION = 0.2375234, 0.3070277


def weights(shapes):
    """He-normal filters; gains, variances, means and biases that differ by channel."""
    draws, arrays = Draws(2), {}
    for name, shape in shapes.items():
        values = draws.normal(name, shape)
        if values.ndim > 1:
            arrays[name] = values * np.float32((2 / np.prod(shape[1:])) ** 0.5)
        else:
            arrays[name] = values * np.float32(0.1) + np.float32(name.endswith(("bn.weight", "running_var")))
    return arrays


def test_values_that_timm_gave(backend):
    network = backend.build("inception_v4", InceptionV4Config())
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    backend.load_numpy(network, weights(shapes))
    x = backend.asarray(Draws(2).normal("picture", (1, 3, 139, 107)))
    with torch.no_grad():
        found = network.eval()(x)[0]
    assert found.shape == (1536,)
    assert [found[index].item() for index in GOLDEN] == pytest.approx(list(GOLDEN.values()), abs=2e-6)
    assert (found.mean().item(), found.std().item()) == pytest.approx((MEAN, DEVIATION), abs=1e-6)


def test_the_published_size():
    with torch.device("meta"):
        network = InceptionV4(InceptionV4Config())
        found = network(torch.empty(2, 3, 299, 299))
    assert found.shape == (2, 1536)
    assert sum(p.numel() for p in network.parameters()) == 42_679_816 and len(network.state_dict()) == 747
    assert sum(p.numel() for p in network.features.parameters()) == 41_142_816
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    assert infer_config(shapes) == InceptionV4Config()


@pytest.mark.parametrize("index, name, shape", [
    (0, "conv.weight", (32, 3, 3, 3)), (0, "bn.running_var", (32,)), (3, "conv.conv.weight", (96, 64, 3, 3)),
    (4, "branch1.1.conv.weight", (64, 64, 1, 7)), (6, "branch0.conv.weight", (96, 384, 1, 1)),
    (9, "branch3.1.conv.weight", (96, 384, 1, 1)), (10, "branch1.2.conv.weight", (256, 224, 3, 3)),
    (17, "branch2.4.conv.weight", (256, 224, 1, 7)), (18, "branch1.3.conv.weight", (320, 320, 3, 3)),
    (19, "branch1_1a.conv.weight", (256, 384, 1, 3)), (21, "branch2_2.conv.weight", (512, 448, 1, 3))])
def test_names(index, name, shape):
    with torch.device("meta"):
        state = InceptionV4(InceptionV4Config()).state_dict()
    assert tuple(state[f"features.{index}.{name}"].shape) == shape


@pytest.mark.parametrize("counted, classes", [(False, 1001), (True, 1000), (True, 0)])
def test_files_of_either_age_and_of_one_class_more_or_less(backend, tmp_path, counted, classes):
    config = InceptionV4Config((1, 2, 1), 32, classes)
    shapes = backend.state_shapes("inception_v4", config)
    arrays = {name: np.full(shape, 0.5, np.float32) for name, shape in shapes.items()}
    arrays |= {"features.0.bn.num_batches_tracked": np.int64(3)} if counted else {}
    write_weights(tmp_path / "file.pth", arrays)
    found, told = opened(backend, "inception_v4", tmp_path / "file.pth")
    assert told == config and found.features[0].conv.weight[0, 0, 0, 0] == 0.5
    del arrays["features.8.branch2.4.conv.weight"]
    write_weights(tmp_path / "less.pth", arrays)
    with pytest.raises(UserError, match="not the weights of an Inception-v4"):
        opened(backend, "inception_v4", tmp_path / "less.pth")


def test_the_classifier_is_kept_and_frozen(backend):
    network = InceptionV4(InceptionV4Config((1, 1, 1), 32, 10))
    frozen = set(network.state_dict()) - set(backend.parameters(network))
    assert {name for name in frozen if "running" not in name} == {"last_linear.weight", "last_linear.bias"}
