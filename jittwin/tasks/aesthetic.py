"""Training the aesthetic scorer on AVA: LoRA on a frozen SigLIP 2 tower and a head for the ten ratings.

The defaults are those of the original script's code (rank 32; its README says rank 16). Unlike the original, which held
them in bfloat16, the trained weights, their moments and the loss are float32. The train loss in the log is the mean
over samples; the original's is `accumulation` times that.
"""
import os
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from jittwin import imaging
from jittwin.checkpoints.adapters import Adapter, describe, write_adapter
from jittwin.checkpoints.store import Checkpoints
from jittwin.data.ava import BAD_IDS, AvaDataset, AvaIndex, bad_ids
from jittwin.data.ava_split import make_split, open_split
from jittwin.data.loader import Loader
from jittwin.data.synthetic.rated import SyntheticAva
from jittwin.engine.schedule import Schedule, cosine, warmup
from jittwin.engine.task import Phase, Plain, RunConfig, StepContext, joint_batch
from jittwin.errors import UserError, choose_from
from jittwin.metrics.ratings import quality_metrics
from jittwin.models.aesthetic import (
    FROZEN,
    TRAINED,
    AestheticConfig,
    distribution,
    emd,
    mean_score,
    tower_state,
    trainable_keys,
)
from jittwin.models.lora import LoraConfig
from jittwin.models.siglip import PRESETS as ARCHITECTURES
from jittwin.models.siglip import Tower, preprocess, read_tower
from jittwin.processes import gathered, part_of
from jittwin.tasks.aesthetic_files import (  # noqa: F401 (the command reads through read_other)
    read_other,
    reference_keys,
    write_checkpoint,
)
from jittwin.weights.initial import initial_weights

BEST = {"emd": "lower", "emd_r1": "lower", "mse": "lower", "mae": "lower",
        "srcc": "higher", "plcc": "higher", "accuracy": "higher"}
STEM = "model"
BEST_FILE, OTHERS_BEST = "best_lora.pth", "best_lora_before.pth"
SAMPLES = 8         # pictures in a grid


