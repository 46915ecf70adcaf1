"""The PyTorch twin's backend: which devices it takes."""
import pytest
import torch
from shapes import (  # noqa: F401  (tests)
    test_every_model_is_looked_at,
    test_options_reach_the_module,
    test_shapes_are_those_of_the_built_module,
    test_shapes_of_a_large_network_take_no_memory,
)

from jittwin import cli
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


def test_a_full_gpu_is_told_in_one_line(capsys):
    def work():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nSee the documentation")

    assert cli.guarded(work, debug=False) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and all(word in said for word in ("--batch", "bfloat16", "--device cpu"))
    with pytest.raises(torch.OutOfMemoryError):
        cli.guarded(work, debug=True)


def test_another_error_of_the_program_is_not_hidden():
    def work():
        raise RuntimeError("CUDA error: misaligned address")

    with pytest.raises(RuntimeError, match="misaligned"):
        cli.guarded(work, debug=False)
