"""Runs commands as a user would: several in one process to save start-up, each with its own output.

    done = run(["train", ...], ["generate", ...])[-1]
    run(Command(["train", ...], disk_full_after=3), blocked=["torch"])

A command is the arguments of `jittwin`, or the name of a script in scripts/ and its arguments. The process is a fork
of one that has imported the commands' framework and done nothing else: importing takes longer than most commands.
"""
import atexit
import contextlib
import errno
import functools
import gc
import importlib
import json
import os
import resource
import runpy
import select
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from pkgutil import iter_modules

ROOT = Path(__file__).resolve().parents[2]
BACKENDS = ("jittor", "torch")
# What a template imports.
PRELOADED = {"jittor": ["jt_models.backend"], "torch": ["torch_models.backend", "transformers", "peft"]}
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


def run(*commands: Command | Sequence[str], blocked: Sequence[str] = (), cwd=ROOT, backend: str = "",
        timeout: float = 900) -> list[Done]:
    """Run the commands one after another in one process, where importing `blocked` packages fails.

    backend: the one that the commands use, where none of them names it. Where packages are blocked, the process is a
    new one.
    """
    listed = [asdict(c if isinstance(c, Command) else Command(list(map(str, c)))) for c in commands]
    named = {command["argv"][i + 1] for command in listed for i, word in enumerate(command["argv"][:-1])
             if word == "--backend"} & set(BACKENDS) or {backend}
    with tempfile.TemporaryDirectory() as folder:
        request = {"folder": folder, "commands": listed, "blocked": list(blocked), "cwd": os.fspath(cwd)}
        if blocked:
            with contextlib.closing(Template("")) as new:
                new.run(request, timeout)
        else:
            template(named.pop() if len(named) == 1 else "").run(request, timeout)
        return [Done(status, Path(folder, f"{n}.out").read_text(), Path(folder, f"{n}.err").read_text(), imported)
                for n, (status, imported) in enumerate(json.loads(Path(folder, "statuses").read_text()))]


class Template:
    """A process that imports one framework, or none for "", and forks for every run."""

    def __init__(self, backend: str):
        self.log = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen([sys.executable, __file__, backend], cwd=ROOT, env=ENVIRONMENT, text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log)

    def run(self, request: dict, timeout: float) -> None:
        """Run the request's commands; what the process says where it comes to no end is the assertion's message."""
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        ready, _, _ = select.select([self.process.stdout], [], [], timeout)
        status = self.process.stdout.readline() if ready else f"no answer in {timeout:.0f} s"
        if status != "0\n":
            self.close()
            template.cache_clear()
            self.log.seek(0)
            raise AssertionError(f"{status}\n{self.log.read()}")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


@functools.cache
def template(backend: str) -> Template:
    """The template of a backend, which lives as long as the tests."""
    made = Template(backend)
    atexit.register(made.close)
    return made


class Blocker:
    """A meta-path finder that knows no framework."""

    def __init__(self, names: Sequence[str]):
        self.names = names

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in self.names:
            raise ModuleNotFoundError(f"{name} is blocked", name=name)


def serve(backend: str) -> None:
    """Fork for every line of stdin, which is a request, and answer with the exit status of the fork."""
    for found in iter_modules([ROOT / "jittwin" / "commands"]):
        importlib.import_module(f"jittwin.commands.{found.name}")
    for module in PRELOADED.get(backend, ()):
        importlib.import_module(module)
    gc.freeze()         # or every fork would spend a second at its end on freeing what was imported
    for line in sys.stdin:
        child = os.fork()
        if not child:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            return perform_each(**json.loads(line))     # and end as every interpreter does
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def perform_each(folder: str, commands: list[dict], blocked: list[str], cwd: str) -> None:
    """Run the commands; what each printed, and how it ended, is written to the folder."""
    from jittwin import cli
    os.chdir(cwd)
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
    serve(sys.argv[1])
