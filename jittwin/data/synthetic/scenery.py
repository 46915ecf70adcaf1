"""The objects of a synthetic landscape, and the canvas that they are painted on."""
from dataclasses import dataclass, field, replace

import numpy as np

from jittwin.classes import CLASS_NUMBER
from jittwin.data.synthetic import textures
from jittwin.data.synthetic.textures import Fields, mix, step, value_noise


@dataclass(frozen=True)
class Mood:
    """A time of day: colours of the sky above, of the horizon (and haze), of light on the ground; cloudiness."""
    high: tuple
    low: tuple
    light: tuple
    cloud: float


MOODS = (Mood((0.20, 0.44, 0.82), (0.74, 0.87, 0.96), (1.0, 1.0, 1.0), 0.4),
         Mood((0.30, 0.50, 0.80), (0.84, 0.90, 0.95), (0.98, 0.99, 1.0), 0.9),
         Mood((0.36, 0.48, 0.74), (0.99, 0.82, 0.62), (1.05, 0.96, 0.86), 0.6))


class _Cut:
    """A window of a scene's noise fields."""

    def __init__(self, fields, window):
        self._fields, self._window = fields, window

    def __getattr__(self, name):
        return getattr(self._fields, name)[self._window]


@dataclass
class Canvas:
    """A picture and its label map, or a window of both, with coordinates u (right) and v (down, 0..1)."""
    scene: np.ndarray    # (H, W, 3) float32, the whole picture
    picture: np.ndarray  # this window of it
    label: np.ndarray    # uint8, this window
    u: np.ndarray        # (1, w), in picture heights
    v: np.ndarray        # (h, 1)
    field: Fields
    rng: np.random.Generator
    mood: Mood
    horizon: float = 0.45
    sun: tuple = (0.2, 0.15)
    vanish: float = 0.6
    snowline: float = 0.2
    width: float = field(init=False)

    def __post_init__(self):
        self.width = self.scene.shape[1] / self.scene.shape[0]

    @classmethod
    def blank(cls, width: int, height: int, rng: np.random.Generator) -> "Canvas":
        picture = np.zeros((height, width, 3), np.float32)
        u = (np.arange(width, dtype=np.float32)[None] + 0.5) / height
        v = (np.arange(height, dtype=np.float32)[:, None] + 0.5) / height
        label, mood = np.zeros((height, width), np.uint8), MOODS[rng.integers(len(MOODS))]
        canvas = cls(picture, picture, label, u, v, Fields(rng, height, width), rng, mood)
        canvas.sun = (rng.uniform(0.1, canvas.width - 0.1), rng.uniform(0.06, 0.25))
        canvas.vanish = rng.uniform(0.3, 0.7) * canvas.width
        return canvas

    @property
    def depth(self) -> np.ndarray:
        """float32 (h, 1): 1 at the horizon, 0 at the lower edge."""
        return 1 - (self.v - self.horizon) / (1 - self.horizon)

    def window(self, left, right, top, bottom) -> "Canvas":
        """The part of the canvas between these coordinates; it shares memory and is empty outside the picture."""
        height = self.scene.shape[0]
        columns = slice(max(0, int(left * height)), max(0, int(np.ceil(right * height))))
        rows = slice(max(0, int(top * height)), max(0, int(np.ceil(bottom * height))))
        return self._part(rows, columns)

    def _part(self, rows, columns):
        return replace(self, picture=self.picture[rows, columns], label=self.label[rows, columns],
                       u=self.u[:, columns], v=self.v[rows], field=_Cut(self.field, (rows, columns)))

    def paint(self, mask, name: str, colour) -> None:
        """Set class `name` and a colour (3,) or (h, w, 3) where `mask`."""
        np.copyto(self.label, CLASS_NUMBER[name], where=mask)
        np.copyto(self.picture, np.asarray(colour, np.float32), where=mask[..., None])

    def cover(self, mask, name: str) -> None:
        """Paint class `name` with its texture, made for the rows of `mask` only."""
        rows = np.flatnonzero(mask.any(1))
        if rows.size:
            rows = slice(rows[0], rows[-1] + 1)
            part = self._part(rows, slice(None))
            part.paint(mask[rows], name, getattr(textures, name)(part))

    def skyline(self, height, roughness, cells=4) -> np.ndarray:
        """(h, w) mask below a random line around `height`, wavering by `roughness`."""
        columns = self.label.shape[1]
        line = sum(value_noise(self.rng, 1, columns, 1, cells << k) * 0.5 ** k for k in range(5)) / 1.94
        return self.v > height + roughness * (0.5 - line)

    def ribbon(self, spread, bend, top) -> np.ndarray:
        """(h, w) mask of a band that winds from the vanishing point towards the viewer."""
        near = np.clip((self.v - top) / (1 - top), 0, 1)
        centre = self.vanish + bend * np.sin(near ** 0.6 * 5.0) * near ** 0.5 * (1 - 0.4 * near)
        return (np.abs(self.u - centre) < 0.006 + spread * near ** 1.3) & (self.v > top)


