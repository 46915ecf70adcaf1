"""BLIPScore, the likeness of a picture and its prompt, and ImageReward, how well people would like the picture.

Li et al. 2022, arXiv 2201.12086; Xu et al. 2023, arXiv 2304.05977. Both prepare a picture as CLIP does, and pad every
prompt to 35 tokens.
"""
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from jittwin.backend import Backend
from jittwin.data.synthetic.vocabulary import built_in_tokenizer
from jittwin.errors import UserError
from jittwin.models import blip, image_reward
from jittwin.models.blip import BlipConfig
from jittwin.predictors.text_image import TextImagePredictor, Weights, read_network, untrained_network
from jittwin.predictors.towers import Towers
from jittwin.text import BLIP, Tokens

SIDE = blip.PRESETS["large"].vision.image_size
TOKENIZER = "bert-base-uncased"     # an example of the folder of its vocabulary


class BlipPredictor(TextImagePredictor):
    """What the scores of BLIP and ImageReward have in common; it is made from the weights of either."""

    padded = True
    name: str       # of the score
    model: str      # of its network in the catalogue

    def __init__(self, backend: Backend, weights: Weights, dtype: str = "float32", towers: Towers | None = None):
        config = self.of(weights.config)
        longest = min(BLIP.length, config.text.max_position_embeddings)
        super().__init__(backend, weights, blip.preprocess(config), longest, dtype, towers)

    @staticmethod
    def of(config) -> BlipConfig:
        """The sizes of the BLIP in a network."""
        return getattr(config, "blip", config)

    @classmethod
    def read(cls, where: str | os.PathLike, tokenizer: str | os.PathLike | None = None) -> Weights:
        """The weights in a file or hub folder. UserError: see read_network; a network for larger pictures."""
        found = read_network(cls.model, where, BLIP, lambda config: cls.of(config).text.vocab_size, tokenizer,
                             f"--{cls.name}-tokenizer {TOKENIZER}")
        side = cls.of(found.config).vision.image_size
        if side > SIDE:
            raise UserError(f"{os.fspath(where)}: was trained on pictures of {side} pixels and has as many positions; "
                            f"{cls.name} is made with pictures of {SIDE} pixels, and positions are not interpolated; "
                            "give the file that the score was published with")
        return found

    @classmethod
    def untrained(cls, backend: Backend) -> Weights:
        """A tiny network that nobody trained."""
        tokenizer, tiny = built_in_tokenizer(BLIP), blip.PRESETS["tiny"]
        config = replace(tiny, text=replace(tiny.text, vocab_size=len(tokenizer)))
        if cls.model != "blip":
            config = replace(image_reward.PRESETS["tiny"], blip=config)
        return untrained_network(backend, cls.model, config, tokenizer)


class BlipScorePredictor(BlipPredictor):
    """The cosine of BLIP's features of a picture and of its prompt, by which it was pretrained to compare them.

    This is not the output of BLIP's matching head.
    """

    name, model = "blipscore", "blip"

    def encode(self, tokens: Tokens) -> Iterable:
        backend = self.backend
        return backend.numpy(self.network.text_features(backend.asarray(tokens.ids), backend.asarray(tokens.mask)))

    def compare(self, pixels, encoded: Sequence):
        return (self.network.image_features(pixels) * self.backend.asarray(np.stack(encoded))).sum(1)

    @property
    def provenance(self) -> dict:
        return super().provenance | {"convention": "cosine"}


class ImageRewardPredictor(BlipPredictor):
    """Rewards. A prompt is read while looking at each picture, so all that is kept of it are its tokens."""

    name, model = "imagereward", "image_reward"

    def encode(self, tokens: Tokens) -> Iterable:
        return zip(tokens.ids, tokens.mask)

    def compare(self, pixels, encoded: Sequence):
        return self.network(pixels, *(self.backend.asarray(np.stack(part)) for part in zip(*encoded)))

    @property
    def provenance(self) -> dict:
        return super().provenance | {"convention": f"(reward - {image_reward.MEAN}) / {image_reward.STD}"}
