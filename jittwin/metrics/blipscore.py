"""The metric `blipscore`: how well a picture shows its prompt, by BLIP."""
from jittwin.metrics.metric import Info, Request
from jittwin.metrics.prompted import PromptedMetric, load_predictor, weights_options
from jittwin.predictors.blip import TOKENIZER, BlipScorePredictor

INFO = Info("blipscore", "assess", "cosine of BLIP's features of the picture and of its prompt", "higher", (-1, 1),
            "BLIP's model_large.pth", "BSD-3-Clause", needs_prompt=True,
            options=weights_options("blipscore", "BLIP's model_large.pth, a file of `jittwin convert`, or a folder of "
                                    "transformers' BlipForImageTextRetrieval", TOKENIZER))


def load(request: Request) -> PromptedMetric:
    """UserError: no weights, or damaged ones; no vocabulary."""
    return PromptedMetric(INFO, load_predictor(request, INFO, BlipScorePredictor))