def local(c: Canvas, x, base, height, aspect):
    """A window of width aspect * height, centred at x, above `base`: (window, p in -1..1 across, q in 0..1 down)."""
    half = aspect * height / 2
    part = c.window(x - half, x + half, base - height, base)
    return part, (part.u - x) / half, (part.v - base + height) / height


def shade(colour, p, q) -> np.ndarray:
    """`colour` lit from the upper left, as on a rounded object."""
    return np.float32(colour) * np.clip(1.12 - 0.22 * p - 0.28 * q, 0.5, 1.3)[..., None]


def conifer(c, x, base, height):
    part, p, q = local(c, x, base, height, 0.5)
    tiers = 0.12 + 0.6 * q + 0.28 * (q * 5 % 1)
    crown = (np.abs(p) < tiers) & (q < 0.92)
    green = mix((0.03, 0.17, 0.09), (0.13, 0.36, 0.16), part.field.grain)
    part.paint(crown, "tree", green * shade((1, 1, 1), p, q))
    part.paint((np.abs(p) < 0.1) & (q >= 0.92), "tree", (0.25, 0.16, 0.09))


def broadleaf(c, x, base, height):
    part, p, q = local(c, x, base, height, 0.85)
    part.paint((np.abs(p) < 0.1) & (q > 0.6), "tree", (0.28, 0.18, 0.10))
    crown = p ** 2 + ((q - 0.38) / 0.38) ** 2 + 0.7 * (part.field.clumps - 0.5) < 0.9
    green = mix((0.06, 0.22, 0.06), (0.28, 0.50, 0.14), part.field.grain)
    part.paint(crown, "tree", green * shade((1, 1, 1), p, q))


def bush(c, x, base, height):
    part, p, q = local(c, x, base, height, 1.7)
    crown = p ** 2 + (1 - q) ** 2 + 0.5 * (part.field.clumps - 0.5) < 0.85
    part.paint(crown, "plant", textures.plant(part) * shade((1, 1, 1), p, q))


def boulder(c, x, base, height):
    part, p, q = local(c, x, base, height, 1.9)
    stone = np.abs(p) ** 2.5 + (1 - q) ** 2 + 0.35 * (part.field.clumps - 0.5) < 0.85
    part.paint(stone, "rock", textures.rock(part) * shade((1, 1, 1), p, q))


def house(c, x, base, height):
    part, p, q = local(c, x, base, height, 1.3)
    walls = (np.abs(p) < 0.8) & (q > 0.42)
    part.paint(walls, "house", shade((0.96, 0.90, 0.78), p, 0.3 + 0 * q))
    panes = walls & (np.abs(np.abs(p) - 0.45) < 0.14) & (np.abs(q - 0.64) < 0.09)
    part.paint(panes, "house", (0.22, 0.32, 0.46))
    part.paint(walls & (np.abs(p) < 0.12) & (q > 0.66), "house", (0.40, 0.22, 0.12))
    part.paint((np.abs(p) < 0.3 + 0.68 * q / 0.45) & (q > 0.06) & (q <= 0.45), "house",
               shade((0.80, 0.22, 0.14), p, 0.8 * q))


