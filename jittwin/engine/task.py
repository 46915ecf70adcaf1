"""What a task is: the part of training that differs between models, as the engine sees it.

A task is one file `jittwin/tasks/<name>.py` holding `Config`, a frozen dataclass that extends
`RunConfig`, and `Task(config, backend, data_dir, out_dir)`, which follows the protocol below;
`Plain` has what most tasks leave as it is.
"""
from dataclasses import dataclass
from typing import Any, ClassVar, Iterator, Literal, Protocol

import numpy as np

from jittwin.backend import PRECISIONS
from jittwin.draws import Draws


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """The settings every task has. A step is one optimizer update (`accumulation` batches)."""

    PRESETS: ClassVar[dict[str, dict]] = {}
    TRAINS_IN: ClassVar[tuple[str, ...]] = PRECISIONS      # the legal values of `precision`

    seed: int = 0                    # keys every draw, shuffle and initial weight
    max_steps: int | None = None     # stop after this many steps of the whole run; none: all epochs
    accumulation: int = 1            # batches whose gradients make one step
    clip: float | None = None        # gradient norm the task hands to backend.step; none: no clipping
    ema: float = 0.0                 # decay of the averaged weights; 0: none are kept
    precision: str = "float32"       # of matrix products inside a model's autocast; all else is float32
    log_every: int = 10              # steps between lines of log.jsonl, counted from step 0
    sample_every: int = 0            # steps between sample grids; 0: one per saved epoch
    save_every: int = 0              # steps between checkpoints inside an epoch; 0: none
    save_epochs: int = 1             # epochs between checkpoints (a phase may say otherwise)
    keep_epochs: int = 1             # of those, the multiples of this epoch number are kept for good
    keep_optimizers: Literal["all", "newest"] = "all"   # checkpoints with optimizer state: what --continue goes back to

    # What may change between a run and its resumption without changing what is learnt.
    FREE_TO_CHANGE: ClassVar[tuple[str, ...]] = (
        "max_steps", "log_every", "sample_every", "save_every", "save_epochs", "keep_epochs", "keep_optimizers")
    # Settings that runs of an earlier version did not have. At its default, one of them leaves the hash of a
    # run's settings as that version computed it, so that such a run can be resumed.
    ADDED_LATER: ClassVar[tuple[str, ...]] = ("precision",)

    def __post_init__(self):
        """ValueError for numbers that make no sense; a subclass with its own checks calls super()."""
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
    """A stretch of epochs, both ends included, that shares modules and optimizers. Epochs count from 1."""

    name: str
    first_epoch: int
    last_epoch: int
    save_epochs: int | None = None   # none: RunConfig.save_epochs


@dataclass(frozen=True)
class StepContext:
    """Where training stands when a batch is handed to the task."""

    epoch: int                       # from 1, over the whole run
    step: int                        # optimizer steps completed in this epoch
    global_step: int                 # optimizer steps completed in the whole run
    draws: Draws                     # keyed by (seed, epoch, number of the batch in the epoch)
    accumulate: bool = False         # hand to backend.step: only add gradients, this is not the last batch
    loss_factor: float = 1.0             # 1 / accumulation: factor of every loss given to backend.step


class Loader(Protocol):
    """Batches of one epoch, in an order that depends on (seed, epoch) alone."""

    def __len__(self) -> int:
        """Batches per epoch."""

    def epoch(self, epoch: int, start: int = 0) -> Iterator[dict]:
        """A generator of batches that leaves out the first `start` without decoding them."""


class Task(Protocol):
    """One training job. Constructed as Task(config, backend, data_dir, out_dir)."""

    phases: list[Phase]              # contiguous, in order
    modules: dict[str, Any]          # what a checkpoint saves: {"G": module, ...}
    optimizers: dict[str, Any]
    ema_modules: tuple[str, ...]     # names of modules whose weights are averaged when config.ema > 0

    def enter_phase(self, phase: Phase) -> None:
        """Build the modules and optimizers of the phase, carrying weights over from the one before.

        A restored run enters the phase of its checkpoint first, with no phase before it.
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
        """A uint8 (H, W, 3) picture grid, or None. Must leave weights and statistics as they were."""

    def checkpoint_metadata(self) -> dict:
        """Metadata for every weights file: at least {"model": ..., "config": ...}."""

    # Plain has the rest.
    frozen: tuple[str, ...]          # shell patterns of the weights that never change, which no checkpoint holds
    partial_steps: bool              # the batches left over at the end of an epoch make a step as well
    best: dict[str, str]             # measures that a best checkpoint is kept by, "lower" or "higher" is better
    notes: tuple[str, ...]           # lines about the data and settings, shown when training starts

    def evaluate(self, context: StepContext) -> dict[str, float]:
        """Measures of a finished epoch, taken before its checkpoint is written; nan where undefined.

        Must leave weights and statistics as they were.
        """

    def inputs(self) -> dict[str, str]:
        """Hashes, by name, of what a run depends on besides its settings; a resumed run must find the same."""

    def epoch_saved(self, name: str, state: dict) -> None:
        """Write what else an epoch leaves, once its checkpoint is whole.

        Called again when a run resumes, with the state it resumes from, which may lie inside an epoch.
        """


class Plain:
    """A task without frozen weights, held-out measures and files of its own."""

    frozen: tuple[str, ...] = ()
    partial_steps = False
    best: dict[str, str] = {}
    notes: tuple[str, ...] = ()

    def evaluate(self, context: StepContext) -> dict[str, float]:
        return {}

    def inputs(self) -> dict[str, str]:
        return {}

    def epoch_saved(self, name: str, state: dict) -> None:
        pass
