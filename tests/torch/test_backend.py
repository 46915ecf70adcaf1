"""The PyTorch twin's backend: which devices it takes, and what it does for a GPU."""
import json

import numpy as np
import pytest
import torch
from shapes import (  # noqa: F401  (tests)
    test_every_model_is_looked_at,
    test_options_reach_the_module,
    test_shapes_are_those_of_the_built_module,
    test_shapes_of_a_large_network_take_no_memory,
)

from jittwin import cli
from jittwin.checkpoints.store import Checkpoints
from jittwin.errors import UserError
from torch_models.backend import Backend
from torch_models.nn import processes
from torch_models.nn.kernels.functions import placed


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


@pytest.mark.parametrize("error", [
    torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nSee the documentation"),
    RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")])
def test_a_full_gpu_is_told_in_one_line(capsys, error):
    def work():
        raise error

    assert cli.guarded(work, debug=False) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and all(word in said for word in ("--batch", "bfloat16", "--device cpu"))
    with pytest.raises(RuntimeError):
        cli.guarded(work, debug=True)


def full(*_, **__):
    raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nSee the documentation")


def test_training_on_a_full_gpu_leaves_its_last_checkpoint(monkeypatch, tmp_path, capsys):
    """The third step does not fit."""
    step, updates, run = Backend.step, [], tmp_path / "run"

    def crowded(*arguments, **keywords):
        updates.append(1)
        return (step if len(updates) < 5 else full)(*arguments, **keywords)

    monkeypatch.setattr(Backend, "step", crowded)
    words = ["train", "--backend", "torch", "--out", str(run), "--set", "preset=tiny", "--set", "max_steps=4"]
    assert cli.main([*words, "--set", "save_every=1"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert said[-1] == f"jittwin: {cli.GPU_FULL}" and not any("Traceback" in line for line in said)
    assert [path.name for path in (run / "checkpoints").iterdir() if path.is_dir()] == ["1.2"]
    monkeypatch.undo()
    assert cli.main([*words[:5], "--resume"]) == 0


def test_other_commands_on_a_full_gpu(monkeypatch, tmp_path, capsys):
    """They write nothing."""
    run = tmp_path / "run"
    assert cli.main(["train", "--backend", "torch", "--out", str(run), "--set", "preset=tiny", "--set",
                     "max_steps=1"]) == 0
    assert cli.main(["prepare", "landscape", str(tmp_path / "data"), "--synthetic", "2", "--size", "64x64"]) == 0
    capsys.readouterr()
    monkeypatch.setattr(torch.nn.Module, "__call__", full)
    output, pictures = tmp_path / "out", tmp_path / "scores.json"
    for words in (["generate", "--weights", str(run), "--labels", str(tmp_path / "data"), "--out", str(output)],
                  ["assess", str(tmp_path / "data"), "--metrics", "aesthetic", "--random-weights", "--device", "cpu",
                   "--output", str(pictures)]):
        assert cli.main([*words, "--backend", "torch"]) == 2, words
        assert capsys.readouterr().err.splitlines()[-1] == f"jittwin: {cli.GPU_FULL}"
    assert not pictures.exists() and not (output.exists() and list(output.iterdir()))


SMALL = ["preset=tiny", "crop_size=64", "load_size=86", "synthetic_images=4", "noise=shared", "max_steps=1",
         "log_every=1"]


def trained(run):
    """The losses of one step of all of APF-GAN, and Adam's means of squared gradients, of G and of D."""
    words = [word for setting in SMALL for word in ("--set", setting)]
    assert cli.main(["train", "--backend", "torch", "--out", str(run), *words]) == 0
    losses = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    squares = Checkpoints(run).weights("1", "optimizer")
    return losses, {stem: np.concatenate([a.ravel() for key, a in sorted(squares.items())
                                          if key.startswith(f"{stem}/") and key.endswith("exp_avg_sq")])
                    for stem in ("G", "D")}


def test_training_with_the_channels_of_a_pixel_side_by_side(monkeypatch, tmp_path):
    """The layout of a GPU, on the CPU."""
    build, built, (losses, squares) = Backend.build, [], trained(tmp_path / "rows")

    def build_for_gpu(self, *arguments, **options):
        self.device = "cuda"
        built.append(build(self, *arguments, **options))
        self.device = "cpu"
        return built[-1]

    monkeypatch.setattr(Backend, "build", build_for_gpu)
    found_losses, found = trained(tmp_path / "pixels")
    networks = [module for module in built if isinstance(module, torch.nn.Module)]
    weights = [p for network in networks for p in network.parameters() if p.ndim == 4 and min(p.shape[1:]) > 1]
    assert weights and all(p.stride(1) == 1 for p in weights)
    assert len(losses) == len(found_losses) == 1
    for expected, line in zip(losses, found_losses):
        assert line.pop("phase") == expected.pop("phase")
        assert line == pytest.approx(expected, rel=1e-4, abs=1e-5)
    for stem, expected in squares.items():
        assert np.linalg.norm(found[stem] - expected) < 1e-4 * np.linalg.norm(expected), stem


def test_arrays_go_to_a_gpu_while_it_computes(monkeypatch):
    asked = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda x: asked.append("pinned") or x)
    monkeypatch.setattr(torch.Tensor, "to", lambda x, *where, **how: asked.append((*map(str, where), how)) or x)
    array = np.arange(6.0)[::2]
    np.testing.assert_array_equal(placed(array, "cuda").numpy(), array)
    assert asked == ["pinned", ("cuda", {"non_blocking": True})]
    asked.clear()
    assert placed(array, "cpu").data_ptr() == array.ctypes.data and asked == [("cpu", {})]      # no copy


def test_float32_on_a_gpu_is_float32(monkeypatch):
    """What cuDNN and cuBLAS may round to TF32 is set before anything is computed."""
    libraries = torch.backends.cudnn, torch.backends.cuda.matmul
    before = [library.allow_tf32 for library in libraries]
    monkeypatch.setattr(torch, "set_default_device", lambda device: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    try:
        for device, allowed in (("cpu", True), ("cuda", False)):
            for library in libraries:
                library.allow_tf32 = True
            Backend().setup(device=device)
            assert [library.allow_tf32 for library in libraries] == [allowed] * 2
    finally:
        for library, allowed in zip(libraries, before):
            library.allow_tf32 = allowed


def test_more_processes_than_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for name, value in {"WORLD_SIZE": "4", "RANK": "2", "LOCAL_RANK": "2", "MASTER_ADDR": "127.0.0.1",
                        "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="^device cuda: process 2 of this machine has no GPU, since PyTorch finds 2: "):
        processes.connect("cuda")


def test_several_processes_without_a_gpu(monkeypatch, tmp_path, capsys):
    """Each is told before it waits for the others."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1",
                        "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    assert cli.main(["train", "--backend", "torch", "--device", "cuda", "--out", str(tmp_path / "runs/run")]) == 2
    assert capsys.readouterr().err == "jittwin: device cuda: this PyTorch finds no usable GPU; use --device cpu\n"
    assert not list(tmp_path.iterdir())


def test_another_error_of_the_program_is_not_hidden():
    def work():
        raise RuntimeError("CUDA error: misaligned address")

    with pytest.raises(RuntimeError, match="misaligned"):
        cli.guarded(work, debug=False)
