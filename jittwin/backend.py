"""The only interface between the neutral code and a deep-learning framework.

The protocol `Backend` lists everything that jittwin asks of a framework; jt_models/backend.py and
torch_models/backend.py each implement it in a class of that name. Modules, tensors and optimizers are
opaque to jittwin.
"""
import ctypes
import importlib
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np

from jittwin.loss_scaler import LossScaler
from jittwin.errors import UserError, choose_from
from jittwin.processes import Share

PACKAGES = {"jittor": "jt_models", "torch": "torch_models"}
DEVICES = ("cpu", "cuda")
PRECISIONS = ("float32", "bfloat16", "float16")     # of matrix products in a model's autocast; all else is float32

Arrays = dict[str, np.ndarray]
Tensor = Any
Module = Any
Optimizer = Any


class Backend(Protocol):
    """A framework, reduced to what training and inference loops need."""

    name: str                        # "jittor" or "torch"
    rank: int                        # of this process, from 0
    world_size: int                  # number of processes
    share: Share | None              # as given to `seed`

    def usable(self, device: str) -> str:
        """"" if `setup` can use `device` ("cpu", "cuda"), else the reason in one line. Sets nothing up."""

    def connect(self, device: str = "cpu") -> None:
        """Meet the other processes, if a launcher has started several, and set rank and world_size.

        UserError: they cannot meet.
        """

    def setup(self, device: str = "cpu", seed: int = 0, precision: str = "float32",
              threads: int | None = None, compiled: bool = False) -> None:
        """`connect`, and choose device, precision and CPU threads; called once, before any build.

        compiled: `infer_only` has PyTorch compile networks as a whole; Jittor compiles its operators in any case.
        UserError: a device that is not usable, an unknown precision, or PyTorch cannot compile here.
        """

    def set_precision(self, precision: str) -> None:
        """Set the precision, one of PRECISIONS, of every model of this process. UserError: another value."""

    def asarray(self, array: np.ndarray, dtype: str | None = None) -> Tensor:
        """A tensor on the device. dtype: "float32", "int32" …, or None for the array's own."""

    def image(self, pixels: np.ndarray, rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> Tensor:
        """An image (1, C, *shape) that holds `pixels` (h, w, C) at these rows and columns, and anything elsewhere.

        It is made to be resized at the least cost in time and memory.
        """

    def numpy(self, tensor: Tensor) -> np.ndarray:
        """The tensor's values, any shape; waits for the device."""

    def scalar(self, tensor: Tensor) -> float:
        """The value of a one-element tensor; waits for the device."""

    def build(self, name: str, config: Any, *parts: Module, **options) -> Module:
        """A model by its catalogue name, e.g. build("apf_gan.generator", config, seg_noise=True).

        parts: the networks that "apf_gan.objective" trains; other models have none.
        """

    def state_shapes(self, name: str, config: Any, **options) -> dict[str, tuple[int, ...]]:
        """Keys and shapes of the state of a model that `build` would return, in the order of definition.

        No weights are allocated or computed.
        """

    def no_grad(self) -> AbstractContextManager:
        """A context in which no graph for gradients is recorded."""

    def train_mode(self, module: Module, flag: bool) -> None:
        """Training (True) or inference (False) behaviour of norms and dropout."""

    def infer_only(self, module: Module) -> None:
        """As train_mode(module, False), for a network that is never trained."""

    def parameters(self, module: Module, trainable_only: bool = True) -> dict[str, Tensor]:
        """Parameters by state-dict key, in definition order."""

    def optimizer(self, kind: str, groups: list[dict], **hyper) -> Optimizer:
        """kind: "sgd", "adam" or "adamw". groups: dicts of params (tensors by name), lr, weight_decay …"""

    def step(self, optimizer: Optimizer, loss: Tensor, clip: float | None = None,
             accumulate: bool = False, scaler: LossScaler | None = None) -> None:
        """Add the gradients of `loss` with respect to the optimizer's own parameters, then update.

        accumulate: stop after adding. clip: largest global gradient norm, applied before the update. scaler: multiplies
        the loss and divides the gradients; where these are not finite, there is no update.
        """

    def set_lr(self, optimizer: Optimizer, lr: float | list[float]) -> None:
        """Set one learning rate for all groups, or one per group."""

    def state(self, module: Module, exclude: tuple[str, ...] = ()) -> dict[str, Tensor]:
        """Parameters and buffers by state-dict key, except keys that match a shell pattern of `exclude`; no copies."""

    def state_numpy(self, module: Module, exclude: tuple[str, ...] = (),
                    averages: dict[str, Tensor] | None = None) -> Arrays:
        """The values of `state`. averages: tensors by state-dict key whose values to give instead."""

    def load_numpy(self, module: Module, arrays: Mapping[str, np.ndarray], allow_missing: tuple[str, ...] = (),
                   allow_unexpected: tuple[str, ...] = ()) -> None:
        """Load arrays strictly and one after the other; they may be lazy.

        allow_missing, allow_unexpected: shell patterns of keys that need not agree. UserError lists the first five
        missing, unexpected and wrongly shaped keys.
        """

    def optimizer_state(self, optimizer: Optimizer) -> Arrays:
        """The state to continue from: "<parameter>/exp_avg", "<parameter>/exp_avg_sq", "<parameter>/step" …"""

    def load_optimizer_state(self, optimizer: Optimizer, arrays: Arrays) -> None:
        """Inverse of optimizer_state; UserError when the parameters differ."""

    def copy(self, tensor: Tensor) -> Tensor:
        """A new tensor with the same values, float32 if they are floating-point numbers."""

    def follow(self, averages: list[Tensor], values: list[Tensor], weight: float) -> None:
        """Add weight * (value - average) to every average, in place. All are floating-point tensors."""

    def seed(self, value: int, share: Share | None = None) -> None:
        """Seed the device's generator and dropout (31 bits). Called before every batch, so no state is saved.

        share: this process's part of the batch. Until the next call, statistics and losses are of the whole batch, and
        what is drawn is this part of what one process draws for it. None: the process computes on its own.
        """

    def randn(self, shape: tuple[int, ...]) -> Tensor:
        """Standard normal float32 values from the device's generator."""

    def synchronize(self) -> None:
        """Wait until the device has finished all work."""

    def memory(self) -> int:
        """Peak resident bytes of this process (device bytes on a GPU)."""

    def free_memory(self) -> None:
        """Give the memory that no tensor uses any more back to the system or, on a GPU, to the device."""

    def all_reduce(self, array: np.ndarray) -> np.ndarray:
        """Sum over all processes, each of which calls this. ProcessEnded: another one has ended."""


def trim() -> None:
    """Give the system back what the C library keeps of freed memory, where it can be told to (glibc)."""
    if release := getattr(ctypes.CDLL(None), "malloc_trim", None):
        release(0)


def load_backend(name: str, device: str = "cpu") -> Backend:
    """Import a twin and return its Backend, not yet set up. UserError: unknown name, framework unusable.

    device: for which the backend will be set up. Jittor can use a GPU only if it is told while it is imported.
    """
    if name not in PACKAGES:
        raise UserError(f"unknown backend {name!r}{choose_from(name, PACKAGES)}")
    if device == "cuda":
        os.environ["JITTWIN_CUDA"] = "1"
    try:
        module = importlib.import_module(f"{PACKAGES[name]}.backend")
    except ImportError as error:
        if (error.name or "").split(".")[0] in (PACKAGES[name], "jittwin"):
            raise
        raise UserError(f"backend {name!r} cannot be imported ({error}): run pip install {name}, "
                        f"or choose another --backend") from error
    except RuntimeError as error:
        # jt_models.boot raises it with one line about the package that the machine lacks. The class is
        # compared by name, because jittwin does not import a twin.
        if type(error).__name__ != "JittorSetupError":
            raise
        raise UserError(str(error)) from error
    return module.Backend()


def any_backend() -> Backend:
    """A backend whose framework is installed, not set up, for questions that both answer alike. UserError: none is."""
    for name in ("torch", "jittor"):        # PyTorch is imported faster
        try:
            return load_backend(name)
        except UserError as error:
            reason = error
    raise UserError(f"neither PyTorch nor Jittor can be imported, and one is needed here: {reason}")


def ready_backend(name: str, device: str = "auto", dtype: str = "auto", threads: int | None = None,
                  compiled: bool = False) -> tuple[Backend, str]:
    """(backend that is set up, its precision). compiled: see Backend.setup.

    "auto" is the GPU in bfloat16 if it can be used, else the CPU in float32. UserError: unknown name, device or dtype,
    a device that cannot be used, fewer than one thread.
    """
    if threads is not None and threads < 1:
        raise UserError(f"threads {threads}: must be at least 1")
    if dtype not in ("auto", *PRECISIONS):
        raise UserError(f"dtype {dtype!r}{choose_from(dtype, ('auto', *PRECISIONS))}")
    backend = load_backend(name, device)
    device = usable_device(backend, device)
    if dtype == "auto":
        dtype = "bfloat16" if device == "cuda" else "float32"
    backend.setup(device=device, precision=dtype, threads=threads, compiled=compiled)
    return backend, dtype


def usable_device(backend: Backend, device: str) -> str:
    """`device`, or for "auto" the GPU if the backend can use one, else the CPU. The backend is not set up.

    UserError: unknown, or not usable.
    """
    if device not in ("auto", *DEVICES):
        raise UserError(f"device {device!r}{choose_from(device, ('auto', *DEVICES))}")
    if device == "auto":
        return "cpu" if backend.usable("cuda") else "cuda"
    if reason := backend.usable(device):
        raise UserError(reason)
    return device
