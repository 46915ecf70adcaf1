"""The metric `clipscore`: how well a picture shows its prompt, by CLIP."""
from dataclasses import replace

from jittwin.errors import UserError, choose_from
from jittwin.metrics.metric import Info, Option, Request
from jittwin.metrics.prompted import PromptedMetric, load_predictor, weights_options
from jittwin.predictors.clip import CLEANINGS, SCALES, TOKENIZER, WEIGHT, ClipScorePredictor

SCALE = Option("clipscore-scale", "SCALE", f"cosine (default), or hessel for {WEIGHT} max(cosine, 0) of Hessel et al. "
               "2021")
CLEANING = Option("clipscore-cleaning", "CLEANING", "of prompts: openai (default) for that of OpenAI's tokenizer, or "
                  "none for that of transformers")
LEGAL = {SCALE: SCALES, CLEANING: tuple(CLEANINGS)}
INFO = Info("clipscore", "assess", "cosine of CLIP's features of the picture and of its prompt", "higher", (-1, 1),
            "OpenAI's ViT-L-14.pt, or hub openai/clip-vit-large-patch14", "MIT", needs_prompt=True,
            options=(*weights_options("clipscore", "OpenAI's ViT-L-14.pt, a file of `jittwin convert`, or a hub folder "
                                      "of CLIP", TOKENIZER), SCALE, CLEANING))


def load(request: Request) -> PromptedMetric:
    """UserError: no weights, or damaged ones; no vocabulary; an unknown scale or cleaning."""
    chosen = {}
    for option, legal in LEGAL.items():
        chosen[option] = request.options.get(option.name) or legal[0]
        if chosen[option] not in legal:
            raise UserError(f"{option.flag} {chosen[option]}{choose_from(chosen[option], legal)}")
    info = INFO
    if chosen[SCALE] != SCALES[0]:
        info = replace(INFO, span=(0, WEIGHT), summary=f"{WEIGHT} max(cosine, 0) of CLIP's features of the picture and "
                       "of its prompt")
    return PromptedMetric(info, load_predictor(request, INFO, ClipScorePredictor, scale=chosen[SCALE],
                                               cleaning=chosen[CLEANING]))
