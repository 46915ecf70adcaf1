"""Runs commands as a user would: several in one process to save start-up, each with its own output.

    done = run(["train", ...], ["generate", ...])[-1]
    run(Command(["train", ...], disk_full_after=3), blocked=["torch"])

A command is the arguments of `jittwin`, or the name of a script in scripts/ and its arguments.
"""
import errno
import json
import os
import resource
import runpy
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BACKENDS = ("jittor", "torch")
# Threads that spin while they wait take minutes for seconds of work on a busy machine.
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_WAIT_POLICY": "PASSIVE"}
# One size for all tests: every new kind of kernel costs Jittor a compilation. 192x64 pixels (width x
# height): at 64x64 the instance norm of the encoder's last map, a single pixel, leaves it no gradient.
SMALL = {"preset": "tiny", "crop_size": 192, "aspect_ratio": 3, "load_size": 216, "batch_size": 2,
         "finetune_batch_size": 2, "synthetic_images": 2, "pg_niter": 3, "pretrain_epochs": 3, "epochs": 4,
         "log_every": 1, "save_epochs": 1}


@dataclass(frozen=True)
class Command:
    """disk_full_after: calls of fsync that succeed before each fails. file_limit: bytes a file may have."""

    argv: Sequence[str]
    disk_full_after: int | None = None
    file_limit: int | None = None


@dataclass(frozen=True)
class Done:
    """How a command ended. imported: top-level modules in the process after it, of those asked about."""

    status: int
    out: str
    err: str
    imported: list[str]

    def ok(self) -> "Done":
        assert self.status == 0, self.err
        return self

    def one_line(self) -> str:
        """The message of a refused command, which is all that it printed."""
        assert self.status == 2, self
        assert self.err.startswith("jittwin: ") and self.err.count("\n") == 1 and not self.out, self
        return self.err


def settings(**changes) -> list[str]:
    """--set arguments of the small configuration with `changes`."""
    return [part for key, value in {**SMALL, **changes}.items() for part in ("--set", f"{key}={value}")]


def train(backend: str, out, *options, **changes) -> list[str]:
    return ["train", "--backend", backend, "--out", str(out), *settings(**changes), *map(str, options)]


def run(*commands: Command | Sequence[str], blocked: Sequence[str] = (), cwd=ROOT,
        timeout: float = 900) -> list[Done]:
    """Run the commands one after another in one process, where importing `blocked` packages fails."""
    listed = [asdict(c if isinstance(c, Command) else Command(list(map(str, c)))) for c in commands]
    with tempfile.TemporaryDirectory() as folder:
        ended = subprocess.run([sys.executable, __file__, folder], cwd=cwd, env=ENVIRONMENT, text=True,
                               input=json.dumps([listed, list(blocked)]), capture_output=True, timeout=timeout)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return [Done(status, Path(folder, f"{n}.out").read_text(), Path(folder, f"{n}.err").read_text(), imported)
                for n, (status, imported) in enumerate(json.loads(Path(folder, "statuses").read_text()))]


class Blocker:
    """A meta-path finder that knows no framework."""

    def __init__(self, names: Sequence[str]):
        self.names = names

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in self.names:
            raise ModuleNotFoundError(f"{name} is blocked", name=name)


def main(folder: str) -> None:
    from jittwin import cli
    commands, blocked = json.load(sys.stdin)
    sys.meta_path.insert(0, Blocker(blocked))
    fsync, statuses = os.fsync, []
    for number, command in enumerate(commands):
        limit_resources(command, fsync)
        before = [os.dup(1), os.dup(2)]
        for target, name in ((1, "out"), (2, "err")):
            file = os.open(Path(folder, f"{number}.{name}"), os.O_CREAT | os.O_WRONLY)
            os.dup2(file, target)
            os.close(file)
        try:
            status = perform(command["argv"], cli.main)
        except SystemExit as end:
            status = end.code
        except BaseException:  # as the interpreter does
            traceback.print_exc()
            status = 1
        finally:
            sys.stdout.flush(), sys.stderr.flush()
            for target, saved in enumerate(before, 1):
                os.dup2(saved, target)
                os.close(saved)
        limit_resources({"disk_full_after": None, "file_limit": None}, fsync)
        statuses.append((status, [name for name in blocked if name in sys.modules]))
    Path(folder, "statuses").write_text(json.dumps(statuses))


def perform(argv: list[str], jittwin) -> int:
    """The exit status, returned or raised, of a `jittwin` command or a script."""
    if not argv[0].endswith(".py"):
        return jittwin(argv)
    sys.argv = [str(ROOT / "scripts" / argv[0]), *argv[1:]]
    sys.path.insert(0, str(ROOT / "scripts"))
    runpy.run_path(sys.argv[0], run_name="__main__")


def limit_resources(command: dict, fsync) -> None:
    """Let the disk seem full, or files too large, for one command."""
    left = command["disk_full_after"]

    def failing(descriptor):
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    os.fsync = fsync if left is None else failing
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (command["file_limit"] or hard, hard))


if __name__ == "__main__":
    main(sys.argv[1])
