"""Implausible places of generated pictures and scores of how plausible they are, by a detector of distortion."""
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from jittwin.backend import Backend
from jittwin.checkpoints.find import run_file
from jittwin.data.synthetic.vocabulary import built_in_tokenizer
from jittwin.errors import UserError
from jittwin.models import florence2
from jittwin.models.catalog import find
from jittwin.models.distortion import SIZES, DistortionConfig, encode_prompts, preprocess, sized
from jittwin.models.florence2 import Florence2Config
from jittwin.predictors.towers import NetworkPredictor, Towers, check_finite
from jittwin.predictors.vocabulary import vocabulary
from jittwin.text import BART, Tokenizer
from jittwin.weights import read_metadata
from jittwin.weights.initial import initial_weights

STEM = "model"              # of the network's file in a checkpoint
MERGED = "merged.safetensors"       # of a run with LoRA: the best detector as a whole
SHORT = 128                 # positions of such a trunk, which suffice for the built-in tokenizer
FIX = "--distortion-tokenizer facebook/bart-large"


@dataclass(frozen=True)
class Weights:
    """The arrays of a detector and what goes with them. name: of their file. random: they are untrained."""

    name: str
    config: DistortionConfig
    arrays: Mapping[str, np.ndarray]
    tokenizer: Tokenizer
    random: bool = False


def detector_file(where: str | os.PathLike) -> Path:
    """The file that `where` stands for: itself, or that of a run, its best checkpoint (RUN/best) or any other.

    A run with LoRA has one file with the whole of its best detector. Averaged weights come before those of the last
    step. UserError: a run without such a checkpoint, a checkpoint that holds LoRA alone.
    """
    path = Path(where)
    for run in (path, *([path.parent] if path.name.startswith("best") and not path.exists() else [])):
        if (run / MERGED).is_file():
            return run / MERGED
    found = run_file(path, STEM)
    averaged = found.with_name(f"{STEM}.ema.safetensors")
    if found != path and averaged.is_file():
        found = averaged
    if not found.exists():
        raise UserError(f"{os.fspath(where)}: no detector here; give last.pth of the original, a file of `jittwin "
                        "convert`, a run of `jittwin train distortion`, or RUN/best")
    if found.suffix == ".safetensors" and "lora" in read_metadata(found):
        raise UserError(f"{found}: holds LoRA without the trunk: give the run, whose {MERGED} has both")
    return found


def read_detector(where: str | os.PathLike, tokenizer: str | os.PathLike | None = None,
                  text_mode: str | None = None) -> Weights:
    """The weights in a file of ours or of the original, a checkpoint or a run; see `detector_file`.

    tokenizer: folder of BART's vocabulary; None for the one beside the weights or of their run. text_mode: "reference"
    or "fast", None for that of the file. UserError: missing or damaged files, other networks, a vocabulary of another
    size.
    """
    path = detector_file(where)
    conversion = find("distortion").conversion
    source = conversion.open(path)
    config = conversion.infer(source.arrays.shapes, source)
    if text_mode not in (None, config.text_mode):
        config = sized(config.trunk, config.score_head, config.mask_head, config.image_size, text_mode, None,
                       config.head_width)
    known = vocabulary(path, tokenizer, BART, config.trunk.text.vocab_size, FIX, at_most=True)
    return Weights(os.fspath(where), config, source.arrays, known)


def small_trunk(tokenizer: Tokenizer, size: str = "tiny") -> Florence2Config:
    """The sizes of a trunk, "small" or "tiny", for a tokenizer."""
    trunk = florence2.PRESETS[size]
    text = replace(trunk.text, vocab_size=len(tokenizer), max_position_embeddings=SHORT, pad_token_id=tokenizer.pad)
    return replace(trunk, text=text)


def untrained(backend: Backend) -> Weights:
    """Weights of a tiny detector that nobody trained, the same on both backends."""
    tokenizer = built_in_tokenizer(BART)
    side, width = SIZES["tiny"]
    config = sized(small_trunk(tokenizer), "linear", "concat", side, "fast", None, width)
    return Weights("random:tiny", config, initial_weights("distortion", backend.state_shapes("distortion", config)),
                   tokenizer, True)


class DistortionPredictor(NetworkPredictor):
    """Maps and scores by a backend that is set up; a prompt is read with the instruction around it."""

    def __init__(self, backend: Backend, weights: Weights, dtype: str = "float32", towers: Towers | None = None):
        super().__init__(backend, "distortion", weights, preprocess(weights.config), weights.config.text_length, dtype,
                         towers)

    def predict(self, image: np.ndarray, prompt: str) -> tuple[float, np.ndarray]:
        """(score from 0, bad, to 1; map float32 (S, S) from 0 to 1, where 1 is implausible) of a picture uint8
        (H, W, 3) and the text that it was made from. UserError: a result that is not finite."""
        scores, maps = self.score_pixels(self.preprocess(image)[None], [prompt])
        return float(scores[0]), maps[0]

    def score_pixels(self, pixels: np.ndarray, prompts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """(scores float64 (N,), maps float32 (N, S, S)) of prepared pixels (N, 3, S, S).

        UserError: a result that is not finite.
        """
        backend = self.backend
        tokens = encode_prompts(self.config, self.weights.tokenizer, prompts)
        self.truncated = list(dict.fromkeys([*self.truncated, *(prompts[row] for row in tokens.truncated)]))
        backend.set_precision(self.dtype)       # another predictor may have set its own
        with backend.no_grad():
            maps, scores = self.network(backend.asarray(pixels), backend.asarray(tokens.ids),
                                        backend.asarray(tokens.mask, "float32"))
            maps, scores = backend.numpy(maps)[:, 0], backend.numpy(scores).astype(np.float64)
        check_finite(scores, maps)
        return scores, maps

    @property
    def provenance(self) -> dict:
        return super().provenance | {"text": f"{self.config.text_mode} {self.config.text_length}"}
