"""The records of a run: log.jsonl, TensorBoard events, sample pictures, and a progress bar.

log.jsonl holds nothing that depends on the clock or the machine, so the file of a resumed run
equals that of an uninterrupted run byte for byte. Times go to TensorBoard and to the progress bar.
"""
import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from jittwin.imaging import save_image


class Logbook:
    """The log of one run directory. Use as a context manager.

    position: number of bytes of log.jsonl to keep; lines after it are deleted. step: number of optimizer
    steps already done. The caller sets `bar.total`.
    """

    def __init__(self, run: str | os.PathLike, position: int = 0, step: int = 0):
        self.run = Path(run)
        (self.run / "samples").mkdir(parents=True, exist_ok=True)
        self._lines = open(self.run / "log.jsonl", "ab")
        self._lines.truncate(min(position, self._lines.tell()))
        self._lines.seek(0, os.SEEK_END)     # without this, sync() would return the old length
        self._events = Events(self.run, step)
        self.bar = tqdm(initial=step, unit="step", file=sys.stderr, dynamic_ncols=True, delay=1,
                        mininterval=0.5 if sys.stderr.isatty() else 10.0)

    def __enter__(self) -> "Logbook":
        return self

    def __exit__(self, error: type[BaseException] | None, *_) -> None:
        self.bar.close()
        # On a full disk, closing fails like the write before it. The error of the write says more.
        with contextlib.suppress(*[OSError] if error else []):
            self._lines.close()
        with contextlib.suppress(*[OSError] if error else []):
            self._events.close()

    def losses(self, phase: str, epoch: int, step: int, terms: dict[str, float]) -> None:
        """Write the loss terms of a step to log.jsonl. step: number of optimizer steps completed before it."""
        record = {"phase": phase, "epoch": epoch, "step": step, **terms}
        self._lines.write((json.dumps(record) + "\n").encode())
        self._lines.flush()
        for name, value in terms.items():
            self._events.scalar(name, value, step)
        if rate := self.bar.format_dict["rate"]:
            self._events.scalar("steps_per_second", rate, step)
        self.bar.set_postfix({name: f"{value:.3g}" for name, value in terms.items()}, refresh=False)

    def measures(self, phase: str, epoch: int, step: int, values: dict[str, float | None]) -> None:
        """Write measures, taken after `step` steps, to log.jsonl; an undefined one is null.

        They are of held-out data, except those whose name begins with another place, such as train/srcc.
        """
        named = {name if "/" in name else f"held_out/{name}": value for name, value in values.items()}
        record = {"phase": phase, "epoch": epoch, "step": step, **named}
        self._lines.write((json.dumps(record) + "\n").encode())
        for name, value in named.items():
            if value is not None:
                self._events.scalar(name, value, step)

    def picture(self, name: str, picture: np.ndarray, step: int) -> None:
        """Write a picture, uint8 (H, W, 3), to samples/<name>.png and to TensorBoard."""
        save_image(self.run / "samples" / f"{name}.png", picture)
        self._events.picture("samples", picture, step)

    def note(self, text: str) -> None:
        """Print a line on stderr without breaking the progress bar."""
        if self.bar.last_print_t < self.bar.start_t + self.bar.delay:
            # The bar is not shown yet. bar.write would show it, and close() would not end its line.
            print(text, file=sys.stderr)
        else:
            self.bar.write(text, file=sys.stderr)

    def sync(self) -> int:
        """Flush everything to disk; returns the length of log.jsonl in bytes, which a checkpoint stores."""
        self._lines.flush()
        os.fsync(self._lines.fileno())
        self._events.flush()
        return self._lines.tell()


class Silent:
    """The log of a process that does not write; see Logbook."""

    def __init__(self):
        self.bar = tqdm(disable=True)

    def losses(self, *_) -> None:
        pass

    measures = picture = note = losses

    def sync(self) -> int:
        return 0


class Events:
    """A TensorBoard event file; nothing is written where tensorboardX is not installed.

    tensorboardX's SummaryWriter is not used: on a full disk its thread dies silently, and every later
    call blocks.
    """

    def __init__(self, folder: Path, step: int):
        try:
            with _without_torch():
                from tensorboardX import event_file_writer, summary
                from tensorboardX.proto import event_pb2
        except ImportError:
            self._writer = None
            print("no TensorBoard events are written: pip install tensorboardX for them", file=sys.stderr)
            return
        self._summary, self._event = summary, event_pb2.Event
        self._writer = event_file_writer.EventsWriter(str(folder / "events"), f".{os.getpid()}")
        # This event tells TensorBoard to drop what a killed run wrote after its last checkpoint.
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._writer.write_event(self._event(wall_time=time.time(), step=step, session_log=start))

    def scalar(self, name: str, value: float, step: int) -> None:
        if self._writer:
            self._write(self._summary.scalar(name, value), step)

    def picture(self, name: str, picture: np.ndarray, step: int) -> None:
        if self._writer:
            self._write(self._summary.image(name, picture, dataformats="HWC"), step)

    def flush(self) -> None:
        if self._writer:
            self._writer.flush()

    def close(self) -> None:
        if self._writer:
            self._writer.close()

    def _write(self, summary, step: int) -> None:
        self._writer.write_event(self._event(wall_time=time.time(), step=step, summary=summary))


@contextlib.contextmanager
def _without_torch() -> Iterator[None]:
    """Hide torch, which tensorboardX imports wherever it is installed although event files do not need it."""
    hidden = "torch" not in sys.modules
    if hidden:
        sys.modules["torch"] = None
    try:
        yield
    finally:
        if hidden:
            del sys.modules["torch"]
