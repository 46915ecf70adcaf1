"""Charts for the HTML page, as inline SVG: how the error grows with depth, and where in a tensor it is.

Colours are classes of the page's style sheet, so they follow its light and dark modes.
"""
import math
from collections.abc import Sequence
from html import escape
from itertools import groupby

from parity.report.report import short

WIDTH, HEIGHT = 960, 260
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 16, 40      # margins around the plot
LABEL = 74                                     # the width that a name under the axis needs
POINTS = 250                                   # a curve with more points has tooltips only for those over the limit
TICKS = 8
RADII = {"culprit": 5, "over": 3, "point": 2}
SHADES = 10


def growth(curve: Sequence[Sequence], first: str = "", culprits: Sequence[str] = ()) -> str:
    """Error, noise and limit per module on a logarithmic axis, in the order of execution.

    curve: [[module path, error, noise, limit], …]. first: the first module over its limit, marked with a line.
    culprits: modules at fault, marked with full dots; other modules over their limit have rings.
    Zeros are drawn at the bottom of the plot and infinite values at its top.
    """
    points = [(str(path), *(float(value) for value in values)) for path, *values in curve]
    low, high = _decades([value for _, *values in points for value in values])
    xs = _spread(len(points))

    def y(value: float) -> float:
        part = 0.0 if value <= 0 else 1.0 if math.isinf(value) else (math.log10(value) - low) / (high - low)
        return round(TOP + (1 - min(1.0, max(0.0, part))) * (HEIGHT - TOP - BOTTOM), 1)

    error, noise, limit = (list(zip(xs, [y(point[k]) for point in points])) for k in (1, 2, 3))
    floor = HEIGHT - BOTTOM
    parts = [_grid(low, high, y), _names([path for path, *_ in points], xs),
             f'<polygon class="noise" points="{_join([(xs[0], floor), *noise, (xs[-1], floor)])}"/>',
             f'<polyline class="limit" points="{_join(limit)}"/>',
             f'<polyline class="error" points="{_join(error)}"/>']
    seen = False
    for (path, *values), (px, py) in zip(points, error):
        if path == first and not seen:
            seen, anchor = True, "end" if px > WIDTH * 0.7 else "start"
            parts.append(f'<line class="first" x1="{px}" x2="{px}" y1="{TOP}" y2="{floor}"/><text class="first" '
                         f'x="{px + (-5 if anchor == "end" else 5)}" y="{TOP + 9}" text-anchor="{anchor}">first '
                         f'divergence: {escape(path)}</text>')
        look = "culprit" if path in culprits else "over" if values[0] > values[2] else "point"
        if look != "point" or len(points) <= POINTS:
            numbers = ", ".join(f"{name} {short(v)}" for name, v in zip(("error", "noise", "limit"), values))
            parts.append(f'<circle class="{look}" r="{RADII[look]}" cx="{px}" cy="{py}">'
                         f'<title>{escape(path or "the whole model")}: {numbers}</title></circle>')
    return (f'<svg class="growth" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="error through depth">'
            f'{"".join(parts)}</svg>')


def heat(error: Sequence[Sequence], width: int = 240) -> str:
    """A 2-D map of errors in SHADES steps; the largest error has the deepest colour. width: in pixels."""
    rows = [[float(value) for value in line] for line in error]
    largest = max((value for line in rows for value in line if math.isfinite(value)), default=0.0)
    paths: dict[int, list[str]] = {}
    for y, line in enumerate(rows):
        x = 0
        for shade, run in groupby(_shade(value, largest) for value in line):
            length = len(list(run))
            paths.setdefault(shade, []).append(f"M{x} {y}h{length}v1h-{length}z")
            x += length
    shades = "".join(f'<path fill-opacity="{shade / SHADES:.2f}" d="{"".join(runs)}"/>'
                     for shade, runs in sorted(paths.items()) if shade)
    columns = max((len(line) for line in rows), default=1)
    height = min(2 * width, max(12, round(width * len(rows) / max(1, columns))))
    return (f'<svg class="heat" viewBox="0 0 {columns} {len(rows)}" width="{width}" height="{height}" '
            f'preserveAspectRatio="none" shape-rendering="crispEdges" role="img" aria-label="where the error is">'
            f'{shades}</svg>')


def _shade(value: float, largest: float) -> int:
    if not math.isfinite(value):
        return SHADES
    return round(SHADES * value / largest) if largest else 0


def _decades(values: Sequence[float]) -> tuple[int, int]:
    """The exponents of the powers of ten that enclose all finite positive values."""
    found = [math.log10(value) for value in values if value > 0 and math.isfinite(value)]
    low, high = (math.floor(min(found)), math.ceil(max(found))) if found else (-8, -6)
    return low, max(high, low + 1)


def _spread(count: int) -> list[float]:
    room = WIDTH - LEFT - RIGHT
    return [round(LEFT + room * (i / (count - 1) if count > 1 else 0.5), 1) for i in range(count)]


def _join(points) -> str:
    return " ".join(f"{x},{y}" for x, y in points)


def _grid(low: int, high: int, y) -> str:
    step = max(1, math.ceil((high - low) / TICKS))
    lines = []
    for power in range(low, high + 1, step):
        at = y(10.0 ** power)
        lines.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at}" y2="{at}"/>'
                     f'<text x="{LEFT - 8}" y="{at + 4}" text-anchor="end">1e{power}</text>')
    return "".join(lines)


def _names(paths: Sequence[str], xs: Sequence[float]) -> str:
    """The labels under the axis: the first part of each path, where it changes and there is room."""
    found, room, before = [], -math.inf, None
    for path, x in zip(paths, xs):
        name = path.split(".")[0].split("#")[0]
        if name != before:
            found.append(f'<line class="grid" x1="{x}" x2="{x}" y1="{HEIGHT - BOTTOM}" y2="{HEIGHT - BOTTOM + 5}"/>')
            if name and x >= room:
                anchor = "end" if x > WIDTH - LABEL else "start"
                found.append(f'<text x="{x}" y="{HEIGHT - BOTTOM + 18}" text-anchor="{anchor}">{escape(name)}</text>')
                room = x + LABEL
        before = name
    return "".join(found)
