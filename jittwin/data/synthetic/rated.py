"""Pictures damaged by known amounts, with votes drawn to match: a substitute for AVA where AVA is not available.

No person gave these votes. Their mean falls with the damage, so a trained model should order the pictures by
damage, and how well it does so can be measured.
"""
import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, fields
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from jittwin import imaging
from jittwin.atomic import whole_folder, write_file
from jittwin.data.ava import BINS, rating_fractions
from jittwin.data.ava_split import LISTS, TEST_LIST, TRAIN_LIST
from jittwin.data.landscape import each, list_pictures
from jittwin.data.listing import tell
from jittwin.data.synthetic.landscapes import render
from jittwin.draws import Draws
from jittwin.errors import UserError

BEST, WORST = 7.3, 2.8      # mean rating without damage and with the most damage
SPREAD = 1.5                # standard deviation of one picture's votes, about that of AVA
VOTERS = 78, 549            # AVA's fewest and most votes for a picture
MOST_PICTURES = 900_000     # ids have six digits
_LOG2_GAIN, _RADIUS, _NOISE, _QUALITY = 2.2, 0.025, 60, (95, 3)  # the strongest damage of each kind
_LEAST_HEIGHT, _MOST_HEIGHT = 96, 384
_TEST_EVERY = 5


@dataclass(frozen=True)
class Damage:
    """Strengths, from 0 to 1, of the damage to a picture: exposure, Gaussian blur, Gaussian noise, JPEG."""
    exposure: float = 0.0
    blur: float = 0.0
    noise: float = 0.0
    jpeg: float = 0.0

    @classmethod
    def drawn(cls, draws: Draws) -> "Damage":
        """One kind of damage, or two kinds 0.7 times as strong, with a severity that is uniform on [0, 1)."""
        kinds = [field.name for field in fields(cls)]
        chosen = draws.permutation("kinds", len(kinds))[:draws.integers("how many", 1, 2, ())]
        severity = float(draws.uniform("severity", ()))
        return cls(**{kinds[kind]: severity * (1 if len(chosen) == 1 else 0.7) for kind in chosen})

    @property
    def severity(self) -> float:
        """Total strength of all kinds, from 0 to 1."""
        return min(1.0, float(np.hypot.reduce(astuple(self))))

    def apply(self, image: np.ndarray, draws: Draws) -> np.ndarray:
        """Damage a picture uint8 (H, W, 3). The blur's radius is a fraction of the shorter side."""
        gain = 2 ** (_LOG2_GAIN * self.exposure * (1 if draws.uniform("brighter", ()) < 0.5 else -1))
        values = np.clip(image * np.float32(gain), 0, 255).astype(np.uint8)
        if self.blur:
            radius = self.blur * _RADIUS * min(image.shape[:2])
            values = np.array(Image.fromarray(values).filter(ImageFilter.GaussianBlur(radius)))
        if self.noise:
            noisy = values + self.noise * _NOISE * draws.normal("noise", values.shape)
            values = np.clip(noisy, 0, 255).astype(np.uint8)
        if self.jpeg:
            best, worst = _QUALITY
            file = io.BytesIO()
            Image.fromarray(values).save(file, "JPEG", quality=round(best + (worst - best) * self.jpeg))
            values = imaging.decode_image(file, "JPEG")
        return values


def draw_votes(severity: float, draws: Draws) -> np.ndarray:
    """Vote counts, int64 (10,), normal about a mean that falls from BEST to WORST with the severity."""
    mean = BEST + (WORST - BEST) * severity
    odds = np.exp(-((np.arange(1, BINS + 1) - mean) / SPREAD) ** 2 / 2)
    return draws.generator("votes").multinomial(draws.integers("voters", *VOTERS, ()), odds / odds.sum())


