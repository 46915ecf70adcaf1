"""Small pairs that show one difference each: a PyTorch function and the port a user would write with raw Jittor.

The real Jittor is the judge of the fingerprints: a specimen must disagree with PyTorch, and agree with PyTorch
as its fingerprint changes it.
"""
import numpy as np

from parity.levels.backward import projected
from parity.workers.side import Arrays, Side
from specimens import layers, losses, numeric, ports, ties, training
from specimens.record import SPECIMENS, Specimen

__all__ = ["SPECIMENS", "Specimen", "layers", "losses", "numeric", "ports", "run", "ties", "training"]


def run(side: Side, arrays: Arrays, id: str) -> Arrays:
    """In a worker: the outputs of one specimen, and the gradients of a random linear function of them."""
    chosen = SPECIMENS[id]
    tensors = {name: plain(side, a) for name, a in arrays.items()}
    for name in chosen.differentiable:
        tensors[name] = side.differentiable(tensors[name])
    outputs = getattr(chosen, side.name)(**tensors)
    found = {name: np.atleast_1d(o if isinstance(o, np.ndarray) else side.host(o)) for name, o in outputs.items()}
    if chosen.differentiable:
        loss = sum(projected(side, name, output) for name, output in outputs.items())
        wanted = {f"gradient {name}": tensors[name] for name in chosen.differentiable}
        found |= side.gradients(loss, wanted)
    return found


def plain(side: Side, array: np.ndarray):
    """The tensor a user makes of an array, without the care that this project takes."""
    if side.name == "torch":
        import torch
        return torch.as_tensor(array)
    from jt_models.boot import jt
    return jt.array(array)