def building(c, x, base, height, aspect=0.5):
    part, p, q = local(c, x, base, height, aspect)
    tone = part.rng.uniform(0.85, 1.1)
    facade = shade((0.78 * tone, 0.68 * tone, 0.62 * tone), p, 0.2 + 0 * q)
    part.paint((np.abs(p) < 1) & (q < 1), "building", facade)
    across, down = (p + 1) / 2 * max(2, round(aspect * 8)) % 1, q * max(3, round(height * 22)) % 1
    windows = (np.abs(across - 0.5) < 0.28) & (np.abs(down - 0.55) < 0.25) & (q > 0.05)
    part.paint(windows, "building", mix((0.20, 0.30, 0.42), (0.45, 0.60, 0.75), part.field.clumps))


def person(c, x, base, height):
    part, p, q = local(c, x, base, height, 0.45)
    shirt = ((0.86, 0.12, 0.16), (0.95, 0.30, 0.12), (0.80, 0.10, 0.42))[part.rng.integers(3)]
    part.paint((np.abs(np.abs(p) - 0.3) < 0.24) & (q > 0.55), "person", (0.14, 0.14, 0.24))
    part.paint((np.abs(p) < 0.9 - 0.4 * (q - 0.22)) & (q > 0.22) & (q <= 0.6), "person", shirt)
    part.paint(p ** 2 / 0.25 + ((q - 0.11) / 0.11) ** 2 < 1, "person", (0.90, 0.70, 0.56))


def boat(c, x, base, height):
    part, p, q = local(c, x, base, height, 0.95)
    part.paint((np.abs(p - 0.02) < 0.035) & (q < 0.82), "boat", (0.36, 0.24, 0.14))
    part.paint((p > 0.06) & (p < 0.85 * q / 0.74) & (q > 0.04) & (q < 0.74), "boat", (0.99, 0.97, 0.92))
    part.paint((p < -0.03) & (-p < 0.6 * (q - 0.12) / 0.62) & (q < 0.74), "boat", (0.98, 0.62, 0.18))
    hull = (np.abs(p) < 0.98 - 1.6 * (q - 0.79)) & (q > 0.79)
    part.paint(hull, "boat", shade((0.90, 0.46, 0.12), p, q - 0.6))


def ship(c, x, base, height):
    part, p, q = local(c, x, base, height, 3.2)
    for left, right, top in ((-0.75, -0.25, 0.28), (-0.62, -0.36, 0.12), (-0.15, 0.75, 0.45)):
        colour = (0.97, 0.97, 0.97) if top < 0.4 else (0.24, 0.44, 0.60)
        part.paint((p > left) & (p < right) & (q > top) & (q < 0.62), "ship", np.float32(colour))
    part.paint((np.abs(p + 0.5) < 0.06) & (q < 0.2), "ship", (0.85, 0.20, 0.15))
    hull = (np.abs(p + 0.03) < 0.97 - 0.35 * (q - 0.6)) & (q > 0.6)
    keel = step(q + 0 * p, 0.84, 0.01)
    part.paint(hull, "ship", mix((0.16, 0.10, 0.20), (0.62, 0.08, 0.14), keel))


