"""The one training loop, for every task and both twins. Read it from top to bottom.

A step is one optimizer update from `accumulation` batches. Everything random is keyed by
(seed, epoch, batch), everything scheduled by step or epoch, so a checkpoint is weights, optimizer
state and a position, and a resumed run repeats an uninterrupted one bit for bit on a CPU.
"""
import contextlib
import hashlib
import json
import math
import os
import signal
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import jittwin
from jittwin import config as settings
from jittwin.atomic import write_file
from jittwin.backend import Backend
from jittwin.draws import Draws
from jittwin.engine.checkpoint import Checkpoints
from jittwin.engine.ema import Ema
from jittwin.engine.logbook import Logbook
from jittwin.engine.task import Clock, Loader, Phase, RunConfig, Task
from jittwin.errors import UserError

INTERRUPTED = 128 + signal.SIGINT


@dataclass
class Position:
    """How far training has come."""

    epoch: int = 1          # the epoch in progress, from 1
    step: int = 0           # steps completed in it
    global_step: int = 0    # steps completed in the run


class Trainer:
    """Drives one task in one run directory.

    info: what state.json should remember about the run besides the position, for example
    {"task": ..., "backend": ..., "data": ...}; plain JSON values.
    """

    def __init__(self, task: Task, backend: Backend, config: RunConfig, run: str | os.PathLike, info: dict):
        self.task, self.backend, self.config, self.info = task, backend, config, info
        self.run = Path(run)
        self.checkpoints = Checkpoints(run, config.keep_epochs)
        self.ema = Ema(config.ema)
        self.at = Position()
        self.phase: Phase | None = None

    def train(self, start: str | None = None) -> int:
        """Train to the last epoch, to max_steps or to SIGINT, always ending on a checkpoint.

        start: name of the checkpoint to go on from. Returns the exit status, 0 or 130.
        UserError: a loss that is not finite, a full disk, a checkpoint that does not fit.
        """
        task, at = self.task, self.at
        log_position = self.restore(start) if start else 0
        if not start:
            self.enter(task.phases[0])
        self.steps_per_epoch(task.loader())    # what is wrong with the settings shows before anything is written
        self.run.mkdir(parents=True, exist_ok=True)
        with self.checkpoints.failure_explained():
            if start:
                self.checkpoints.point_to(start)
            write_file(self.run / "config.yaml", settings.dump(self.config))
            with Logbook(self.run, log_position, at.global_step) as log, interrupts() as interrupted:
                return self.train_phases(log, interrupted)

    def train_phases(self, log: Logbook, interrupted: list) -> int:
        """Every phase from where training stands; returns the exit status."""
        task, at = self.task, self.at
        for phase in task.phases:
            if at.epoch > phase.last_epoch or self.at_limit():
                continue
            at.epoch = max(at.epoch, phase.first_epoch)    # a run may consist of a later phase alone
            self.enter(phase)
            loader = task.loader()
            log.bar.total = self.total_steps(self.steps_per_epoch(loader))
            while at.epoch <= phase.last_epoch and not self.at_limit():
                if self.train_epoch(loader, log, interrupted):
                    log.note(self.farewell("interrupted") + "; go on with --resume")
                    return INTERRUPTED
        log.note(self.farewell("finished"))
        return 0

    def train_epoch(self, loader: Loader, log: Logbook, interrupted: list) -> bool:
        """The rest of the epoch in progress; True when an interrupt ended it, after a checkpoint."""
        at, steps = self.at, self.steps_per_epoch(loader)
        if at.step == 0:
            self.task.begin_epoch(at.epoch)
        with contextlib.closing(loader.epoch(at.epoch, self.batches_done())) as batches:
            while at.step < steps and not self.at_limit():
                terms = self.step(batches)
                stop = bool(interrupted)
                self.record(log, terms, epoch_done=at.step == steps, interrupted=stop)
                del terms  # with what lazy evaluation keeps alive for them
                log.bar.update()
                if stop:
                    return True
        if at.step == steps:
            at.epoch, at.step = at.epoch + 1, 0
        return False

    def step(self, batches: Iterator[dict]) -> list[dict]:
        """One optimizer step; returns the loss terms of its batches, still on the device."""
        at, count = self.at, self.config.accumulation
        terms = []
        for part in range(count):
            draws = Draws(self.config.seed, at.epoch, at.step * count + part)
            self.backend.seed(draws.device_seed())
            clock = Clock(at.epoch, at.step, at.global_step, draws, part + 1 < count, 1 / count)
            terms.append(self.task.train_step(next(batches), clock))
        at.step += 1
        at.global_step += 1
        if self.config.ema:
            for name in self.task.ema_modules:
                self.ema.update(name, self.backend.state_numpy(self.task.modules[name]), at.global_step)
        return terms

    def record(self, log: Logbook, terms: list[dict], epoch_done: bool, interrupted: bool) -> None:
        """Log, sample and save what is due after a step. Losses are read back only here, when needed."""
        at, config = self.at, self.config
        last = epoch_done and at.epoch == self.task.phases[-1].last_epoch
        save_epoch = epoch_done and at.epoch % (self.phase.save_epochs or config.save_epochs) == 0
        stop = last or interrupted or self.at_limit()
        save = stop or save_epoch or due(at.global_step, config.save_every)
        log_line = (at.global_step - 1) % config.log_every == 0
        if log_line or save:
            values = self.read(terms)
        if log_line:
            log.losses(self.phase.name, at.epoch, at.global_step - 1, values)
        name = str(at.epoch) if epoch_done else f"{at.epoch}.{at.step}"
        if due(at.global_step, config.sample_every) or (not config.sample_every and (save_epoch or last)):
            picture = self.task.sample(self.clock())
            if picture is not None:
                log.picture(name, picture, at.global_step)
        if save:
            self.save(name, epoch_done, log.sync())

    def read(self, terms: list[dict]) -> dict[str, float]:
        """Loss terms as numbers, the mean over the batches of a step. UserError when one is not finite."""
        scalar = self.backend.scalar
        values = {name: sum(scalar(part[name]) for part in terms) / len(terms) for name in terms[0]}
        for name, value in values.items():
            if not math.isfinite(value):
                latest = self.checkpoints.latest()
                raise UserError(f"{self.run}: loss '{name}' is {value} at step {self.at.global_step - 1} "
                                f"(epoch {self.at.epoch}): lower the learning rate or set clip"
                                + (f"; checkpoint {latest} is intact" if latest else ""))
        return values

    def save(self, name: str, epoch_done: bool, log_position: int) -> None:
        """Write checkpoint `name` and let the task's score decide whether it is the best."""
        state = {**asdict(self.at), "epoch_done": epoch_done, "phase": self.phase.name,
                 "loader_position": self.batches_done(), "log_position": log_position,
                 "seed": self.config.seed, "config_hash": config_hash(self.config),
                 "jittwin": jittwin.__version__, **self.info}
        self.checkpoints.save(name, self.files(), state, self.task.checkpoint_metadata())
        score = self.task.score(self.clock()) if epoch_done else None
        if score is not None:
            self.checkpoints.mark_best(name, float(score))

    def files(self) -> Iterator[tuple[str, dict]]:
        """(name, arrays) of every file of a checkpoint, one in memory at a time."""
        for stem, module in self.task.modules.items():
            yield stem, self.backend.state_numpy(module)
        for stem, arrays in self.ema.averages.items():
            yield f"{stem}.ema", arrays
        yield "optimizer", {f"{stem}/{key}": array for stem, optimizer in self.task.optimizers.items()
                            for key, array in self.backend.optimizer_state(optimizer).items()}

    def restore(self, name: str) -> int:
        """Put modules, optimizers, averages and position as they were; returns the log's position."""
        state, at = self.checkpoints.state(name), self.at
        phases, epoch = self.task.phases, state["epoch"]
        phase = next((phase for phase in phases if phase.first_epoch <= epoch <= phase.last_epoch), None)
        if phase is None:
            raise UserError(f"{self.run}: checkpoint {name} is of epoch {epoch}, but these settings "
                            f"train epochs {phases[0].first_epoch} to {phases[-1].last_epoch}")
        self.enter(phase)
        self.task.begin_epoch(epoch)
        for stem, module in self.task.modules.items():
            try:
                self.backend.load_numpy(module, self.checkpoints.weights(name, stem))
            except UserError as error:
                raise UserError(f"{self.checkpoints.folder / name}, {stem}: {error}") from error
            averaged = self.config.ema and stem in self.task.ema_modules
            if averaged and self.checkpoints.has(name, f"{stem}.ema"):
                self.ema.averages[stem] = self.checkpoints.weights(name, f"{stem}.ema")
        arrays = self.checkpoints.weights(name, "optimizer")
        for stem, optimizer in self.task.optimizers.items():
            own = {key[len(stem) + 1:]: array for key, array in arrays.items() if key.startswith(f"{stem}/")}
            self.backend.load_optimizer_state(optimizer, own)
        at.epoch, at.step, at.global_step = epoch, state["step"], state["global_step"]
        if state["epoch_done"]:
            at.epoch, at.step = at.epoch + 1, 0
        return state["log_position"]

    def enter(self, phase: Phase) -> None:
        if phase is not self.phase:
            self.task.enter_phase(phase)
            self.phase = phase

    def clock(self) -> Clock:
        """For samples and scores, whose draws are the same throughout the run, so that pictures compare."""
        draws = Draws(self.config.seed)
        self.backend.seed(draws.device_seed())
        return Clock(self.at.epoch, self.at.step, self.at.global_step, draws)

    def steps_per_epoch(self, loader: Loader) -> int:
        steps = len(loader) // self.config.accumulation
        if steps == 0:
            raise UserError(f"an epoch has {len(loader)} batches, fewer than accumulation="
                            f"{self.config.accumulation}: lower accumulation or batch_size, or add data")
        return steps

    def total_steps(self, steps: int) -> int:
        """Of the whole run, as far as can be told: later phases may have more or fewer steps per epoch."""
        epochs_left = self.task.phases[-1].last_epoch - self.at.epoch + 1
        total = self.at.global_step - self.at.step + epochs_left * steps
        return total if self.config.max_steps is None else min(total, self.config.max_steps)

    def at_limit(self) -> bool:
        return self.config.max_steps is not None and self.at.global_step >= self.config.max_steps

    def batches_done(self) -> int:
        """Of the epoch in progress."""
        return self.at.step * self.config.accumulation

    def farewell(self, how: str) -> str:
        return f"{self.run}: {how} after {self.at.global_step} steps, checkpoint {self.checkpoints.latest()}"


def due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def config_hash(config: RunConfig) -> str:
    """Of the settings that decide a run's numbers."""
    values = settings.flat(config)
    decisive = {key: values[key] for key in values if key not in config.FREE_TO_CHANGE}
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


@contextlib.contextmanager
def interrupts() -> Iterator[list]:
    """A list that SIGINT makes non-empty; a second SIGINT raises KeyboardInterrupt at once."""
    seen = []

    def handler(number, frame):
        if seen:
            raise KeyboardInterrupt
        seen.append(number)

    before = signal.signal(signal.SIGINT, handler)
    try:
        yield seen
    finally:
        signal.signal(signal.SIGINT, before)
