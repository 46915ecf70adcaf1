"""PKU-AIGIQA-4K (Yuan et al. 2024, arXiv 2404.18409): 4,000 generated pictures, what they were made from, and votes.

    <folder>/annotation.xlsx    <folder>/All/*.jpg    <folder>/I2I/Image_prompt/*.jpg

Each row describes a picture: Generated_image, Image_prompt (a file name, or empty), Text_prompt, and the three mean
votes MOS_q, MOS_a and MOS_c. The first 1,600 rows are I2I, made from a picture and a text; the others are T2I, made
from a text only. Four successive rows have the same prompt and model; the last of them belongs to the test set.
"""
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jittwin import imaging
from jittwin.data.listing import list_folder
from jittwin.data.matching import few
from jittwin.data.table import Table, read_table
from jittwin.errors import UserError, choose_from

PICTURE, IMAGE_PROMPT, PROMPT = "Generated_image", "Image_prompt", "Text_prompt"
VOTES = ("MOS_q", "MOS_a", "MOS_c")
COLUMNS = (PICTURE, IMAGE_PROMPT, PROMPT, *VOTES)
SUBSETS = ("AIGIQA4K", "I2I", "T2I")
SPLITS = ("rows", "prompts")
ANNOTATION, PICTURES, IMAGE_PROMPTS = "annotation.xlsx", "All", "I2I/Image_prompt"
SAMPLES = 4                             # successive rows of one prompt and model
PUBLISHED = {"I2I": 1600, "T2I": 2400}


@dataclass(frozen=True)
class Row:
    """A generated picture. number: of the row below the header, from 0. image_prompt: None for T2I. votes: by VOTES."""
    number: int
    name: str
    prompt: str
    image_prompt: str | None
    votes: dict[str, float]

    @property
    def subset(self) -> str:
        """I2I or T2I."""
        return "T2I" if self.image_prompt is None else "I2I"

    @property
    def part(self) -> str:
        """train, or test for every fourth row, as published."""
        return "test" if self.number % SAMPLES == SAMPLES - 1 else "train"


def is_annotation(table: Table) -> bool:
    """Whether a table has the columns of annotation.xlsx."""
    return set(COLUMNS) <= set(table.columns)


def read_rows(table: Table) -> list[Row]:
    """The rows of annotation.xlsx. UserError names the first wrong cell.

    A cell is wrong if a column is missing; a vote is not a number; a prompt is not text; a picture is named twice, or
    by a path; rows with and without image prompt are mixed, or their numbers are not multiples of four, which the split
    relies on.
    """
    for name in COLUMNS:
        table.column(name)
    names = table.texts(PICTURE)
    image_prompts, prompts = table.texts(IMAGE_PROMPT, may_be_empty=True), table.texts(PROMPT)
    votes = [table.numbers(name) for name in VOTES]
    first = {}
    for place, name, image_prompt in zip(table.places, names, image_prompts):
        for column, file in ((PICTURE, name), (IMAGE_PROMPT, image_prompt)):
            if file and (set(file) & set("/\\\0") or file in (".", "..")):
                raise UserError(f"{table.path}: {place}: its {column} is {file[:60]!r}; write a file name without a "
                                "folder")
        if name in first:
            raise UserError(f"{table.path}: {place} names {name} as {first[name]} does; remove one of the two")
        first[name] = place
    rows = [Row(number, name, prompt, image_prompt, dict(zip(VOTES, each)))
            for number, (name, prompt, image_prompt, *each) in enumerate(zip(names, prompts, image_prompts, *votes))]
    _check_order(table, rows)
    return rows


def _check_order(table: Table, rows: list[Row]) -> None:
    with_image = sum(row.subset == "I2I" for row in rows)
    for row in rows:
        if (row.number < with_image) != (row.subset == "I2I"):
            raise UserError(f"{table.path}: {table.places[row.number]} has {'no' if row.subset == 'T2I' else 'an'} "
                            f"{IMAGE_PROMPT}, but {with_image} of {len(rows)} rows have one and must come first; "
                            "restore the published order, which the split counts on")
    for subset, count in (("I2I", with_image), ("T2I", len(rows) - with_image)):
        if count % SAMPLES:
            raise UserError(f"{table.path}: {count} rows {'with' if subset == 'I2I' else 'without'} {IMAGE_PROMPT}; a "
                            f"multiple of {SAMPLES} is needed, as every fourth row is tested on (published: "
                            f"{PUBLISHED[subset]}); restore the rows that are missing")


def places_tell(rows: Sequence[Row]) -> bool:
    """Whether `Row.part` can be believed: rows are as many as published, or each four share their prompts.

    A table that somebody has filtered or sorted does neither.
    """
    published = sum(row.subset == "I2I" for row in rows) == PUBLISHED["I2I"] and len(rows) == sum(PUBLISHED.values())
    return published or (len(rows) % SAMPLES == 0 and all(
        len({(row.prompt, row.image_prompt) for row in rows[at:at + SAMPLES]}) == 1
        for at in range(0, len(rows), SAMPLES)))


