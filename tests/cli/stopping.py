"""What the tests of training commands share: whole and stopped runs, and everything that two runs must have in common."""
import functools
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from commands import ENVIRONMENT, ROOT, run


def trained_once(command: Callable[[str, Path], list[str]], factory) -> Callable[[str], Path]:
    """A function of the backend: the folder of its uninterrupted run, to which nobody may write.

    command: of a backend and a folder. factory: pytest's tmp_path_factory.
    """
    @functools.cache
    def finished(backend: str) -> Path:
        folder = factory.mktemp(backend) / "run"
        run(command(backend, folder))[0].ok()
        return folder
    return finished


def everything(folder: Path) -> dict[str, bytes]:
    """All of a run but the TensorBoard events, which hold times."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*")
            if path.is_file() and not path.name.startswith("events.")}


def log(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def stopped(command: list[str], folder: Path, checkpoint: str, how: signal.Signals) -> int:
    """Run a training command until `latest` names the checkpoint, then send a signal; the exit status."""
    process = subprocess.Popen([sys.executable, "-m", "jittwin", *command], cwd=ROOT, env=ENVIRONMENT,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    latest, deadline = folder / "latest", time.monotonic() + 300
    while not (latest.exists() and latest.read_text().strip() == checkpoint):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(how)
    return process.wait(300)
