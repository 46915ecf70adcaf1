"""The protocol of a metric of single pictures, and the description of any metric.

A metric of `jittwin assess` is a module of this folder with INFO and `load(request)`, listed in catalog.py.
"""
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isinf
from typing import Protocol

import numpy as np

from jittwin.backend import Backend
from jittwin.data.pictures import ImageSet
from jittwin.errors import UserError
from jittwin.predictors.towers import Tower, Towers

MARK = " (random weights)"      # printed after every value of an untrained network


@dataclass(frozen=True)
class Option:
    """An argument of a metric; `jittwin assess` has a flag --NAME for it.

    weights: the value is a file of trained weights, and giving it selects the metric. required: the metric does not
    work without it. aliases: further names of the flag.
    """

    name: str
    metavar: str
    help: str
    weights: bool = False
    required: bool = False
    aliases: tuple[str, ...] = ()

    @property
    def flag(self) -> str:
        return f"--{self.name}"


@dataclass(frozen=True)
class Info:
    """The description of a metric.

    command: the command that measures it. better: "higher" or "lower". span: least and greatest value. weights: the
    trained weights it needs; licence: their licence. produces: "score", "distribution" (a score and the distribution
    behind it) or "map" (a score and a map of where the picture is good). needs_prompt: whether the value depends on the
    prompt. options: arguments of the metric.
    """

    name: str
    command: str
    summary: str
    better: str
    span: tuple[float, float]
    weights: str
    licence: str = "-"
    produces: str = "score"
    needs_prompt: bool = False
    options: tuple[Option, ...] = ()

    @property
    def range(self) -> str:
        least, greatest = self.span
        if isinf(least) or isinf(greatest):
            return "unbounded" if isinf(least) else f"at least {least:g}"
        return f"{least:g} to {greatest:g}"

    def check(self, options: Mapping[str, str | None]) -> None:
        """UserError: a required option was not given."""
        for option in self.options:
            if option.required and options.get(option.name) is None:
                raise UserError(f"{option.flag} is missing: {option.help}")

    @property
    def digits(self) -> int:
        """Decimals to print."""
        return 4 if self.span[1] - self.span[0] < 5 else 2


@dataclass(frozen=True)
class Request:
    """The arguments of a metric's `load`.

    images: the pictures that will be scored; None if they are not known, which metrics that see nothing but a picture
    and its prompt allow. options: values of Info.options by name, None where not given. random: use untrained networks
    where no weights are given. batch: pictures per call of the network. towers: the networks that metrics share.
    image_prompts: by the shown name of a picture that was made from another one, the name of that one.
    """

    backend: Backend
    dtype: str
    images: ImageSet | None
    options: Mapping[str, str | None]
    random: bool = False
    batch: int = 8
    towers: Towers | None = None
    image_prompts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Batch:
    """Pictures to score.

    pixels: each picture as the metric's `preprocess` returned it. names: names of the pictures. sizes: (height, width)
    of the pictures. prompts: None if there are none. draw: whether the metric should draw maps.
    """

    pixels: Sequence[np.ndarray]
    names: Sequence[str]
    sizes: Sequence[tuple[int, int]]
    prompts: Sequence[str] | None = None
    draw: bool = False


@dataclass(frozen=True)
class Scores:
    """Results for a batch: {info.name: value, further name: value} of each picture, and the maps if drawn.

    maps: uint8 (h, w) or (h, w, 3), one per picture.
    """

    values: list[dict[str, float]]
    maps: list[np.ndarray] | None = None


class Metric(Protocol):
    """A metric with its network loaded.

    profile: names of further numbers, which the report shows as a bar chart for each picture. random: whether the
    network is untrained. provenance: everything besides the pictures that the values depend on. preprocess: a function
    from a picture uint8 (H, W, 3) to an array; it runs in several threads, and metrics whose `preprocess` are equal
    share the array. towers: the networks that it uses. notes: lines that a reader of the values should know, such as
    that prompts were too long; complete once all pictures are scored.
    """

    info: Info
    profile: tuple[str, ...]
    random: bool
    provenance: dict
    preprocess: Callable[[np.ndarray], np.ndarray]
    towers: Sequence[Tower]
    notes: Sequence[str]

    def score(self, batch: Batch) -> Scores:
        """Score a batch of any size. UserError: a value is not finite."""

    def describe(self, value: float) -> str:
        """A value in words, or ""."""
