"""Side: what functions that run inside a worker need of their framework, under the same names for both."""
import contextlib
import importlib
import random
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from jittwin.backend import PACKAGES, load_backend

Arrays = dict[str, np.ndarray]


def global_generators() -> tuple:
    """The states of Python's and NumPy's global random generators, which no framework may change."""
    return random.getstate(), np.random.get_state()[1].tobytes()


class Side:
    """One framework. `backend` is the twin's Backend; `ops` and `layers` are the modules of its `nn`."""

    def __init__(self, name: str, device: str = "cpu"):
        self.name, self.package = name, PACKAGES[name]
        before = global_generators()
        self.backend = load_backend(name, device)
        self.backend.setup(device=device)
        self.generators_kept = global_generators() == before
        self.ops, self.layers = self.twin("nn.ops"), self.twin("nn.layers")
        self.wide = False                       # whether it computes in float64
        self.last_true: tuple | None = None     # see parity.levels.trajectory.true_outcome

    def twin(self, module: str):
        """A module of this twin, such as "apf_gan.losses"."""
        return importlib.import_module(f"{self.package}.{module}")

    @property
    def Module(self) -> type:
        """The framework's own base class of modules."""
        if self.name == "torch":
            import torch
            return torch.nn.Module
        from jt_models.boot import nn
        return nn.Module

    def tensor(self, array: np.ndarray):
        """A tensor with the values and the type of the array."""
        return self.backend.asarray(array)

    def host(self, tensor) -> np.ndarray:
        return np.array(self.backend.numpy(tensor))

    def differentiable(self, tensor):
        """The same tensor, of which gradients will be computed."""
        return tensor.requires_grad_(True) if self.name == "torch" else tensor.start_grad()

    def gradients(self, loss, tensors: Mapping) -> Arrays:
        """The gradients of a scalar loss by the names of `tensors`; zeros for a tensor that the loss does not reach.

        The gradient of a tensor without dimensions has the shape (1,), as in Jittor [P10].
        """
        if self.name == "torch":
            import torch
            found = torch.autograd.grad(loss, list(tensors.values()), allow_unused=True)
            found = [torch.zeros_like(t) if g is None else g for g, t in zip(found, tensors.values())]
        else:
            from jt_models.boot import jt
            found = jt.grad(loss, list(tensors.values()))
        return {name: np.atleast_1d(self.host(gradient)) for name, gradient in zip(tensors, found, strict=True)}

    @contextlib.contextmanager
    def double(self) -> Iterator[None]:
        """PyTorch only: while this context lasts, everything built is float64."""
        import torch
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        self.wide = True
        try:
            yield
        finally:
            torch.set_default_dtype(before)
            self.wide = False

    def parts(self, module) -> dict[str, object]:
        """Every sub-module by its path; the module itself under ""."""
        return dict(module.named_modules())

    @contextlib.contextmanager
    def intercepted(self, module, around: Callable) -> Iterator[None]:
        """While this context lasts, `around(path, call, part, proceed, arguments, keywords)` replaces every call of a
        sub-module.

        call: how often this path was called before. proceed(*arguments, **keywords) makes the call itself. A module
        that stands in several places has its first path.
        """
        paths = {}
        for path, part in self.parts(module).items():
            paths.setdefault(id(part), path)
        counts, original = dict.fromkeys(paths.values(), 0), self.Module.__call__

        def call(part, *arguments, **keywords):
            path = paths.get(id(part))
            if path is None:
                return original(part, *arguments, **keywords)
            number = counts[path]
            counts[path] += 1

            def proceed(*arguments, **keywords):
                return original(part, *arguments, **keywords)

            return around(path, number, part, proceed, arguments, keywords)

        self.Module.__call__ = call
        try:
            yield
        finally:
            self.Module.__call__ = original


def group(arrays: Mapping[str, np.ndarray], prefix: str) -> Arrays:
    """The arrays named "<prefix>/<name>", by name."""
    return {name[len(prefix) + 1:]: a for name, a in arrays.items() if name.startswith(f"{prefix}/")}


def grouped(prefix: str, arrays: Mapping[str, np.ndarray]) -> Arrays:
    """The inverse of `group`."""
    return {f"{prefix}/{name}": a for name, a in arrays.items()}
