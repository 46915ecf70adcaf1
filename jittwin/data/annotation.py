"""Regions that annotators marked in a picture, and the map of how many annotators marked each pixel.

EvalMuse-Structure has rectangles and polygons by three annotators per picture. Polygons are filled as OpenCV's fillPoly
does: the pixels inside by the even-odd rule, and those of the outline.
"""
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

ANNOTATORS = 3
# The value of a pixel by the number of annotators that marked it; more than four annotators leave their number.
LEVELS = 0, 64, 127, 180, 255
RECTANGLE, POLYGON = 1, 2       # bbox_type
_FAR = 1 << 15                  # a coordinate beyond it is no position in a picture
_BITS = 16                      # fractional bits of the places where an edge crosses the rows


@dataclass(frozen=True)
class Region:
    """A rectangle or polygon. points: (x, y) in pixels; of a rectangle, the corners at the top left and bottom right.

    The pixels in the row and column of a rectangle's second corner are not part of it.
    """
    kind: int
    points: tuple[tuple[int, int], ...]

    def fill(self, mask: np.ndarray) -> None:
        """Set the pixels of the region in a bool mask (H, W); what lies outside the picture is left out."""
        if self.kind == POLYGON:
            fill_polygon(mask, self.points)
            return
        (left, top), (right, bottom) = self.points
        mask[max(top, 0):max(bottom, 0), max(left, 0):max(right, 0)] = True

    def faults(self, shape: tuple[int, int]) -> Iterator[str]:
        """What is unusual about the region in a picture of shape (H, W): it is drawn all the same."""
        height, width = shape
        xs, ys = zip(*self.points)
        # The second corner of a rectangle may lie on the border.
        extra = 1 if self.kind == RECTANGLE else 0
        if max(xs) < 0 or max(ys) < 0 or min(xs) >= width or min(ys) >= height:
            yield "lies outside the picture and marks nothing"
        elif min(xs) < 0 or min(ys) < 0 or max(xs) >= width + extra or max(ys) >= height + extra:
            yield "is cut at the border of the picture"
        if self.kind == RECTANGLE:
            if xs[0] == xs[1] or ys[0] == ys[1]:
                yield "has no area and marks nothing"
        elif len(set(self.points)) < 3:
            yield f"has {len(set(self.points))} different points: a line or a dot is drawn"
        elif crosses_itself(self.points):
            yield "crosses itself: what its outline winds around twice is left out"


def read_region(entry) -> tuple[Region, list[str]]:
    """A region from an entry {"bbox_type": 1 or 2, "bbox": points} of the annotation, and what had to be mended.

    Points are rounded to whole pixels, half to even. The corners of a rectangle are put in order. ValueError: an entry
    of another form.
    """
    if not isinstance(entry, dict) or not {"bbox_type", "bbox"} <= entry.keys():
        raise ValueError(f"is {_short(entry)}; write bbox_type and bbox")
    kind, content = entry["bbox_type"], entry["bbox"]
    if kind not in (RECTANGLE, POLYGON) or isinstance(kind, bool):
        raise ValueError(f"has bbox_type {_short(kind)}; legal: 1 (rectangle) or 2 (polygon)")
    if not isinstance(content, list) or not content:
        raise ValueError(f"has the bbox {_short(content)}; write a list of points")
    points = [_point(point) for point in content]
    mended = []
    whole = [tuple(int(value) for value in np.rint(point)) for point in points]
    if any(tuple(point) != rounded for point, rounded in zip(points, whole)):
        mended.append("has points between pixels, which are rounded")
    if kind == RECTANGLE:
        if len(whole) != 2:
            raise ValueError(f"is a rectangle with {len(whole)} points; write its two corners")
        corners = [tuple(sorted(values)) for values in zip(*whole)]
        ordered = list(zip(*corners))
        if ordered != whole:
            mended.append("has its corners in another order than top left, bottom right")
        whole = ordered
    return Region(kind, tuple(whole)), mended