@dataclass(frozen=True, kw_only=True)
class Config(RunConfig):
    """Settings of a run; the defaults are the original script's."""

    PRESETS: ClassVar[dict[str, dict]] = {
        "reference": {},
        "readme": {"lora_r": 16, "lora_alpha": 32},      # what the original's README says
        # Trains within seconds on two cores and needs no file.
        "tiny": {"random_model": True, "architecture": "tiny", "lora_r": 4, "lora_alpha": 8, "batch_size": 8,
                 "epochs": 4, "lr": 5e-3, "head_lr": 5e-3, "synthetic_images": 160, "log_every": 1},
    }
    FREE_TO_CHANGE: ClassVar[tuple[str, ...]] = (
        *RunConfig.FREE_TO_CHANGE, "model", "images", "votes", "train_list", "test_list", "max_bad", "workers",
        "gradient_checkpointing")
    ADDED_LATER: ClassVar[tuple[str, ...]] = ("ema_form", "global_batch")
    TRAINS_IN: ClassVar[tuple[str, ...]] = ("float32", "bfloat16")     # float16 would need loss scaling

    seed: int = 42
    accumulation: int = 2
    clip: float | None = 1.0
    # Network. The tower is read from `model`, a hub folder, or is an untrained one of the size `architecture`.
    model: str | None = None
    random_model: bool = False            # an untrained tower, named "random:..." in every file
    architecture: str = "so400m-patch16-512"
    lora_r: int = 32
    lora_alpha: float = 64
    lora_dropout: float = 0.1             # dropout of LoRA and of the head
    gradient_checkpointing: bool = False
    # Data. Without a folder, the built-in generator draws `synthetic_images` pictures.
    synthetic_images: int = 512
    images: str | None = None             # folder of the pictures, where it is not DIR/images or DIR
    votes: str | None = None              # AVA.txt, where it is not in its usual places in DIR
    split: Literal["random", "lists", "official", "three-way"] = "random"
    train_split: float = 0.9
    train_list: str | None = None
    test_list: str | None = None
    max_samples: int | None = None
    max_bad: float = 0.001                # largest fraction of pictures that cannot be decoded
    workers: int = 0                      # decoding threads; 0: min(4, cores)
    # Optimization: AdamW, warm-up and half a cosine per step.
    batch_size: int = 48
    epochs: int = 20
    lr: float = 2e-4                      # LoRA
    head_lr: float = 5e-4
    weight_decay: float = 0.01
    warmup_ratio: float = 0.1
    emd_r: Literal[1, 2] = 2
    partial_steps: bool = True            # as in the original, the batches left over in an epoch make a weaker step
    best: Literal["emd", "emd_r1", "mse", "mae", "srcc", "plcc", "accuracy"] = "emd"

    def __post_init__(self):
        super().__post_init__()
        for name in ("batch_size", "epochs", "synthetic_images"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        for name in ("lr", "head_lr", "weight_decay"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name}={getattr(self, name)} must not be negative or infinite")
        if not 0 <= self.max_bad <= 1:
            raise ValueError(f"max_bad={self.max_bad} must be from 0 to 1, a fraction of the pictures")
        if not 0 <= self.warmup_ratio <= 1:
            raise ValueError(f"warmup_ratio={self.warmup_ratio} must be from 0 to 1")
        LoraConfig(self.lora_r, self.lora_alpha, self.lora_dropout)


def rate_factor(batches: int, config: Config) -> tuple[Schedule, int, int]:
    """(schedule over steps, total steps, warm-up steps) for `batches` per epoch; the first step has factor 0.

    As in the original, the total does not count the steps of left-over batches. After the total the factor stays 0; the
    original's rises again, see rise_again.
    """
    total = batches // config.accumulation * config.epochs
    warm = int(config.warmup_ratio * total)
    return warmup(warm, cosine(max(1, total - warm))), total, warm


def rise_again(total: int, warm: int, last: int) -> float:
    """The largest factor of the original's learning rates from step `total` to step `last`.

    There the cosine goes on: 20 steps after 47,900 it is at 5e-7, and after as many steps more as the fall took at 1.
    """
    half = max(1, total - warm)         # steps of half a period
    return (1 - np.cos(np.pi * min(last - total, half) / half)) / 2


class Task(Plain):
    """Training of the aesthetic scorer; see jittwin.engine.task.Task for the protocol."""

    frozen = FROZEN
    ema_modules = (STEM,)

    def __init__(self, config: Config, backend, data_dir: str | None, out_dir: Path):
        self.config, self.backend, self.out = config, backend, Path(out_dir)
        self.phases = [Phase("train", 1, config.epochs)]
        self.best = {key: BEST[key] for key in dict.fromkeys((config.best, "emd", "srcc"))}
        self.partial_steps = config.partial_steps
        self.modules, self.optimizers = {}, {}
        self.tower = self.open_tower()
        best = self.out / BEST_FILE
        self.others_best = best if best.exists() and not Checkpoints(self.out).latest() else None
        self.model = AestheticConfig(self.tower.config, self.lora, head_dropout=config.lora_dropout)
        self.votes_hash = None
        self.training, self.held_out, self.test = self.open_data(data_dir)
        self.rate, self.total_steps, _ = rate_factor(len(self.loader()), config)

    @property
    def lora(self) -> LoraConfig:
        return LoraConfig(self.config.lora_r, self.config.lora_alpha, self.config.lora_dropout)

    def open_tower(self) -> Tower:
        """The frozen tower; its arrays are read from disk when they are loaded into the network."""
        config = self.config
        if config.model and config.random_model:
            raise UserError(f"model={config.model} and random_model=true: give one of the two")
        if config.model:
            # Files name the tower by a path that finds it again from any folder; its hash stands beside.
            return replace(read_tower(config.model), name=os.path.abspath(config.model))
        if not config.random_model:
            raise UserError("model is missing: set model=FOLDER, a hub folder such as siglip2-so400m-patch16-512 with "
                            "config.json and model.safetensors, or random_model=true for an untrained tower")
        if config.architecture not in ARCHITECTURES:
            raise UserError(f"architecture={config.architecture}{choose_from(config.architecture, ARCHITECTURES)}")
        sizes = ARCHITECTURES[config.architecture]
        arrays = initial_weights("siglip", self.backend.state_shapes("siglip", sizes), config.seed)
        return Tower(sizes, arrays, f"random:{config.architecture}:{config.seed}")

    def open_data(self, data_dir: str | None) -> tuple:
        """Training, validation and test set; the test set is None where it is the validation set."""
        config, sizes = self.config, self.tower.config
        prepare = preprocess(sizes)
        if data_dir is None:
            count = config.synthetic_images
            train = int(config.train_split * count)
            if not 0 < train < count:
                raise UserError(f"synthetic_images={count}: too few to hold {1 - config.train_split:.0%} out: "
                                "raise it, or change train_split")
            self.check_length(train)
            return (SyntheticAva(train, prepare, sizes.image_size, config.seed),
                    SyntheticAva(count - train, prepare, sizes.image_size, config.seed, start=train), None)
        index = AvaIndex(data_dir, config.images, config.votes)
        self.votes_hash = index.scores.sha256
        bad = bad_ids(index, self.out, config.max_bad, config.workers)
        options = dict(mode=config.split, train_split=config.train_split, seed=config.seed,
                       max_samples=config.max_samples, train_list=config.train_list, test_list=config.test_list)
        self.check_length(len(make_split(index, **options).without(bad).train_ids))    # before a split is written
        self.out.mkdir(parents=True, exist_ok=True)
        split = open_split(self.out / "dataset_split.json", index, **options).without(bad)
        self.notes += (*index.left_out(), *([f"{index.images}: {len(bad)} of {len(index.ids)} pictures cannot be "
                                             f"decoded and are excluded: see {BAD_IDS}"] if bad else []))
        parts = [split.train_ids, split.val_ids]
        if split.test_ids is not split.val_ids:
            parts.append(split.test_ids)
        return (*(AvaDataset(ids, index.scores, index, prepare) for ids in parts), None)[:3]

    def check_length(self, samples: int) -> None:
        """UserError unless an epoch of this many samples has at least one step of the schedule."""
        config = self.config
        batches = len(Loader(range(samples), self.batch_size, config.seed, config.workers))
        if batches < config.accumulation:
            raise UserError(f"an epoch has {batches} batches, fewer than accumulation={config.accumulation}, which "
                            "leaves the schedule without a step: lower accumulation or batch_size, or add data")
        left_over = batches % config.accumulation
        if left_over and config.partial_steps:
            _, steps, warm = rate_factor(batches, config)
            again = rise_again(steps, warm, steps + config.epochs - 1)
            self.notes += (f"the learning rates reach 0 after {steps} of {steps + config.epochs} steps, since the "
                           "original's schedule does not count the step of the batches left over in each epoch "
                           f"({left_over} of {batches}), and stay 0; the original's would rise again, to {again:.1%} "
                           "of their peak: partial_steps=false drops these steps, accumulation=1 has none",)

    def loader(self) -> Loader:
        config, backend = self.config, self.backend
        return Loader(self.training, self.batch_size, config.seed, config.workers, shuffle="philox",
                      rank=backend.rank, processes=backend.world_size)

    @property
    def batch_size(self) -> int:
        return joint_batch(self.config, self.backend, self.config.batch_size)

    def enter_phase(self, phase: Phase) -> None:
        backend, config = self.backend, self.config
        module = backend.build("aesthetic", self.model, gradient_checkpointing=config.gradient_checkpointing)
        trained = trainable_keys(self.model, backend.state_shapes("siglip", self.model.tower))
        backend.load_numpy(module, tower_state(self.tower.arrays), TRAINED)
        backend.load_numpy(module, initial_weights("aesthetic", trained, config.seed), FROZEN)
        backend.train_mode(module, True)
        parameters = backend.parameters(module)
        groups = [{"params": {key: parameters[key] for key in trained if ("lora_" in key) == adapter}, "lr": rate}
                  for adapter, rate in ((True, config.lr), (False, config.head_lr))]
        self.modules = {STEM: module}
        self.optimizers = {STEM: backend.optimizer("adamw", groups, weight_decay=config.weight_decay)}

    def begin_epoch(self, epoch: int) -> None:
        """Nothing to do: the learning rates are set at every step."""

    def train_step(self, batch: dict, context: StepContext) -> dict:
        backend, config, factor = self.backend, self.config, self.rate(context.global_step)
        optimizer = self.optimizers[STEM]
        backend.set_lr(optimizer, [config.lr * factor, config.head_lr * factor])
        terms = self.modules[STEM].loss(backend.asarray(batch["pixels"]), backend.asarray(batch["target"]),
                                        config.emd_r)
        backend.step(optimizer, sum(terms.values()) * context.loss_factor, config.clip, context.accumulate)
        return terms

    def predict(self, batches) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Predicted and voted distributions (B, 10) of each batch, without dropout."""
        backend, module = self.backend, self.modules[STEM]
        predicted, voted = [], []
        backend.train_mode(module, False)
        with backend.no_grad():
            for batch in batches:
                predicted.append(distribution(backend.numpy(module(backend.asarray(batch["pixels"])))))
                voted.append(batch["target"])
        backend.train_mode(module, True)
        return predicted, voted

    def evaluate(self, context: StepContext) -> dict[str, float]:
        """Measures of the validation set and, with the prefix "test_", of a separate test set.

        floor_emd: the EMD of predicting the mean distribution of the training pictures for every picture.
        """
        config, measures = self.config, {}
        for prefix, dataset in (("", self.held_out), ("test_", self.test)):
            if dataset is not None:
                loader = Loader(dataset, config.batch_size, config.seed, config.workers, drop_last=False, shuffle=None)
                own = loader.epoch(0, *part_of(self.backend, len(loader)))
                predicted, voted = (gathered(self.backend, parts) for parts in self.predict(own))
                measures |= {prefix + key: value for key, value in quality_metrics(predicted, voted).items()}
                measures[f"{prefix}floor_emd"] = emd(np.broadcast_to(self.mean_target, voted.shape), voted).mean()
        return measures

    @cached_property
    def mean_target(self) -> np.ndarray:
        """Mean of the training pictures' distributions, float64 (10,)."""
        return np.mean([self.training.target(index) for index in range(len(self.training))], 0, np.float64)

    def sample(self, context: StepContext) -> np.ndarray:
        """A grid of validation pictures with the means of their votes and of the predicted distributions."""
        count = min(SAMPLES, len(self.held_out))
        fixed = [self.held_out.get(index * len(self.held_out) // count) for index in range(count)]
        batch = {key: np.stack([one[key] for one in fixed]) for key in ("pixels", "target")}
        scores = (mean_score(parts[0]) for parts in self.predict([batch]))
        cells = [imaging.captioned(imaging.to_uint8(one["pixels"]), f"votes {votes:.2f}  model {model:.2f}")
                 for one, model, votes in zip(fixed, *scores)]
        return imaging.grid([cells[at:at + 4] for at in range(0, count, 4)])

    def inputs(self) -> dict[str, str]:
        hashes = {"tower": self.tower_hash, "AVA.txt": self.votes_hash}
        return {name: value for name, value in hashes.items() if value}

    @cached_property
    def tower_hash(self) -> str | None:
        """Hash of the tower's arrays; None for an untrained tower, whose name says everything."""
        return self.tower.sha256 if self.config.model else None

    @cached_property
    def reference_shapes(self) -> dict[str, tuple[int, ...]]:
        """Keys and shapes of everything that the original trains; see reference_keys."""
        with_head = replace(self.tower.config, head=True)
        return reference_keys(self.model, self.backend.state_shapes("siglip", with_head))

    def adapter(self, arrays: dict) -> Adapter:
        return Adapter(self.lora, arrays, self.tower.name, self.tower.config.hidden_size, self.model.num_classes,
                       tower_sha256=self.tower_hash or "")

    def checkpoint_metadata(self) -> dict:
        return {"model": "aesthetic", "adapter": describe(self.adapter({})), "config": asdict(self.model)}

    def epoch_saved(self, name: str, state: dict) -> None:
        """Write the original's files: checkpoint_epoch_n.pth, checkpoint_latest.pth, best_lora.pth, final_lora.pth.

        A best_lora.pth that was there before the run is kept under another name.
        """
        checkpoints = Checkpoints(self.out)
        if state["epoch_done"] and state["measures"]:
            arrays = self.backend.state_numpy(self.modules[STEM], exclude=FROZEN)
            moments = self.backend.optimizer_state(self.optimizers[STEM])
            write_checkpoint(self.out, arrays, moments, state, self.config, self.reference_shapes, self.tower.name,
                             self.rate(state["global_step"]), self.tower_hash)
            if state["epoch"] == self.config.epochs:
                write_adapter(self.out / "final_lora.pth", self.adapter(arrays))
        best = state["best"].get(self.config.best, {}).get("checkpoint")
        if best is not None:
            if self.others_best:        # of the program whose run goes on here; its measures cannot be compared
                os.replace(self.others_best, self.out / OTHERS_BEST)
                self.others_best = None
            write_adapter(self.out / BEST_FILE, self.adapter(checkpoints.weights(best, STEM)))
