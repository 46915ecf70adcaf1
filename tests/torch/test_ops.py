"""Functions of the PyTorch twin where float64, in which the parity tests compute the truth, needs care."""
import pytest
import torch
import torch.nn.functional as F

from torch_models.nn import ops

IMAGE = torch.arange(384 * 512, dtype=torch.float32).reshape(1, 1, 384, 512)


@pytest.mark.parametrize("size", [(460, 614), (192, 256), (100, 333)])     # first: the enlargement of the crop
def test_nearest_picks_the_same_pixels_in_float64(size):
    assert torch.equal(ops.interpolate(IMAGE.double(), size), ops.interpolate(IMAGE, size).double())


def test_pytorch_itself_does_not():
    assert not torch.equal(F.interpolate(IMAGE.double(), (460, 614)), F.interpolate(IMAGE, (460, 614)).double())
