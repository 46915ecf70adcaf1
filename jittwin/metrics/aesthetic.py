"""The metric `aesthetic`: the mean rating that people would give a picture, 1 to 10."""
import numpy as np

from jittwin.errors import UserError
from jittwin.metrics.metric import Batch, Info, Option, Request, Scores
from jittwin.models.aesthetic import CLASSES, level
from jittwin.predictors.aesthetic import Predictor, ScorerPredictor, read_scorer

WEIGHTS = Option("aesthetic-weights", "ADAPTER", "best_lora.pth, a peft folder, a checkpoint or a run", weights=True)
TOWER = Option("aesthetic-tower", "FOLDER", "hub folder of the SigLIP model that the adapters were trained on "
               "(default: the one they name); with --random-weights an architecture, such as tiny", aliases=("tower",))
INFO = Info("aesthetic", "assess", "mean rating, as of photographs in AVA", "higher", (1, 10),
            "a SigLIP2 tower and adapters", "Apache-2.0 (the tower)", "distribution", options=(WEIGHTS, TOWER))


class AestheticMetric:
    """The mean of the predicted ratings, with their distribution; a jittwin.metrics.metric.Metric."""

    info = INFO
    profile = tuple(f"aesthetic_p{rating}" for rating in range(1, CLASSES + 1))
    notes = ()

    def __init__(self, predictor: Predictor):
        self.predictor, self.preprocess = predictor, predictor.preprocess
        self.random, self.provenance, self.towers = predictor.random, predictor.provenance, predictor.towers

    def score(self, batch: Batch) -> Scores:
        """For each picture the score, and the predicted fraction of every rating. UserError: a score is not finite."""
        try:
            scores, distributions = self.predictor.score_pixels(np.stack(batch.pixels))
        except UserError as error:
            raise UserError(f"{batch.names[0]} and the pictures after it: {error}") from error
        return Scores([{"aesthetic": float(score), **dict(zip(self.profile, map(float, fractions)))}
                       for score, fractions in zip(scores, distributions)])

    def describe(self, value: float) -> str:
        """The level of a score in words."""
        return "{1} ({0})".format(*level(value))


def load(request: Request) -> AestheticMetric:
    """UserError: see read_scorer."""
    scorer = read_scorer(request.backend.state_shapes, request.options[WEIGHTS.name], request.options[TOWER.name],
                         request.random)
    return AestheticMetric(ScorerPredictor(request.backend, scorer, request.batch, request.dtype, request.towers))