def balloon(c, x, base, height):
    """The class `other`: a striped hot-air balloon."""
    part, p, q = local(c, x, base, height, 0.72)
    stripes = np.where((np.sin(np.arcsin(np.clip(p, -1, 1)) * 7) > 0)[..., None],
                       np.float32((0.85, 0.16, 0.62)), np.float32((0.98, 0.84, 0.20)))
    bag = (p ** 2 + ((q - 0.4) / 0.4) ** 2 < 1) | ((q > 0.4) & (q < 0.84) & (np.abs(p) < 1.7 * (0.87 - q)))
    part.paint(bag, "other", stripes * shade((1, 1, 1), p, q))
    part.paint((np.abs(p) < 0.16) & (q >= 0.84), "other", (0.42, 0.24, 0.10))


def fence(c, base, height, left, right):
    part = c.window(left, right, base - height, base)
    q = (part.v - base + height) / height
    wood = mix((0.50, 0.27, 0.09), (0.74, 0.46, 0.20), part.field.grain)
    picket = (part.u / height * 2.2 % 1 < 0.62) & (q > 0.08)
    part.paint(picket | (np.abs(q - 0.3) < 0.09) | (np.abs(q - 0.72) < 0.09), "fence", wood)


def railing(c, base, height, left, right):
    part = c.window(left, right, base - height, base)
    q = (part.v - base + height) / height
    bars = (part.u / height * 2.4 % 1 < 0.42) | (q < 0.2) | (np.abs(q - 0.86) < 0.1)
    part.paint(bars & (q >= 0), "railing", mix((0.70, 0.74, 0.80), (0.96, 0.97, 1.0), 1 - q + 0 * part.u))


def wall(c, base, height, left, right):
    part = c.window(left, right, base - height, base)
    q = (part.v - base + height) / height
    bricks = textures.brick(part)
    part.paint((q > 0) & (part.u > 0), "wall", mix(bricks, (0.70, 0.60, 0.52), q < 0.14))


def bridge(c, deck, base, left, right, arches=3):
    """A stone bridge whose arches leave the background open."""
    part = c.window(left, right, deck, base)
    q, p = (part.v - deck) / (base - deck), (part.u - left) / (right - left) * arches % 1
    arch = ((p - 0.5) / 0.38) ** 2 + (np.clip(1.0 - q, 0, 1) / 0.62) ** 2 < 1
    stone = textures.brick(part, (0.50, 0.45, 0.52), (0.70, 0.65, 0.70), (0.40, 0.36, 0.42), 64)
    part.paint(~arch & (q > 0), "bridge", mix(stone, (0.80, 0.76, 0.80), q < 0.14))


def pier(c, top, left, right, reach):
    """Planks from the lower edge out to v = top; `reach` is the u where they end."""
    near = (c.v - top) / (1 - top)
    low, high = reach + (left - reach) * near, reach + 0.07 + (right - reach - 0.07) * near
    gap = np.sin(42 * np.log(np.clip(c.v - c.horizon + 0.12, 0.02, 2))) > 0.80
    planks = mix((0.46, 0.33, 0.21), (0.68, 0.53, 0.36), c.field.grain) * np.where(gap, 0.45, 1)[..., None]
    c.paint((c.u > low) & (c.u < high) & (near > 0), "pier", planks)


def road(c, spread, bend, top):
    c.cover(c.ribbon(spread, bend, top), "road")
    near = np.clip((c.v - top) / (1 - top), 1e-3, 1)
    dashes = np.sin(18 * np.log(near)) > 0
    c.paint(c.ribbon(spread * 0.05, bend, top) & dashes & (near > 0.06), "road", (0.93, 0.92, 0.86))
    border = c.ribbon(spread * 0.92, bend, top) & ~c.ribbon(spread * 0.84, bend, top)
    c.paint(border, "road", (0.80, 0.80, 0.78))


def forest(c, base, height, left, right, count):
    """Paint `count` trees around `base`, far ones first."""
    plant_tree = conifer if c.rng.random() < 0.55 else broadleaf
    for nearness in np.sort(c.rng.random(count)):
        size = height * (0.6 + 0.55 * nearness) * c.rng.uniform(0.8, 1.2)
        plant_tree(c, c.rng.uniform(left, right), base + 0.03 * nearness, size)
