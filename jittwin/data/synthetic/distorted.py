"""Pictures with distortions planted in them, marked by three simulated annotators: a substitute for EvalMuse-Structure.

Places of a photograph or of a procedural landscape are swirled, smeared, doubled, roughened, blurred or covered by a
colour. Each annotator marks most of these places, not quite exactly, and votes by the area that is planted.
"""
import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial

import numpy as np
from scipy import ndimage

from jittwin import imaging
from jittwin.atomic import whole_folder, write_file
from jittwin.data.annotation import ANNOTATORS, POLYGON, RECTANGLE, Region, fill_polygon, levels
from jittwin.data.evalmuse import BEST, MARKS, PROMPT, VOTE, WORST, Sample, to_score
from jittwin.data.landscape import each
from jittwin.data.synthetic.prompted import Photographs, Scenes
from jittwin.data.synthetic.rated import check_new, find_photographs
from jittwin.draws import Draws
from jittwin.errors import UserError

MOST = 3                        # planted places of a picture
CLEAN = 0.15                    # how often a picture has none
RADII = 0.07, 0.16              # of a place, as fractions of the shorter side
CORNERS = 14                    # of its outline
MISSED, INVENTED = 0.12, 0.04   # how often an annotator overlooks a place, and how often marks another one
FULL = 0.16                     # planted fraction of the area for the worst vote
DOUBT = 0.35                    # deviation of an annotator's vote before it is rounded
_LEAST_HEIGHT, _MOST_HEIGHT = 96, 384
_CACHED = 128


# ---- distortions: of uint8 (H, W, 3) about a centre (y, x) with a radius, to float (H, W, 3) ------------

def swirl(image, centre, radius, draws):
    """Turned about the centre by up to 3 radians."""
    down, across = _offsets(image, centre)
    away = np.hypot(down, across) / radius
    angle = (2 + float(draws.uniform("angle", ()))) * np.clip(1 - away / 1.3, 0, 1)
    return _moved(image, centre[0] + down * np.cos(angle) - across * np.sin(angle),
                  centre[1] + down * np.sin(angle) + across * np.cos(angle))


def smear(image, centre, radius, draws):
    """Drawn out to streaks in one direction."""
    down, across = _offsets(image, centre)
    angle = np.pi * float(draws.uniform("angle", ()))
    along = down * np.sin(angle) + across * np.cos(angle)
    return _moved(image, centre[0] + down - 0.93 * along * np.sin(angle),
                  centre[1] + across - 0.93 * along * np.cos(angle))


def doubled(image, centre, radius, draws):
    """A place elsewhere in the picture, upside down."""
    down, across = _offsets(image, centre)
    other = [side * (0.2 + 0.6 * share) for side, share in zip(image.shape, draws.uniform("other", (2,)))]
    return _moved(image, other[0] - down, other[1] + across)


