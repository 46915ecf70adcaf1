"""Training TIER on PKU-AIGIQA-4K: a text encoder, an image encoder and a regressor, all trained on people's votes.

Yuan et al. 2024, arXiv 2404.18409. The defaults are those of the official runs. Their learning rate is 1e-5; without
its flag, the official program has 1e-4. As in the original, the test set chooses the best epoch.
"""
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from jittwin import imaging
from jittwin.atomic import write_file
from jittwin.checkpoints.store import OPTIMIZER, Checkpoints
from jittwin.data.loader import Loader
from jittwin.data.prompted import PromptedDataset
from jittwin.engine.task import Phase, Plain, RunConfig, StepContext, joint_batch
from jittwin.errors import UserError
from jittwin.metrics.ratings import AGREEMENT, agreement
from jittwin.models.catalog import BY_NAME
from jittwin.models.tier import FROZEN, preprocess
from jittwin.processes import gathered, largest, part_of, whole_batch
from jittwin.tasks.tier_files import (  # noqa: F401 (the command reads through read_other)
    BEST_MODEL,
    log_lines,
    read_other,
    results,
    write_best_model,
)
from jittwin.tasks.tier_inputs import data_hash, open_data, open_networks
from jittwin.text import Tokens
from jittwin.weights.content import read_numbers
from jittwin.weights.state import matches

STEM = "model"
SAMPLES = 8                 # pictures in a grid
MOST_TOKENS = 512           # of a text
LEAST_SIDE = 32             # of a picture in pixels; the backbones halve it five times
RESULTS, VOCABULARY = "results.json", "tokenizer.json"
LOGS = {False: "TIER-4K.log", True: "AIGIQA4K.log"}     # the original's names, of TIER and of the baselines
EMBEDDINGS = ("*_embeddings.weight",)
TINY = {"random_model": True, "size": "tiny", "backbone": "resnet18", "batch_size": 16, "epochs": 20, "lr": 1e-3,
        "log_every": 1}