def of_subset(rows: Iterable[Row], subset: str) -> list[Row]:
    """The rows of a subset. UserError: no such subset, or no rows in it."""
    if subset not in SUBSETS:
        raise UserError(f"subset={subset}{choose_from(subset, SUBSETS)}")
    rows = list(rows)
    found = [row for row in rows if subset in (SUBSETS[0], row.subset)]
    if not found:
        raise UserError(f"subset={subset}: none of the {len(rows)} rows is of it; choose another subset")
    return found


def make_split(rows: Sequence[Row], mode: str = "rows") -> tuple[list[Row], list[Row]]:
    """(training, test) rows, in order; nothing is drawn.

    mode "rows": the published split, in which every fourth row is tested on; training has seen the prompts of all test
    rows. mode "prompts": rows with a common text or image prompt form a group, and every fourth group is tested on.
    UserError: no such mode, or an empty part.
    """
    if mode not in SPLITS:
        raise UserError(f"split={mode}{choose_from(mode, SPLITS)}")
    groups = prompt_groups(rows)
    tested = [row.part == "test" if mode == "rows" else group % SAMPLES == SAMPLES - 1
              for row, group in zip(rows, groups)]
    if all(tested) or not any(tested):
        raise UserError(f"split={mode}: {len(rows)} rows with {len(set(groups))} prompts leave nothing to "
                        f"{'train on' if all(tested) else 'test on'}; use more rows, or another split")
    return tuple([row for row, test in zip(rows, tested) if test == wanted] for wanted in (False, True))


def prompt_groups(rows: Iterable[Row]) -> list[int]:
    """A number for each row, from 0 in order of appearance; rows with a text or image prompt in common share it."""
    parent = {}

    def root(key):
        while parent.setdefault(key, key) != key:
            key = parent[key]
        return key

    keys = []
    for row in rows:
        keys.append((PROMPT, row.prompt))
        one = root(keys[-1])
        if row.image_prompt is not None:
            parent[root((IMAGE_PROMPT, row.image_prompt))] = one
    numbers = {}
    return [numbers.setdefault(root(key), len(numbers)) for key in keys]


class Aigiqa4k:
    """The data set in a folder: its rows, and its pictures, which are decoded on access.

    notes: messages about differences from the published data set. UserError: no such data set, an error of read_rows,
    or missing files.
    """

    def __init__(self, folder):
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise UserError(f"{folder}: no such folder; give the folder with {ANNOTATION}, {PICTURES}/ and "
                            f"{IMAGE_PROMPTS}/")
        self.table = read_table(self.folder / ANNOTATION)
        self.rows = read_rows(self.table)
        self.image_prompts = list(dict.fromkeys(row.image_prompt for row in self.rows if row.image_prompt))
        notes = self._check(PICTURES, [row.name for row in self.rows])
        if self.image_prompts:
            notes += self._check(IMAGE_PROMPTS, self.image_prompts)
        counts = {subset: sum(row.subset == subset for row in self.rows) for subset in PUBLISHED}
        self.notes = notes if counts == PUBLISHED else (
            f"{self.table.path}: {counts['I2I']} I2I and {counts['T2I']} T2I rows; PKU-AIGIQA-4K as published "
            f"has {PUBLISHED['I2I']} and {PUBLISHED['T2I']}", *notes)
        if not places_tell(self.rows):
            self.notes += (f"{self.table.path}: not every four rows share their prompts, so the published split may "
                           "test on other rows than it should",)

    def _check(self, place: str, names: list[str]) -> tuple[str, ...]:
        """Lines about files that are not used. UserError: a picture is missing."""
        folder = self.folder / place
        if not folder.is_dir():
            reason = "not a folder" if folder.exists() else "no such folder"
            raise UserError(f"{folder}: cannot be listed ({reason}); it must hold the pictures that "
                            f"{self.table.path} names")
        listing = list_folder(folder)
        missing = [name for name in names if name not in listing.files]
        if missing:
            raise UserError(f"{folder}: {len(missing)} of {len(names)} pictures that {self.table.path} names are not "
                            f"there: {few(missing)}; restore them")
        unused = sorted(listing.files.keys() - set(names))
        return listing.notes + ((f"{folder}: {len(unused)} pictures are not used, because {self.table.path} does not "
                                 f"name them: {few(unused)}"),) * bool(unused)

    def path(self, name: str) -> Path:
        """The file of a generated picture."""
        return self.folder / PICTURES / name

    def prompt_path(self, name: str) -> Path:
        """The file of an image prompt."""
        return self.folder / IMAGE_PROMPTS / name

    def picture(self, name: str) -> np.ndarray:
        """A generated picture, uint8 (H, W, 3). UserError: it cannot be decoded."""
        return imaging.decode_image(self.path(name))

    def prompt_picture(self, name: str) -> np.ndarray:
        """An image prompt, uint8 (H, W, 3). UserError: it cannot be decoded."""
        return imaging.decode_image(self.prompt_path(name))

    def readers(self) -> list[Callable[[], np.ndarray]]:
        """A function for each picture and image prompt that decodes it."""
        return [*(lambda name=row.name: self.picture(name) for row in self.rows),
                *(lambda name=name: self.prompt_picture(name) for name in self.image_prompts)]
