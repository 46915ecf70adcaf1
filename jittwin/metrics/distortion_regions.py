"""How well the regions of predicted maps meet those of annotated ones, as the scorer of the structure track counts.

NTIRE 2025, arXiv 2505.16314. The scorer uses OpenCV's outer contours; the same regions and areas follow from connected
components, as described here, so that OpenCV is not needed.
"""
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from jittwin import imaging

SIDE = 512                      # maps are compared as squares of this many pixels
PREDICTED_LEAST = 0.0006        # a predicted region counts if its area is a larger part of the square
TRUE_LEAST = 150.0              # an annotated region counts if its area in pixels is larger
OVERLAP = 0.1                   # regions meet if their intersection is a larger part of their union
_EIGHT = np.ones((3, 3), bool)  # pixels that touch at a corner are connected


def on_square(area: np.ndarray) -> np.ndarray:
    """Where a map uint8 (H, W) is not 0, bool (SIDE, SIDE), after bilinear resizing and rounding."""
    return imaging.resize_levels(area, (SIDE, SIDE)) > 0


def contour_areas(labels: np.ndarray, count: int) -> np.ndarray:
    """The areas (count,) inside the lines through the centres of the border pixels of regions without holes.

    labels: int (H, W), the number of the region that a pixel is of, from 1, or 0. OpenCV's contourArea: 1 for each four
    neighbouring pixels in a square that are inside, 1/2 where three are. A square of 10 pixels has 81.
    """
    padded = np.pad(labels, 1)
    corners = padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    # Pixels of one square touch, so that all of them that are in a region are in the same one.
    inside, label = sum((corner > 0).astype(np.uint8) for corner in corners), np.maximum.reduce(corners)
    areas = (np.bincount(label[inside == number], minlength=count + 1) for number in (4, 3))
    return (next(areas) + next(areas) / 2)[1:]


def regions(mask: np.ndarray, least: float) -> tuple[np.ndarray, int]:
    """Connected regions of bool (H, W) with a contour area above `least`: int (H, W) of their numbers, from 1, and how
    many there are. Holes belong to the region around them, with what lies in them."""
    around, _ = ndimage.label(np.pad(~mask, 1, constant_values=True))      # what touches at a corner is apart
    labels, count = ndimage.label(around[1:-1, 1:-1] != around[0, 0], _EIGHT)
    kept = contour_areas(labels, count) > least
    return np.concatenate([[0], np.where(kept, kept.cumsum(), 0)])[labels], int(kept.sum())


@dataclass(frozen=True)
class Tally:
    """Counts over pictures. hits: predicted regions that meet an annotated one. misses: annotated regions that none
    meets. overlap: the sum of the intersections over the unions of all that is marked in a picture."""
    predicted: int = 0
    hits: int = 0
    true: int = 0
    misses: int = 0
    pictures: int = 0
    overlap: float = 0.0

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))

    @property
    def precision(self) -> float:
        """Part of the predicted regions that meet an annotated one. Without predicted regions 1 if none is annotated
        either, else 0."""
        return self.hits / self.predicted if self.predicted else float(not self.true)

    @property
    def recall(self) -> float:
        """Part of the annotated regions that are met. Without annotated regions 1 if none is predicted, else 0."""
        return 1 - self.misses / self.true if self.true else float(not self.predicted)

    @property
    def f1(self) -> float:
        return 2 * self.precision * self.recall / (self.precision + self.recall + 1e-10)

    @property
    def iou(self) -> float:
        """Mean intersection over union of all that is marked; nan without pictures."""
        return self.overlap / self.pictures if self.pictures else float("nan")


def compared(predicted: np.ndarray, true: np.ndarray, least: float = PREDICTED_LEAST,
             true_regions: tuple[np.ndarray, int] | None = None) -> Tally:
    """The counts of one picture: predicted and annotated places, bool (SIDE, SIDE).

    Regions meet as they are: one may meet several. least: see PREDICTED_LEAST. true_regions: the result of
    `regions(true, TRUE_LEAST)`, where it is known.
    """
    numbers, count = regions(predicted, least * SIDE ** 2)
    true_numbers, true_count = true_regions or regions(true, TRUE_LEAST)
    both = np.bincount((numbers * (true_count + 1) + true_numbers).ravel(), minlength=(count + 1) * (true_count + 1))
    both = both.reshape(count + 1, true_count + 1)
    union = both.sum(1, keepdims=True) + both.sum(0, keepdims=True) - both
    meets = (both / np.maximum(union, 1) > OVERLAP)[1:, 1:]
    overlap = ((predicted & true).sum() + 1e-4) / ((predicted | true).sum() + 1e-4)
    return Tally(count, int(meets.any(1).sum()), true_count, int((~meets.any(0)).sum()), 1, float(overlap))
