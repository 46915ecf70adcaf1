"""People's votes for pictures, out of a CSV, TSV or Excel file, and which subset and part each picture is of.

A row per picture: its name in a column called as for prompts, the vote in a column of any name. Columns called subset
and split, if there are any, tell which pictures are also looked at apart; of PKU-AIGIQA-4K's own table, its image
prompts and the places of its rows tell it.
"""
from dataclasses import dataclass
from pathlib import Path

from jittwin.data.aigiqa4k import IMAGE_PROMPT, PROMPT, Row, is_annotation, places_tell
from jittwin.data.matching import PICTURE_COLUMNS, few, match, named, plain_name
from jittwin.data.pictures import ImageSet
from jittwin.data.table import Table, read_table
from jittwin.errors import UserError

GROUPS = ("subset", "split")


@dataclass(frozen=True)
class Vote:
    """subset, split: None where the table does not tell."""
    value: float
    subset: str | None = None
    split: str | None = None


@dataclass(frozen=True)
class Votes:
    """The votes of a file by the picture's name as the file writes it, with "/" between folders."""
    path: Path
    column: str
    by_name: dict[str, Vote]

    def of(self, images: ImageSet) -> tuple[dict[str, Vote], list[str], list[str]]:
        """(votes by the shown name of the picture, pictures without a vote, names of the file that no picture has).

        UserError: a name that could mean two pictures, or the other way round; no picture has a vote.
        """
        found, rest = match(self.path, self.by_name, images.names)
        if not found:
            raise UserError(f"{self.path}: none of the {len(images)} pictures in {images} has a vote; it names "
                            f"{few(rest)}")
        shown = dict(zip(images.names, images.shown_names))
        return ({shown[name]: self.by_name[found[name]] for name in images.names if name in found},
                [shown[name] for name in images.names if name not in found], rest)


def read_votes(path, column: str | None) -> Votes:
    """The votes of a file. column: which votes.

    UserError: what read_table says, no column of the pictures or of that name, a vote that is no number, a picture that
    is listed twice.
    """
    table = read_table(path)
    if column is None:
        raise UserError(f"{table.path}: the column of the votes is not named: choose from {', '.join(table.columns)}")
    at = named(table.columns, PICTURE_COLUMNS)
    if at is None:
        raise UserError(f"{table.path}: names no column of the pictures ({', '.join(table.columns)}); call it one of "
                        f"{', '.join(PICTURE_COLUMNS)}")
    names = [plain_name(name) for name in table.texts(table.columns[at])]
    votes, groups = table.numbers(column), _groups(table, names)
    first, by_name = {}, {}
    for place, name, value, group in zip(table.places, names, votes, groups):
        if name in first:
            raise UserError(f"{table.path}: '{name}' is listed twice ({first[name]} and {place}); remove one of "
                            "the two")
        first[name] = place
        by_name[name] = Vote(value, *group)
    return Votes(table.path, column, by_name)


def _groups(table: Table, names: list[str]) -> list[tuple[str | None, str | None]]:
    """Subset and part of each row."""
    known = {group: table.texts(table.columns[at], may_be_empty=True)
             for group in GROUPS if (at := named(table.columns, (group,))) is not None}
    if not known and is_annotation(table):
        rows = [Row(number, *row, {}) for number, row in enumerate(
            zip(names, table.texts(PROMPT), table.texts(IMAGE_PROMPT, may_be_empty=True)))]
        known["subset"] = [row.subset for row in rows]
        if places_tell(rows):
            known["split"] = [row.part for row in rows]
    nothing = [None] * len(names)
    return list(zip(*(known.get(group, nothing) for group in GROUPS)))
