"""Prompts, the texts that pictures were made from: read from CSV, TSV, Excel, JSON or JSONL, matched with the pictures.

CSV and TSV: two columns, picture and prompt, or any columns with a header that names these two. Excel: the first sheet,
with such a header. JSON: {picture: prompt} or a list of records. JSONL: one record per line. Text is UTF-8, or UTF-16
with a byte order mark.
"""
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from jittwin.data.matching import PICTURE_COLUMNS, few, match, named, plain_name
from jittwin.data.pictures import SUFFIXES, ImageSet
from jittwin.data.table import DELIMITERS, EXCEL, delimiter_of, read_table, read_text, split_rows
from jittwin.errors import UserError, choose_from

PROMPT_COLUMNS = ("prompt", "textprompt", "caption", "text")
FORMATS = (*DELIMITERS, EXCEL, ".json", ".jsonl")


@dataclass(frozen=True)
class Prompts:
    """The prompts of a file, by the picture's name as written there, with "/" between folders."""
    path: Path
    by_name: dict[str, str]

    def __len__(self) -> int:
        return len(self.by_name)

    def of(self, images: ImageSet) -> list[str]:
        """The prompt of each picture, in the order of images.names.

        jittwin.data.matching decides which name belongs to which picture. A line on stderr counts the prompts that
        match no picture. UserError: a picture without a prompt, or an ambiguous match.
        """
        found, rest = match(self.path, self.by_name, images.names)
        missing = [name for name in images.names if name not in found]
        if missing:
            raise UserError(f"{self.path}: no prompt for {len(missing)} of the {len(images)} pictures in {images}: "
                            f"{few(missing)}; add their prompts, or remove these pictures")
        if rest:
            print(f"{self.path}: {len(rest)} of its {len(self)} prompts match no picture in {images}: {few(rest)}",
                  file=sys.stderr)
        return [self.by_name[found[name]] for name in images.names]


