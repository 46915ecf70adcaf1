"""Checkpoints that stay usable when the process is killed at any moment.

<run>/checkpoints/<name>/   G.safetensors, G.ema.safetensors, ..., optimizer.safetensors, state.json
<run>/latest                the name of the newest one
<run>/best.json             {measure: {"checkpoint": name, "score": value}, ...}, if the task takes measures;
                            the first measure decides which checkpoint is the best

A checkpoint is written as `.writing-<name>`, flushed to disk and renamed, then `latest` is replaced, so
`latest` names a complete checkpoint at every instant. best.json repeats an entry of that checkpoint's
state.json, so a kill between the two writes loses nothing. `<name>` is the epoch ("12", finished) or
"12.340" (340 steps into epoch 12).

Old checkpoints, and optimizer states that are no longer kept, are deleted last. A kill before or during the
deletion leaves too many files, never too few.
"""
import contextlib
import errno
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from jittwin.atomic import remove_leftovers, sync_folder, write_file
from jittwin.errors import UserError, did_you_mean
from jittwin.weights import read_weights, write_weights

Arrays = Mapping[str, np.ndarray]

OPTIMIZER = "optimizer"      # the file of a checkpoint that training needs to continue from it
_WRITING, _REPLACED = ".writing-", ".replaced-"
_FULL = (errno.ENOSPC, errno.EDQUOT)


class Checkpoints:
    """The checkpoints of one run directory.

    keep_epochs: checkpoints of finished epochs that are multiples of this number are kept; the newest and the
    best are always kept. keep_optimizers: which of them keep their optimizer state, "all" or the "newest".
    """

    def __init__(self, run: str | os.PathLike, keep_epochs: int = 1, keep_optimizers: str = "all"):
        self.run = Path(run)
        self.folder = self.run / "checkpoints"
        self.keep_epochs, self.keep_optimizers = keep_epochs, keep_optimizers

    def clean(self) -> None:
        """Remove or restore what a killed process left half done."""
        for path in self.folder.glob(f"{_WRITING}*"):
            shutil.rmtree(path)
        for path in self.folder.glob(f"{_REPLACED}*"):
            whole = path.with_name(path.name.removeprefix(_REPLACED))
            if whole.exists():
                shutil.rmtree(path)
            else:
                path.rename(whole)
        for folder in (self.run, self.run / "samples"):
            remove_leftovers(folder)

    def names(self) -> list[str]:
        """The names of all complete checkpoints, oldest first."""
        found = (path.name for path in self.folder.glob("*") if re.fullmatch(r"\d+(\.\d+)?", path.name))
        # A finished epoch comes after every checkpoint inside it.
        return sorted(found, key=lambda name: [int(part) for part in name.split(".")] + [1 << 62])

    def latest(self) -> str | None:
        pointer = self.run / "latest"
        return pointer.read_text().strip() if pointer.exists() else None

    def best(self) -> dict | None:
        """{"checkpoint": name, "score": value} by the first measure, or None."""
        return next(iter(self.bests().values()), None)

    def bests(self) -> dict[str, dict]:
        """{"checkpoint": name, "score": value} of the best checkpoint, by measure; the first measure decides."""
        path = self.run / "best.json"
        return _read(path) if path.exists() else {}

    def save(self, name: str, files: Iterable[tuple[str, Arrays]], state: dict, metadata: Mapping) -> None:
        """Write one checkpoint, point `latest` to it, and then thin the others.

        files: (stem, arrays) of each file, for example "G", "G.ema", "optimizer"; may be a generator.
        state["best"], where there is one, becomes best.json.
        UserError when the disk is full; the previous checkpoint is then intact.
        """
        writing, whole = self.folder / f"{_WRITING}{name}", self.folder / name
        with self.failure_explained():
            writing.mkdir(parents=True)
            for stem, arrays in files:
                write_weights(writing / f"{stem}.safetensors", arrays, {**metadata, "module": stem})
            write_file(writing / "state.json", json.dumps(state, indent=1) + "\n")
            sync_folder(writing)
            replaced = self.folder / f"{_REPLACED}{name}"
            if whole.exists():
                whole.rename(replaced)
            writing.rename(whole)
            sync_folder(self.folder)
            self.point_to(name, state)
        shutil.rmtree(replaced, ignore_errors=True)
        self.thin()

    def point_to(self, name: str, state: Mapping) -> None:
        """Make `name`, whose state is given, the checkpoint that a resumption starts from."""
        write_file(self.run / "latest", name + "\n")
        if state.get("best"):
            write_file(self.run / "best.json", json.dumps(state["best"]) + "\n")
        else:
            (self.run / "best.json").unlink(missing_ok=True)

    def state(self, name: str) -> dict:
        """The state that `save` was given. UserError: no such checkpoint; the message names those there are."""
        path = self.folder / name / "state.json"
        if not path.exists():
            names = self.names()
            raise UserError(f"{self.folder}: no checkpoint '{name}'{did_you_mean(name, names)}: "
                            f"there is {', '.join(names) or 'none'}")
        return _read(path)

    def weights(self, name: str, stem: str) -> dict[str, np.ndarray]:
        """One weights file of a checkpoint; stem as given to `save`."""
        return read_weights(self.folder / name / f"{stem}.safetensors")

    def has(self, name: str, stem: str) -> bool:
        return (self.folder / name / f"{stem}.safetensors").exists()

    def check_optimizers(self, name: str) -> None:
        """UserError when checkpoint `name` has no optimizer state; the message names the checkpoints that have it."""
        if not self.has(name, OPTIMIZER):
            others = [other for other in self.names() if self.has(other, OPTIMIZER)]
            raise UserError(f"{self.folder / name}: has no optimizer state to continue with; keep_optimizers=newest "
                            f"keeps only that of the newest checkpoint: choose from {', '.join(others) or 'none'}")

    def thin(self) -> None:
        """Delete the checkpoints and the optimizer states that are no longer kept."""
        latest = self.latest()
        kept = {latest, *(record["checkpoint"] for record in self.bests().values())}
        for name in self.names():
            on_schedule = "." not in name and int(name) % self.keep_epochs == 0
            if not on_schedule and name not in kept:
                # Renamed first, so that after a kill a half-deleted folder is not taken for a checkpoint.
                shutil.rmtree((self.folder / name).rename(self.folder / f"{_WRITING}{name}"))
            elif self.keep_optimizers == "newest" and name != latest:
                (self.folder / name / f"{OPTIMIZER}.safetensors").unlink(missing_ok=True)

    @contextlib.contextmanager
    def failure_explained(self) -> Iterator[None]:
        """After an error only complete checkpoints are left; a full disk becomes a UserError of one line."""
        try:
            yield
        except BaseException as error:
            self.clean()
            if disk_full(error):
                kept = self.latest()
                advice = (f"checkpoint {kept} is intact: free space and continue with --resume" if kept
                          else "nothing was saved yet: free space and start again")
                raise UserError(f"{self.run}: the disk is full; {advice}") from error
            raise


def _read(path: Path) -> dict:
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path}: damaged ({error}): restore it, or go back with --continue EPOCH") from error


def disk_full(error: BaseException | None) -> bool:
    """True when `error`, or an error that caused it, says that no space is left."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            return True
        error = error.__cause__
    return False
