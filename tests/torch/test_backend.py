"""The PyTorch twin's backend: which devices it takes."""
import pytest
import torch

from jittwin.errors import UserError
from torch_models.backend import Backend


@pytest.mark.parametrize("found", [False, True])
def test_a_gpu_is_usable_where_pytorch_finds_one(monkeypatch, found):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: found)
    backend = Backend()
    assert backend.usable("cpu") == ""
    assert backend.usable("cuda") == ("" if found else
                                      "device cuda: this PyTorch finds no usable GPU; use --device cpu")
    assert torch.get_default_device().type == backend.device == "cpu"       # nothing was set up
    if not found:
        with pytest.raises(UserError, match="^device cuda: this PyTorch finds no usable GPU; use --device cpu$"):
            backend.setup(device="cuda")
