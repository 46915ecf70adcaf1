"""The protocol of a task: the part of training that differs between models.

A task is one file `jittwin/tasks/<name>.py` holding `Config`, a frozen dataclass that extends
`RunConfig`, and `Task(config, backend, data_dir, out_dir)`, which follows the protocol below.
`Plain` has defaults for the members that many tasks do not need.
"""
from dataclasses import dataclass
from typing import Any, ClassVar, Iterator, Literal, Protocol

import numpy as np

from jittwin.backend import PRECISIONS, Backend
from jittwin.draws import Draws
from jittwin.errors import UserError


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """The settings every task has. A step is one optimizer update (`accumulation` batches)."""

    PRESETS: ClassVar[dict[str, dict]] = {}
    TRAINS_IN: ClassVar[tuple[str, ...]] = PRECISIONS      # the legal values of `precision`

    seed: int = 0                    # keys every draw, shuffle and initial weight
    max_steps: int | None = None     # stop after this many steps of the whole run; none: all epochs
    accumulation: int = 1            # batches whose gradients make one step
    global_batch: Literal["scaled", "kept"] = "scaled"  # several processes: batch_size pictures each, or all together
    clip: float | None = None        # largest gradient norm, see backend.step; none: no clipping
    ema: float = 0.0                 # decay of the averaged weights; 0: none are kept
    ema_form: Literal["rising", "constant"] = "rising"      # how that decay begins, see jittwin.engine.ema.Ema
    precision: str = "float32"       # of the matrix products inside a model's autocast; all else is float32
    log_every: int = 10              # steps between lines of log.jsonl, counted from step 0
    sample_every: int = 0            # steps between sample grids; 0: one per saved epoch
    save_every: int = 0              # steps between checkpoints inside an epoch; 0: none
    save_epochs: int = 1             # epochs between checkpoints (a phase may say otherwise)
    keep_epochs: int = 1             # checkpoints of epochs that are multiples of this number are never deleted
    keep_optimizers: Literal["all", "newest"] = "all"   # which checkpoints keep what --continue needs

    # Settings that may change when a run is resumed, because they do not change what is learnt.
    FREE_TO_CHANGE: ClassVar[tuple[str, ...]] = (
        "max_steps", "log_every", "sample_every", "save_every", "save_epochs", "keep_epochs", "keep_optimizers")
    # Settings that an earlier version did not have. They are excluded from config_hash while they have their
    # defaults, so that runs of that version can be resumed.
    ADDED_LATER: ClassVar[tuple[str, ...]] = ("precision", "ema_form", "global_batch")

    def __post_init__(self):
        """Check the numbers. ValueError: an illegal one. A subclass with its own checks calls super()."""
        for name in ("accumulation", "log_every", "save_epochs", "keep_epochs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        for name in ("sample_every", "save_every", "max_steps"):
            if (getattr(self, name) or 0) < 0:
                raise ValueError(f"{name}={getattr(self, name)} must not be negative")
        if self.clip is not None and not self.clip > 0:
            raise ValueError(f"clip={self.clip} must be above 0, or none")
        if not 0.0 <= self.ema < 1.0:
            raise ValueError(f"ema={self.ema} must be at least 0 and below 1")
        if self.precision not in self.TRAINS_IN:
            raise ValueError(f"precision={self.precision} cannot be trained with: "
                             f"choose from {', '.join(self.TRAINS_IN)}")


@dataclass(frozen=True)
class Phase:
    """A range of epochs, both ends included, that share modules and optimizers. Epochs count from 1."""

    name: str
    first_epoch: int
    last_epoch: int
    save_epochs: int | None = None   # none: RunConfig.save_epochs


@dataclass(frozen=True)
class StepContext:
    """The position of training when the task gets a batch."""

    epoch: int                       # from 1, over the whole run
    step: int                        # optimizer steps completed in this epoch
    global_step: int                 # optimizer steps completed in the whole run
    draws: Draws                     # keyed by (seed, epoch, number of the batch in the epoch)
    accumulate: bool = False         # an argument of backend.step: true when more batches of this step follow
    loss_factor: float = 1.0         # 1 / accumulation times Share.weight: factor of every loss given to backend.step


def joint_batch(config: RunConfig, backend: Backend, size: int) -> int:
    """Pictures in a batch of all processes, where one process has `size`. UserError: they cannot share it evenly."""
    processes = backend.world_size
    if config.global_batch == "scaled":
        return size * processes
    if size % processes:
        raise UserError(f"global_batch=kept: {processes} processes cannot share a batch of {size} evenly: choose a "
                        f"batch size that is a multiple of {processes}, or global_batch=scaled")
    return size


class Loader(Protocol):
    """Batches of one epoch, in an order that depends on (seed, epoch) alone."""

    def __len__(self) -> int:
        """Batches per epoch."""

    def epoch(self, epoch: int, start: int = 0) -> Iterator[dict]:
        """Yield the batches of an epoch; the first `start` are skipped and not decoded.

        If there are several processes, each gets its rows, and batch["share"] says which these are.
        """


class Task(Protocol):
    """One training job. Constructed as Task(config, backend, data_dir, out_dir)."""

    phases: list[Phase]              # contiguous, in order
    modules: dict[str, Any]          # what a checkpoint saves: {"G": module, ...}
    optimizers: dict[str, Any]
    ema_modules: tuple[str, ...]     # names of modules whose weights are averaged when config.ema > 0

    def enter_phase(self, phase: Phase) -> None:
        """Build the modules and optimizers of the phase, carrying weights over from the previous phase.

        A restored run first enters the phase of its checkpoint; it has no previous phase then.
        """

    def loader(self) -> Loader:
        """The loader of the current phase."""

    def begin_epoch(self, epoch: int) -> None:
        """Prepare the epoch: learning rates, heads, warm starts.

        Called once per epoch; when a checkpoint is restored it is called with the epoch of that
        checkpoint before the weights are loaded, so that the modules have the checkpoint's keys.
        """

    def train_step(self, batch: dict, context: StepContext) -> dict[str, Any]:
        """Train on one batch; returns the loss terms as scalar tensors, read back only when logged."""

    def sample(self, context: StepContext) -> np.ndarray | None:
        """A picture grid, uint8 (H, W, 3), or None. Must not change weights and statistics."""

    def checkpoint_metadata(self) -> dict:
        """Metadata for every weights file: at least {"model": ..., "config": ...}."""

    # Plain has defaults for the members below.
    frozen: tuple[str, ...]          # shell patterns of keys whose weights never change; checkpoints exclude them
    partial_steps: bool              # whether the batches left over at the end of an epoch make a step
    averaged: bool                   # whether measures and samples are of the averaged weights, where there are any
    best: dict[str, str]             # a best checkpoint is kept by each measure; "lower" or "higher" is better
    least: dict[str, float]          # a best checkpoint has a better measure than this, where it is given
    notes: tuple[str, ...]           # lines about the data and settings, shown when training starts
    closing: tuple[str, ...]         # lines about the results, shown when training ends

    def evaluate(self, context: StepContext) -> dict[str, float]:
        """Measures of a finished epoch, taken before its checkpoint is written; nan where undefined.

        Must not change weights and statistics.
        """

    def inputs(self) -> dict[str, str]:
        """Hashes, by name, of the files that decide a run besides its settings; a resumed run must have the same."""

    def progress(self) -> dict:
        """What the task remembers from step to step besides modules and optimizers, as JSON values; {} for nothing.

        It is part of every checkpoint's state.json.
        """

    def restore_progress(self, progress: dict) -> None:
        """Inverse of `progress`; {} stands for the start of a run."""

    def run_begun(self) -> None:
        """Write the task's own files of a run, as training starts or goes on. The run's folder is there."""

    def epoch_saved(self, name: str, state: dict) -> None:
        """Write the task's own files of an epoch, after its checkpoint is complete.

        Also called when a run resumes, with the state of the checkpoint, which may lie inside an epoch.
        """


class Plain:
    """A task without frozen weights, held-out measures, memory and files of its own."""

    frozen: tuple[str, ...] = ()
    partial_steps = False
    averaged = False
    best: dict[str, str] = {}
    least: dict[str, float] = {}
    notes: tuple[str, ...] = ()
    closing: tuple[str, ...] = ()

    def evaluate(self, context: StepContext) -> dict[str, float]:
        return {}

    def inputs(self) -> dict[str, str]:
        return {}

    def progress(self) -> dict:
        return {}

    def restore_progress(self, progress: dict) -> None:
        pass

    def run_begun(self) -> None:
        pass

    def epoch_saved(self, name: str, state: dict) -> None:
        pass