def read_prompts(path, allow_empty: bool = False) -> Prompts:
    """Read the prompts of a file; its suffix decides the format.

    A line on stderr counts the pictures that are listed again with the same prompt. allow_empty: accept empty prompts.
    UserError: no such file, another format or encoding, damage, a prompt that is empty or not text, a picture with two
    prompts.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise UserError(f"{path}: the suffix '{path.suffix}' is no format of prompts{choose_from(suffix, FORMATS)}")
    if suffix == EXCEL:
        entries = _sheet(path)
    else:
        text = read_text(path, "a file of prompts")
        entries = (_table(path, text, DELIMITERS[suffix]) if suffix in DELIMITERS else
                   _lines(path, text) if suffix == ".jsonl" else _json(path, text))
    prompts, places, again = {}, {}, {}
    for place, name, prompt in entries:
        name = _checked(path, place, name, prompt, allow_empty)
        if prompts.setdefault(name, prompt) != prompt:
            raise UserError(f"{path}: '{name}' has two prompts, {_short(prompts[name])} ({places[name]}) and "
                            f"{_short(prompt)} ({place}); remove one")
        if places.setdefault(name, place) != place:
            again[name] = place
    if not prompts:
        raise UserError(f"{path}: holds no prompts; give a line or a record with picture and prompt for each picture")
    if again:
        print(f"{path}: lists {len(again)} of its {len(prompts)} pictures again, with the same prompt: "
              f"{few(list(again))}", file=sys.stderr)
    return Prompts(path, prompts)


# ---- formats: (place, name, prompt) of each entry -----------------------------------

def _table(path: Path, text: str, delimiter: str) -> Iterator[tuple[str, str, str]]:
    delimiter = delimiter_of(text, delimiter, lambda cells: None not in _columns(cells))
    columns, width = None, 2
    for place, cells in split_rows(path, text, delimiter):
        if columns is None:
            columns = _header(path, cells)
            if columns:
                width = len(cells)
                continue
            columns = (0, 1)
        if len(cells) != width:
            raise UserError(f"{path}: {place} has {len(cells)} columns, not {width}; put a prompt with a "
                            f"{'tab' if delimiter == chr(9) else repr(delimiter)} in double quotes, and name the "
                            "columns picture and prompt in the first line when there are others")
        yield place, cells[columns[0]], cells[columns[1]]


def _sheet(path: Path) -> Iterator[tuple[str, str, str]]:
    table = read_table(path)
    columns = _header(path, table.columns)
    if not columns:
        raise UserError(f"{path}: its first row names no columns of pictures and prompts "
                        f"({', '.join(table.columns)}); call them picture and prompt")
    names, prompts = (table.texts(table.columns[at], may_be_empty=True) for at in columns)
    for place, name, prompt in zip(table.places, names, prompts):
        yield place, name or "", prompt or ""


def _header(path: Path, cells: Sequence[str]) -> tuple[int, int] | None:
    """(column of pictures, column of prompts); None for a row that is no header. UserError: one of them is missing."""
    if any(cell.strip().lower().endswith(SUFFIXES) for cell in cells):
        return None
    columns = _columns(cells)
    if None not in columns:
        return columns
    if columns != (None, None):
        lacking, known = ("pictures", PICTURE_COLUMNS) if columns[0] is None else ("prompts", PROMPT_COLUMNS)
        raise UserError(f"{path}: line 1 names no column of the {lacking} ({', '.join(cells)}); "
                        f"call it one of {', '.join(known)}")
    return None


def _columns(cells: Sequence[str]) -> tuple[int | None, int | None]:
    """(index of the pictures, index of the prompts) among a header's cells or a record's keys; None where absent."""
    return named(cells, PICTURE_COLUMNS), named(cells, PROMPT_COLUMNS)


def _json(path: Path, text: str) -> Iterator[tuple[str, str, str]]:
    content = _parsed(path, text, 1)
    if isinstance(content, _Object):
        yield from ((f"entry {number}", *pair) for number, pair in enumerate(content, 1))
    elif isinstance(content, list):
        for number, record in enumerate(content, 1):
            yield _record(path, f"entry {number}", record)
    else:
        raise UserError(f"{path}: holds {_short(content)}; give {{picture: prompt}} or a list of records")


def _lines(path: Path, text: str) -> Iterator[tuple[str, str, str]]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield _record(path, f"line {number}", _parsed(path, line, number))


class _Object(list):
    """A JSON object as a list of (key, value) pairs; a dict would lose a picture that is listed twice."""


def _parsed(path: Path, text: str, line: int):
    try:
        return json.loads(text, object_pairs_hook=_Object)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: line {line + error.lineno - 1}, column {error.colno} is not JSON ({error.msg}); "
                        "correct it there") from error
    except (RecursionError, ValueError) as error:
        raise UserError(f"{path}: line {line} cannot be read as JSON ({error}); give {{picture: prompt}} or records "
                        "of picture and prompt") from error


def _record(path: Path, place: str, record) -> tuple[str, str, str]:
    keys = [key for key, _ in record] if isinstance(record, _Object) else []
    where = _columns(keys)
    if None in where:
        seen = f"has the keys {', '.join(keys)}" if keys else f"is {_short(record)}"
        raise UserError(f"{path}: {place} {seen}; give a record with a picture ({', '.join(PICTURE_COLUMNS)}) and a "
                        f"prompt ({', '.join(PROMPT_COLUMNS)})")
    return place, record[where[0]][1], record[where[1]][1]


# ---- entries ------------------------------------------------------------------------

def _checked(path: Path, place: str, name, prompt, allow_empty: bool) -> str:
    """Check an entry; returns the name with "/" between folders. UserError: no name, no text, an empty prompt."""
    for what, value in (("picture", name), ("prompt", prompt)):
        if not isinstance(value, str):
            raise UserError(f"{path}: {place}: its {what} is {_short(value)}, not text; write it in double quotes")
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise UserError(f"{path}: {place}: its {what} holds half a character (\\ud800 to \\udfff); write it whole")
    name = plain_name(name)
    if not name:
        raise UserError(f"{path}: {place} names no picture; write its file name")
    if not prompt.strip() and not allow_empty:
        raise UserError(f"{path}: '{name}' ({place}) has an empty prompt; write what the picture was made from, or "
                        "remove the entry together with the picture")
    return name


def _short(value) -> str:
    """A value on one line, cut after 60 characters."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."
