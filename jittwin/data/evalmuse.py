"""EvalMuse-Structure (NTIRE 2025, arXiv 2505.16314): generated pictures, their prompts, marked distortions and votes.

    <folder>/train/images/*.jpg    <folder>/train/train_info.json    and the same for val and test

The JSON file maps the id of a picture, which is its file name without ".jpg", to prompt_en, mos, a mean vote from 1 to
5, and bbox_info, a list of marked regions for each of three annotators. Pictures that are only to be predicted need
prompt_en alone. Nothing is left out in silence: what cannot be used is an error, and what is unusual is a Problem.
"""
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from jittwin import imaging
from jittwin.data.annotation import ANNOTATORS, Region, levels, read_region
from jittwin.data.landscape import each
from jittwin.data.listing import list_folder
from jittwin.data.matching import few
from jittwin.errors import UserError, choose_from
from jittwin.picture_formats import suffixes
from jittwin.text_files import read_text

PARTS = ("train", "val", "test")
WORST, BEST = 1.0, 5.0          # votes
PROMPT, VOTE, MARKS = "prompt_en", "mos", "bbox_info"
Draw = Callable[[tuple[int, int]], np.ndarray]


@dataclass(frozen=True)
class Sample:
    """A picture with what a detector is to say about it.

    name: of the file. read: a function that gives the picture, uint8 (H, W, 3). score: from 0 to 1, None where nobody
    voted. draw: a function from the picture's (height, width) to its map, uint8 (h, w) from 0 to 255, of the same or
    another size; None where nobody looked for distortions.
    """
    name: str
    read: Callable[[], np.ndarray]
    prompt: str
    score: float | None = None
    draw: Draw | None = None


@dataclass(frozen=True)
class Problem:
    """Something unusual about a sample that is used all the same."""
    name: str
    what: str

    def __str__(self) -> str:
        return f"{self.name} {self.what}"


def to_score(vote: float) -> float:
    """A vote from WORST to BEST as a score from 0 to 1."""
    return (vote - WORST) / (BEST - WORST)


def to_vote(score: float) -> float:
    """The inverse of `to_score`."""
    return WORST + (BEST - WORST) * score


class EvalMuse:
    """One part of the data set in a folder.

    samples: in the order of the file. marks: by name, the regions of each annotator. problems: what is unusual and can
    be seen without opening a picture; `geometry` has the rest. notes: what a user should know, a line each.
    UserError: no such folder, no JSON, an entry that cannot be used, a picture that is missing.
    """

    def __init__(self, folder, part: str = "train"):
        if part not in PARTS:
            raise UserError(f"part={part}{choose_from(part, PARTS)}")
        self.folder, self.part = Path(folder), part
        self.path = self.folder / part / f"{part}_info.json"
        self.images = self.folder / part / "images"
        if not self.folder.is_dir():
            raise UserError(f"{folder}: no such folder; give the folder with {part}/images/ and "
                            f"{part}/{self.path.name}")
        self.samples, self.marks, self.problems = [], {}, []
        there, notes = listed(self.images)
        mistakes = []
        for key, entry in read_entries(self.path).items():
            try:
                self._add(key, entry, there)
            except ValueError as error:
                mistakes.append(f"{key[:60]!r} {error}")
        self._fail(mistakes)
        unused = sorted(there.keys() - {sample.name for sample in self.samples})
        self.notes = notes + tuple([f"{self.images}: {len(unused)} pictures are not named in {self.path.name} and are "
                                    f"not used: {few(unused)}"] if unused else [])

    def _add(self, key: str, entry, there: dict[str, Path]) -> None:
        """Read the entry of a picture. ValueError: it cannot be used; the message goes on after the id."""
        if not isinstance(entry, dict):
            raise ValueError(f"has {type(entry).__name__} in place of {PROMPT}, {VOTE} and {MARKS}")
        name = file_name(key, there)
        read = partial(imaging.decode_image, there[name])
        prompt = checked_prompt(entry.get(PROMPT))
        if not prompt.strip():
            self.problems.append(Problem(name, "has an empty prompt"))
        if self.part != "train" and entry.keys() <= {PROMPT}:
            self.samples.append(Sample(name, read, prompt))
            return
        vote = entry.get(VOTE)
        if isinstance(vote, bool) or not isinstance(vote, (int, float)) or not WORST <= vote <= BEST:
            raise ValueError(f"has the {VOTE} {vote!r:.40}; write a number from 1 to 5")
        marks = self._marks(name, entry.get(MARKS))
        self.marks[name] = marks
        self.samples.append(Sample(name, read, prompt, to_score(vote), partial(levels, marks)))

    def _marks(self, name: str, content) -> list[list[Region]]:
        if not isinstance(content, list):
            raise ValueError(f"has {type(content).__name__} as {MARKS}; write a list of regions for each "
                             "annotator")
        found = []
        for number, regions in enumerate(content, 1):
            if regions is None:
                continue
            if not isinstance(regions, list):
                raise ValueError(f"has {type(regions).__name__} for annotator {number}; write a list of regions")
            found.append([])
            for place, entry in enumerate(regions, 1):
                where = f"region {place} of annotator {number}"
                try:
                    region, mended = read_region(entry)
                except ValueError as error:
                    raise ValueError(f"{where} {error}") from error
                found[-1].append(region)
                self.problems += [Problem(name, f"{where} {what}") for what in mended]
        if len(found) != ANNOTATORS:
            self.problems.append(Problem(name, f"has {len(found)} annotators instead of {ANNOTATORS}"))
        return found

    def _fail(self, mistakes: list[str]) -> None:
        if mistakes:
            more = f"; {len(mistakes) - 1} more entries cannot be used" if len(mistakes) > 1 else ""
            raise UserError(f"{self.path}: {mistakes[0]}{more}")
        if not self.samples:
            raise UserError(f"{self.path}: names no pictures; give an entry for each picture in {self.images}")

    def geometry(self) -> list[Problem]:
        """What is unusual about the regions, given the sizes of the pictures; every picture is decoded.

        UserError: a picture that cannot be decoded.
        """
        found = []
        for sample, shape in zip(self.samples, each(_shape, self.samples, "decoding pictures")):
            if isinstance(shape, UserError):
                raise shape
            for number, regions in enumerate(self.marks.get(sample.name, ()), 1):
                for place, region in enumerate(regions, 1):
                    found += [Problem(sample.name, f"region {place} of annotator {number} {what}")
                              for what in region.faults(shape)]
        return found