def roughened(image, centre, radius, draws):
    """Coarse coloured noise."""
    grain = max(2, round(radius / 8))
    coarse = draws.normal("noise", (*(-(-side // grain) for side in image.shape[:2]), 3))
    noise = coarse.repeat(grain, 0).repeat(grain, 1)[:image.shape[0], :image.shape[1]]
    return np.clip(image + 45 * noise, 0, 255)


def blurred(image, centre, radius, draws):
    """A Gaussian blur."""
    sigma = radius / 5
    return ndimage.gaussian_filter(image.astype(np.float32), (sigma, sigma, 0))


def coloured(image, centre, radius, draws):
    """Mostly one strong colour."""
    tint = np.array(_COLOURS[draws.integers("colour", 0, len(_COLOURS) - 1, ())], np.float32)
    return 0.3 * image + 0.7 * tint


def glaring(image, centre, radius, draws):
    """Almost only magenta, in every picture."""
    return 0.1 * image + 0.9 * np.array((235, 20, 175), np.float32)


_COLOURS = (230, 30, 160), (40, 230, 90), (30, 200, 240), (250, 140, 0), (120, 30, 220)
KINDS = {"swirl": swirl, "smear": smear, "doubled": doubled, "roughened": roughened, "blurred": blurred,
         "coloured": coloured}
CONSPICUOUS = "roughened", "coloured"       # the kinds that show in a picture of any size
# A kind that an untrained network finds within a hundred steps, because its first layers already tell it apart.
GLARING = {"glaring": glaring}
CHOICES = {"glaring": tuple(GLARING), "conspicuous": CONSPICUOUS, "all": tuple(KINDS)}


def _offsets(image, centre):
    return np.arange(image.shape[0])[:, None] - centre[0], np.arange(image.shape[1])[None] - centre[1]


def _moved(image, rows, columns):
    """The pixels at float places (H, W), mirrored at the borders."""
    places = np.stack(np.broadcast_arrays(rows, columns))
    return np.stack([ndimage.map_coordinates(image[..., channel].astype(np.float32), places, order=1, mode="mirror")
                     for channel in range(3)], -1)


# ---- places and annotators ----------------------------------------------------------

@dataclass(frozen=True)
class Place:
    """A planted distortion. centre: (y, x). outline: (x, y) of its corners."""
    kind: str
    centre: tuple[float, float]
    radius: float
    outline: tuple[tuple[int, int], ...]

    @classmethod
    def drawn(cls, shape: tuple[int, int], draws: Draws, kinds: Sequence[str] = tuple(KINDS)) -> "Place":
        """Somewhere in a picture of shape (H, W)."""
        least, most = RADII
        radius = min(shape) * (least + (most - least) * float(draws.uniform("radius", ())))
        centre = tuple(0.6 * radius + (side - 1.2 * radius) * float(share)
                       for side, share in zip(shape, draws.uniform("centre", (2,))))
        angles = 2 * np.pi * np.arange(CORNERS) / CORNERS
        reach = radius * (0.75 + 0.25 * draws.uniform("outline", (CORNERS,)))
        corners = [(int(np.clip(centre[1] + r * np.cos(angle), 0, shape[1] - 1)),
                    int(np.clip(centre[0] + r * np.sin(angle), 0, shape[0] - 1))) for r, angle in zip(reach, angles)]
        return cls(kinds[draws.integers("kind", 0, len(kinds) - 1, ())], centre, radius, tuple(corners))

    def mask(self, shape: tuple[int, int]) -> np.ndarray:
        """Its pixels, bool `shape`."""
        found = np.zeros(shape, bool)
        fill_polygon(found, self.outline)
        return found

    def plant(self, image: np.ndarray, draws: Draws) -> np.ndarray:
        """uint8 (H, W, 3), distorted inside the outline."""
        changed = np.clip((KINDS | GLARING)[self.kind](image, self.centre, self.radius, draws), 0, 255).astype(np.uint8)
        return np.where(self.mask(image.shape[:2])[..., None], changed, image)

    def marked(self, shape: tuple[int, int], draws: Draws) -> Region:
        """How an annotator marks it: by its outline or by a box about it, some pixels off."""
        corners = np.array(self.outline) + np.rint(0.06 * self.radius * draws.normal("off", (CORNERS, 2)))
        corners = np.clip(corners, 0, np.array(shape[::-1]) - 1).astype(int)
        if draws.uniform("box", ()) < 0.5:
            return Region(RECTANGLE, (tuple(corners.min(0).tolist()), tuple((corners.max(0) + 1).tolist())))
        return Region(POLYGON, tuple(map(tuple, corners.tolist())))


class SyntheticEvalMuse:
    """`count` pictures with the interface of EvalMuse. size: (height, width) of them. painter: Scenes or Photographs.
    kinds: of the distortions, names in KINDS and GLARING; a small network learns those of GLARING soonest.

    places: planted in each picture. marks: by name, the regions of each annotator. fractions: planted part of the
    area of each picture. UserError: no picture.
    """

    notes, problems = (), ()

    def __init__(self, count: int, size: tuple[int, int], seed: int = 0, painter: Scenes | Photographs | None = None,
                 kinds: Sequence[str] = tuple(KINDS)):
        if count < 1:
            raise UserError(f"{count} pictures: a synthetic data set needs at least 1")
        self.kinds = tuple(kinds)
        self.size, self.seed, self.painter = size, seed, painter or Scenes(seed)
        self.places = [self._places(self.draws(index)) for index in range(count)]
        self.fractions = [float(self.planted(index).mean()) for index in range(count)]
        self.names = [f"{index:05d}.jpg" for index in range(count)]
        self.marks = {name: self._marks(index) for index, name in enumerate(self.names)}
        self.picture = lru_cache(_CACHED)(self._picture)

    @classmethod
    def for_side(cls, count: int, side: int, seed: int = 0, kinds: Sequence[str] = tuple(KINDS)) -> "SyntheticEvalMuse":
        """Of square pictures for a network whose input is `side` pixels high."""
        height = min(max(side, _LEAST_HEIGHT), _MOST_HEIGHT)
        return cls(count, (height, height), seed, kinds=kinds)

    def draws(self, index: int) -> Draws:
        return Draws(self.seed, 0, index).within("evalmuse")

    @cached_property
    def samples(self) -> list[Sample]:
        return [Sample(name, partial(self.picture, index), self.prompt(index), to_score(self.vote(index)),
                       partial(levels, self.marks[name])) for index, name in enumerate(self.names)]

    def _places(self, draws: Draws) -> list[Place]:
        if draws.uniform("clean", ()) < CLEAN:
            return []
        count = int(draws.integers("count", 1, MOST, ()))
        return [Place.drawn(self.size, draws.within(f"place {number}"), self.kinds) for number in range(count)]

    def planted(self, index: int) -> np.ndarray:
        """The pixels of all planted places, bool `size`."""
        found = np.zeros(self.size, bool)
        for place in self.places[index]:
            found |= place.mask(self.size)
        return found

    def _marks(self, index: int) -> list[list[Region]]:
        found = []
        for annotator in range(ANNOTATORS):
            draws = self.draws(index).within(f"annotator {annotator}")
            seen = draws.uniform("seen", (MOST,)) >= MISSED
            found.append([place.marked(self.size, draws.within(f"mark {number}"))
                          for number, place in enumerate(self.places[index]) if seen[number]])
            if draws.uniform("invented", ()) < INVENTED:
                found[-1].append(Place.drawn(self.size, draws).marked(self.size, draws))
        return found

    def vote(self, index: int) -> float:
        """The mean of the annotators' votes, whole numbers from 1 to 5, which fall with the planted area."""
        severity = min(1.0, self.fractions[index] / FULL) ** 0.5
        votes = BEST + (WORST - BEST) * severity + DOUBT * self.draws(index).normal("votes", (ANNOTATORS,))
        return float(np.clip(np.rint(votes), WORST, BEST).mean())

    def subject(self, index: int) -> int:
        return int(self.draws(index).integers("subject", 0, len(self.painter.subjects) - 1, ()))

    def prompt(self, index: int) -> str:
        return f"a view of {self.painter.subjects[self.subject(index)]}"

    def _picture(self, index: int) -> np.ndarray:
        """uint8 (*size, 3)."""
        draws = self.draws(index)
        image = self.painter.picture(self.subject(index), index, self.size, draws)
        for number, place in enumerate(self.places[index]):
            image = place.plant(image, draws.within(f"plant {number}"))
        return image


def write_mini_evalmuse(folder, count: int, width: int, height: int, seed: int = 0, photographs: Sequence = (),
                        distortions: str = "glaring") -> None:
    """Write train/images/, train/train_info.json and planted.csv, or nothing at all. distortions: of CHOICES.

    UserError: `folder` holds something, a photograph cannot be read, no picture.
    """
    folder = check_new(folder)
    files = find_photographs(photographs)
    data = SyntheticEvalMuse(count, (height, width), seed, Photographs(files) if files else None,
                             CHOICES[distortions])
    with whole_folder(folder) as temporary:
        images = temporary / "train" / "images"
        images.mkdir(parents=True)

        def write(index):
            imaging.save_image(images / data.names[index], data.picture(index), quality=92)

        for _ in each(write, range(count), "writing pictures"):
            pass
        entries = {name.removesuffix(".jpg"): {
            PROMPT: data.prompt(index), VOTE: round(data.vote(index), 6),
            MARKS: [list(map(entry_of, regions)) for regions in data.marks[name]]}
            for index, name in enumerate(data.names)}
        write_file(temporary / "train" / "train_info.json", json.dumps(entries, indent=1) + "\n")
        write_file(temporary / "planted.csv", _planted_table(data))
        write_file(temporary / "README.txt", "Made by `jittwin prepare evalmuse --synthetic`: pictures in which places "
                   "are distorted\n(planted.csv: which and how), marks of three simulated annotators, and votes that "
                   "follow\nfrom the planted area. Nobody gave them.\n")


def entry_of(region: Region) -> dict:
    """The entry of a region in the annotation."""
    points = [list(point) for point in region.points] if region.kind == POLYGON else [
        {"x": x, "y": y} for x, y in region.points]
    return {"bbox_type": region.kind, "bbox": points}


def _planted_table(data: SyntheticEvalMuse) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["picture", "planted", "kind", "y", "x", "radius"])
    for name, fraction, places in zip(data.names, data.fractions, data.places):
        for place in places or [None]:
            about = ("", "", "", "") if place is None else (
                place.kind, *(f"{value:.1f}" for value in (*place.centre, place.radius)))
            writer.writerow([name, f"{fraction:.4f}", *about])
    return stream.getvalue()
