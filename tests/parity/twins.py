"""Runs the same functions in one process per framework; arrays travel as safetensors.

A probe is a function `f(backend, arrays) -> arrays` (both dicts of NumPy arrays) in a module of this
folder that imports neither framework at its top. Its name is "module:function". Both twins are handed
the same arrays. "torch64" is PyTorch in double precision: float32 inputs arrive as float64.

    outputs = run_twin("jittor", "backbone_probes:vgg", {"image": image})
    first, second = run_probes("torch", [("backbone_probes:vgg", a), ("backbone_probes:inception", b)])
"""
import importlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

HERE = Path(__file__).resolve().parent
BACKENDS = ("jittor", "torch", "torch64")

Arrays = Mapping[str, np.ndarray]


def run_twin(backend: str, function: str, arrays: Arrays,
             timeout: float = 600) -> dict[str, np.ndarray]:
    """One probe in a process of its own."""
    return run_probes(backend, [(function, arrays)], timeout)[0]


def run_probes(backend: str, probes: Sequence[tuple[str, Arrays]],
               timeout: float = 600) -> list[dict[str, np.ndarray]]:
    """Several probes, one after another in one process; AssertionError with its last words if it fails."""
    assert backend in BACKENDS, backend
    with tempfile.TemporaryDirectory() as folder:
        inputs, outputs = Path(folder, "inputs.safetensors"), Path(folder, "outputs.safetensors")
        functions = [function for function, _ in probes]
        _save([arrays for _, arrays in probes], inputs)
        command = [sys.executable, str(HERE / "twins.py"), backend, json.dumps(functions), inputs, outputs]
        # Threads that spin while they wait take minutes for seconds of work on a busy machine.
        environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
        done = subprocess.run(command, cwd=HERE.parents[1], env=environment, capture_output=True, text=True,
                              timeout=timeout)
        if done.returncode:
            raise AssertionError(f"{backend}: {', '.join(functions)} ended with {done.returncode}\n"
                                 + (done.stdout + done.stderr)[-4000:])
        return _load(outputs, len(probes))


def gradients(backend, function, arrays: Arrays) -> tuple[dict, dict[str, np.ndarray]]:
    """For use in a probe: `function(tensors) -> (loss, results)` on tensors made of `arrays`.

    Returns the results and the gradient of the scalar loss with respect to every one of the arrays.
    """
    tensors = {name: backend.asarray(value) for name, value in arrays.items()}
    if backend.name == "torch":
        import torch
        for tensor in tensors.values():
            tensor.requires_grad_(True)
        loss, results = function(tensors)
        found = torch.autograd.grad(loss, list(tensors.values()))
    else:
        from jt_models.boot import jt
        for tensor in tensors.values():
            tensor.start_grad()
        loss, results = function(tensors)
        found = jt.grad(loss, list(tensors.values()))
    return results, {name: backend.numpy(g) for name, g in zip(tensors, found, strict=True)}


def _save(groups: Sequence[Arrays], path: Path) -> None:
    """One file for several groups of arrays; the file's keys are "<group>/<name>"."""
    save_file({f"{index}/{name}": np.asarray(value, order="C")
               for index, group in enumerate(groups) for name, value in group.items()}, path)


def _load(path: Path, count: int) -> list[dict[str, np.ndarray]]:
    groups = [{} for _ in range(count)]
    for key, value in load_file(path).items():
        index, name = key.split("/", 1)
        groups[int(index)][name] = value
    return groups


def _backend(name: str):
    from jittwin.backend import load_backend
    backend = load_backend(name.removesuffix("64"))
    backend.setup()
    if name == "torch64":
        import torch
        torch.set_default_dtype(torch.float64)
    return backend


def _widened(arrays: Arrays) -> dict[str, np.ndarray]:
    return {name: a.astype(np.float64) if a.dtype == np.float32 else a for name, a in arrays.items()}


def main(name: str, functions: str, inputs: str, outputs: str) -> None:
    sys.path[:1] = [str(HERE.parents[1]), str(HERE)]
    functions = json.loads(functions)
    backend, results = _backend(name), []
    for function, arrays in zip(functions, _load(Path(inputs), len(functions)), strict=True):
        module, attribute = function.split(":")
        probe = getattr(importlib.import_module(module), attribute)
        results.append(probe(backend, _widened(arrays) if name == "torch64" else arrays))
    _save(results, Path(outputs))


if __name__ == "__main__":
    main(*sys.argv[1:])