class SyntheticAva:
    """`count` procedural scenes, damaged and voted on, with the interface of AvaDataset.

    prepare: a function from a picture uint8 (H, W, 3) to the network's input float32 (3, S, S). side: S. start: number
    of the first scene; data sets whose ranges do not overlap have no scene in common.
    """

    def __init__(self, count: int, prepare: Callable[[np.ndarray], np.ndarray], side: int, seed: int = 0,
                 start: int = 0):
        if count < 1:
            raise UserError(f"count={count}: a synthetic data set needs at least 1 picture")
        self.prepare, self.side, self.seed, self.start = prepare, side, seed, start
        self.names = [f"scene_{start + index}" for index in range(count)]
        self.picture = lru_cache(256)(self._picture)

    def __len__(self) -> int:
        return len(self.names)

    def draws(self, index: int) -> Draws:
        return Draws(self.seed, 0, self.start + index).within("ava")

    def _picture(self, index: int) -> np.ndarray:
        """The whole damaged picture, uint8 (H, 4/3 H, 3)."""
        height = min(max(self.side, _LEAST_HEIGHT), _MOST_HEIGHT)
        image, _ = render(self.start + index, height * 4 // 3, height, self.seed)
        return Damage.drawn(self.draws(index)).apply(image, self.draws(index))

    def target(self, index: int) -> np.ndarray:
        """The votes' distribution, float32 (10,); the picture is not drawn."""
        return rating_fractions(draw_votes(Damage.drawn(self.draws(index)).severity, self.draws(index)))

    def get(self, index: int, draws: Draws | None = None) -> dict:
        """dict(pixels float32 (3, S, S), target float32 (10,), name); nothing depends on `draws`."""
        pixels = self.prepare(self.picture(index))
        return {"pixels": pixels, "target": self.target(index), "name": self.names[index]}


def check_new(folder) -> Path:
    """The folder, resolved. UserError: it holds something."""
    folder = Path(folder).resolve()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: holds something already; name a new folder")
    return folder


def find_photographs(places: Sequence) -> list[Path]:
    """The picture files of folders and single files, in order. UserError: nothing there."""
    found = []
    for place in map(Path, places):
        if not place.exists():
            raise UserError(f"{place}: no such file or folder of photographs")
        if place.is_dir():
            inside = list_pictures(place)
            tell(inside.notes)
            found += inside.paths
        else:
            found.append(place)
    return found


def crop(image: np.ndarray, size: tuple[int, int], draws: Draws) -> np.ndarray:
    """A random window of uint8 (H, W, 3), resized to `size` (h, w); its scale is 0.6 to 1 of the largest that fits."""
    scale = min(image.shape[0] / size[0], image.shape[1] / size[1]) * (0.6 + 0.4 * float(draws.uniform("scale", ())))
    height, width = (max(1, int(side * scale)) for side in size)
    top = int(draws.integers("top", 0, image.shape[0] - height, ()))
    left = int(draws.integers("left", 0, image.shape[1] - width, ()))
    return imaging.resize_image(image[top:top + height, left:left + width], size)


def write_mini_ava(folder, count: int, width: int, height: int, seed: int = 0, photographs: Sequence = ()) -> None:
    """Write AVA.txt, images/, AVA's two lists of ids and damage.csv into a new folder, atomically.

    The pictures are damaged crops of the photographs in turn, or damaged procedural scenes if there are no
    photographs. No photograph has pictures in both lists. UserError: `folder` is not empty, or a photograph cannot be
    read.
    """
    folder = check_new(folder)
    if not 1 <= count <= MOST_PICTURES:
        raise UserError(f"{count} pictures: must be 1 to {MOST_PICTURES}")
    files = find_photographs(photographs)
    ids = [str(100_000 + number) for number in Draws(seed).permutation("ids", MOST_PICTURES)[:count]]
    with whole_folder(folder) as temporary:
        (temporary / "images").mkdir()
        (temporary / LISTS).mkdir()

        def write(index):
            draws = Draws(seed, 0, index).within("mini-ava")
            size = (width, height) if draws.uniform("portrait", ()) < 0.25 else (height, width)
            image = (crop(imaging.decode_image(files[index % len(files)]), size, draws) if files
                     else render(index, size[1], size[0], seed)[0])
            damage = Damage.drawn(draws)
            imaging.save_image(temporary / "images" / f"{ids[index]}.jpg", damage.apply(image, draws), quality=92)
            return damage, draw_votes(damage.severity, draws)

        rows = list(each(write, range(count), "writing pictures"))
        _write_tables(temporary, ids, rows, files)


def _write_tables(folder: Path, ids: list[str], rows: list, files: list[Path]) -> None:
    votes = [f"{number} {image} {' '.join(map(str, votes))} 0 0 1\n"
             for number, (image, (_, votes)) in enumerate(zip(ids, rows), 1)]
    write_file(folder / "AVA.txt", "".join(votes))
    sources = [index % len(files) if len(files) > 1 else index for index in range(len(ids))]
    for name, tests in ((TEST_LIST, True), (TRAIN_LIST, False)):
        chosen = [image for image, source in zip(ids, sources) if (source % _TEST_EVERY == 0) == tests]
        write_file(folder / LISTS / name, "".join(f"{image}\n" for image in chosen))
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["id", "photograph", *(field.name for field in fields(Damage)), "severity"])
    for index, (image, (damage, _)) in enumerate(zip(ids, rows)):
        source = files[index % len(files)].name if files else f"scene_{index}"
        writer.writerow([image, source, *(f"{value:.4f}" for value in (*astuple(damage), damage.severity))])
    write_file(folder / "damage.csv", table.getvalue())
    write_file(folder / "README.txt", "Made by `jittwin prepare ava --synthetic`: damaged pictures (damage.csv: how "
               "much)\nand votes drawn from the damage. Nobody gave these votes.\n")
