"""What a metric of single pictures is: the protocol that `jittwin assess` asks for."""
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from jittwin.metrics.catalog import Info

MARK = " (random weights)"      # follows every value of an untrained network


class Metric(Protocol):
    """A metric that is ready. profile: names of further numbers that a chart per picture shows as bars."""

    info: Info
    profile: tuple[str, ...]
    random: bool
    provenance: dict

    def prepare(self, image: np.ndarray) -> np.ndarray:
        """uint8 (H, W, 3) to what its network takes, of one shape for all pictures; runs in several threads."""

    def score(self, inputs: Sequence[np.ndarray], names: Sequence[str]) -> list[dict[str, float]]:
        """Per picture {info.name: value, further name: value}; `names` tells which pictures they are."""

    def describe(self, value: float) -> str:
        """A value in words, "" where there are none."""
