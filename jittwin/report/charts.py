"""A chart as a small SVG file, which any browser shows."""
import math
from collections.abc import Sequence
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 720, 360
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 40, 48
TICKS = 5


def line_chart(title: str, across: str, up: str, points: Sequence[tuple[str, float]]) -> str:
    """SVG of named values from left to right; the least value is marked. across, up: titles of the axes."""
    values = [value for _, value in points]
    low, high = min(values), max(values)
    margin = (high - low) * 0.08 or abs(low) * 0.05 or 1.0
    low, high = low - margin, high + margin
    step = (WIDTH - LEFT - RIGHT) / max(len(points) - 1, 1)

    def place(index, value):
        return LEFT + index * step, TOP + (high - value) / (high - low) * (HEIGHT - TOP - BOTTOM)

    spots = [place(index, value) for index, value in enumerate(values)]
    parts = _titles(title, across, up)
    for tick in range(TICKS):
        value = low + (high - low) * tick / (TICKS - 1)
        _, y = place(0, value)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>'
                     f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.4g}</text>')
    for index in range(0, len(points), max(1, len(points) // 12)):
        parts.append(f'<text x="{spots[index][0]:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">'
                     f"{escape(points[index][0])}</text>")
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
    parts.append(f'<polyline points="{line}" fill="none" stroke="#2b6cb0" stroke-width="1.5"/>')
    best = values.index(min(values))
    for index, (x, y) in enumerate(spots):
        colour, radius = ("#c05621", 5) if index == best else ("#2b6cb0", 3)
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{colour}">'
                     f"<title>{escape(points[index][0])}: {values[index]:.6g}</title></circle>")
    return _svg(parts)


def histogram(title: str, across: str, values: Sequence[float], bins: int = 20) -> str:
    """SVG of the numbers of values in each of `bins` equal parts of their range; at least one value is needed."""
    low, high = min(values), max(values)
    if high == low:
        low, high = low - 0.5, high + 0.5
    digits = max(0, 1 - math.floor(math.log10(high - low)))      # ticks then differ in their last two digits
    counts = [0] * bins
    for value in values:
        counts[min(bins - 1, int((value - low) / (high - low) * bins))] += 1
    wide, tall = (WIDTH - LEFT - RIGHT) / bins, HEIGHT - TOP - BOTTOM
    parts = _titles(title, across, "pictures")
    for index, count in enumerate(counts):
        left, right = (f"{low + (high - low) * (index + side) / bins:.{digits + 1}f}" for side in (0, 1))
        height = count / max(counts) * tall
        parts.append(f'<rect x="{LEFT + index * wide + 1:.1f}" y="{TOP + tall - height:.1f}" width="{wide - 2:.1f}" '
                     f'height="{height:.1f}" fill="#2b6cb0"><title>{left} to {right}: {count}</title>'
                     "</rect>")
    for tick in range(TICKS):
        parts.append(f'<text x="{LEFT + tick * wide * bins / (TICKS - 1):.1f}" y="{HEIGHT - BOTTOM + 18}" '
                     f'text-anchor="middle">{low + (high - low) * tick / (TICKS - 1):.{digits}f}</text>')
    parts.append(f'<text x="{LEFT - 6}" y="{TOP + 4}" text-anchor="end">{max(counts)}</text>'
                 f'<path d="M{LEFT} {TOP + tall}H{WIDTH - RIGHT}" stroke="#999"/>')
    return _svg(parts)


def _titles(title, across, up):
    return [f'<text x="{LEFT}" y="22" font-size="15">{escape(title)}</text>',
            f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 8}" text-anchor="end">{escape(across)}</text>',
            f'<text x="8" y="{TOP - 6}">{escape(up)}</text>']


def _svg(parts):
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
            f'font-size="12"><rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>' + "".join(parts) + "</svg>\n")
