"""Procedural landscapes with exact label maps: the data set that needs no download.

Seven kinds of scene together show all 29 classes, and every eighth scene is a single surface. Each class
has its own colour and texture, so that a small generator can learn it and a person can recognise it.
"""
from functools import lru_cache
from pathlib import Path

import numpy as np

from jittwin import imaging
from jittwin.classes import CLASS_NUMBER
from jittwin.data.landscape import Transform
from jittwin.data.synthetic.scenery import (
    Canvas,
    balloon,
    boat,
    boulder,
    bridge,
    broadleaf,
    building,
    bush,
    conifer,
    fence,
    forest,
    house,
    person,
    pier,
    railing,
    road,
    ship,
    wall,
)
from jittwin.draws import Draws
from jittwin.errors import UserError

PURE_EVERY = 8  # one scene in this many is a single surface
PURE = ("sky", "sea", "grass", "sand", "field", "mountain", "tree", "water")


def lakeside(c):
    c.horizon = c.rng.uniform(0.50, 0.60)
    c.snowline = c.horizon - c.rng.uniform(0.20, 0.32)
    c.cover(c.skyline(c.horizon - 0.24, 0.42, 3), "mountain")
    c.cover(c.skyline(c.horizon - 0.05, 0.12), "hill")
    forest(c, c.horizon - 0.01, 0.10, 0, c.width, 26)
    c.cover((c.v > c.horizon) & (c.u > 0), "lake")
    shore = c.skyline(0.86, 0.12, 2)
    c.cover(shore, "grass")
    boat(c, c.rng.uniform(0.2, 0.9) * c.width, c.horizon + 0.14, 0.15)
    side = c.rng.uniform(0.1, 0.6) * c.width
    pier(c, c.horizon + 0.12, side, side + 0.30, side + 0.12)
    for _ in range(5):
        bush(c, c.rng.uniform(0, c.width), 1.02, c.rng.uniform(0.08, 0.14))


def coast(c):
    c.horizon = c.rng.uniform(0.38, 0.48)
    c.cover((c.v > c.horizon) & (c.u > 0), "sea")
    ship(c, c.rng.uniform(0.2, 0.8) * c.width, c.horizon + 0.03, 0.10)
    for _ in range(3):
        boat(c, c.rng.uniform(0, c.width), c.horizon + c.rng.uniform(0.08, 0.16), 0.12)
    c.cover(c.skyline(0.70, 0.16, 2), "sand")
    edge = c.rng.choice((0.0, c.width))
    for _ in range(5):
        boulder(c, edge + c.rng.normal() * 0.16, c.rng.uniform(0.58, 0.85), c.rng.uniform(0.12, 0.26))
    for _ in range(3):
        person(c, c.rng.uniform(0.2, 0.9) * c.width, c.rng.uniform(0.80, 0.97), 0.17)
    railing(c, 1.01, 0.13, 0, c.rng.uniform(0.4, 0.6) * c.width)


def valley(c):
    c.horizon = c.rng.uniform(0.42, 0.50)
    if c.rng.random() < 0.5:
        c.cover(c.skyline(c.horizon - 0.16, 0.24, 3), "mountain")
    c.cover(c.skyline(c.horizon - 0.06, 0.16, 3), "hill")
    c.cover(c.skyline(c.horizon + 0.01, 0.03), "field")
    forest(c, c.horizon + 0.02, 0.09, 0, c.width, 18)
    c.cover(c.skyline(c.horizon + 0.20, 0.14, 2), "grass")
    bend = c.rng.choice((-1, 1)) * c.rng.uniform(0.12, 0.25)
    c.cover(c.ribbon(0.34, bend, c.horizon + 0.03), "river")
    centre = c.vanish + bend * 0.6
    bridge(c, c.horizon + 0.09, c.horizon + 0.22, centre - 0.36, centre + 0.36)
    for side in (-1, 1):
        house(c, c.vanish + side * c.rng.uniform(0.42, 0.62), c.horizon + c.rng.uniform(0.20, 0.30), 0.19)
    fence(c, 0.99, 0.16, 0, c.rng.uniform(0.25, 0.45) * c.width)
    broadleaf(c, c.rng.uniform(0.85, 1) * c.width, 0.95, 0.5)


