"""Pictures made from texts and other pictures, with votes to match: a substitute for PKU-AIGIQA-4K where it is missing.

A text asks for a subject and a light. The picture may show another subject or light, and is damaged. The votes are
computed from the damage, the match with the text, and the naturalness of the light; no person gave them.
"""
import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jittwin import imaging
from jittwin.atomic import whole_folder, write_file
from jittwin.data.aigiqa4k import ANNOTATION, COLUMNS, IMAGE_PROMPTS, PICTURES, SAMPLES, VOTES, Row
from jittwin.data.landscape import each
from jittwin.data.synthetic.landscapes import PURE_EVERY, render
from jittwin.data.synthetic.rated import Damage, check_new, crop, find_photographs
from jittwin.data.table import write_sheet
from jittwin.draws import Draws
from jittwin.errors import UserError

MODELS = {"I2I": ("MJ", "SD"), "T2I": ("DALLE", "MJ", "SD")}        # names in the published files
FIRST = {"I2I": 0, "T2I": 1000}         # number of the first prompt in the published files' names
MULTIPLE = sum(map(len, MODELS.values())) * SAMPLES     # rows of one I2I and one T2I prompt
BEST = 5.0                              # the highest vote
NOISE = 0.15                            # deviation of votes about what the causes give
# Of quality, match and naturalness in each vote.
WEIGHTS = {"MOS_q": (0.65, 0.35, 0.0), "MOS_a": (0.5, 0.2, 0.3), "MOS_c": (0.2, 0.8, 0.0)}
LIGHTS = {"a dark view of": -1.2, "a view of": 0.0, "a bright view of": 1.2}       # binary logarithm of the gain
MOST_LIGHT = 1.5
_RIGHT_SUBJECT, _RIGHT_LIGHT = 0.65, 0.6        # how often a picture shows what was asked for
_DAMAGES = "blur", "noise"           # those kinds of Damage that show at every strength
_SCENES = ("a lakeside", "a coast", "a valley with a river", "a town", "a gorge with a waterfall", "a desert", "a farm")
_REST = ("", " in spring", " in autumn", " after rain", ", wide angle", ", film photography", ", oil painting",
         ", highly detailed", ", by a traveller", " seen from a hill")      # words that decide nothing
_LEAST_HEIGHT, _MOST_HEIGHT = 96, 384
_COLOURS = ("red", "yellow", "green", "blue", "grey")


@dataclass(frozen=True)
class Causes:
    """Of one picture: the subject and light that were asked for and that it shows, and its damage.

    subjects are numbers; light is the binary logarithm of the gain.
    """
    asked: int
    shown: int
    asked_light: float
    shown_light: float
    damage: Damage

    @property
    def quality(self) -> float:
        """1 without damage, 0 with most."""
        return 1 - self.damage.severity

    @property
    def match(self) -> float:
        """1 for what was asked for, 0 for another subject in the most different light."""
        light = 1 - min(1.0, abs(self.shown_light - self.asked_light) / (2 * MOST_LIGHT))
        return 0.5 * (self.shown == self.asked) + 0.5 * light

    @property
    def naturalness(self) -> float:
        """1 for a light that changes nothing, 0 for the darkest and brightest."""
        return 1 - min(1.0, abs(self.shown_light) / MOST_LIGHT)

    def votes(self, draws: Draws) -> dict[str, float]:
        """From 0 to BEST, by VOTES."""
        parts = self.quality, self.match, self.naturalness
        noise = NOISE * draws.normal("votes", (len(VOTES),))
        return {name: round(float(np.clip(BEST * np.dot(WEIGHTS[name], parts) + extra, 0, BEST)), 4)
                for name, extra in zip(VOTES, noise)}


class Scenes:
    """Procedural landscapes by subject."""

    def __init__(self, seed: int = 0):
        self.subjects, self.seed = _SCENES, seed

    def picture(self, subject: int, number: int, size: tuple[int, int], draws: Draws) -> np.ndarray:
        """One of the endless pictures of a subject, uint8 (*size, 3): a part of it, which is drawn."""
        height, width = size
        return crop(render(PURE_EVERY * number + subject, width, height, self.seed)[0], size, draws)


