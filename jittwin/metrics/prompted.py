"""What metrics that read the prompts of pictures have in common."""
import numpy as np

from jittwin.errors import UserError
from jittwin.metrics.metric import Batch, Info, Option, Request, Scores


class PromptedMetric:
    """The scores of a predictor that reads prompts; a jittwin.metrics.metric.Metric.

    predictor: like jittwin.predictors.text_image.TextImagePredictor.
    """

    profile = ()

    def __init__(self, info: Info, predictor):
        self.info, self.predictor = info, predictor
        self.preprocess, self.provenance = predictor.preprocess, predictor.provenance
        self.random, self.towers = predictor.weights.random, (predictor.tower,)

    def values(self, batch: Batch) -> np.ndarray:
        """The score of each picture."""
        return self.predictor.score_pixels(np.stack(batch.pixels), batch.prompts)

    def score(self, batch: Batch) -> Scores:
        """The score of each picture. UserError: one is not finite."""
        try:
            found = self.values(batch)
        except UserError as error:
            raise UserError(f"{batch.names[0]} and the pictures after it: {error}") from error
        return Scores([{self.info.name: float(value)} for value in found])

    @property
    def notes(self) -> tuple[str, ...]:
        """A line about the prompts that have proved too long."""
        if not (cut := self.predictor.truncated):
            return ()
        return (f"{self.info.name}: {len(cut)} prompts have more than {self.predictor.longest} tokens and lose their "
                f"ends, such as {' '.join(cut[0].split())[:60]!r}",)

    def describe(self, value: float) -> str:
        return ""


def weights_options(name: str, what: str, tokenizer: str) -> tuple[Option, Option]:
    """The options of a metric whose network has a file of weights and a tokenizer. what, tokenizer: examples."""
    return (Option(f"{name}-weights", "FILE", what, weights=True),
            Option(f"{name}-tokenizer", "FOLDER", f"folder of its vocabulary, such as {tokenizer} (default: the one "
                   "beside the weights)"))


def is_text_image(info: Info) -> bool:
    """Whether the metric gives one number from a predictor of load_predictor, by the options of weights_options."""
    names = [option.name for option in info.options[:2]]
    return info.produces == "score" and names == [f"{info.name}-weights", f"{info.name}-tokenizer"]


def load_predictor(request: Request, info: Info, predictor, **settings):
    """The predictor of a metric with the options that weights_options makes.

    predictor: its class, with `read` and `untrained`. settings: further arguments of the class. UserError: no weights,
    or damaged ones.
    """
    weights, tokenizer = info.options[:2]
    where = request.options[weights.name]
    if where is None and not request.random:
        raise UserError(f"{info.name} needs trained weights: give {weights.flag} {weights.metavar}, or "
                        "--random-weights")
    found = (predictor.untrained(request.backend) if where is None else
             predictor.read(where, request.options[tokenizer.name]))
    return predictor(request.backend, found, request.dtype, request.towers, **settings)
