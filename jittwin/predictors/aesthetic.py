"""Aesthetic scores of pictures, 1 to 10.

Pictures are decoded by jittwin.imaging, which turns them upright, and resized to the square input of the tower. Scores
are computed from the logits in float32 and float64, whatever the precision of the network.
"""
import itertools
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from jittwin import imaging
from jittwin.backend import Backend, Module, ready_backend
from jittwin.checkpoints.adapters import Adapter, check_adapter, read_adapter
from jittwin.errors import UserError, choose_from
from jittwin.models.aesthetic import (
    CLASSES,
    AestheticConfig,
    distribution,
    mean_score,
    tower_state,
    trainable_keys,
)
from jittwin.models.siglip import PRESETS, SiglipVisionConfig, Tower, preprocess, read_tower
from jittwin.predictors.towers import Tower as InferenceTower
from jittwin.predictors.towers import Towers, check_finite
from jittwin.weights import content_hash
from jittwin.weights.initial import initial_weights
from jittwin.weights.lazy import LazyArrays
from jittwin.weights.state import Shapes

BATCH = 8
PROVENANCE = ("tower", "tower_sha256", "trained_on", "adapter_sha256", "random_weights")
RANDOM = "random:"      # an untrained tower has the name "random:ARCHITECTURE:SEED"


class PredictorError(UserError, ValueError):
    """An error of the predictor's constructor; it is also a ValueError, as in the original."""


@dataclass(frozen=True)
class Scorer:
    """The sizes and arrays of an aesthetic scorer.

    trainables: arrays of LoRA and head. random: whether the tower, or everything, is untrained. trained_on: name of the
    tower according to the adapter's file.
    """

    config: AestheticConfig
    tower: Tower
    trainables: dict[str, np.ndarray]
    random: bool
    trained_on: str = ""

    def state(self) -> LazyArrays:
        """All arrays of the AestheticModel; each is read when it is accessed."""
        frozen = tower_state(self.tower.arrays, self.config.lora.targets)
        shapes = {key: array.shape for key, array in self.trainables.items()}
        return LazyArrays(frozen.shapes | shapes,
                          lambda key: self.trainables[key].copy() if key in self.trainables else frozen[key],
                          frozen.source)

    @cached_property
    def trainables_hash(self) -> str:
        return content_hash(self.trainables)

    @property
    def weights(self) -> str:
        """A hash of all arrays."""
        return f"{self.tower.sha256} {self.trainables_hash}"

    def provenance(self) -> dict:
        """Names and hashes of everything besides the pictures that scores depend on."""
        return dict(zip(PROVENANCE, (self.tower.name, self.tower.sha256, self.trained_on, self.trainables_hash,
                                     self.random)))


def read_scorer(state_shapes: Callable[[str, Any], Shapes], adapter: str | os.PathLike | None,
                tower: str | os.PathLike | None = None, random: bool = False) -> Scorer:
    """Read the adapter and the tower of a scorer.

    state_shapes: a Backend's, called only for an untrained tower. adapter: a file or folder for read_adapter. tower: a
    hub folder; None: the adapter's own, see own_tower. random: if there is no such folder, use an
    untrained tower of the architecture `tower` (a key of PRESETS, which is then not looked up as a folder), or of the
    architecture that the adapter was trained on; without an adapter everything is untrained. UserError: a file is
    missing or damaged, or adapter and tower do not belong together.
    """
    if adapter is None and not random:
        raise UserError("aesthetic scores need trained adapters: give a file such as best_lora.pth, or "
                        "--random-weights")
    found = None if adapter is None else read_adapter(adapter)
    name = os.fspath(tower or (own_tower(found) if found else "tiny"))
    untrained = (random and name in PRESETS) or not os.path.exists(name)
    if untrained and not random:
        raise UserError(f"{found.source}: {_which_tower(found.model_name, tower)}")
    if found and found.model_name.startswith(RANDOM) and not untrained:
        raise UserError(f"{found.source}: was trained on an untrained tower ({found.model_name}), not on {name}: "
                        "omit that tower")
    if found and found.num_classes != CLASSES:
        raise UserError(f"{found.source}: has {found.num_classes} classes; aesthetic scores need {CLASSES}")
    made = _random_tower(state_shapes, name) if untrained else read_tower(name)
    if found is None:
        config = AestheticConfig(made.config)
        shapes = trainable_keys(config, made.arrays.shapes)
        return Scorer(config, made, dict(initial_weights("aesthetic", shapes)), True)
    check_adapter(found, made.config, made.arrays.shapes)
    if found.tower_sha256 and not untrained and made.sha256 != found.tower_sha256:
        raise UserError(f"{found.source}: was trained on {found.model_name!r} of SHA-256 {found.tower_sha256[:12]}…, "
                        f"but {name} has {made.sha256[:12]}…: give the tower it was trained on (--aesthetic-tower, in "
                        "scripts --model)")
    return Scorer(AestheticConfig(made.config, found.config), made, found.arrays, untrained, found.model_name)


def own_tower(adapter: Adapter) -> str:
    """The tower that an adapter was trained on: as it names it or, if that is not there, as the settings of its run do.

    Where both are not there, the name in the adapter.
    """
    names = [adapter.model_name]
    for folder in list(Path(adapter.source).absolute().parents)[:3]:       # of RUN/best_lora.pth, RUN/checkpoints/N/...
        try:
            content = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
            names.append(content["model"])
        except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError):
            continue
    return next((name for name in names if name and isinstance(name, str) and os.path.exists(name)), adapter.model_name)