def town(c):
    c.horizon = c.rng.uniform(0.46, 0.54)
    c.cover(c.skyline(c.horizon - 0.08, 0.18, 3), "hill")
    for x in np.arange(0.06, c.width, c.rng.uniform(0.12, 0.16)):
        if abs(x - c.vanish) > 0.10:
            building(c, x, c.horizon + 0.06, c.rng.uniform(0.18, 0.42), c.rng.uniform(0.35, 0.6))
    c.cover(c.skyline(c.horizon + 0.04, 0.0), "land")
    road(c, c.rng.uniform(0.40, 0.55), c.rng.uniform(-0.1, 0.1), c.horizon + 0.03)
    wall(c, c.horizon + 0.20, 0.13, 0, c.vanish - 0.26)
    for x in np.arange(c.vanish + 0.30, c.width, 0.16):
        broadleaf(c, x, c.horizon + 0.16, 0.30)
    for side in (-1, 1):
        person(c, c.vanish + side * c.rng.uniform(0.34, 0.5), c.rng.uniform(0.74, 0.86), 0.19)
    railing(c, 1.0, 0.15, c.vanish + 0.48, c.width)


def gorge(c):
    c.horizon = c.rng.uniform(0.60, 0.68)
    c.cover(c.skyline(0.24, 0.22, 3), "rock")
    forest(c, 0.27, 0.14, 0, c.width, 10)
    c.cover(c.skyline(0.44, 0.30, 2), "rock")
    fall = np.abs(c.u - c.vanish - 0.02 * np.sin(9 * c.v)) < 0.08 + 0.06 * c.v
    c.cover(fall & (c.v > 0.24) & (c.v < c.horizon + 0.04), "waterfall")
    c.cover(c.skyline(c.horizon + 0.02, 0.03), "water")
    c.cover(c.skyline(0.90, 0.22, 2) & (np.abs(c.u - c.vanish) > 0.20), "earth")
    for x in (0.06, 0.22, c.width - 0.2, c.width - 0.04):
        conifer(c, x, c.rng.uniform(0.72, 0.9), c.rng.uniform(0.30, 0.5))
    for _ in range(7):
        bush(c, c.rng.uniform(0, c.width), 1.02, c.rng.uniform(0.09, 0.17))


def desert(c):
    c.horizon = c.rng.uniform(0.46, 0.56)
    c.cover(c.skyline(c.horizon - 0.08, 0.20, 2), "mountain")
    c.cover(c.skyline(c.horizon - 0.01, 0.06), "land")
    c.cover(c.skyline(c.horizon + 0.14, 0.20, 2), "sand")
    c.cover(c.ribbon(0.22, c.rng.uniform(-0.2, 0.2), c.horizon + 0.10), "path")
    for _ in range(4):
        boulder(c, c.rng.uniform(0, c.width), c.rng.uniform(0.62, 0.95), c.rng.uniform(0.07, 0.16))
    for _ in range(c.rng.integers(1, 4)):
        balloon(c, c.rng.uniform(0.1, 0.9) * c.width, c.rng.uniform(0.3, 0.46), c.rng.uniform(0.16, 0.34))
    for _ in range(2):
        person(c, c.rng.uniform(0.2, 0.8) * c.width, c.rng.uniform(0.76, 0.9), 0.15)


