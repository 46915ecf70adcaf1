"""What a run leaves to read: log.jsonl, TensorBoard events, sample pictures, a progress bar.

log.jsonl holds nothing that depends on the clock or the machine, so that a resumed run's file is
equal, byte for byte, to an uninterrupted one's. Times belong to TensorBoard and the bar.
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
    """The log of one run directory, cut back to where a checkpoint left it.

    position: bytes of log.jsonl to keep. step: optimizer steps already done. `bar.total` is the
    caller's to set. Use as a context manager.
    """

    def __init__(self, run: str | os.PathLike, position: int = 0, step: int = 0):
        self.run = Path(run)
        (self.run / "samples").mkdir(parents=True, exist_ok=True)
        self._lines = open(self.run / "log.jsonl", "ab")
        self._lines.truncate(min(position, self._lines.tell()))
        self._lines.seek(0, os.SEEK_END)     # else sync() would go on to tell the old length
        self._events = Events(self.run, step)
        self.bar = tqdm(initial=step, unit="step", file=sys.stderr, dynamic_ncols=True, delay=1,
                        mininterval=0.5 if sys.stderr.isatty() else 10.0)

    def __enter__(self) -> "Logbook":
        return self

    def __exit__(self, error: type[BaseException] | None, *_) -> None:
        self.bar.close()
        # On a full disk closing fails like the write before it, whose error says more.
        with contextlib.suppress(*[OSError] if error else []):
            self._lines.close()
        with contextlib.suppress(*[OSError] if error else []):
            self._events.close()

    def losses(self, phase: str, epoch: int, step: int, terms: dict[str, float]) -> None:
        """One line of log.jsonl. step: optimizer steps completed in the run before this one."""
        record = {"phase": phase, "epoch": epoch, "step": step, **terms}
        self._lines.write((json.dumps(record) + "\n").encode())
        self._lines.flush()
        for name, value in terms.items():
            self._events.scalar(name, value, step)
        if rate := self.bar.format_dict["rate"]:
            self._events.scalar("steps_per_second", rate, step)
        self.bar.set_postfix({name: f"{value:.3g}" for name, value in terms.items()}, refresh=False)

    def measures(self, phase: str, epoch: int, step: int, values: dict[str, float | None]) -> None:
        """One line of log.jsonl on held-out data, after `step` steps of the run; null where undefined."""
        named = {f"held_out/{name}": value for name, value in values.items()}
        record = {"phase": phase, "epoch": epoch, "step": step, **named}
        self._lines.write((json.dumps(record) + "\n").encode())
        for name, value in named.items():
            if value is not None:
                self._events.scalar(name, value, step)

    def picture(self, name: str, picture: np.ndarray, step: int) -> None:
        """samples/<name>.png and TensorBoard; picture: uint8 (H, W, 3)."""
        save_image(self.run / "samples" / f"{name}.png", picture)
        self._events.picture("samples", picture, step)

    def note(self, text: str) -> None:
        """A line on stderr that does not break the bar."""
        if self.bar.last_print_t < self.bar.start_t + self.bar.delay:
            # Not shown yet; bar.write would show it after all, and close() would not end its line.
            print(text, file=sys.stderr)
        else:
            self.bar.write(text, file=sys.stderr)

    def sync(self) -> int:
        """Bring everything to disk; returns the position a checkpoint should remember."""
        self._lines.flush()
        os.fsync(self._lines.fileno())
        self._events.flush()
        return self._lines.tell()


class Events:
    """A TensorBoard event file; nothing is written where tensorboardX is not installed.

    tensorboardX's SummaryWriter is passed by: its thread dies silently on a full disk, after which
    every call blocks.
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
        # Tells TensorBoard to drop what a killed run wrote beyond its checkpoint.
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
    """tensorboardX imports torch wherever it is installed, though event files do not need it."""
    hidden = "torch" not in sys.modules
    if hidden:
        sys.modules["torch"] = None
    try:
        yield
    finally:
        if hidden:
            del sys.modules["torch"]
