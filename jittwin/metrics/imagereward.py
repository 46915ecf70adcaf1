"""The metric `imagereward`: how well people would like a picture that was made from its prompt."""
from jittwin.metrics.metric import Info, Request
from jittwin.metrics.prompted import PromptedMetric, load_predictor, weights_options
from jittwin.predictors.blip import TOKENIZER, ImageRewardPredictor

INFINITY = float("inf")
INFO = Info("imagereward", "assess", "reward for picture and prompt, in deviations from the mean of its training data",
            "higher", (-INFINITY, INFINITY), "hub THUDM/ImageReward", "Apache-2.0", needs_prompt=True,
            options=weights_options("imagereward", "ImageReward.pt, or a file of `jittwin convert`", TOKENIZER))


def load(request: Request) -> PromptedMetric:
    """UserError: no weights, or damaged ones; no vocabulary."""
    return PromptedMetric(INFO, load_predictor(request, INFO, ImageRewardPredictor))
