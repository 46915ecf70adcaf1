"""Scores of pictures by a prompt in Python, used as the class ImageReward of the package of that name."""
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from jittwin import imaging
from jittwin.backend import ready_backend
from jittwin.errors import UserError, choose_from
from jittwin.metrics.assessment import BATCH, grouped
from jittwin.metrics.catalog import ASSESSED
from jittwin.metrics.metric import Batch, Info, Request
from jittwin.metrics.prompted import PromptedMetric, is_text_image
from jittwin.metrics.ranking import ranks

Picture = str | os.PathLike | Image.Image | np.ndarray


class RewardModel:
    """A metric of pictures and their prompt, such as ImageReward.

    metric: of a jittwin.predictors.text_image.TextImagePredictor. batch: pictures in one forward pass.
    """

    def __init__(self, metric: PromptedMetric, batch: int = BATCH):
        if batch < 1:
            raise UserError(f"batch {batch}: must be at least 1")
        self.metric, self.batch = metric, batch

    @classmethod
    def load(cls, name: str = "imagereward", weights: str | os.PathLike | None = None,
             tokenizer: str | os.PathLike | None = None, backend: str = "jittor", device: str = "auto",
             dtype: str = "auto", num_threads: int | None = None, random_model: bool = False, batch: int = BATCH,
             **options) -> "RewardModel":
        """The model of a metric of `jittwin assess`.

        name: of a metric that compares a picture with its prompt. weights, tokenizer: the values of its flags, such as
        --imagereward-weights. options: those of its further flags. device: "cpu", "cuda" or "auto". dtype: "float32",
        "bfloat16", "float16" or "auto", which is bfloat16 on a GPU and float32 on the CPU. num_threads: None for all.
        random_model: an untrained network, if weights is None. UserError: another name or option, missing or damaged
        files, no such device.
        """
        if name not in names():
            raise UserError(f"no reward model {name!r}{choose_from(name, names())}")
        info = ASSESSED[name].INFO
        known = {option_name(info, option.name): option.name for option in info.options}
        given = {"weights": weights, "tokenizer": tokenizer, **options}
        for option in given:
            if option not in known:
                raise UserError(f"{name} has no option {option!r}{choose_from(option, known)}")
        if weights is None and not random_model:
            raise UserError(f"{name} needs trained weights: give weights, a file such as {info.weights}, or "
                            "random_model=True")
        ready, precision = ready_backend(backend, device, dtype, num_threads)
        values = {flag: given.get(option) for option, flag in known.items()}
        return cls(ASSESSED[name].load(Request(ready, precision, None, values, random_model, batch)), batch)

    def score(self, prompt: str, image: Picture | Sequence[Picture]) -> float | list[float]:
        """The score of a picture, or the list of those of a list of pictures.

        A picture is a path, a picture of Pillow, or an array uint8 (H, W, 3). UserError: one cannot be read, or has no
        finite score.
        """
        several = isinstance(image, (list, tuple))
        found = self._scores(prompt, image if several else [image])
        return found if several else found[0]

    def inference_rank(self, prompt: str, images: Sequence[Picture]) -> tuple[list[int], list[float]]:
        """(rank of each picture, from 1 for the best; score of each). Equal scores share the best of their ranks."""
        found = self._scores(prompt, images)
        return ranks(found, self.metric.info.better == "higher"), found

    @property
    def name(self) -> str:
        return self.metric.info.name

    @property
    def random(self) -> bool:
        """Whether the network is untrained."""
        return self.metric.random

    @property
    def provenance(self) -> dict:
        """Names and hashes of everything besides picture and prompt that scores depend on."""
        return self.metric.provenance

    def _scores(self, prompt: str, images: Sequence[Picture]) -> list[float]:
        if not isinstance(prompt, str):
            raise UserError(f"the prompt is {prompt!r:.60}; give one text for all pictures")
        found = []
        for group in grouped(enumerate(images), self.batch):
            shown = [shown_name(image, number) for number, image in group]
            arrays = [pixels_of(image, name) for (_, image), name in zip(group, shown)]
            scores = self.metric.score(Batch([self.metric.preprocess(array) for array in arrays], shown,
                                             [array.shape[:2] for array in arrays], [prompt] * len(group)))
            found += [values[self.name] for values in scores.values]
        return found


def names() -> list[str]:
    """The metrics that see a picture and its prompt, and nothing else."""
    return [name for name, metric in ASSESSED.items() if is_text_image(metric.INFO)]


def option_name(info: Info, flag: str) -> str:
    """The name of a metric's option in Python: "weights" for "imagereward-weights"."""
    return flag.removeprefix(f"{info.name}-").replace("-", "_")


def shown_name(image: Any, number: int) -> str:
    return os.fspath(image) if isinstance(image, (str, os.PathLike)) else f"picture {number + 1}"


def pixels_of(image: Picture, name: str) -> np.ndarray:
    """uint8 (H, W, 3) of a picture, called `name` in messages. UserError: it cannot be read, or is something else."""
    if isinstance(image, (str, os.PathLike)):
        return imaging.decode_image(image)
    if isinstance(image, Image.Image):
        return imaging.rgb(image, name)
    seen = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
    if seen.startswith("uint8 ") and image.ndim == 3 and image.shape[2] == 3 and image.size:
        return image
    raise UserError(f"{name}: is {seen}; give a path, a picture of Pillow, or an array uint8 (height, width, 3)")