class Photographs:
    """Photographs, whose subject is their main colour."""

    def __init__(self, files: Sequence[Path]):
        by_colour = {}
        for file, colour in zip(files, each(lambda file: main_colour(imaging.decode_image(file)), list(files),
                                            "looking at photographs")):
            by_colour.setdefault(colour, []).append(file)
        self.subjects = tuple(map(_place, by_colour))
        self.files = tuple(by_colour.values())

    def picture(self, subject: int, number: int, size: tuple[int, int], draws: Draws) -> np.ndarray:
        """A part of one of the photographs of that colour, uint8 (*size, 3)."""
        files = self.files[subject]
        return crop(imaging.decode_image(files[number % len(files)]), size, draws)


def _place(colour: str) -> str:
    return f"a place in {colour}"


def words() -> list[str]:
    """Every word of the texts, in alphabetic order."""
    texts = " ".join((*LIGHTS, *_SCENES, *_REST, *map(_place, _COLOURS)))
    return sorted(set(texts.replace(",", " ").split()))


def main_colour(image: np.ndarray) -> str:
    """One of _COLOURS: the mean of uint8 (H, W, 3) in a word."""
    red, green, blue = image.mean((0, 1))
    if max(red, green, blue) - min(red, green, blue) < 12:
        return "grey"
    if blue == max(red, green, blue):
        return "blue"
    if green > red:
        return "green"
    return "yellow" if green - blue > red - green else "red"


