"""Training of the detector of structural distortion on EvalMuse-Structure: Florence-2 with a map and a score.

The winners' system of the structure track of NTIRE 2025 (arXiv 2505.16314). The defaults are those of its command for
full fine-tuning; the preset `lora` is its command for LoRA, except that LoRA's base weights stay as they are. The heads
are trained alone first, the warm-up; then the trunk with them. Unlike the original, a warm-up runs the frozen trunk
without dropout, the cosine counts optimizer steps and not batches, and validation sees the averaged weights.
"""
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np

from jittwin import imaging
from jittwin.atomic import write_file
from jittwin.checkpoints.store import Checkpoints
from jittwin.data.distorted import DistortedDataset
from jittwin.data.evalmuse_files import STORED_SIDE
from jittwin.data.loader import Loader
from jittwin.data.picture_augment import Augmentation
from jittwin.data.submission import to_levels
from jittwin.engine.schedule import cosine
from jittwin.engine.task import Phase, Plain, StepContext, joint_batch
from jittwin.errors import UserError
from jittwin.loss_scaler import LossScaler
from jittwin.metrics.structure_track import MEASURES, THRESHOLDS, StructureTrack
from jittwin.models.distortion import (
    LORA_FROZEN,
    TRUNK,
    adapted_names,
    adapters,
    preprocess,
    without_adapters,
)
from jittwin.predictors.distortion import MERGED
from jittwin.processes import gathered, largest, part_of
from jittwin.tasks.distortion_inputs import encode, open_data, open_start
from jittwin.tasks.distortion_settings import ALL, HEADS, LORA, Config
from jittwin.weights import write_weights
from jittwin.weights.initial import initial_weights
from jittwin.weights.lazy import LazyArrays
from jittwin.weights.state import matches

STEM = "model"
SAMPLES = 4                 # pictures in a grid, each beside what was marked and what is predicted
DECAY = {"trunk": 1e-2, "lora": 1e-2, "heads": 5e-5}
VOCABULARY = "tokenizer.json"


def kind_of(name: str) -> str:
    """The group of a parameter: "heads", "lora" or "trunk"."""
    if not name.startswith(TRUNK):
        return "heads"
    return "lora" if ".lora_" in name else "trunk"


