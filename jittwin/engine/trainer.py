"""The one training loop, for every task and both twins. Read it from top to bottom.

A step is one optimizer update from `accumulation` batches. Random numbers are keyed by (seed, epoch,
batch), and schedules are functions of the step or epoch. A checkpoint is therefore weights, optimizer
state and a position, and on a CPU a resumed run repeats an uninterrupted one bit for bit.

Several processes compute one step together, each on its rows of every batch, and all have the same weights afterwards.
The first one alone writes, logs and draws samples.
"""
import contextlib
import math
import os
import signal
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np

import jittwin
from jittwin import config as settings
from jittwin.atomic import write_file
from jittwin.backend import Backend
from jittwin.checkpoints.store import OPTIMIZER, Checkpoints
from jittwin.draws import Draws
from jittwin.engine.ema import Ema
from jittwin.engine.logbook import Logbook, Silent
from jittwin.engine.state import OtherCheckpoint, Position, config_hash, improved
from jittwin.engine.task import Loader, Phase, RunConfig, StepContext, Task
from jittwin.errors import UserError
from jittwin.launching import ProcessEnded

INTERRUPTED = 128 + signal.SIGINT


class Trainer:
    """Trains one task in one run directory.

    info: JSON values about the run that state.json stores besides the position, for example
    {"task": ..., "backend": ..., "data": ...}.
    """

    def __init__(self, task: Task, backend: Backend, config: RunConfig, run: str | os.PathLike, info: dict):
        self.task, self.backend, self.config, self.info = task, backend, config, info
        self.run = Path(run)
        self.checkpoints = Checkpoints(run, config.keep_epochs, config.keep_optimizers)
        self.ema = Ema(backend, config.ema, config.ema_form)
        self.at = Position()
        self.phase: Phase | None = None
        # As in best.json.
        self.best: dict[str, dict] = {key: {"checkpoint": None, "score": score} for key, score in task.least.items()}

    @property
    def writes(self) -> bool:
        """Whether this process writes the run's files: the first one does."""
        return self.backend.rank == 0

    def train(self, start: str | None = None) -> int:
        """`begin`, then `go_on`."""
        self.begin(start)
        return self.go_on()

    def begin(self, start: str | None = None) -> None:
        """Restore the checkpoint of this name, or prepare a new run. Nothing is written.

        UserError: a checkpoint that does not fit, settings with which no step can be made.
        """
        task = self.task
        self.start, self.state = start, self.restore(start) if start else {}
        if not start:
            self.enter(task.phases[0])
            for name in task.ema_modules if self.config.ema else ():
                if name in task.modules:
                    self.ema.start(name, self.backend.state(task.modules[name], task.frozen))
        self.steps_per_epoch(task.loader())

    def go_on(self) -> int:
        """Train to the last epoch, to max_steps or to SIGINT. Training always ends with a checkpoint.

        Returns the exit status, 0 or 130. UserError: a loss that is not finite, a full disk. ProcessEnded: another
        process has ended, or the first one tells why training cannot go on.
        """
        task, start, state = self.task, self.start, self.state
        with self.checkpoints.failure_explained(), interrupts() as interrupted:
            if not self.writes:
                return self.train_phases(Silent(), interrupted)
            resumed = start == self.checkpoints.latest()
            self.run.mkdir(parents=True, exist_ok=True)
            if start:
                self.checkpoints.point_to(start, state)
                if resumed:
                    self.checkpoints.thin()         # a killed run may not have done this yet
            write_file(self.run / "config.yaml", settings.dump(self.config))
            task.run_begun()
            if start:
                task.epoch_saved(start, state)      # a killed run may not have written these files yet
            with Logbook(self.run, state.get("log_position", 0), self.at.global_step) as log:
                for note in task.notes:
                    log.note(note)
                return self.train_phases(log, interrupted)

    def train_phases(self, log: Logbook, interrupted: list) -> int:
        """Train every phase from the current position on; returns the exit status."""
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
                    self.say_farewell(log, "interrupted", "; go on with --resume")
                    return INTERRUPTED
        self.say_farewell(log, "finished")
        return 0

    def train_epoch(self, loader: Loader, log: Logbook, interrupted: list) -> bool:
        """Train the rest of the current epoch; returns True when an interrupt ended it, after a checkpoint."""
        at, steps = self.at, self.steps_per_epoch(loader)
        if at.step == 0:
            self.task.begin_epoch(at.epoch)
        with contextlib.closing(loader.epoch(at.epoch, self.batches_done())) as batches:
            while at.step < steps and not self.at_limit():
                # The last step may have fewer batches than the others; the weight of each batch is the same.
                terms = self.step(batches, min(self.config.accumulation, len(loader) - self.batches_done()))
                stop = self.anywhere(bool(interrupted))
                self.log_step(log, terms, epoch_done=at.step == steps, interrupted=stop)
                del terms  # frees what lazy evaluation keeps for them
                log.bar.update()
                if stop:
                    return True
        if at.step == steps:
            at.epoch, at.step = at.epoch + 1, 0
        return False

    def step(self, batches: Iterator[dict], count: int | None = None) -> list[dict]:
        """One optimizer step from `count` batches; returns their loss terms, still on the device."""
        at, whole = self.at, self.config.accumulation
        count = count or whole
        terms = []
        for part in range(count):
            batch = next(batches)
            share = batch.pop("share", None)
            weight = share.weight if share else 1.0
            draws = Draws(self.config.seed, at.epoch, at.step * whole + part, share)
            self.backend.seed(draws.device_seed(), share)
            context = StepContext(at.epoch, at.step, at.global_step, draws, part + 1 < count, weight / whole)
            found = self.task.train_step(batch, context)
            terms.append({name: value * weight for name, value in found.items()} if share else found)
        at.step += 1
        at.global_step += 1
        if self.config.ema:
            for name in self.task.ema_modules:
                state = self.backend.state(self.task.modules[name], self.task.frozen)
                self.ema.update(name, state, at.global_step)
        return terms

    def log_step(self, log: Logbook, terms: list[dict], epoch_done: bool, interrupted: bool) -> None:
        """Log, sample and save after a step, whichever is due. Losses are read back from the device only here."""
        at, config = self.at, self.config
        last = epoch_done and at.epoch == self.task.phases[-1].last_epoch
        # Measures and pictures depend on this alone: a run that stops at the end of an epoch adds none.
        save_epoch = last or (epoch_done and at.epoch % (self.phase.save_epochs or config.save_epochs) == 0)
        stop = interrupted or self.at_limit()
        save = stop or save_epoch or due(at.global_step, config.save_every)
        log_line = (at.global_step - 1) % config.log_every == 0
        if log_line or save:
            values = self.read(terms)
        if log_line:
            log.losses(self.phase.name, at.epoch, at.global_step - 1, values)
        name = str(at.epoch) if epoch_done else f"{at.epoch}.{at.step}"
        sample = due(at.global_step, config.sample_every) or (not config.sample_every and save_epoch)
        if sample and self.writes:
            with self.averages_in_place():
                picture = self.task.sample(self.context())
            if picture is not None:
                log.picture(name, picture, at.global_step)
        if save:
            measures = self.evaluate() if save_epoch else {}
            if measures:
                log.measures(self.phase.name, at.epoch, at.global_step, measures)
            self.save(name, epoch_done, log.sync(), measures)

    def read(self, terms: list[dict]) -> dict[str, float]:
        """Loss terms as numbers, the mean over the batches of a step. UserError when one is not finite."""
        scalar = self.backend.scalar
        values = {name: sum(scalar(part[name]) for part in terms) / len(terms) for name in terms[0]}
        joint = self.backend.all_reduce(np.array(list(values.values()), np.float64)) / self.backend.world_size
        values = dict(zip(values, joint.tolist()))
        for name, value in values.items():
            if not math.isfinite(value):
                if not self.writes:
                    raise ProcessEnded(f"the loss '{name}' is {value}")
                latest = self.checkpoints.latest()
                raise UserError(f"{self.run}: loss '{name}' is {value} at step {self.at.global_step - 1} "
                                f"(epoch {self.at.epoch}): lower the learning rate or set clip"
                                + (f"; checkpoint {latest} is intact" if latest else ""))
        return values

    def evaluate(self) -> dict[str, float | None]:
        """The task's measures of the epoch just finished; None where one is undefined."""
        with self.averages_in_place():
            measures = self.task.evaluate(self.context())
        return {key: float(value) if math.isfinite(value) else None for key, value in measures.items()}

    @contextlib.contextmanager
    def averages_in_place(self) -> Iterator[None]:
        """While this context lasts, the modules of a task that wants it have the averages of their weights."""
        averages = self.ema.averages if self.task.averaged else {}
        trained = {stem: self.arrays(stem) for stem in averages}
        for stem, tensors in averages.items():
            self.backend.load_numpy(self.task.modules[stem], self.arrays(stem, tensors), self.task.frozen)
        try:
            yield
        finally:
            for stem, arrays in trained.items():
                self.backend.load_numpy(self.task.modules[stem], arrays, self.task.frozen)

    def save(self, name: str, epoch_done: bool, log_position: int, measures: dict | None = None) -> None:
        """Write checkpoint `name` with its measures and the names of the best checkpoints so far."""
        measures = measures or {}
        self.best = improved(self.best, name, measures, self.task.best)
        if not self.writes:
            return
        progress = self.task.progress()
        state = {**asdict(self.at), "epoch_done": epoch_done, "phase": self.phase.name,
                 "loader_position": self.batches_done(), "log_position": log_position,
                 "measures": measures, "best": self.best, "inputs": self.task.inputs(),
                 "seed": self.config.seed, "config_hash": config_hash(self.config),
                 "jittwin": jittwin.__version__, **({"progress": progress} if progress else {}),
                 **({"processes": self.backend.world_size} if self.backend.world_size > 1 else {}), **self.info}
        self.checkpoints.save(name, self.files(), state, self.task.checkpoint_metadata())
        if epoch_done:
            self.task.epoch_saved(name, state)

    def arrays(self, stem: str, averages: dict | None = None) -> dict:
        """The weights of a module that training may change, or their averages."""
        return self.backend.state_numpy(self.task.modules[stem], self.task.frozen, averages)

    def files(self) -> Iterator[tuple[str, dict]]:
        """(name, arrays) of every file of a checkpoint, one in memory at a time."""
        for stem in self.task.modules:
            yield stem, self.arrays(stem)
        for stem, averages in self.ema.averages.items():
            yield f"{stem}.ema", self.arrays(stem, averages)
        yield OPTIMIZER, {f"{stem}/{key}": array for stem, optimizer in self.task.optimizers.items()
                          for key, array in self.backend.optimizer_state(optimizer).items()}

    def restore(self, name: str) -> dict:
        """Restore modules, optimizers, averages and position; returns the checkpoint's state.

        UserError: there is no such checkpoint, it does not fit, or it has no optimizer state.
        """
        state, at = self.checkpoints.state(name), self.at
        self.checkpoints.check_optimizers(name)
        epoch = state["epoch"]
        self.check_inputs(state.get("inputs", {}), self.run)
        self.enter_epoch(epoch, f"checkpoint {name}")
        for stem in self.task.modules:
            self.load(stem, self.checkpoints.weights(name, stem), self.checkpoints.folder / name)
            averaged = self.config.ema and stem in self.task.ema_modules
            if averaged and self.checkpoints.has(name, f"{stem}.ema"):
                self.ema.restore(stem, self.checkpoints.weights(name, f"{stem}.ema"))
        arrays = self.checkpoints.weights(name, OPTIMIZER)
        for stem, optimizer in self.task.optimizers.items():
            own = {key[len(stem) + 1:]: array for key, array in arrays.items() if key.startswith(f"{stem}/")}
            self.backend.load_optimizer_state(optimizer, own)
        self.task.restore_progress(state.get("progress", {}))
        at.epoch, at.step, at.global_step = epoch, state["step"], state["global_step"]
        if state["epoch_done"]:
            at.epoch, at.step = at.epoch + 1, 0
        # After going back, the best checkpoint of that time may have been deleted since.
        kept = (None, *self.checkpoints.names())
        self.best = {key: best for key, best in state.get("best", {}).items() if best["checkpoint"] in kept}
        return {**state, "best": self.best}

    def adopt(self, found: OtherCheckpoint) -> str:
        """Save the checkpoint of another program as one of this run; returns its name. UserError: it does not fit."""
        at = self.at
        for key, value in found.settings.items():
            if getattr(self.config, key) != value:
                raise UserError(f"{found.source}: was trained with {key}={value}, this run has "
                                f"{key}={getattr(self.config, key)}: set {key}={value}")
        self.check_inputs(found.inputs, found.source)
        self.enter_epoch(found.epoch, os.fspath(found.source))
        for stem, arrays in found.modules.items():
            self.load(stem, arrays, found.source)
        for stem, optimizer in self.task.optimizers.items():
            self.backend.load_optimizer_state(optimizer, found.optimizers[stem])
        self.task.restore_progress(found.progress)
        at.epoch, at.step, at.global_step = found.epoch, self.steps_per_epoch(self.task.loader()), found.global_step
        name, measures, best = str(found.epoch), found.measures, found.best
        if not found.comparable:
            measures = self.evaluate()
            best = {key: measures[key] for key in self.task.best if measures.get(key) is not None}
            self.task.notes += (f"{found.source}: its program takes measures in another way, so those of epoch {name} "
                                "were taken again, and the best epoch is sought from this one on",)
        self.best = {key: {"checkpoint": name if measures.get(key) == score else None, "score": score}
                     for key, score in best.items()}
        self.run.mkdir(parents=True, exist_ok=True)
        with self.checkpoints.failure_explained():
            write_file(self.run / "config.yaml", settings.dump(self.config))
            self.save(name, True, 0, measures)
        return name

    def enter_epoch(self, epoch: int, what: str) -> None:
        """Enter the phase of `epoch` and prepare it. UserError: `what` lies outside all phases."""
        phases = self.task.phases
        phase = next((phase for phase in phases if phase.first_epoch <= epoch <= phase.last_epoch), None)
        if phase is None:
            raise UserError(f"{self.run}: {what} is of epoch {epoch}, but these settings "
                            f"train epochs {phases[0].first_epoch} to {phases[-1].last_epoch}")
        self.enter(phase)
        self.task.begin_epoch(epoch)

    def load(self, stem: str, arrays: dict, source: os.PathLike) -> None:
        """Load the weights of a module, except the frozen ones. UserError names `source` when they do not fit."""
        try:
            self.backend.load_numpy(self.task.modules[stem], arrays, self.task.frozen)
        except UserError as error:
            raise UserError(f"{source}, {stem}: {error}") from error

    def check_inputs(self, before: dict, source: os.PathLike) -> None:
        """UserError when an input of the run has another hash than `source` states."""
        now = self.task.inputs()
        for name in before:
            if now.get(name) != before[name]:
                raise UserError(f"{source}: the {name} of this run had the hash {before[name][:16]}, now it is "
                                f"{(now.get(name) or 'absent')[:16]}: give the same again, or another --out")

    def anywhere(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        return bool(self.backend.all_reduce(np.array([flag], np.float32))[0])

    def enter(self, phase: Phase) -> None:
        if phase is not self.phase:
            self.task.enter_phase(phase)
            self.phase = phase

    def context(self) -> StepContext:
        """The context of samples and measures. Its draws are the same throughout the run, so pictures compare."""
        draws = Draws(self.config.seed)
        self.backend.seed(draws.device_seed())
        return StepContext(self.at.epoch, self.at.step, self.at.global_step, draws)

    def steps_per_epoch(self, loader: Loader) -> int:
        steps, left_over = divmod(len(loader), self.config.accumulation)
        if left_over and self.task.partial_steps:
            steps += 1
        if steps == 0:
            raise UserError(f"an epoch has {len(loader)} batches, fewer than accumulation="
                            f"{self.config.accumulation}: lower accumulation or batch_size, or add data")
        return steps

    def total_steps(self, steps: int) -> int:
        """Estimated steps of the whole run; later phases may have more or fewer than `steps` per epoch."""
        epochs_left = self.task.phases[-1].last_epoch - self.at.epoch + 1
        total = self.at.global_step - self.at.step + epochs_left * steps
        return total if self.config.max_steps is None else min(total, self.config.max_steps)

    def at_limit(self) -> bool:
        return self.config.max_steps is not None and self.at.global_step >= self.config.max_steps

    def batches_done(self) -> int:
        """Number of batches of the current epoch that are done."""
        return self.at.step * self.config.accumulation

    def say_farewell(self, log: Logbook, how: str, advice: str = "") -> None:
        if self.writes:
            for line in self.task.closing if how == "finished" else ():
                log.note(line)
            log.note(f"{self.run}: {how} after {self.at.global_step} steps, "
                     f"checkpoint {self.checkpoints.latest()}{advice}")
        self.anywhere(False)    # no process leaves before the first one has written everything


def due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


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
