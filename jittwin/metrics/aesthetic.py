"""The metric `aesthetic` of `jittwin assess`: the mean rating that people would give."""
import os
from collections.abc import Sequence

import numpy as np

from jittwin.backend import Backend
from jittwin.errors import UserError
from jittwin.metrics.catalog import ASSESSED
from jittwin.models.aesthetic import CLASSES, level
from jittwin.predictors.aesthetic import BATCH, Predictor, ScorerPredictor, read_scorer


class AestheticMetric:
    """A jittwin.metrics.metric.Metric."""

    info = ASSESSED["aesthetic"]
    profile = tuple(f"aesthetic_p{rating}" for rating in range(1, CLASSES + 1))

    def __init__(self, predictor: Predictor):
        self.predictor, self.prepare = predictor, predictor.prepare
        self.random, self.provenance = predictor.random, predictor.provenance

    def score(self, inputs: Sequence[np.ndarray], names: Sequence[str]) -> list[dict[str, float]]:
        """Per picture the score and the share of every rating."""
        try:
            scores, distributions = self.predictor.score_pixels(np.stack(inputs))
        except UserError as error:
            raise UserError(f"{names[0]} and the pictures after it: {error}") from error
        return [{"aesthetic": float(score), **dict(zip(self.profile, map(float, shares)))}
                for score, shares in zip(scores, distributions)]

    def describe(self, value: float) -> str:
        """The name of a score's level."""
        return "{1} ({0})".format(*level(value))


def load_metric(backend: Backend, dtype: str, weights: str | os.PathLike | None, tower: str | os.PathLike | None,
                random: bool, batch: int = BATCH) -> AestheticMetric:
    """weights, tower, random: see read_scorer, whose UserErrors it raises."""
    return AestheticMetric(ScorerPredictor(backend, read_scorer(weights, tower, random), batch, dtype))
