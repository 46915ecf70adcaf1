"""The sums of processes on one machine, with threads in place of the processes."""
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from torch_models.nn import sockets
from torch_models.nn.sockets import Star


def star(count):
    pairs = [socket.socketpair() for _ in range(count - 1)]
    return [Star([near for near, _ in pairs], True, count), *(Star([far], False, count) for _, far in pairs)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int64])
@pytest.mark.parametrize("count, shape", [(2, ()), (2, (0,)), (3, (5, 7)), (4, (600, 1000))])
def test_every_process_gets_the_sum(count, shape, dtype):
    torch.manual_seed(0)
    given = [torch.randint(-9, 9, shape).to(dtype) for _ in range(count)]
    found, ends = [x.clone() for x in given], star(count)
    with ThreadPoolExecutor(count) as pool:
        list(pool.map(Star.sum_in_place, ends, found))
    assert all(torch.equal(each, sum(given)) for each in found)


@pytest.mark.parametrize("gone", [0, 1])
def test_a_process_that_is_gone_is_noticed(gone):
    ends = star(2)
    for end in ends[gone].ends:
        end.close()
    with pytest.raises(OSError):
        ends[1 - gone].sum_in_place(torch.ones(3))
        ends[1 - gone].sum_in_place(torch.ones(3))


def test_what_is_large_is_left_to_gloo(monkeypatch):
    monkeypatch.setattr(sockets, "LARGEST", 800)
    assert star(3)[0].takes(torch.ones(100)) and not star(3)[0].takes(torch.ones(101))
