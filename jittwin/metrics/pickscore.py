"""The metric `pickscore`: which of the pictures of a prompt people would choose."""
from jittwin.metrics.metric import Info, Request
from jittwin.metrics.prompted import PromptedMetric, load_predictor, weights_options
from jittwin.predictors.clip import TOKENIZER, PickScorePredictor

INFO = Info("pickscore", "assess", "how much people prefer a picture for its prompt: CLIP's cosine times about 100",
            "higher", (-100, 100), "hub yuvalkirstain/PickScore_v1", "MIT", needs_prompt=True,
            options=weights_options("pickscore", "hub folder of PickScore_v1, or a file of `jittwin convert`",
                                    TOKENIZER))


def load(request: Request) -> PromptedMetric:
    """UserError: no weights, or damaged ones; no vocabulary."""
    return PromptedMetric(INFO, load_predictor(request, INFO, PickScorePredictor))
