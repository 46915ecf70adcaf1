"""Inception-v3 against a restatement of the paper's blocks, whose weights have torchvision's names.

Szegedy et al. 2016, arXiv 1512.00567; the poolings of FID's network are those of pytorch-fid.
"""
import pytest
import torch
import torch.nn.functional as F

from jittwin.metrics.fid.inception import load_inception
from jittwin.models.apf_gan import Semantics
from jittwin.models.perceptual import load_perceptual


class Plain:
    """Features in float64. state: of the network. average, last: the poolings of the blocks, and of the last one."""

    def __init__(self, state, average, last):
        self.state = {name: value.double() for name, value in state.items()}
        self.average, self.last = average, last

    def conv(self, name, x, stride=1, padding=0):
        mean, variance, weight, bias = (self.state[f"{name}.bn.{part}"][:, None, None] for part in (
            "running_mean", "running_var", "weight", "bias"))
        y = F.conv2d(x, self.state[f"{name}.conv.weight"], None, stride, padding)
        return ((y - mean) / (variance + 0.001).sqrt() * weight + bias).relu()

    def chain(self, block, x, *parts):
        """Convolutions in a row that keep the size, or halve it where a stride is given."""
        for part, stride in parts:
            name = f"{block}.{part}"
            size = self.state[f"{name}.conv.weight"].shape[2:]
            x = self.conv(name, x, stride, 0 if stride == 2 else tuple(side // 2 for side in size))
        return x

    def branches(self, block, x, pool, *chains):
        return torch.cat([self.chain(block, x, *((part, 1) for part in chain)) for chain in chains]
                         + [self.chain(block, pool(x), ("branch_pool", 1))], 1)

    def split(self, block, x, before, ends):
        """A chain that ends in two convolutions side by side."""
        x = self.chain(block, x, *((part, 1) for part in before))
        return torch.cat([self.chain(block, x, (end, 1)) for end in ends], 1)

    def last_kind(self, block, x, pool):
        return torch.cat([
            self.chain(block, x, ("branch1x1", 1)),
            self.split(block, x, ["branch3x3_1"], ["branch3x3_2a", "branch3x3_2b"]),
            self.split(block, x, ["branch3x3dbl_1", "branch3x3dbl_2"], ["branch3x3dbl_3a", "branch3x3dbl_3b"]),
            self.chain(block, pool(x), ("branch_pool", 1))], 1)

    def __call__(self, x):
        x = self.conv("Conv2d_1a_3x3", x, 2)
        x = self.conv("Conv2d_2b_3x3", self.conv("Conv2d_2a_3x3", x), 1, 1)
        yield (x := F.max_pool2d(x, 3, 2))
        x = self.conv("Conv2d_4a_3x3", self.conv("Conv2d_3b_1x1", x))
        yield (x := F.max_pool2d(x, 3, 2))
        double = ["branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"]
        for block in ("Mixed_5b", "Mixed_5c", "Mixed_5d"):
            x = self.branches(block, x, self.average, ["branch1x1"], ["branch5x5_1", "branch5x5_2"], double)
        x = torch.cat([self.chain("Mixed_6a", x, ("branch3x3", 2)),
                       self.chain("Mixed_6a", x, (double[0], 1), (double[1], 1), (double[2], 2)),
                       F.max_pool2d(x, 3, 2)], 1)
        for block in ("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"):
            x = self.branches(block, x, self.average, ["branch1x1"], [f"branch7x7_{n}" for n in (1, 2, 3)],
                              [f"branch7x7dbl_{n}" for n in (1, 2, 3, 4, 5)])
        yield x
        x = torch.cat([self.chain("Mixed_7a", x, ("branch3x3_1", 1), ("branch3x3_2", 2)),
                       self.chain("Mixed_7a", x, *((f"branch7x7x3_{n}", 1) for n in (1, 2, 3)), ("branch7x7x3_4", 2)),
                       F.max_pool2d(x, 3, 2)], 1)
        x = self.last_kind("Mixed_7b", x, self.average)
        x = self.last_kind("Mixed_7c", x, self.last)
        yield F.adaptive_avg_pool2d(x, 1)


def spread(network):
    """The network in float64 with statistics and gains that are not the identity."""
    generator = torch.Generator().manual_seed(3)
    for name, value in network.double().state_dict().items():
        if ".bn." in name:
            noise = torch.rand(value.shape, generator=generator, dtype=value.dtype)
            value.copy_(0.5 + noise if name.endswith(("weight", "running_var")) else 0.4 * noise - 0.2)
    return network.eval()


def picture(height, width):
    return torch.rand((2, 3, height, width), generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def average(counted):
    return lambda x: F.avg_pool2d(x, 3, 1, 1, count_include_pad=counted)


def test_features_equal_a_plain_restatement(backend):
    semantics = Semantics(inception_bn="running")
    network = spread(load_perceptual(backend, "inception", random=True, semantics=semantics).network)
    x = 2 * picture(80, 97) - 1
    with torch.no_grad():
        expected, found = list(Plain(network.state_dict(), average(True), average(True))(x)), network(x)
    assert [f.shape[1] for f in found] == [64, 192, 768, 2048]
    for one, other in zip(found, expected, strict=True):
        assert other.std() > 0
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12 * other.abs().max().item())


@pytest.mark.parametrize("mode, counted", [("pytorch-fid", False), ("apf-gan", True)])
def test_features_of_fid_equal_a_plain_restatement(backend, mode, counted):
    network, x = spread(load_inception(backend, None, True, mode).network), picture(60, 80)
    resized = F.interpolate(x, size=(299, 299), mode="bilinear", align_corners=False)
    last = lambda x: F.max_pool2d(x, 3, 1, 1)       # noqa: E731
    with torch.no_grad():
        *_, expected = Plain(network.state_dict(), average(counted), last)(2 * resized - 1)
        found = network(x)
    assert found.shape == (2, 2048) and found.std() > 0
    torch.testing.assert_close(found, expected.flatten(1), rtol=1e-9, atol=1e-12 * expected.abs().max().item())
