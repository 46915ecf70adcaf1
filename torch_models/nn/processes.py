"""The processes that train one model together, each on its rows of every batch.

Outside a shared batch nothing here waits for another process, so that one of them may draw or measure alone.
"""
import os

import torch
import torch.distributed as dist
from torch._utils import _flatten_dense_tensors, _unflatten_dense_tensors

from jittwin.errors import UserError
from jittwin.launching import ProcessEnded, launched, met
from torch_models.nn import sockets

_BUCKET = 1 << 25        # elements that are summed in one exchange
_state = {"share": None, "star": None}


def connect(device: str = "cpu") -> tuple[int, int]:
    """(rank, number of processes); meets the other processes first, if a launcher started several.

    UserError: the launcher does not say where they meet, or they do not come.
    """
    rank, count = launched()
    if count == 1 or dist.is_initialized():
        return rank, count
    if "MASTER_ADDR" not in os.environ or "MASTER_PORT" not in os.environ:
        raise UserError(f"{count} processes of the PyTorch twin were started without MASTER_ADDR and MASTER_PORT: "
                        "start them with torchrun, or set both")
    if device == "cuda":
        place, there = int(os.environ.get("LOCAL_RANK", rank)), torch.cuda.device_count()
        if place >= there:
            raise UserError(f"device cuda: process {place} of this machine has no GPU, since PyTorch finds {there}: "
                            f"start at most {there} here, or use --device cpu")
        torch.cuda.set_device(place)
    try:
        dist.init_process_group("nccl" if device == "cuda" else "gloo", rank=rank, world_size=count)
        if device == "cpu":
            _state["star"] = sockets.meet()
    except (RuntimeError, ValueError, OSError) as error:
        raise UserError(f"the {count} processes cannot meet at {os.environ['MASTER_ADDR']}:"
                        f"{os.environ['MASTER_PORT']} ({' '.join(str(error).split())[:120]}): choose another port, "
                        "for example with torchrun --master_port") from error
    met()
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


def _sum_in_place(x) -> None:
    """ProcessEnded in place of the framework's error when another process has gone."""
    star = _state["star"]
    exchange = star.sum_in_place if star and star.takes(x) else dist.all_reduce
    try:
        exchange(x)
    except (RuntimeError, ValueError, OSError) as error:
        raise ProcessEnded("another process of this run has ended") from error


def average(tensors) -> list:
    """The mean of each tensor over all processes. Small ones travel together."""
    count, found = dist.get_world_size(), []
    for some in _buckets(tensors):
        flat = _flatten_dense_tensors(some)
        _sum_in_place(flat)
        flat /= count
        found += _unflatten_dense_tensors(flat, some)
    return found


def _buckets(tensors):
    some, size = [], 0
    for tensor in tensors:
        if some and (size + tensor.numel() > _BUCKET or tensor.dtype != some[0].dtype):
            yield some
            some, size = [], 0
        some.append(tensor)
        size += tensor.numel()
    if some:
        yield some


def all_sum(x):
    """The sum over all processes; the gradient of x is the sum of all processes' gradients."""
    return _Sum.apply(x)


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(context, x):
        total = x.clone(memory_format=torch.contiguous_format)
        _sum_in_place(total)
        return total

    @staticmethod
    def backward(context, gradient):
        return _Sum.forward(None, gradient)


def whole(x):
    """The rows of all processes (B, …) from this one's; x itself outside a shared batch."""
    now = _state["share"]
    if now is None:
        return x
    parts = [x[:now.rows], x.new_zeros(now.total - now.first - now.rows, *x.shape[1:])]
    return all_sum(torch.cat([x.new_zeros(now.first, *x.shape[1:]), *parts]))


def statistics(own, count: int):
    """(mean, biased variance, number of values) of the values of all processes, from the means and biased variances
    (2, C) of this one's `count` values per channel. One exchange; a process without a row counts nothing.

    They are combined as Chan, Golub and LeVeque combine parts (1979), which is as exact as a second pass.
    """
    now, channels = _state["share"], own.shape[1]
    everyone = own.new_zeros(now.processes, 2 * channels + 1)
    number = own.new_full((1,), count if now.rows else 0)
    torch.cat((own.view(-1), number), out=everyone[dist.get_rank()])
    _sum_in_place(everyone)
    means, variances, counts = everyone.split_with_sizes((channels, channels, 1), 1)
    count = counts.sum()
    weights = counts / count
    mean = (weights * means).sum(0)
    apart = means - mean
    return mean, (weights * variances.addcmul(apart, apart)).sum(0), count
