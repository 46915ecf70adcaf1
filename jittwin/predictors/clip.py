"""CLIPScore, the likeness of a picture and its prompt, and PickScore, which people's choices have trained.

CLIPScore is the cosine that the package image-reward computes with OpenAI's ViT-L/14. Hessel et al. 2021 (arXiv
2104.08718) multiply it by 2.5 and make negative cosines zero. PickScore: Kirstain et al. 2023, arXiv 2305.01569.
"""
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from jittwin.backend import Backend
from jittwin.data.synthetic.vocabulary import built_in_tokenizer
from jittwin.errors import UserError
from jittwin.models import clip
from jittwin.predictors.text_image import TextImagePredictor, Weights, read_network, untrained_network
from jittwin.predictors.towers import Towers
from jittwin.text import CLIP, OPENAI_CLIP, Tokens

TOKENIZER = "clip-vit-large-patch14"    # an example of the folder of its vocabulary
WEIGHT = 2.5                            # of the cosine, in Hessel's definition
SCALES = ("cosine", "hessel")
CLEANINGS = {"openai": OPENAI_CLIP, "none": CLIP}


class ClipPredictor(TextImagePredictor):
    """What the scores of CLIP have in common. Prompts are padded to the longest of a batch."""

    name: str               # of the score

    def __init__(self, backend: Backend, weights: Weights, dtype: str = "float32", towers: Towers | None = None):
        longest = min(CLIP.length, weights.config.text.max_position_embeddings)
        super().__init__(backend, weights, clip.preprocess(weights.config), longest, dtype, towers)

    @classmethod
    def read(cls, where: str | os.PathLike, tokenizer: str | os.PathLike | None = None) -> Weights:
        """The weights in a file or hub folder. UserError: see read_network; a vocabulary of another network."""
        fix = f"--{cls.name}-tokenizer {TOKENIZER}"
        found = read_network("clip", where, CLIP, lambda config: config.text.vocab_size, tokenizer, fix)
        end, tokens = found.config.text.eos_token_id, found.tokenizer
        expected = len(tokens) - 1 if end == clip.LARGEST_ID else end
        if tokens.end != expected:
            raise UserError(f"{os.fspath(where)}: the end of a text has the id {expected}, and {tokens.end} in the "
                            f"vocabulary; give its own: {fix}")
        return found

    @classmethod
    def untrained(cls, backend: Backend) -> Weights:
        """A tiny network that nobody trained."""
        tokenizer, tiny = built_in_tokenizer(CLIP), clip.PRESETS["tiny"]
        text = replace(tiny.text, vocab_size=len(tokenizer), max_position_embeddings=CLIP.length)
        return untrained_network(backend, "clip", replace(tiny, text=text), tokenizer)

    def encode(self, tokens: Tokens) -> Iterable:
        return self.backend.numpy(self.network.text_features(self.backend.asarray(tokens.ids)))

    def compare(self, pixels, encoded: Sequence):
        return (self.network.image_features(pixels) * self.backend.asarray(np.stack(encoded))).sum(1)


class ClipScorePredictor(ClipPredictor):
    """Cosines of the features of pictures and of their prompts.

    scale: "cosine", or "hessel" for 2.5 max(cosine, 0). cleaning: of prompts, "openai" as OpenAI's tokenizer does, or
    "none" as transformers' does.
    """

    name = "clipscore"

    def __init__(self, backend: Backend, weights: Weights, dtype: str = "float32", towers: Towers | None = None,
                 scale: str = SCALES[0], cleaning: str = "openai"):
        tokenizer = weights.tokenizer.like(CLEANINGS[cleaning])
        super().__init__(backend, replace(weights, tokenizer=tokenizer), dtype, towers)
        self.scale, self.cleaning = scale, cleaning

    def score_pixels(self, pixels: np.ndarray, prompts: Sequence[str]) -> np.ndarray:
        cosines = super().score_pixels(pixels, prompts)
        return cosines if self.scale == SCALES[0] else WEIGHT * np.maximum(cosines, 0)

    @property
    def provenance(self) -> dict:
        return super().provenance | {"convention": "cosine" if self.scale == SCALES[0] else f"{WEIGHT} max(cosine, 0)",
                                     "cleaning": self.cleaning}


class PickScorePredictor(ClipPredictor):
    """Cosines times the scale that CLIP has learnt, about 100."""

    name = "pickscore"

    def compare(self, pixels, encoded: Sequence):
        return super().compare(pixels, encoded) * self.network.scale()

    @property
    def provenance(self) -> dict:
        scale = float(np.exp(np.float64(self.weights.arrays["logit_scale"])))
        return super().provenance | {"convention": f"exp(logit_scale) cosine, exp(logit_scale) = {scale:.6g}"}