class SyntheticAigiqa4k:
    """`count` pictures with the interface of Aigiqa4k: as many I2I for T2I, in the same order, of the same models.

    count: a multiple of MULTIPLE. size: (height, width) of the pictures. painter: Scenes or Photographs.
    causes: of each row. UserError: another count.
    """

    notes = ()

    def __init__(self, count: int, size: tuple[int, int], seed: int = 0, painter: Scenes | Photographs | None = None):
        if count < MULTIPLE or count % MULTIPLE:
            raise UserError(f"{count} pictures: must be a multiple of {MULTIPLE}, which one image prompt with "
                            f"{len(MODELS['I2I'])} models and one text prompt with {len(MODELS['T2I'])} give")
        self.size, self.seed, self.painter = size, seed, painter or Scenes(seed)
        self.rows, self.causes, self.image_prompts = [], [], []
        for subset, models in MODELS.items():
            for prompt in range(count // MULTIPLE):
                self._add_prompt(subset, prompt, models)
        self.row_of = {row.name: row for row in self.rows}

    @classmethod
    def for_side(cls, count: int, side: int, seed: int = 0) -> "SyntheticAigiqa4k":
        """Of pictures for a network whose input is `side` pixels high."""
        height = min(max(side, _LEAST_HEIGHT), _MOST_HEIGHT)
        return cls(count, (height, height * 4 // 3), seed)

    def draws(self, part: str, number: int) -> Draws:
        return Draws(self.seed, 0, number).within(part)

    def _add_prompt(self, subset: str, number: int, models: Sequence[str]) -> None:
        draws = self.draws(subset, number)
        asked = int(draws.integers("subject", 0, len(self.painter.subjects) - 1, ()))
        words, light = list(LIGHTS.items())[draws.integers("light", 0, len(LIGHTS) - 1, ())]
        text = f"{words} {self.painter.subjects[asked]}{_REST[draws.integers('rest', 0, len(_REST) - 1, ())]}"
        image_prompt = f"{number}.jpg" if subset == "I2I" else None
        if image_prompt:
            self.image_prompts.append(image_prompt)
        for sample in range(SAMPLES * len(models)):
            row = len(self.rows)
            draws = self.draws("picture", row)
            causes = self._drawn(asked, light, draws)
            name = f"{models[sample // SAMPLES]}_{FIRST[subset] + number:04d}_{sample:02d}.jpg"
            self.rows.append(Row(row, name, text, image_prompt, causes.votes(draws)))
            self.causes.append(causes)

    def _drawn(self, asked: int, light: float, draws: Draws) -> Causes:
        shown = asked if draws.uniform("right subject", ()) < _RIGHT_SUBJECT else int(
            draws.integers("shown", 0, len(self.painter.subjects) - 1, ()))
        drawn_light = MOST_LIGHT * (2 * float(draws.uniform("shown light", ())) - 1)
        shown_light = light if draws.uniform("right light", ()) < _RIGHT_LIGHT else drawn_light
        kind = _DAMAGES[draws.integers("kind", 0, len(_DAMAGES) - 1, ())]
        return Causes(asked, shown, light, shown_light, Damage(**{kind: float(draws.uniform("severity", ()))}))

    def picture(self, name: str) -> np.ndarray:
        """A generated picture, uint8 (*size, 3)."""
        row = self.row_of[name]
        causes, draws = self.causes[row.number], self.draws("picture", row.number)
        # What follows an image prompt shows another part of the same place.
        number = int(row.image_prompt.removesuffix(".jpg")) if row.image_prompt and causes.shown == causes.asked else (
            len(self.image_prompts) + row.number)
        image = self.painter.picture(causes.shown, number, self.size, draws)
        lit = np.clip(image * np.float32(2 ** causes.shown_light), 0, 255).astype(np.uint8)
        return causes.damage.apply(lit, draws)

    def prompt_picture(self, name: str) -> np.ndarray:
        """An image prompt, uint8 (*size, 3): undamaged, in its own light."""
        number = int(name.removesuffix(".jpg"))
        asked = self.causes[number * SAMPLES * len(MODELS["I2I"])].asked
        return self.painter.picture(asked, number, self.size, self.draws("image prompt", number))


def write_mini_aigiqa4k(folder, count: int, width: int, height: int, seed: int = 0, photographs: Sequence = ()) -> None:
    """Write annotation.xlsx, All/, I2I/Image_prompt/ and causes.csv, or nothing at all.

    The pictures show the photographs, or procedural landscapes where there are none. UserError: `folder` holds
    something, a photograph cannot be read, a count that SyntheticAigiqa4k refuses.
    """
    folder = check_new(folder)
    files = find_photographs(photographs)
    data = SyntheticAigiqa4k(count, (height, width), seed, Photographs(files) if files else None)
    with whole_folder(folder) as temporary:
        _write_pictures(temporary / PICTURES, data.picture, list(data.row_of), "writing pictures")
        _write_pictures(temporary / IMAGE_PROMPTS, data.prompt_picture, data.image_prompts, "writing image prompts")
        write_sheet(temporary / ANNOTATION, COLUMNS,
                    [(row.name, row.image_prompt, row.prompt, *row.votes.values()) for row in data.rows])
        write_file(temporary / "causes.csv", _causes_table(data))
        write_file(temporary / "README.txt", "Made by `jittwin prepare aigiqa4k --synthetic`: pictures that show more "
                   "or less what\na text asks for, damaged (causes.csv: how), and votes drawn to match. Nobody gave "
                   "these votes,\nand the models that the file names tell of had no part in it.\n")


def _write_pictures(folder: Path, read: Callable[[str], np.ndarray], names: list[str], title: str) -> None:
    folder.mkdir(parents=True)
    for _ in each(lambda name: imaging.save_image(folder / name, read(name), quality=92), names, title):
        pass


def _causes_table(data: SyntheticAigiqa4k) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([COLUMNS[0], "asked", "shown", "asked_light", "shown_light", "quality", "match", "naturalness"])
    subjects = data.painter.subjects
    for row, causes in zip(data.rows, data.causes):
        numbers = causes.asked_light, causes.shown_light, causes.quality, causes.match, causes.naturalness
        writer.writerow([row.name, subjects[causes.asked], subjects[causes.shown],
                         *(f"{number:.4f}" for number in numbers)])
    return stream.getvalue()
