"""Scores of pictures by their prompts: how well a picture shows its prompt, or how well people would like it."""
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jittwin.backend import Backend
from jittwin.models.catalog import find
from jittwin.predictors.towers import NetworkPredictor, Towers, check_finite
from jittwin.predictors.vocabulary import vocabulary
from jittwin.preprocessing import Preprocess
from jittwin.text import Tokenizer, TokenizerKind, Tokens
from jittwin.weights.initial import initial_weights


@dataclass(frozen=True)
class Weights:
    """The arrays of a network and the tokenizer of its prompts.

    name: of their file. model: in the catalogue. random: they are untrained.
    """

    name: str
    model: str
    config: Any
    arrays: Mapping[str, np.ndarray]
    tokenizer: Tokenizer
    random: bool = False


def read_network(model: str, where: str | os.PathLike, kind: TokenizerKind, words,
                 tokenizer: str | os.PathLike | None, fix: str) -> Weights:
    """The weights in a file or hub folder.

    words: a function from the config to the tokens that the network knows. tokenizer, fix: see
    jittwin.predictors.vocabulary. UserError: missing or damaged files, another network, a vocabulary of another size.
    """
    conversion = find(model).conversion
    source = conversion.open(where)
    config = conversion.infer(source.arrays.shapes, source)
    place = source.folder.path if source.folder else Path(where)
    found = vocabulary(place, tokenizer, kind, words(config), fix)
    return Weights(os.fspath(where), model, config, source.arrays, found)


def untrained_network(backend: Backend, model: str, config: Any, tokenizer: Tokenizer) -> Weights:
    """Weights that nobody trained, the same on both backends."""
    arrays = initial_weights(model, backend.state_shapes(model, config))
    return Weights("random:tiny", model, config, arrays, tokenizer, random=True)


class TextImagePredictor(NetworkPredictor, ABC):
    """Scores by a backend that is set up. Each distinct prompt is encoded once."""

    padded = False      # whether every prompt is padded to `longest`, or only to the longest of a batch

    def __init__(self, backend: Backend, weights: Weights, preprocess: Preprocess, longest: int,
                 dtype: str = "float32", towers: Towers | None = None):
        super().__init__(backend, weights.model, weights, preprocess, longest, dtype, towers)
        self._encoded: dict[str, Any] = {}

    @abstractmethod
    def encode(self, tokens: Tokens) -> Iterable:
        """What is kept of each text."""

    @abstractmethod
    def compare(self, pixels, encoded: Sequence):
        """The scores (N,), a tensor, of pixels (N, 3, S, S), a tensor, and what `encode` kept of each prompt."""

    def score_pixels(self, pixels: np.ndarray, prompts: Sequence[str]) -> np.ndarray:
        """Scores, float64 (N,), of prepared pixels (N, 3, S, S). UserError: a result that is not finite."""
        backend = self.backend
        backend.set_precision(self.dtype)       # another predictor may have set its own
        with backend.no_grad():
            found = self.compare(backend.asarray(pixels), self.encoded(prompts))
            scores = backend.numpy(found).astype(np.float64)
        check_finite(scores)
        return scores

    def encoded(self, prompts: Sequence[str]) -> list:
        """What `encode` keeps of each prompt; those that are new are encoded together."""
        if new := [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._encoded]:
            tokens = self.weights.tokenizer(new, length=self.longest if self.padded else None, at_most=self.longest)
            self.truncated += [new[row] for row in tokens.truncated]
            self._encoded |= zip(new, self.encode(tokens), strict=True)
        return [self._encoded[prompt] for prompt in prompts]
