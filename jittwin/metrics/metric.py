"""What a metric of single pictures is, and what a person should know of any metric.

A metric of `jittwin assess` is a module of this folder with INFO and `load(request)`, named in catalog.py.
"""
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from jittwin.backend import Backend
from jittwin.data.pictures import ImageSet
from jittwin.errors import UserError

MARK = " (random weights)"      # follows every value of an untrained network


@dataclass(frozen=True)
class Option:
    """Something that a metric is given: `jittwin assess` makes the flag --NAME of it.

    weights: it names a file of trained weights, so the metric is measured where it is given. required: the metric
    cannot do without it. aliases: further names of the flag.
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
    """What a person should know of a metric.

    command: which one gives it. better: "higher" or "lower". span: least and greatest value. weights, licence: what it
    needs, and under which terms that comes. produces: "score", "distribution" (a score and how it comes about) or "map"
    (a score and a picture of where). needs_prompt: the text that a picture was made from decides too.
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
        return "{:g} to {:g}".format(*self.span)

    @property
    def digits(self) -> int:
        """Decimals that a person reads."""
        return 4 if self.span[1] - self.span[0] <= 1 else 2


@dataclass(frozen=True)
class Request:
    """What a metric is made from.

    images: the pictures to come. options: values of Info.options by name, None where not given. random: go on with
    untrained networks where no weights are given.
    """

    backend: Backend
    dtype: str
    images: ImageSet
    options: Mapping[str, str | None]
    random: bool = False
    batch: int = 8

    def needed(self, option: Option) -> str:
        """The value of an option that the metric cannot do without. UserError: it was not given."""
        if self.options.get(option.name) is None:
            raise UserError(f"{option.flag} is missing: {option.help}")
        return self.options[option.name]


@dataclass(frozen=True)
class Batch:
    """Some pictures, ready for a network.

    pixels: what the metric's `preprocess` made of each. sizes: (height, width) of the pictures. prompts: None where
    there are none. draw: maps are asked for.
    """

    pixels: Sequence[np.ndarray]
    names: Sequence[str]
    sizes: Sequence[tuple[int, int]]
    prompts: Sequence[str] | None = None
    draw: bool = False


@dataclass(frozen=True)
class Scores:
    """Per picture {info.name: value, further name: value}; maps: uint8 (h, w) or (h, w, 3) per picture, if drawn."""

    values: list[dict[str, float]]
    maps: list[np.ndarray] | None = None


class Metric(Protocol):
    """A metric that is ready.

    profile: names of further numbers that a chart per picture shows as bars. random: its network is untrained.
    provenance: what its values depend on besides the pictures. preprocess: a picture uint8 (H, W, 3) to an array; runs
    in several threads; metrics whose `preprocess` compare equal share the array.
    """

    info: Info
    profile: tuple[str, ...]
    random: bool
    provenance: dict
    preprocess: Callable[[np.ndarray], np.ndarray]

    def score(self, batch: Batch) -> Scores:
        """Of a batch of any size. UserError: no finite value."""

    def describe(self, value: float) -> str:
        """A value in words, "" where there are none."""