def _which_tower(name: str, tower) -> str:
    """The end of a message about an adapter whose tower is not there."""
    if tower is None and name.startswith(RANDOM):
        return f"was trained on an untrained tower ({name}): its scores mean nothing; --random-weights gives them"
    known = f"was trained on {name!r}" if name else "does not tell its tower"
    missing = "which is not a folder here" if tower is None else f"and {os.fspath(tower)!r} is not a folder"
    return f"{known}, {missing}: give that model's hub folder (--aesthetic-tower, in scripts --model)"


def _random_tower(state_shapes: Callable[[str, Any], Shapes], name: str) -> Tower:
    """An untrained tower of the preset `name`, or of "random:PRESET:SEED". UserError: unknown preset."""
    architecture, _, seed = name.removeprefix(RANDOM).partition(":")
    if architecture not in PRESETS or not (seed or "0").isdecimal():
        raise UserError(f"no untrained tower {name!r}{choose_from(architecture, PRESETS)}")
    config = PRESETS[architecture]
    arrays = initial_weights("siglip", state_shapes("siglip", config), int(seed or 0))
    return Tower(config, arrays, f"{RANDOM}{architecture}:{seed or 0}")


class Predictor:
    """Base class of predictors. Subclasses define `logits`, from pixels float32 (N, 3, S, S) to (N, 10).

    They also define `random`, whether the weights are untrained, and `provenance`, names and hashes of the weights.
    towers: the networks of a framework that it uses. image_size: S. batch: pictures in one forward pass. resample: see
    SiglipVisionConfig.
    """

    towers: Sequence[InferenceTower] = ()

    def __init__(self, image_size: int, batch: int = BATCH, resample: str = "bilinear"):
        if batch < 1:
            raise UserError(f"batch {batch}: must be at least 1")
        self.batch = batch
        self.preprocess = preprocess(SiglipVisionConfig(patch_size=image_size, image_size=image_size,
                                                        resample=resample))

    def score_pixels(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Prepared pixels (N, 3, S, S) to scores float64 (N,) and distributions float32 (N, 10).

        UserError: the network's output is not finite.
        """
        logits = self.logits(pixels)
        check_finite(logits)
        found = distribution(logits)
        return mean_score(found), found

    def score_arrays(self, images: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """score_pixels for pictures uint8 (H, W, 3) of any sizes, which are prepared a batch at a time."""
        images = iter(images)
        scores, distributions = [np.empty(0)], [np.empty((0, CLASSES), np.float32)]
        while batch := [self.preprocess(image) for image in itertools.islice(images, self.batch)]:
            for found, part in zip((scores, distributions), self.score_pixels(np.stack(batch))):
                found.append(part)
        return np.concatenate(scores), np.concatenate(distributions)

    def predict(self, path) -> tuple[float, np.ndarray]:
        """(score, float32 (10,)) of a picture file. UserError: it cannot be read."""
        scores, distributions = self.predict_batch([path])
        return scores[0], distributions[0]

    def predict_batch(self, paths: Sequence) -> tuple[list[float], np.ndarray]:
        """(scores, float32 (N, 10)) in the order of the paths. UserError: one cannot be read."""
        scores, distributions = self.score_arrays(map(imaging.decode_image, paths))
        return scores.tolist(), distributions

    def predict_score_only(self, path) -> float:
        return self.predict(path)[0]


def merged(network) -> None:
    network.merge()


class ScorerPredictor(Predictor):
    """A scorer on a backend that is set up, in precision `dtype`. Adapters are merged into the tower's weights.

    towers: networks to share; None builds a network for this predictor alone.
    """

    def __init__(self, backend: Backend, scorer: Scorer, batch: int = BATCH, dtype: str = "float32",
                 towers: Towers | None = None):
        super().__init__(scorer.config.tower.image_size, batch, scorer.config.tower.resample)
        self.backend, self.scorer, self.dtype = backend, scorer, dtype
        self.tower = InferenceTower(backend, "aesthetic", scorer.config, scorer.state(), towers,
                                    scorer.weights if towers is not None else None, dtype, finish=merged)
        self.towers = (self.tower,)

    @property
    def network(self) -> Module:
        return self.tower.network

    @property
    def random(self) -> bool:
        return self.scorer.random

    @cached_property
    def provenance(self) -> dict:
        return self.scorer.provenance() | {"backend": self.backend.name, "device": self.backend.device,
                                           "dtype": self.dtype}

    def logits(self, pixels: np.ndarray) -> np.ndarray:
        """Logits float32 (N, 10) of prepared pixels (N, 3, S, S)."""
        self.backend.set_precision(self.dtype)      # another predictor may have set its own
        with self.backend.no_grad():
            return self.backend.numpy(self.network(self.backend.asarray(pixels)))


class AestheticPredictor(ScorerPredictor):
    """The original's predictor on either backend.

    lora_weights_path, model_name, random_model: adapter, tower and random of read_scorer. device: "cpu", "cuda" or
    "auto". dtype: "float32", "bfloat16", "float16" or "auto", which is bfloat16 on a GPU and float32 on the CPU.
    num_threads: None for all. PredictorError, a UserError and a ValueError: weights are missing or damaged, or there is
    no such device.
    """

    def __init__(self, lora_weights_path, model_name=None, device: str = "auto", dtype: str = "auto",
                 num_threads: int | None = None, backend: str = "jittor", random_model: bool = False,
                 batch: int = BATCH):
        try:
            # Files are read first: what is wrong with them shows before a framework is imported.
            ready = cache(lambda: ready_backend(backend, device, dtype, num_threads))
            scorer = read_scorer(lambda *model: ready()[0].state_shapes(*model), lora_weights_path, model_name,
                                 random_model)
            super().__init__(ready()[0], scorer, batch, ready()[1])
        except UserError as error:
            raise PredictorError(str(error)) from error
