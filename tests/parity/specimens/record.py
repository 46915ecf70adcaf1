"""What a specimen is, and the table of all of them."""
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from jittwin.draws import Draws


@dataclass(frozen=True)
class Specimen:
    """A PyTorch function, its naive port to raw Jittor, and inputs that bring one difference out.

    id: the fingerprint that the difference must be named by. torch, jittor: tensors by name to outputs by name
    (tensors or host arrays). differentiable: the inputs whose gradient is compared too.
    """
    id: str
    torch: Callable[..., dict]
    jittor: Callable[..., dict]
    inputs: Mapping[str, np.ndarray]
    differentiable: tuple[str, ...] = ()


SPECIMENS: dict[str, Specimen] = {}


def specimen(id: str, differentiable: tuple[str, ...] = (), **inputs):
    """Enters a class with the functions `torch` and `jittor`. An input is an array, or the shape of a normal draw."""
    arrays = {name: Draws(5).normal(f"{id} {name}", a) if isinstance(a, tuple) else np.asarray(a)
              for name, a in inputs.items()}
    arrays = {name: a.astype(np.float32) if a.dtype == np.float64 else a for name, a in arrays.items()}

    def enter(pair: type) -> type:
        SPECIMENS[id] = Specimen(id, pair.torch, pair.jittor, arrays, differentiable)
        return pair
    return enter