def _point(point) -> tuple[float, float]:
    """(x, y) of [x, y] or {"x": x, "y": y}."""
    if isinstance(point, dict) and {"x", "y"} <= point.keys():
        point = [point["x"], point["y"]]
    if not isinstance(point, list) or len(point) != 2 or not all(
            isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < _FAR for value in point):
        raise ValueError(f"has the point {_short(point)}; write two numbers of pixels, below {_FAR}")
    return tuple(point)


def _short(value) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def fill_polygon(mask: np.ndarray, points: Sequence[tuple[int, int]]) -> None:
    """Set the pixels of a polygon in a bool mask (H, W): those inside by the even-odd rule, and those of the outline.

    points: whole (x, y), which may lie outside the picture. Inside a row are the pixels between two places where edges
    cross it; an edge counts from its upper end up to the row before its lower end. Within a picture this is OpenCV's
    fillPoly exactly.
    """
    height, width = mask.shape
    rows, places = [], []
    for (x0, y0), (x1, y1) in zip(points, (*points[1:], points[0])):
        xs, ys = line(x0, y0, x1, y1)
        there = (xs >= 0) & (xs < width) & (ys >= 0) & (ys < height)
        mask[ys[there], xs[there]] = True
        if y0 == y1:
            continue
        if y0 > y1:
            x0, y0, x1, y1 = x1, y1, x0, y0
        crossed = np.arange(max(y0, 0), min(y1, height))
        drift = (x1 - x0) << _BITS
        step = abs(drift) // (y1 - y0) * (1 if drift >= 0 else -1)
        rows.append(crossed)
        places.append((x0 << _BITS) + step * (crossed - y0))
    if not rows:
        return
    rows, places = np.concatenate(rows), np.concatenate(places)
    order = np.lexsort((places, rows))
    rows, places = rows[order][::2], places[order]
    left = np.clip(-(-places[::2] >> _BITS), 0, width)           # rounded up
    right = np.clip((places[1::2] >> _BITS) + 1, left, width)    # the pixel after the last one
    change = np.zeros((height, width + 1), np.int32)
    np.add.at(change, (rows, left), 1)
    np.add.at(change, (rows, right), -1)
    mask |= change.cumsum(1)[:, :width] > 0


def line(x0: int, y0: int, x1: int, y1: int) -> tuple[np.ndarray, np.ndarray]:
    """x and y of the pixels of a line (Bresenham 1965), from its left end; halves are rounded towards the start."""
    if x1 < x0:
        x0, y0, x1, y1 = x1, y1, x0, y0
    across, down, way = x1 - x0, abs(y1 - y0), 1 if y1 >= y0 else -1
    longer, shorter = max(across, down), min(across, down)
    steps = np.arange(longer + 1)
    side = (2 * shorter * steps + longer - 1) // (2 * longer) if longer else steps
    return (x0 + steps, y0 + way * side) if across >= down else (x0 + side, y0 + way * steps)


def crosses_itself(points: Sequence[tuple[int, int]]) -> bool:
    """Whether two edges of a polygon cross at a point inside both."""
    first = np.array(points, np.int64)
    second = np.roll(first, -1, 0)

    def side(a, b, c):
        """On which side of the line from a to b each c lies, (N, N) for all pairs."""
        return np.sign((b[:, None, 0] - a[:, None, 0]) * (c[None, :, 1] - a[:, None, 1])
                       - (b[:, None, 1] - a[:, None, 1]) * (c[None, :, 0] - a[:, None, 0]))

    apart = side(first, second, first) * side(first, second, second)
    return bool(((apart < 0) & (apart.T < 0)).any())


def counts(annotators: Sequence[Sequence[Region]], shape: tuple[int, int]) -> np.ndarray:
    """How many annotators marked each pixel, uint8 `shape`; what one of them marked twice counts once."""
    total = np.zeros(shape, np.uint8)
    for regions in annotators:
        mask = np.zeros(shape, bool)
        for region in regions:
            region.fill(mask)
        total += mask
    return total


def levels(annotators: Sequence[Sequence[Region]], shape: tuple[int, int]) -> np.ndarray:
    """The target of training, uint8 `shape`: the LEVELS of the counts."""
    table = np.arange(256, dtype=np.uint8)
    table[:len(LEVELS)] = LEVELS
    return table[counts(annotators, shape)]