def _shape(sample: Sample):
    try:
        return sample.read().shape[:2]
    except UserError as error:
        return error


def read_entries(path: Path) -> dict[str, dict]:
    """The entries of an annotation by id. UserError: no JSON object, an id that occurs twice."""
    def unique(pairs):
        keys = [key for key, _ in pairs]
        if len(set(keys)) < len(keys):
            twice = next(key for key in keys if keys.count(key) > 1)
            raise UserError(f"{path}: the key {twice[:60]!r} occurs twice in one object; remove one of the two")
        return dict(pairs)

    try:
        content = json.loads(read_text(path, "an annotation"), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: no JSON ({error}); get the file again") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds {type(content).__name__} where an object of pictures by id is expected; get "
                        "the file again")
    return content


def listed(folder: Path) -> tuple[dict[str, Path], tuple[str, ...]]:
    """The pictures of a folder by name, and lines about what was passed over. UserError: it cannot be listed."""
    if not folder.is_dir():
        raise UserError(f"{folder}: cannot be listed ({'not a folder' if folder.exists() else 'no such folder'}); it "
                        "must hold the pictures")
    found = list_folder(folder)
    return dict(found.files), found.notes


def file_name(key: str, there: dict[str, Path]) -> str:
    """The file of a picture that an annotation calls by its name, with or without a suffix. ValueError: no such."""
    if not key or set(key) & set("/\\\0") or key in (".", ".."):
        raise ValueError("is no file name; write it without a folder")
    # The published pictures are JPEG files, which come first where there are several.
    endings = [form(suffix) for suffix in (".jpg", ".jpeg", ".png", *sorted(suffixes())) for form in (str, str.upper)]
    found = next((name for name in (key, *(key + ending for ending in endings)) if name in there), None)
    if found is None:
        raise ValueError(f"has no picture: {key}.jpg is missing; restore it")
    return found


def checked_prompt(value) -> str:
    """ValueError: no text."""
    if not isinstance(value, str):
        raise ValueError(f"has the {PROMPT} {value!r:.40}; write a text")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise ValueError(f"has half a character (\\ud800 to \\udfff) in its {PROMPT}; write it whole")
    return value


def hold_out(samples: Sequence[Sample], count: int, seed: int) -> tuple[list[Sample], list[Sample]]:
    """(training, validation) samples: `count` of them are held out, drawn as the original draws them.

    It shuffles with Python's random.seed(seed); no generator outside is touched. UserError: a count that leaves
    nothing to train on.
    """
    if not 0 <= count < len(samples):
        raise UserError(f"{count} pictures to hold out of {len(samples)}: choose 0 to {len(samples) - 1}")
    shuffled = list(samples)
    if count:
        random.Random(seed).shuffle(shuffled)
    return shuffled[count:], shuffled[:count]

