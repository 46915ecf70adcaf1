"""Predicted votes of generated pictures by TIER, which sees a picture with the prompts that it was made from."""
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from jittwin.backend import Backend
from jittwin.checkpoints.find import run_file
from jittwin.data.synthetic.vocabulary import built_in_tokenizer
from jittwin.errors import UserError
from jittwin.models.bert import PRESETS as TEXTS
from jittwin.models.catalog import find
from jittwin.models.tier import MODES, TierConfig, make_config, preprocess
from jittwin.predictors.towers import NetworkPredictor, Towers, check_finite
from jittwin.predictors.vocabulary import vocabulary
from jittwin.text import BERT, Tokenizer
from jittwin.weights.initial import initial_weights

STEM = "model"              # of the network's file in a checkpoint
UNTRAINED, TOKENS = "resnet18", 64      # backbone of the untrained network, and most tokens that it reads
FIX = "--tier-tokenizer bert-base-uncased"


@dataclass(frozen=True)
class Weights:
    """The arrays of a TIER and what goes with them.

    name: of their file. tokenizer: None for a baseline. column: name of the votes that they were trained on, "" where
    the file does not tell. native: pictures are normalised as for the backbone's own weights, not as for ImageNet.
    random: they are untrained.
    """

    name: str
    config: TierConfig
    arrays: Mapping[str, np.ndarray]
    tokenizer: Tokenizer | None
    column: str = ""
    native: bool = False
    random: bool = False


def read_tier(where: str | os.PathLike, mode: str | None = None, tokenizer: str | os.PathLike | None = None) -> Weights:
    """The weights in a file of ours or of the original, a checkpoint or a run.

    RUN stands for the newest checkpoint of a run, RUN/best for the best. mode: "nr", "fr" or "pr", for a file that does
    not tell it. tokenizer: folder of BERT's vocabulary; None for the one beside the weights or of their run. UserError:
    missing or damaged files, other networks, a vocabulary of another size.
    """
    path = run_file(Path(where), STEM)
    if not path.exists():
        raise UserError(f"{os.fspath(where)}: no TIER here; give best_model.pt of the original, a file of `jittwin "
                        "convert`, a run of `jittwin train tier`, or RUN/best")
    conversion = find("tier").conversion
    source = conversion.open(path, mode)
    config = conversion.infer(source.arrays.shapes, source)
    found = None
    if config.text:
        found = vocabulary(path, tokenizer, BERT, config.text.vocab_size, FIX, at_most=True)
    return Weights(os.fspath(where), config, source.arrays, found, str(source.metadata.get("column", "")),
                   source.metadata.get("normalisation") == "native")


def untrained(backend: Backend, mode: str | None = None) -> Weights:
    """Weights of a tiny network that nobody trained, the same on both backends."""
    tokenizer = built_in_tokenizer()
    text = replace(TEXTS["tiny"], vocab_size=len(tokenizer), max_position_embeddings=TOKENS)
    config = make_config(mode or MODES[0], UNTRAINED, "tiny", text)
    return Weights(f"random:tiny:{config.mode}", config, initial_weights("tier", backend.state_shapes("tier", config)),
                   tokenizer, random=True)


class TierPredictor(NetworkPredictor):
    """Votes predicted by a backend that is set up. Each distinct prompt and each distinct image prompt is encoded once.
    """

    def __init__(self, backend: Backend, weights: Weights, dtype: str = "float32", towers: Towers | None = None):
        text = weights.config.text
        super().__init__(backend, "tier", weights, preprocess(weights.config, weights.native),
                         min(BERT.length, text.max_position_embeddings) if text else 0, dtype, towers)
        self._texts: dict[str, np.ndarray] = {}
        self._prompts: dict[str, np.ndarray] = {}

    def score_pixels(self, pixels: np.ndarray, prompts: Sequence[str],
                     image_prompts: Sequence[str | None] | None = None,
                     pictures: Mapping[str, np.ndarray] | None = None) -> np.ndarray:
        """Predicted votes, float64 (N,), of prepared pixels (N, 3, S, S).

        prompts: not read by a baseline. image_prompts: for the modes "fr" and "pr", a name for each picture, None for
        no image prompt. pictures: prepared pixels by these names, looked up once for each. UserError: a result that is
        not finite.
        """
        backend, network = self.backend, self.network
        backend.set_precision(self.dtype)       # another predictor may have set its own
        with backend.no_grad():
            found = backend.numpy(network.look(backend.asarray(pixels)))
            if self.config.image_prompts:
                second = np.stack([own if name is None else self.prompt_features(name, pictures)
                                   for own, name in zip(found, image_prompts, strict=True)])
                image = network.join(backend.asarray(found), backend.asarray(second))
            else:
                image = backend.asarray(found)
            text = backend.asarray(self.text_features(prompts)) if self.config.text else None
            scores = backend.numpy(network.predict(image, text)).astype(np.float64)
        check_finite(scores)
        return scores

    def text_features(self, prompts: Sequence[str]) -> np.ndarray:
        """Features (N, C) of prompts, padded to the longest of those that are new."""
        if new := [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._texts]:
            tokens = self.weights.tokenizer(new, at_most=self.longest)
            self.truncated += [new[row] for row in tokens.truncated]
            backend = self.backend
            found = backend.numpy(self.network.encode_text(backend.asarray(tokens.ids), backend.asarray(tokens.mask)))
            self._texts |= zip(new, found)
        return np.stack([self._texts[prompt] for prompt in prompts])

    def prompt_features(self, name: str, pictures: Mapping[str, np.ndarray]) -> np.ndarray:
        """Features (D,) of an image prompt."""
        if name not in self._prompts:
            pixels = self.backend.asarray(pictures[name][None])
            self._prompts[name] = self.backend.numpy(self.network.look(pixels))[0]
        return self._prompts[name]

    @property
    def provenance(self) -> dict:
        return super().provenance | {"backbone": self.config.backbone, "votes": self.weights.column}
