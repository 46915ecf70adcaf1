"""A NumPy backend and a linear-regression task, so that the engine is tested without a framework.

Run as a script it trains: toy.py RUN [resume] [KEY=VALUE ...].
"""
import sys
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from jittwin import config as settings
from jittwin.checkpoints.store import Checkpoints
from jittwin.draws import Draws
from jittwin.engine import schedule
from jittwin.engine.task import Phase, Plain, RunConfig
from jittwin.engine.trainer import Trainer
from jittwin.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Config(RunConfig):
    PRESETS: ClassVar[dict] = {"tiny": {"batch_size": 2}}
    batch_size: int = 2
    lr: float = 0.05
    poison_step: int = -1        # the loss is NaN from this step on


class Momentum:
    """Gradients add up until the update, which is SGD with momentum 0.9."""

    def __init__(self, params, lr):
        self.params, self.lr = params, lr
        self.gradients = {name: np.zeros_like(p) for name, p in params.items()}
        self.velocity = {name: np.zeros_like(p) for name, p in params.items()}


class Backend:
    name, rank, world_size, share = "numpy", 0, 1, None

    def __init__(self):
        self.reads = 0

    def usable(self, device):
        return "" if device == "cpu" else f"device {device}: NumPy has none"

    def seed(self, value, share=None):
        self.rng = np.random.default_rng(value)

    def all_reduce(self, array):
        return array

    def scalar(self, value):
        self.reads += 1
        return float(value)

    def optimizer(self, kind, groups, **hyper):
        return Momentum(groups[0]["params"], groups[0]["lr"])

    def step(self, optimizer, loss, clip=None, accumulate=False):
        for name, gradient in loss.items():
            optimizer.gradients[name] += gradient
        if accumulate:
            return
        for name, p in optimizer.params.items():
            optimizer.velocity[name] = 0.9 * optimizer.velocity[name] + optimizer.gradients[name]
            p -= optimizer.lr * optimizer.velocity[name]
            optimizer.gradients[name][:] = 0

    def set_lr(self, optimizer, lr):
        optimizer.lr = lr

    def asarray(self, array):
        return array

    def state(self, module, exclude=()):
        return {name: value for name, value in module.items() if name not in exclude}

    def state_numpy(self, module, exclude=(), averages=None):
        state = self.state(module, exclude) if averages is None else averages
        return {name: value.copy() for name, value in state.items()}

    def copy(self, tensor):
        return tensor.astype(np.float32 if tensor.dtype.kind == "f" else tensor.dtype)

    def follow(self, averages, values, weight):
        for average, value in zip(averages, values, strict=True):
            average += np.float32(weight) * (value - average)

    def load_numpy(self, module, arrays, allow_missing=(), allow_unexpected=()):
        if module.keys() - set(allow_missing) != arrays.keys():
            raise UserError(f"the weights do not fit: {', '.join(arrays)}")
        for name, value in arrays.items():
            module[name][:] = value

    def optimizer_state(self, optimizer):
        return {f"{name}/velocity": value.copy() for name, value in optimizer.velocity.items()}

    def load_optimizer_state(self, optimizer, arrays):
        for name in optimizer.velocity:
            optimizer.velocity[name][:] = arrays[f"{name}/velocity"]

    def no_grad(self):
        return nullcontext()


class Loader:
    def __init__(self, seed, batches=5, batch_size=2):
        self.seed, self.batches, self.batch_size = seed, batches, batch_size
        self.skipped = []

    def __len__(self):
        return self.batches

    def epoch(self, epoch, start=0):
        self.skipped.append(start)
        for index in range(start, self.batches):
            x = Draws(self.seed, epoch, index).normal("x", (self.batch_size, 3))
            yield {"x": x, "y": x @ np.array([1, -2, 3], np.float32)}


class Task(Plain):
    """Epochs 1-3 train "W"; epochs 4-6 train it further together with a new bias module "B"."""

    ema_modules = ("W",)
    best = {"error": "lower", "size": "higher"}

    def __init__(self, config, backend, data_dir=None, out_dir=None):
        self.config, self.backend = config, backend
        self.phases = [Phase("first", 1, 3), Phase("second", 4, 6, save_epochs=1)]
        self.modules, self.optimizers, self.calls = {}, {}, []
        self.loaders = Loader(config.seed, batch_size=config.batch_size)
        self.decay = schedule.multistep([3, 5], 0.5)

    def enter_phase(self, phase):
        self.calls.append(phase.name)
        old = self.modules.get("W", {"w": np.zeros(3, np.float32)})
        new = {} if phase.name == "first" else {"B": {"b": np.zeros(1, np.float32)}}
        self.modules = {"W": old, **new}
        self.optimizers = {name: self.backend.optimizer("sgd", [{"params": module, "lr": self.config.lr}])
                           for name, module in self.modules.items()}

    def loader(self):
        return self.loaders

    def begin_epoch(self, epoch):
        self.calls.append(epoch)
        for optimizer in self.optimizers.values():
            self.backend.set_lr(optimizer, self.config.lr * self.decay(epoch))

    def train_step(self, batch, context):
        x, y = batch["x"], batch["y"]
        noise = self.backend.rng.standard_normal(len(x), np.float32) + context.draws.normal("y", len(x))
        bias = self.modules["B"]["b"] if "B" in self.modules else 0
        error = x @ self.modules["W"]["w"] + bias - y + 0.01 * noise
        gradients = {"W": {"w": 2 * x.T @ error / len(x)}, "B": {"b": 2 * error.mean(keepdims=True)}}
        for name, optimizer in self.optimizers.items():
            loss = {key: context.loss_factor * gradient for key, gradient in gradients[name].items()}
            self.backend.step(optimizer, loss, accumulate=context.accumulate)
        poisoned = 0 <= self.config.poison_step <= context.global_step
        return {"mse": np.float32(np.nan) if poisoned else (error ** 2).mean()}

    def sample(self, context):
        return np.full((4, 6, 3), min(255, int(np.abs(self.modules["W"]["w"]).sum() * 20)), np.uint8)

    def evaluate(self, context):
        w = self.modules["W"]["w"]
        return {"error": np.abs(w - [1, -2, 3]).max(), "size": np.abs(w).sum(), "nothing": np.nan}

    def checkpoint_metadata(self):
        return {"model": "toy", "config": {"batch_size": self.config.batch_size}}


def trainer(run, *overrides):
    run = Path(run)
    run.mkdir(parents=True, exist_ok=True)
    usual = ["log_every=2", "save_every=2", "ema=0.99", "seed=3"]
    config, backend = settings.resolve(Config, overrides=[*usual, *overrides]), Backend()
    return Trainer(Task(config, backend), backend, config, run, {"task": "toy"})


if __name__ == "__main__":
    toy = trainer(sys.argv[1], *[argument for argument in sys.argv[2:] if "=" in argument])
    folder = Checkpoints(sys.argv[1])
    folder.clean()
    sys.exit(toy.train(folder.latest() if "resume" in sys.argv else None))
