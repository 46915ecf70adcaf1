"""The distinct neighbourhoods of class ids in a batch of label maps.

Two 3x3 convolutions of a label map give, at every pixel, a function of the 5x5 class ids around it. A label map has few
different ones, most often 1 to 5 percent of its pixels at 512x384, and the function need be computed once for each.
"""
from functools import lru_cache
from typing import NamedTuple

import numpy as np


class Neighbourhoods(NamedTuple):
    """patches (V, 3, 3): the distinct 3x3 neighbourhoods of class ids; `classes` is no class, as is outside the map.
    around (U, 9): for each distinct 5x5 neighbourhood, the patches whose centres are its inner 3x3 pixels, row by row;
    V is outside the map. index (B, H, W): the 5x5 neighbourhood of every pixel. All are int32.
    """
    patches: np.ndarray
    around: np.ndarray
    index: np.ndarray

    @property
    def share(self) -> float:
        """Distinct neighbourhoods over pixels."""
        return len(self.around) / self.index.size


def neighbourhoods(labels: np.ndarray, classes: int) -> Neighbourhoods:
    """The neighbourhoods in class ids (B, H, W). An id outside 0..classes-1 is no class, as in a one-hot map."""
    ids = np.where((labels >= 0) & (labels < classes), labels, classes).astype(np.int32)
    return _found(ids.tobytes(), ids.shape, classes)


@lru_cache(maxsize=8)       # a training step asks twice for the same label maps, at seven sizes
def _found(ids: bytes, shape: tuple[int, int, int], classes: int) -> Neighbourhoods:
    patches, centres = _windows(np.frombuffer(ids, np.int32).reshape(shape), classes)
    around, index = _windows(centres, len(patches))
    return Neighbourhoods(patches, around.reshape(-1, 9), index)


def _windows(codes: np.ndarray, outside: int) -> tuple[np.ndarray, np.ndarray]:
    """The distinct 3x3 windows (N, 3, 3) of maps of codes from 0 to `outside`, and their numbers (B, H, W)."""
    rows, codes = _triples(codes, 2, outside)
    columns, codes = _triples(codes, 1, len(rows))
    return np.vstack([rows, np.full((1, 3), outside, np.int32)])[columns], codes


def _triples(codes: np.ndarray, axis: int, outside: int) -> tuple[np.ndarray, np.ndarray]:
    """The distinct triples (N, 3) of codes that follow one another along the axis, and their numbers (B, H, W)."""
    padding = [(1, 1) if dim == axis else (0, 0) for dim in range(3)]
    codes = np.pad(codes, padding, constant_values=outside).astype(np.int64)
    before, at, after = (codes.take(range(start, codes.shape[axis] - 2 + start), axis) for start in range(3))
    base = outside + 1
    keys, numbers = np.unique((before * base + at) * base + after, return_inverse=True)
    triples = np.stack([keys // base ** 2, keys // base % base, keys % base], 1)
    return triples.astype(np.int32), numbers.reshape(at.shape).astype(np.int32)
