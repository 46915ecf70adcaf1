"""A chart as a small SVG file, which any browser shows."""
from collections.abc import Sequence
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 720, 360
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 40, 48
TICKS = 5


def line_chart(title: str, across: str, up: str, points: Sequence[tuple[str, float]]) -> str:
    """Named values from left to right, the least one marked."""
    values = [value for _, value in points]
    low, high = min(values), max(values)
    margin = (high - low) * 0.08 or abs(low) * 0.05 or 1.0
    low, high = low - margin, high + margin
    step = (WIDTH - LEFT - RIGHT) / max(len(points) - 1, 1)

    def place(index, value):
        return LEFT + index * step, TOP + (high - value) / (high - low) * (HEIGHT - TOP - BOTTOM)

    spots = [place(index, value) for index, value in enumerate(values)]
    parts = [f'<text x="{LEFT}" y="22" font-size="15">{escape(title)}</text>',
             f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 8}" text-anchor="end">{escape(across)}</text>',
             f'<text x="8" y="{TOP - 6}">{escape(up)}</text>']
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
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
            f'font-size="12"><rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>' + "".join(parts) + "</svg>\n")
