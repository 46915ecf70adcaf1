"""Predictions of distortion as the challenge takes them: a score and an area for each picture, in a pickle.

Each entry is {"score": float, "pred_area": uint8 (H, W)}, under the picture's name up to its first dot. Areas are 0 and
1 in what is handed in. In the original's "raw" files they are the heat map from 0 to 255; only those can be merged.
"""
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jittwin.atomic import atomic_write
from jittwin.data.matching import few
from jittwin.errors import UserError
from jittwin.weights.content import read_pickle

THRESHOLD = 90      # of a heat map from 0 to 255, as handed in by the original
SCORE, AREA = "score", "pred_area"


@dataclass(frozen=True)
class Prediction:
    """score: from 0 to 1. area: uint8 (H, W), a heat map from 0 to 255, or 0 and 1."""
    score: float
    area: np.ndarray


def to_levels(heat: np.ndarray) -> np.ndarray:
    """A heat map from 0 to 1 as uint8 from 0 to 255, rounded."""
    return np.rint(np.clip(np.asarray(heat, np.float64), 0, 1) * 255).astype(np.uint8)


def binarise(area: np.ndarray, threshold: float = THRESHOLD) -> np.ndarray:
    """Where a heat map uint8 exceeds the threshold, bool. What is handed in and the search for a threshold share it."""
    return area > threshold


def thresholded(predictions: Mapping[str, Prediction], threshold: float = THRESHOLD) -> dict[str, Prediction]:
    """The predictions with their heat maps as 0 and 1."""
    return {name: Prediction(each.score, binarise(each.area, threshold).astype(np.uint8))
            for name, each in predictions.items()}


def key_of(name: str) -> str:
    """The name of a picture in a submission: that of its file up to the first dot."""
    return Path(name).name.split(".")[0]


def merged(predictions: Sequence[Mapping[str, Prediction]]) -> dict[str, Prediction]:
    """The mean of several files of heat maps. Means of maps lose their fractions, as in the original.

    UserError: files with different pictures, or maps of different sizes.
    """
    first = predictions[0]
    for other in predictions[1:]:
        if lacking := sorted(first.keys() ^ other.keys()):
            raise UserError(f"{len(lacking)} pictures are in some of the files to merge and not in others: "
                            f"{few(lacking)}; predict the same pictures with every network")
    found = {}
    for name in first:
        parts = [each[name] for each in predictions]
        shapes = {part.area.shape for part in parts}
        if len(shapes) > 1:
            raise UserError(f"{name}: its maps to merge have the sizes {', '.join(map(str, sorted(shapes)))}; predict "
                            "with one size")
        found[name] = Prediction(float(np.mean([part.score for part in parts])),
                                 np.mean([part.area for part in parts], axis=0).astype(np.uint8))
    return found


def is_raw(predictions: Mapping[str, Prediction]) -> bool:
    """Whether the areas are heat maps from 0 to 255; False where no value is above 1 and some are 1."""
    return max((int(each.area.max(initial=0)) for each in predictions.values()), default=0) != 1


def write_submission(path, predictions: Mapping[str, Prediction]) -> None:
    """Write the challenge's pickle atomically."""
    content = {name: {SCORE: float(each.score), AREA: np.ascontiguousarray(each.area, np.uint8)}
               for name, each in predictions.items()}
    with atomic_write(path) as stream:
        pickle.dump(content, stream, protocol=4)


def read_submission(path) -> dict[str, Prediction]:
    """The predictions of a file; nothing in it is executed. UserError: hostile, damaged, or of another form."""
    content = read_pickle(path)
    if not isinstance(content, dict) or not content:
        raise UserError(f"{path}: holds no dictionary of predictions; give a submission, {{name: {{{SCORE!r}, "
                        f"{AREA!r}}}}}")
    found = {}
    for name, entry in content.items():
        area, score = (entry.get(AREA), entry.get(SCORE)) if isinstance(entry, dict) else (None, None)
        is_map = isinstance(area, np.ndarray) and area.ndim == 2 and area.dtype in (np.uint8, np.bool_)
        is_number = isinstance(score, (int, float)) and not isinstance(score, bool)
        if not (isinstance(name, str) and is_map and is_number):
            raise UserError(f"{path}: its entry {name!r:.60} is not {{{SCORE!r}: number, {AREA!r}: uint8 (H, W)}}; "
                            "write the file again")
        found[name] = Prediction(float(score), area.astype(np.uint8))
    return found
