"""How well the regions of predicted maps meet those of annotated ones, as the scorer of the structure track counts.

NTIRE 2025, arXiv 2505.16314. The scorer uses OpenCV's outer contours; the same regions and areas follow from the runs
of pixels in each row, so that OpenCV is not needed.
"""
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from jittwin import imaging

SIDE = 512                      # maps are compared as squares of this many pixels
PREDICTED_LEAST = 0.0006        # a predicted region counts if its area is a larger part of the square
TRUE_LEAST = 150.0              # an annotated region counts if its area in pixels is larger
OVERLAP = 0.1                   # regions meet if their intersection is a larger part of their union


def on_square(area: np.ndarray) -> np.ndarray:
    """Where a map uint8 (H, W) is not 0, bool (SIDE, SIDE), after bilinear resizing and rounding."""
    return imaging.resize_levels(area, (SIDE, SIDE)) > 0


def regions(mask: np.ndarray, least: float) -> tuple[np.ndarray, int]:
    """Connected regions of bool (H, W) with a contour area above `least`: int (H, W) of their numbers, from 1, and how
    many there are. Pixels that touch at a corner are connected. Holes belong to the region around them, with what lies
    in them.

    The area is that inside the lines through the centres of the border pixels, OpenCV's contourArea: 1 for each four
    neighbouring pixels in a square that are inside, 1/2 where three are. A square of 10 pixels has 81.
    """
    # The picture in a frame, as one line on which runs of pixels inside and outside the mask alternate.
    framed = np.pad(mask, ((1, 1), (1, 0)))
    line, row = framed.ravel(), framed.shape[1]
    borders = np.flatnonzero(line[1:] != line[:-1]) + 1
    begins, ends = borders[::2], borders[1::2]
    outside = np.append(0, ends), np.append(begins, line.size)
    _, part = joined(*touching(*outside, row, corners=False), len(outside[0]))
    no_hole = part == part[0]
    begins, ends = begins[no_hole[:-1]], ends[no_hole[1:]]
    above, below = touching(begins, ends, row, corners=True)
    count, region = joined(above, below, len(begins))
    # How far the run below begins and ends from the one above, and how many of their pixels are above one another.
    left, right = begins[below] - row - begins[above], ends[below] - row - ends[above]
    shared = (ends - begins)[above] + np.minimum(right, 0) - np.maximum(left, 0)
    areas = np.where(shared > 0, shared - 1 + (np.sign(np.abs(left)) + np.sign(np.abs(right))) / 2, 0)
    kept = np.bincount(region[above], areas, count) > least
    numbers = np.where(kept, kept.cumsum(), 0)[region]
    steps = np.zeros(line.size, np.int32)
    steps[begins], steps[ends] = numbers, -numbers
    return steps.cumsum(dtype=np.int32).reshape(framed.shape)[1:-1, 1:], int(kept.sum())


def touching(begins: np.ndarray, ends: np.ndarray, row: int, corners: bool) -> tuple[np.ndarray, np.ndarray]:
    """The pairs (above, below) of runs that have pixels above one another. `row` pixels make a row.

    corners: also the pairs that touch at a corner.
    """
    first = np.searchsorted(ends - row, begins, "left" if corners else "right")
    last = np.searchsorted(begins - row, ends, "right" if corners else "left")
    above = np.repeat(np.arange(len(begins)), last - first)
    return above, np.arange(len(above)) + np.repeat(last - (last - first).cumsum(), last - first)


def joined(above: np.ndarray, below: np.ndarray, count: int) -> tuple[int, np.ndarray]:
    """The number of parts into which pairs join `count` runs, and of each run the number of its part, from 0."""
    pairs = sparse.coo_matrix((np.ones(len(above), np.int8), (above, below)), (count, count))
    return connected_components(pairs, directed=False)


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
    overlap = (np.count_nonzero(predicted & true) + 1e-4) / (np.count_nonzero(predicted | true) + 1e-4)
    return Tally(count, int(meets.any(1).sum()), true_count, int((~meets.any(0)).sum()), 1, float(overlap))