def farm(c):
    c.horizon = c.rng.uniform(0.40, 0.48)
    c.cover(c.skyline(c.horizon - 0.04, 0.12, 3), "hill")
    forest(c, c.horizon + 0.01, 0.11, 0, c.width, 22)
    c.cover((c.v > c.horizon + 0.02) & (c.u > 0), "field")
    side, crop = ((1, "earth"), (-1, "grass"))[c.rng.integers(2)]
    c.cover((c.v > c.horizon + 0.04) & (side * (c.u - c.vanish) > 0), crop)
    c.cover(c.ribbon(0.20, c.rng.uniform(-0.15, 0.15), c.horizon + 0.03), "path")
    for _ in range(2):
        house(c, c.rng.uniform(0.1, 0.9) * c.width, c.horizon + 0.10, c.rng.uniform(0.16, 0.24))
    fence(c, c.rng.uniform(0.92, 1.0), 0.17, c.vanish + 0.24, c.width)
    for _ in range(4):
        bush(c, c.rng.uniform(0, 0.8 * c.vanish), c.rng.uniform(0.90, 1.04), c.rng.uniform(0.09, 0.15))


SCENES = (lakeside, coast, valley, town, gorge, desert, farm)


def render(index: int, width: int, height: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scene `index` of the endless series `seed`: picture uint8 (height, width, 3), label map uint8 (height, width)."""
    turn, place = divmod(index, PURE_EVERY)
    c = Canvas.blank(width, height, Draws(seed, 0, index).generator("scene"))
    everywhere = np.ones(c.label.shape, bool)
    if place == PURE_EVERY - 1:
        c.horizon = 1.0 if PURE[turn % len(PURE)] == "sky" else 0.0
        c.cover(everywhere, PURE[turn % len(PURE)])
    else:
        c.cover(everywhere, "sky")
        SCENES[place](c)
    ground = (c.label != CLASS_NUMBER["sky"])[..., None]
    lit = np.where(ground, c.picture * np.float32(c.mood.light), c.picture)
    soft = 0.7 * lit + 0.3 * _neighbours(lit)  # slightly blurred, as by a lens
    soft += (c.field.grain[..., None] - 0.5) * 0.03
    return (np.clip(soft, 0, 1) * 255 + 0.5).astype(np.uint8), c.label


def _neighbours(picture):
    padded = np.pad(picture, ((1, 1), (1, 1), (0, 0)), "edge")
    return (padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]) / 4


class SyntheticLandscapes:
    """`n` scenes with the interface of LandscapeDataset, rendered at width x height and then cropped.

    width: takes the place of load_size. crop_size: None for the width. Other arguments: see Transform.
    UserError: no scene, or sizes that do not fit.
    """

    def __init__(self, n: int, width: int, height: int, seed: int = 0, crop_size: int | None = None,
                 aspect_ratio: float = 4 / 3, vertical_crop: str = "top", flip: bool = True, multiple: int = 1):
        if n < 1:
            raise UserError(f"n={n}: a synthetic data set needs at least 1 scene")
        self.n, self.width, self.height, self.seed = n, width, height, seed
        self.transform = Transform(width, crop_size or width, aspect_ratio, vertical_crop, flip, multiple)
        self.transform.check("synthetic landscapes", (height, width))
        self.names = [f"scene_{index}" for index in range(n)]
        self.pair = lru_cache(64)(self._render)

    def __len__(self) -> int:
        return self.n

    def _render(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Picture uint8 (height, width, 3) and label map uint8 (height, width) of a scene, before the crop."""
        return render(index, self.width, self.height, self.seed)

    def get(self, index: int, draws: Draws) -> dict:
        """dict(image float32 (3, H, W) in [-1, 1], label uint8 (H, W), name)."""
        image, label = self.transform(*self.pair(index), draws)
        return {"image": image, "label": label, "name": self.names[index]}


def write_folder(folder, n: int, width: int, height: int, seed: int = 0) -> None:
    """Write `n` scenes in the challenge's layout: imgs/*.jpg and labels/*.png."""
    imgs, labels = Path(folder) / "imgs", Path(folder) / "labels"
    try:
        imgs.mkdir(parents=True, exist_ok=True)
        labels.mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be created ({error.strerror}); choose another folder") from error
    for index in range(n):
        image, label = render(index, width, height, seed)
        imaging.save_image(imgs / f"scene_{index}.jpg", image, quality=92)
        imaging.save_image(labels / f"scene_{index}.png", label)
