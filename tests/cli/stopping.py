"""What the tests of resumed runs share: stopping a run, and everything that two runs must have in common."""
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

from commands import ENVIRONMENT, ROOT


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
