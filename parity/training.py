"""Training cases run the real task and the real Trainer; only their checkpoint stays in memory.

A run is handed from one worker to another as a checkpoint: the arrays of its files by "<stem>/<key>", and the
contents of state.json. So a step may begin from any state of either framework.
"""
import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np

from jittwin.engine.trainer import Trainer
from jittwin.tasks import load_task
from parity.case import Case, load
from parity.workers.side import Arrays, Side, group, grouped


class Training(Case):
    """One task with a schedule so short that every kind of epoch comes up within a few steps.

    task: its name in jittwin.tasks. checked: the steps, counted from 0, that L6 compares one by one.
    boundary: the number of steps before the second phase begins. free_steps: how many steps L6 lets both twins take
    alone, no more than float32 PyTorch itself stays near the truth for. joint: settings with which several processes
    compute what one does.
    """
    task: str
    modes = ("train",)
    levels = ("L6", "L9", "processes")
    free_steps = 6
    joint: dict = {}

    def config(self, size: str):
        """The task's Config. Noise must be shared between the twins."""
        raise NotImplementedError

    def checked(self, size: str) -> list[int]:
        raise NotImplementedError

    def shared(self, size: str) -> list[int]:
        """The steps, counted from 0, that several processes take together; those of `checked` if not overridden."""
        return self.checked(size)

    def boundary(self, size: str) -> int:
        raise NotImplementedError


@dataclass
class Outcome:
    """The state that training reached, and facts about its last step."""

    arrays: Arrays                          # of the checkpoint's files, by "<stem>/<key>"
    state: dict                             # the contents of state.json
    losses: dict[str, float]                # as logged
    parameters: dict[str, list[str]] = field(default_factory=dict)  # keys that are trained, by network
    rates: dict[str, list[float]] = field(default_factory=dict)     # of each optimizer's groups
    gradients: Arrays = field(default_factory=dict)                 # by "<network>/<key>", if the losses reach it
    begun: Arrays = field(default_factory=dict)                     # the networks' weights before the first step
    frozen: Arrays = field(default_factory=dict)                    # their last weights that no checkpoint holds
    ended: Arrays = field(default_factory=dict)                     # the networks' last weights


class Memory:
    """Takes the place of a Trainer's Checkpoints and Logbook: it holds the checkpoint to begin from, and the last."""

    bar = SimpleNamespace(total=0, update=lambda: None)
    folder = Path("memory")

    def __init__(self, arrays: Arrays, state: dict | None):
        self.arrays, self.begun = arrays, state
        self.saved, self.ended, self.terms = {}, {}, {}

    def state(self, name: str) -> dict:
        return self.begun

    def weights(self, name: str, stem: str) -> Arrays:
        return group(self.arrays, stem)

    def has(self, name: str, stem: str) -> bool:
        return any(key.startswith(f"{stem}/") for key in self.arrays)

    def check_optimizers(self, name: str) -> None:
        """Nothing to check: a run that is handed over always has the optimizers' state."""

    def save(self, name: str, files, state: dict, metadata: dict) -> None:
        self.saved = {key: a for stem, arrays in files for key, a in grouped(stem, arrays).items()}
        self.ended = state

    def latest(self) -> None:
        return None

    def names(self) -> list[str]:
        return []

    def losses(self, phase: str, epoch: int, step: int, terms: dict) -> None:
        self.terms = terms

    def measures(self, phase: str, epoch: int, step: int, values: dict) -> None:
        pass

    def note(self, text: str) -> None:
        pass

    def sync(self) -> int:
        return 0


@contextlib.contextmanager
def widened(side: Side) -> Iterator[None]:
    """While this context lasts and the framework computes in float64, float32 arrays become float64 tensors."""
    asarray = side.backend.asarray

    def wide(array, dtype=None):
        array = np.asarray(array)
        return asarray(array.astype(np.float64) if array.dtype == np.float32 else array, dtype)

    with mock.patch.object(side.backend, "asarray", wide) if side.wide else contextlib.nullcontext():
        yield


def trainer(side: Side, case: Training, size: str, steps: int, folder: str) -> Trainer:
    """In a worker: the real task and the real Trainer, which stops after `steps` steps of the whole run.

    Several processes share the batches of one.
    """
    joint = {"global_batch": "kept", **case.joint} if side.backend.world_size > 1 else {}
    config, module = replace(case.config(size), max_steps=steps, **joint), load_task(case.task)

    class Task(module.Task):
        begun = None

        def weights(self):
            return {f"{stem}/{name}": a for stem, network in self.modules.items()
                    for name, a in self.backend.state_numpy(network).items()}

        def train_step(self, batch, context):
            if self.begun is None:
                self.begun = self.weights()
            return super().train_step(batch, context)

        def epoch_saved(self, name, state):
            """Write nothing: the task makes these files from a checkpoint's files, and there are none."""

    return Trainer(Task(config, side.backend, None, folder), side.backend, config, folder,
                   {"task": case.task, "backend": side.name, "data": None})


@contextlib.contextmanager
def gradients_kept(backend) -> Iterator[dict[int, np.ndarray]]:
    """Keep the latest gradients by the id of their parameter. Every step passes them to `average_gradients`."""
    kept, average = {}, backend.average_gradients

    def keep(optimizer):
        average(optimizer)
        for name, gradient in optimizer.gradients.items():
            kept[id(optimizer.parameters[name])] = np.array(backend.numpy(gradient))

    backend.average_gradients = keep
    try:
        yield kept
    finally:
        del backend.average_gradients


def train(side: Side, arrays: Arrays, case: dict, size: str, state: dict | None, steps: int) -> Outcome:
    """In a worker: train until the whole run has `steps` steps, from a checkpoint, or anew if state is None."""
    backend = side.backend
    with tempfile.TemporaryDirectory() as folder, gradients_kept(backend) as kept, widened(side):
        run = trainer(side, load(case), size, steps, folder)
        run.checkpoints = memory = Memory(arrays, state)
        if state:
            run.restore("given")
        else:
            run.enter(run.task.phases[0])
            run.save("0", False, 0, {})
        run.train_phases(memory, [])
    rates = {name: [group["lr"] for group in optimizer.groups] for name, optimizer in run.task.optimizers.items()}
    parameters = {stem: backend.parameters(module) for stem, module in run.task.modules.items()}
    gradients = {f"{stem}/{name}": kept[id(parameter)] for stem, found in parameters.items()
                 for name, parameter in found.items() if id(parameter) in kept}
    ended = run.task.weights()
    frozen = {key: a for key, a in ended.items() if key not in memory.saved}
    return Outcome(memory.saved, memory.ended, memory.terms,
                   {stem: list(found) for stem, found in parameters.items()}, rates, gradients,
                   run.task.begun or {}, frozen, ended)


def advance(side: Side, arrays: Arrays, **arguments) -> tuple[Arrays, dict]:
    """In a worker: the checkpoint that `train` ends with, and its state."""
    outcome = train(side, arrays, **arguments)
    return outcome.arrays, outcome.state