@dataclass(frozen=True, kw_only=True)
class Config(RunConfig):
    """Settings of a run; the defaults are those of the official runs."""

    PRESETS: ClassVar[dict[str, dict]] = {
        "reference": {},
        # Trains within a minute on two cores and needs no file.
        "tiny": TINY,
        # For photographs, whose damage can no longer be seen where they are as small as the tiny network takes them.
        "small": {**TINY, "side": 224, "epochs": 40},
    }
    FREE_TO_CHANGE: ClassVar[tuple[str, ...]] = (
        *RunConfig.FREE_TO_CHANGE, "image_weights", "text_weights", "tokenizer", "log_info", "workers")
    ADDED_LATER: ClassVar[tuple[str, ...]] = ("ema_form", "global_batch")
    TRAINS_IN: ClassVar[tuple[str, ...]] = ("float32", "bfloat16")     # float16 would need loss scaling

    seed: int = 1
    keep_epochs: int = 1000                # like the original, keep the best checkpoint, and the newest
    keep_optimizers: Literal["all", "newest"] = "newest"
    # Network. What reads a text or a picture begins with weights from a file; with random_model it need not.
    mode: Literal["nr", "fr", "pr"] = "nr"
    backbone: Literal["resnet18", "resnet50", "vit", "inceptionv4", "vgg16", "vgg19"] = "vit"
    baseline: bool = False                # without text, as NR-, FR- and PR-AIGCIQA
    image_weights: str | None = None      # upstream's file or hub folder of the backbone
    text_weights: str | None = None       # hub folder of BERT
    tokenizer: str | None = None          # folder of the vocabulary, where it is not that of text_weights
    random_model: bool = False
    size: Literal["full", "tiny"] = "full"
    side: int | None = None               # of the square input in pixels; none: that of the published or tiny network
    # Data. Without a folder, the built-in generator draws `synthetic_images` pictures.
    synthetic_images: int = 400
    subset: Literal["AIGIQA4K", "I2I", "T2I"] = "AIGIQA4K"
    column: Literal["MOS_q", "MOS_a", "MOS_c"] = "MOS_q"
    split: Literal["rows", "prompts"] = "rows"
    normalisation: Literal["imagenet", "native"] = "imagenet"
    padding: Literal["short", "512"] = "short"      # of texts: to the longest of a batch, or to 512 tokens
    legacy_pr_batch: bool = False         # the backbone also gets zeros for image prompts that are not there
    workers: int = 0                      # decoding threads; 0: min(4, cores)
    # Optimization: Adam, its weight decay added to the gradients.
    batch_size: int = 8
    test_batch_size: int = 20
    epochs: int = 100
    lr: float = 1e-5
    weight_decay: float = 1e-5
    optimizer: Literal["adam", "adamw"] = "adam"
    decay_embeddings: bool = True         # false: rows of words that training lacks keep their values
    log_info: str = "AGIQA3K"             # the original's headline of its log

    def __post_init__(self):
        super().__post_init__()
        for name in ("batch_size", "test_batch_size", "epochs", "synthetic_images"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        for name in ("lr", "weight_decay"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name}={getattr(self, name)} must not be negative or infinite")
        if self.side is not None and self.side < LEAST_SIDE:
            raise ValueError(f"side={self.side} must be at least {LEAST_SIDE} pixels")
        if self.mode == "fr" and self.subset != "I2I":
            raise ValueError(f"mode=fr needs an image prompt for every picture, which subset={self.subset} lacks: set "
                             "subset=I2I, or mode=pr")
        if self.legacy_pr_batch and self.mode != "pr":
            raise ValueError(f"legacy_pr_batch=true is for mode=pr, not mode={self.mode}: leave it out")
        if self.baseline:
            given = [name for name in ("text_weights", "tokenizer") if getattr(self, name)]
            if given:
                raise ValueError(f"{given[0]}={getattr(self, given[0])} is for a text encoder, which baseline=true "
                                 "leaves out: give one of the two")


class Task(Plain):
    """Training of TIER; see jittwin.engine.task.Task for the protocol."""

    partial_steps = True
    ema_modules = (STEM,)
    best = {"srcc": "higher"}
    least = {"srcc": 0.0}       # as in the original, an epoch without a positive SRCC is never the best

    def __init__(self, config: Config, backend, data_dir: str | None, out_dir: Path):
        self.config, self.backend, self.out = config, backend, Path(out_dir)
        self.phases = [Phase("train", 1, config.epochs)]
        self.modules, self.optimizers = {}, {}
        self.start = open_networks(config, backend)
        self.model = self.start.model
        self.way = preprocess(self.model, config.normalisation == "native")
        self.source, train, test = open_data(config, data_dir, self.model.image_size)
        self.data_hash = data_hash(self.source) if data_dir else None
        self.training, self.held_out = (
            PromptedDataset(self.source, rows, self.way, config.column, self.model.image_prompts, augment)
            for rows, augment in ((train, True), (test, False)))
        self.notes += tuple(self.source.notes)
        self.tokens = {data: self.encode(data.texts) for data in (self.training, self.held_out)}
        self.history, self.seen, self.written = [], {"predicted": [], "votes": []}, None
        self.results = results([], None)

    def encode(self, texts: list[str]) -> Tokens | None:
        """The ids of all texts, padded to the longest, or to 512; None for a baseline. UserError: no room for 512."""
        if not self.model.text:
            return None
        room = min(MOST_TOKENS, self.model.text.max_position_embeddings)
        if self.config.padding == "512" and room < MOST_TOKENS:
            raise UserError(f"padding=512: this text encoder reads at most {room} tokens: set padding=short")
        tokens = self.start.tokenizer(texts, length=room if self.config.padding == "512" else None, at_most=room)
        if tokens.truncated:
            self.notes += (f"{len(tokens.truncated)} of {len(texts)} texts have more than {room} tokens and lose their "
                           "ends",)
        return tokens

    def loader(self) -> Loader:
        config, backend = self.config, self.backend
        return Loader(self.training, joint_batch(config, backend, config.batch_size), config.seed, config.workers,
                      drop_last=False, shuffle="philox", rank=backend.rank, processes=backend.world_size)

    def enter_phase(self, phase: Phase) -> None:
        backend, config = self.backend, self.config
        module = backend.build("tier", self.model)
        prefixes = tuple(self.start.parts)
        for prefix, (arrays, beside) in self.start.parts.items():
            others = tuple(f"{other}*" for other in prefixes if other != prefix)
            backend.load_numpy(module, arrays, others, beside)
        backend.train_mode(module, True)
        trained = {key: p for key, p in backend.parameters(module).items() if not matches(key, FROZEN)}
        groups = [{"params": trained, "lr": config.lr}]
        if not config.decay_embeddings:
            spared = {key: p for key, p in trained.items() if matches(key, EMBEDDINGS)}
            groups = [{"params": {key: p for key, p in trained.items() if key not in spared}, "lr": config.lr},
                      {"params": spared, "lr": config.lr, "weight_decay": 0.0}]
        self.modules = {STEM: module}
        self.optimizers = {STEM: backend.optimizer(config.optimizer, [group for group in groups if group["params"]],
                                                   weight_decay=config.weight_decay)}

    def begin_epoch(self, epoch: int) -> None:
        self.seen = {"predicted": [], "votes": []}

    def predict(self, data: PromptedDataset, batch: dict):
        """Predictions (B,), a tensor."""
        backend, given = self.backend, {}
        if tokens := self.tokens[data]:
            rows = batch["text"]
            length = (tokens.ids.shape[1] if self.config.padding == "512"
                      else largest(backend, tokens.mask[rows].sum(1)))
            given |= {"ids": backend.asarray(tokens.ids[rows, :length]),
                      "keep": backend.asarray(tokens.mask[rows, :length], "float32")}
        if self.model.image_prompts:
            given |= {"prompt_pixels": backend.asarray(batch["prompt_pixels"]), "mask": batch["mask"]}
        return self.modules[STEM](backend.asarray(batch["pixels"]), **given)

    def train_step(self, batch: dict, context: StepContext) -> dict:
        backend = self.backend
        predictions = self.predict(self.training, batch)
        terms = self.modules[STEM].loss(predictions, backend.asarray(batch["target"].astype(np.float32)))
        backend.step(self.optimizers[STEM], sum(terms.values()) * context.loss_factor, self.config.clip,
                     context.accumulate)
        pairs = np.stack([backend.numpy(predictions), batch["target"]], 1, dtype=np.float64)
        for name, values in zip(("predicted", "votes"), whole_batch(backend, pairs).T):
            self.seen[name] += values.tolist()
        return terms

    def predictions(self, batches) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """(predictions, votes) of batches of the test set, an array (B,) of each batch, without dropout."""
        backend, module = self.backend, self.modules[STEM]
        predicted, votes = [], []
        backend.train_mode(module, False)
        with backend.no_grad():
            for batch in batches:
                predicted.append(backend.numpy(self.predict(self.held_out, batch)))
                votes.append(batch["target"])
        backend.train_mode(module, True)
        return predicted, votes

    def evaluate(self, context: StepContext) -> dict[str, float]:
        """AGREEMENT with the votes of the test set, and as "train/" + name of the epoch's predictions in training."""
        config = self.config
        loader = Loader(self.held_out, config.test_batch_size, config.seed, config.workers, drop_last=False,
                        shuffle=None)
        own = loader.epoch(0, *part_of(self.backend, len(loader)))
        found = agreement(*(gathered(self.backend, parts) for parts in self.predictions(own)))
        known = agreement(*(np.array(self.seen[name]) for name in ("predicted", "votes")))
        found |= {f"train/{name}": value for name, value in known.items()}
        self.history.append({"epoch": context.epoch, **{name: None if np.isnan(value) else value
                                                        for name, value in found.items()}})
        self.seen = {"predicted": [], "votes": []}
        return found

    def sample(self, context: StepContext) -> np.ndarray:
        """A grid of test pictures with their votes and the predictions."""
        count = min(SAMPLES, len(self.held_out))
        fixed = [self.held_out.get(index * len(self.held_out) // count) for index in range(count)]
        batch = {key: np.stack([one[key] for one in fixed]) for key in fixed[0] if key != "name"}
        cells = [imaging.captioned(self.source.picture(one["name"]), f"vote {vote:.2f}  model {predicted:.2f}")
                 for one, predicted, vote in zip(fixed, *(parts[0] for parts in self.predictions([batch])))]
        return imaging.grid([cells[at:at + 4] for at in range(0, count, 4)])

    def inputs(self) -> dict[str, str]:
        return {**self.start.hashes, **({"annotation.xlsx": self.data_hash} if self.data_hash else {})}

    def progress(self) -> dict:
        """The measures of every epoch, and what the epoch in progress has predicted so far."""
        return {"history": self.history, **({"seen": self.seen} if self.seen["votes"] else {})}

    def restore_progress(self, progress: dict) -> None:
        self.history = list(progress.get("history", []))
        seen = progress.get("seen", {})
        self.seen = {name: list(seen.get(name, ())) for name in ("predicted", "votes")}

    def checkpoint_metadata(self) -> dict:
        config = self.config
        return {"model": "tier", "config": BY_NAME["tier"].conversion.describe(self.model), "column": config.column,
                "normalisation": config.normalisation}

    def run_begun(self) -> None:
        if self.start.tokenizer:
            write_file(self.out / VOCABULARY, self.start.tokenizer.splitter.to_str(pretty=True))

    def epoch_saved(self, name: str, state: dict) -> None:
        """Write the original's log and best_model.pt, and results.json."""
        config, best = self.config, state["best"].get("srcc")
        write_file(self.out / LOGS[config.baseline], "".join(f"{line}\n" for line in log_lines(config, self.history)))
        self.results = results(self.history, best)
        write_file(self.out / RESULTS, json.dumps(self.results, indent=1) + "\n")
        self.write_best(best)

    def write_best(self, best: dict | None) -> None:
        """Write best_model.pt from the best checkpoint, unless it is that epoch's already."""
        path, name = self.out / BEST_MODEL, best and best["checkpoint"]
        if name is None:
            path.unlink(missing_ok=True)
        elif name != self.written and not (self.written is None and self.stored_epoch(path) == int(name)):
            checkpoints = Checkpoints(self.out)
            moments = checkpoints.weights(name, OPTIMIZER) if checkpoints.has(name, OPTIMIZER) else {}
            moments = {key.removeprefix(f"{STEM}/"): array for key, array in moments.items()}
            arrays = checkpoints.weights(name, STEM)
            step = checkpoints.state(name)["global_step"]
            write_best_model(path, {key: arrays[key] for key in self.keys}, moments, int(name), step, best["score"],
                             self.config)
        self.written = name

    @cached_property
    def keys(self) -> list[str]:
        """The keys of the networks in the order of definition."""
        return list(self.backend.state_shapes("tier", self.model))

    @staticmethod
    def stored_epoch(path: Path) -> int | None:
        """The epoch, from 1, of the best_model.pt that is there; None for none, or a damaged one."""
        try:
            return read_numbers(path)["epoch"] + 1
        except (UserError, KeyError, TypeError):
            return None

    @property
    def closing(self) -> tuple[str, ...]:
        """The measures of the selected epoch, and the best of each measure, which may be of different epochs."""
        chosen, maxima = self.results["selected"], self.results["maxima"]
        lines = []
        if chosen:
            values = ", ".join(f"{name.upper()} {chosen[name]:.4f}" for name in AGREEMENT if name in chosen)
            lines.append(f"selected by the SRCC of the test set: epoch {chosen['epoch']}: {values}")
        if maxima:
            lines.append("best of each measure over all epochs, not of one model: " + ", ".join(
                f"{name.upper()} {found['value']:.4f} (epoch {found['epoch']})" for name, found in maxima.items()))
        return tuple(lines)