class Task(Plain):
    """Training of the detector; see jittwin.engine.task.Task for the protocol."""

    partial_steps = True
    ema_modules = (STEM,)
    averaged = True

    def __init__(self, config: Config, backend, data_dir: str | None, out_dir: Path):
        self.config, self.backend, self.out = config, backend, Path(out_dir)
        warm = config.warmup_epochs
        self.phases = [Phase("warm-up", 1, warm)] if warm else []
        self.phases.append(Phase("main", warm + 1, warm + config.epochs))
        self.modules, self.optimizers = {}, {}
        self.start = open_start(config, backend)
        self.model = self.start.model
        self.lora = adapters(config.lora_rank) if config.lora_rank else None
        self.check_frozen()
        training, held_out, self.hashes, self.notes = open_data(config, data_dir, self.model.image_size)
        way, through = preprocess(self.model), STORED_SIDE if config.maps == "512" else None
        self.training = DistortedDataset(training, way, self.model.image_size,
                                         Augmentation(config.flip) if config.augment else None, through)
        self.held_out = DistortedDataset(held_out, way, self.model.image_size, None, through) if held_out else None
        self.best = {"final": "higher"} if held_out else {}
        self.tokens = {}
        for data in filter(None, (self.training, self.held_out)):
            self.tokens[data], notes = encode(self.start, data.texts)
            self.notes += notes
        self.objective = backend.build("distortion.objective", config.losses)
        self.phase, self.merged = None, None
        self.scaler = LossScaler() if config.precision == "float16" else None
        for phase in self.phases:
            self.loader_of(phase)                   # its messages come before anything is trained

    def check_frozen(self) -> None:
        """Find what is frozen. UserError: the settings train nothing, or name what no parameter is called."""
        config = self.config
        shapes = self.backend.state_shapes("distortion", self.model, **self.options)
        for setting in ("freeze", "unfreeze"):
            for part in getattr(config, setting) or ():
                # LoRA's names are asked for by default commands without LoRA, too.
                if part not in (ALL, LORA) and not any(part in name for name in shapes):
                    raise UserError(f"{setting}={part}: no parameter has such a name: choose parts of names such as "
                                    f"{', '.join(HEADS)}, vision_tower, {LORA}, or {ALL}")
        trained = [name for name in shapes if config.trains(name)]
        if not trained:
            raise UserError(f"freeze={','.join(config.freeze)} and unfreeze={','.join(config.unfreeze or ())} leave "
                            f"nothing to train: add {HEADS[0]} to unfreeze")
        patterns = LORA_FROZEN if self.lora else (f"{TRUNK}*",)
        self.frozen = () if any(matches(name, patterns) for name in trained) else patterns
        self.shapes = shapes

    @property
    def options(self) -> dict:
        """Of the module, beside the detector's config."""
        trained = any(self.config.trains(name) for name in (f"{TRUNK}base_model.model.x",)) if self.lora else True
        return {"adapters": self.lora, "freeze_rest": not trained} if self.lora else {}

    def loader_of(self, phase: Phase) -> Loader:
        config = self.config
        size = config.warmup_batch_size if phase.name == "warm-up" else config.batch_size
        size = min(size, len(self.training))
        if len(self.training) < 2:
            raise UserError(f"{len(self.training)} picture is left to train on, and the heads normalise over a batch: "
                            "hold out fewer, or use more")
        backend, joint = self.backend, joint_batch(config, self.backend, size)
        # The heads normalise over two pictures at least; fewer that are left over make no batch.
        least = 2 if config.joint_norm else 2 * backend.world_size
        if joint < least:
            raise UserError(f"a batch of {joint} leaves each of {backend.world_size} processes one picture, and the "
                            "heads normalise over two at least: raise batch_size, or set joint_norm=true")
        return Loader(self.training, joint, config.seed, config.workers,
                      drop_last=0 < len(self.training) % joint < least, shuffle="philox",
                      rank=backend.rank, processes=backend.world_size)

    def loader(self) -> Loader:
        return self.loader_of(self.phase)

    def enter_phase(self, phase: Phase) -> None:
        backend, config = self.backend, self.config
        self.phase = phase
        module = self.modules.get(STEM) or self.build()
        parameters = backend.parameters(module)
        trained = {name: p for name, p in parameters.items()
                   if (not name.startswith(TRUNK) if phase.name == "warm-up" else config.trains(name))}
        module.trunk_trained = any(name.startswith(TRUNK) for name in trained)
        groups = {kind: {} for kind in DECAY}
        for name, parameter in trained.items():
            groups[kind_of(name)][name] = parameter
        self.kinds = [kind for kind, params in groups.items() if params]
        optimizer = backend.optimizer("adamw", [
            {"params": groups[kind], "lr": self.base_lr(kind), "weight_decay": DECAY[kind]} for kind in self.kinds])
        if STEM in self.optimizers:
            # A parameter counts its steps from its own first one.
            new = {f"{name}/step": np.array(0, np.int64) for name in trained}
            old = backend.optimizer_state(self.optimizers[STEM])
            backend.load_optimizer_state(optimizer, new | {
                key: array for key, array in old.items() if key.rpartition("/")[0] in trained})
        self.modules, self.optimizers = {STEM: module}, {STEM: optimizer}
        self.set_training()

    def build(self):
        """The module with its first weights."""
        backend, config, arrays = self.backend, self.config, self.start.arrays
        module = backend.build("distortion", self.model, config.gradient_checkpointing, **self.options)
        if self.lora:
            untrained = initial_weights("distortion", self.shapes, config.seed)
            given = arrays.renamed(adapted_names(arrays, self.lora))
            arrays = LazyArrays(self.shapes, lambda key: given[key] if key in given else untrained[key], arrays.source)
        backend.load_numpy(module, arrays)
        return module

    def set_training(self) -> None:
        """A frozen trunk computes as in inference."""
        module = self.modules[STEM]
        self.backend.train_mode(module, True)
        module.normalize_jointly(self.config.joint_norm)
        if not module.trunk_trained:
            self.backend.train_mode(module.florence2, False)

    def base_lr(self, kind: str) -> float:
        config = self.config
        if kind == "lora" and config.lora_lr is not None:
            return config.lora_lr
        return config.lr * (1 if kind == "heads" else config.trunk_lr_factor)

    def begin_epoch(self, epoch: int) -> None:
        """Nothing to do: the learning rates are set at every step."""

    def rates(self, context: StepContext) -> list[float]:
        """Of the optimizer's groups: constant in the warm-up, then half a cosine over the optimizer's steps."""
        bases = [self.base_lr(kind) for kind in self.kinds]
        if self.phase.name == "warm-up":
            return bases
        steps = -(-len(self.loader()) // self.config.accumulation)
        done = (context.epoch - self.phase.first_epoch) * steps + context.step
        share, least = cosine(self.config.epochs * steps)(done), self.config.min_lr
        return [least + (base - least) * share for base in bases]

    def logits(self, data: DistortedDataset, batch: dict):
        """(maps, scores) as logits, tensors."""
        backend, tokens, rows = self.backend, self.tokens[data], batch["text"]
        length = tokens.ids.shape[1]
        if self.model.text_mode == "fast":
            length = largest(backend, tokens.mask[rows].sum(1))
        return self.modules[STEM].logits(
            backend.asarray(batch["pixels"]), backend.asarray(tokens.ids[rows, :length]),
            backend.asarray(tokens.mask[rows, :length], "float32"))

    def train_step(self, batch: dict, context: StepContext) -> dict:
        backend, module, optimizer = self.backend, self.modules[STEM], self.optimizers[STEM]
        backend.set_lr(optimizer, self.rates(context))
        maps, scores = self.logits(self.training, batch)
        terms = self.objective.losses(
            module.heat(maps), backend.asarray(batch["map"]), module.score(scores),
            backend.asarray(batch["vote"].astype(np.float32)), maps if self.model.map_classes == 1 else None)
        backend.step(optimizer, sum(terms.values()) * context.loss_factor, self.config.clip, context.accumulate,
                     self.scaler)
        return terms

    def progress(self) -> dict:
        """The factor of the loss in float16."""
        return {"loss_scale": [self.scaler.scale, self.scaler.clean]} if self.scaler else {}

    def restore_progress(self, progress: dict) -> None:
        if self.scaler:
            self.scaler = LossScaler(*progress.get("loss_scale", ()))

    def predictions(self, data: DistortedDataset, batches: Iterable[dict]) -> Iterator[tuple]:
        """Each batch with its maps (B, S, S) and scores (B,), without dropout."""
        backend, module = self.backend, self.modules[STEM]
        backend.train_mode(module, False)
        try:
            with backend.no_grad():
                for batch in batches:
                    maps, scores = self.logits(data, batch)
                    yield batch, backend.numpy(module.heat(maps))[:, 0], backend.numpy(module.score(scores))
        finally:
            self.set_training()

    def evaluate(self, context: StepContext) -> dict[str, float]:
        """MEASURES of the held-out pictures at the best threshold; the threshold; mean squared errors of map and score.
        """
        data, config = self.held_out, self.config
        if data is None:
            return {}
        loader = Loader(data, config.val_batch_size, config.seed, config.workers, drop_last=False, shuffle=None)
        first, end = part_of(self.backend, len(loader))
        track, index, errors = StructureTrack(THRESHOLDS), first * config.val_batch_size, []
        for batch, maps, scores in self.predictions(data, loader.epoch(0, first, end)):
            for row, (heat, score) in enumerate(zip(maps, scores)):
                vote = float(batch["vote"][row])
                track.add(to_levels(heat), float(score), data.levels(index), vote)
                errors.append((np.square(heat - batch["map"][row, 0]).mean(), (score - vote) ** 2))
                index += 1
        track.join(self.backend)
        outcome = track.outcome()
        map_error, score_error = gathered(self.backend, [np.array(errors)] if errors else []).mean(0)
        return {**{name: outcome.measures[name] for name in MEASURES}, "threshold": float(outcome.threshold),
                "map_mse": float(map_error), "score_mse": float(score_error)}

    def sample(self, context: StepContext) -> np.ndarray:
        """Rows of a picture, what was marked on it, and the prediction."""
        data = self.held_out or self.training
        count = min(SAMPLES, len(data))
        chosen = [index * len(data) // count for index in range(count)]
        plain = DistortedDataset([data.samples[index] for index in chosen], data.way, data.side, None, data.through)
        self.tokens[plain], _ = encode(self.start, plain.texts)
        fixed = [plain.get(index) for index in range(count)]
        batch = {key: np.stack([one[key] for one in fixed]) for key in fixed[0] if key != "name"}
        [(_, maps, scores)] = self.predictions(plain, [batch])
        del self.tokens[plain]
        rows = []
        for index, (one, heat, score) in enumerate(zip(fixed, maps, scores)):
            picture = plain.resized(index)[0]
            rows.append([imaging.captioned(picture, one["name"][-20:]),
                         imaging.captioned(imaging.heat_overlay(picture, to_levels(one["map"][0])),
                                           f"vote {float(one['vote']):.2f}"),
                         imaging.captioned(imaging.heat_overlay(picture, to_levels(heat)), f"model {score:.2f}")])
        return imaging.grid(rows)

    def inputs(self) -> dict[str, str]:
        return {**self.start.hashes, **self.hashes}

    def checkpoint_metadata(self) -> dict:
        found = {"model": "distortion", "config": asdict(self.model)}
        return {**found, "lora": asdict(self.lora)} if self.lora else found

    def run_begun(self) -> None:
        write_file(self.out / VOCABULARY, self.start.tokenizer.splitter.to_str())

    def epoch_saved(self, name: str, state: dict) -> None:
        """If checkpoints lack a part of the weights or hold LoRA, write the detector as a whole."""
        if not (self.lora or self.frozen):
            return
        best = state["best"].get("final", {}).get("checkpoint") if self.best else name
        path = self.out / MERGED
        if best is None or best == self.merged and path.exists():
            return
        checkpoints = Checkpoints(self.out)
        stem = f"{STEM}.ema" if checkpoints.has(best, f"{STEM}.ema") else STEM
        changed = checkpoints.weights(best, stem)
        arrays = {key: array for key, array in self.backend.state_numpy(self.modules[STEM]).items()} | changed
        if self.lora:
            arrays = without_adapters(arrays, self.lora)
        write_weights(path, arrays, {"model": "distortion", "config": asdict(self.model), "checkpoint": best})
        self.merged = best
