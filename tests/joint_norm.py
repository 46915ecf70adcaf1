"""Batch normalisation over two processes of a twin, against float64 NumPy on the joined batch.

A test starts this file in two processes, which check what each of them gets for its rows.
"""
import os
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from jittwin.backend import PACKAGES, load_backend
from jittwin.launching import launch, leave
from jittwin.processes import gathered, share_of

ROOT = Path(__file__).resolve().parents[1]
# Pictures of a batch, and how many the first process has: its share, one process without any, and another number than
# the share, as where not every row has an image prompt.
BATCHES = ((5, 2), (4, 2), (1, 0), (5, 4))
SIZE, TABLE, EPS, SLOPE = (3, 4, 6), 7, 1e-5, 0.2


@pytest.mark.parametrize("kernels", ["native", "portable"])
def test_two_processes_normalise_as_one(request, kernels, tmp_path, monkeypatch):
    side = request.path.parent.name
    if side == "torch" and kernels == "portable":
        pytest.skip("PyTorch has one form")
    monkeypatch.setenv("JITTWIN_KERNELS", kernels)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    with open(tmp_path / "log", "w+") as log:
        status = launch(side, 2, [sys.executable, __file__, side], log)
        log.seek(0)
        said = log.read()
    assert status == 0 and said.count("compared") == 2, said[-3000:]


def centred(x, g):
    """x normalised over rows and pixels, and the gradient of x where g is that of the result; all (B, C, H, W)."""
    axes = (0, 2, 3)
    apart = x - x.mean(axes, keepdims=True)
    inverse = 1 / np.sqrt((apart ** 2).mean(axes, keepdims=True) + EPS)
    normal = apart * inverse
    return normal, inverse * (g - g.mean(axes, keepdims=True) - normal * (g * normal).mean(axes, keepdims=True))


def truth(x, g, gain, shift, index) -> dict[str, np.ndarray]:
    """Of normalisation alone and with what follows it in the generator: the results and all gradients."""
    x, g, gain, shift = (a.astype(np.float64) for a in (x, g, gain, shift))
    normal, dx = centred(x, g)
    scale, offset = (table[index].transpose(0, 3, 1, 2) for table in (gain, shift))
    y = normal * scale + offset
    slopes = np.where(y > 0, g, SLOPE * g)
    dgain, dshift = np.zeros_like(gain), np.zeros_like(shift)
    np.add.at(dgain, index, (slopes * normal).transpose(0, 2, 3, 1))
    np.add.at(dshift, index, slopes.transpose(0, 2, 3, 1))
    return {"normal": normal, "gradient": dx, "modulated": np.where(y > 0, y, SLOPE * y),
            "modulated gradient": centred(x, slopes * scale)[1], "gain": dgain, "shift": dshift,
            "mean": x.mean((0, 2, 3)), "variance": x.var((0, 2, 3))}


def of_torch(x, g, gain, shift, index) -> list:
    import torch

    from torch_models.nn import layers, ops
    x, gain, shift = (torch.tensor(a, requires_grad=True) for a in (x, gain, shift))
    y, mean, variance = ops.normalize_modulate(x, gain, shift, torch.tensor(index), EPS, SLOPE, True)
    modulated = torch.autograd.grad((y * torch.tensor(g)).sum(), (x, gain, shift))
    normal = layers.normalized(x, layers.BatchNorm2d(SIZE[0], affine=False))[0]
    (dx,) = torch.autograd.grad((normal * torch.tensor(g)).sum(), x)
    return [normal, dx, y, *modulated, mean, variance]


def of_jittor(x, g, gain, shift, index) -> list:
    from jt_models.boot import jt
    from jt_models.nn import layers, ops
    x, g, gain, shift, index = (jt.array(a) for a in (x, g, gain, shift, index))
    y, mean, variance = ops.normalize_modulate(x, gain, shift, index, EPS, SLOPE, True)
    modulated = jt.grad((y * g).sum(), [x, gain, shift])
    normal = layers.normalized(x.reshape(*x.shape[:2], -1), layers.BatchNorm2d(SIZE[0], affine=False))[0]
    normal = normal.reshape(x.shape)
    return [normal, jt.grad((normal * g).sum(), x), y, *modulated, mean, variance]


def check_running_statistics(backend, x, gain, shift, index) -> None:
    """Both processes get the same bits, though each chooses by its own label maps how it computes what follows."""
    layers = import_module(f"{PACKAGES[backend.name]}.nn.layers")
    x, gain, shift, index = map(backend.asarray, (x, gain, shift, index))
    for kind in ("biased", "unbiased"):
        norm = layers.BatchNorm2d(SIZE[0], affine=False, running_variance=kind)
        norm.modulated(x, gain, shift, index, SLOPE) if backend.rank else norm(x)
        kept = np.stack([backend.numpy(norm.running_mean), backend.numpy(norm.running_var)])
        np.testing.assert_array_equal(*gathered(backend, [kept[None]]), kind)


def compare(side: str) -> None:
    backend, rng = load_backend(side), np.random.default_rng(0)
    backend.setup()
    for rows, first in BATCHES:
        x, g = (rng.standard_normal((rows, *SIZE), dtype=np.float32) for _ in range(2))
        x = 2 * x + 30 * np.arange(SIZE[0], dtype=np.float32)[:, None, None]     # means far above the deviations
        gain, shift = (rng.standard_normal((TABLE, SIZE[0]), dtype=np.float32) for _ in range(2))
        index = rng.integers(0, TABLE, (rows, *SIZE[1:])).astype(np.int32)
        expected = truth(x, g, gain, shift, index)
        share = share_of(backend.rank, 2, rows)
        backend.seed(0, share)
        counts = 1.0 if share.rows else 0.0
        own = slice(0, first or 1) if backend.rank == 0 else slice(first, rows)
        found = {"torch": of_torch, "jittor": of_jittor}[side](
            x[own], counts * g[own], gain, shift, index[own])
        for (name, value), tensor in zip(expected.items(), found, strict=True):
            array = backend.numpy(tensor)
            if name in ("gain", "shift"):
                array = backend.all_reduce(array)
            elif name not in ("mean", "variance"):
                value = value[own] * (counts if "gradient" in name else 1)
            np.testing.assert_allclose(array, value, rtol=0, atol=1e-5 * max(1, abs(value).max()), err_msg=name)
        check_running_statistics(backend, x[share.taken], gain, shift, index[share.taken])
    print("compared", flush=True)


if __name__ == "__main__":
    compare(sys.argv[1])
    sys.exit(leave(0))
