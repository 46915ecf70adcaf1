"""The PyTorch twin's backend: which devices it takes."""
import pytest
import torch
from shapes import (  # noqa: F401  (tests)
    test_every_model_is_looked_at,
    test_options_reach_the_module,
    test_shapes_are_those_of_the_built_module,
    test_shapes_of_a_large_network_take_no_memory,
)

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
