"""Prompts, the texts that pictures were made from: read from CSV, TSV, Excel, JSON or JSONL, matched with the pictures.

CSV and TSV: two columns, picture and prompt, or any columns with a header that names these two. Excel: the first sheet,
with such a header. JSON: {picture: prompt} or a list of records. JSONL: one record per line. A third
column may name the picture that a picture was made from, its image prompt.
"""
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path

from jittwin.data.matching import PICTURE_COLUMNS, few, match, named, plain_name, strangers
from jittwin.data.pictures import ImageSet
from jittwin.data.table import DELIMITERS, EXCEL, delimiter_of, read_table, split_rows
from jittwin.errors import UserError, choose_from
from jittwin.picture_formats import suffix_of
from jittwin.text_files import lines_of, read_text

PROMPT_COLUMNS = ("prompt", "textprompt", "caption", "text")
IMAGE_PROMPT_COLUMNS = ("imageprompt", "promptimage")
FORMATS = (*DELIMITERS, EXCEL, ".json", ".jsonl")


@dataclass(frozen=True)
class Prompts:
    """The prompts of a file, by the picture's name as written there, with "/" between folders.

    image_prompts: names of the image prompts of those pictures that have one.
    """
    path: Path
    by_name: dict[str, str]
    image_prompts: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.by_name)

    def of(self, images: ImageSet, skip_unused: bool = False) -> list[str]:
        """The prompt of each picture, in the order of images.names.

        jittwin.data.matching decides which name belongs to which picture. skip_unused: a line on stderr
        counts the prompts that match no picture. UserError: a picture without a prompt, an ambiguous match, or, without
        skip_unused, a prompt that matches no picture.
        """
        found, rest = match(self.path, self.by_name, images.names)
        missing = [name for name in images.names if name not in found]
        if missing:
            raise UserError(f"{self.path}: no prompt for {len(missing)} of the {len(images)} pictures in {images}: "
                            f"{few(missing)}; add their prompts, or remove these pictures")
        if rest:
            message = (f"{self.path}: {len(rest)} of its {len(self)} prompts match no picture in {images}: "
                       f"{strangers(rest, images.names)}")
            if not skip_unused:
                raise UserError(f"{message}; correct or remove them, or exclude them with --skip-unused")
            print(message, file=sys.stderr)
        return [self.by_name[found[name]] for name in images.names]

    def image_prompts_of(self, images: ImageSet) -> list[str | None]:
        """The name of the image prompt of each picture, in the order of images.names; None for none."""
        found, _ = match(self.path, self.by_name, images.names)
        return [self.image_prompts.get(found.get(name)) for name in images.names]


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
    prompts, images, places, again = {}, {}, {}, {}
    for place, name, prompt, image in entries:
        name, image = _checked(path, place, name, prompt, allow_empty), _image(path, place, image)
        for kind, known, value in (("prompts", prompts, prompt), ("image prompts", images, image)):
            if known.setdefault(name, value) != value:
                raise UserError(f"{path}: '{name}' has two {kind}, {_short(known[name])} ({places[name]}) and "
                                f"{_short(value)} ({place}); remove one")
        if places.setdefault(name, place) != place:
            again[name] = place
    if not prompts:
        raise UserError(f"{path}: holds no prompts; give a line or a record with picture and prompt for each picture")
    if again:
        print(f"{path}: lists {len(again)} of its {len(prompts)} pictures again, with the same prompt: "
              f"{few(list(again))}", file=sys.stderr)
    return Prompts(path, prompts, {name: image for name, image in images.items() if image})


# ---- formats: (place, name, prompt, image prompt or "" or None) of each entry -----------

Entry = tuple[str, str, str, str | None]


def _table(path: Path, text: str, delimiter: str) -> Iterator[Entry]:
    delimiter = delimiter_of(text, delimiter, lambda cells: None not in _columns(cells)[:2])
    columns, width = None, 2
    for place, cells in split_rows(path, text, delimiter):
        if columns is None:
            columns = _header(path, cells)
            if columns:
                width = len(cells)
                continue
            columns = (0, 1, None)
        if len(cells) != width:
            raise UserError(f"{path}: {place} has {len(cells)} columns, not {width}; put a prompt with a "
                            f"{'tab' if delimiter == chr(9) else repr(delimiter)} in double quotes, and name the "
                            "columns picture and prompt in the first line when there are others")
        yield place, *(None if at is None else cells[at] for at in columns)


def _sheet(path: Path) -> Iterator[Entry]:
    table = read_table(path)
    columns = _header(path, table.columns)
    if not columns:
        raise UserError(f"{path}: its first row names no columns of pictures and prompts "
                        f"({', '.join(table.columns)}); call them picture and prompt")
    texts = [[] if at is None else table.texts(table.columns[at], may_be_empty=True) for at in columns]
    for place, name, prompt, image in zip_longest(table.places, *texts):
        yield place, name or "", prompt or "", image


Columns = tuple[int | None, int | None, int | None]


def _header(path: Path, cells: Sequence[str]) -> Columns | None:
    """As _columns; None for a row that is no header. UserError: pictures or prompts are missing."""
    if any(suffix_of(cell.strip()) for cell in cells):
        return None
    columns = _columns(cells)
    if None not in columns[:2]:
        return columns
    if columns[:2] != (None, None):
        lacking, known = ("pictures", PICTURE_COLUMNS) if columns[0] is None else ("prompts", PROMPT_COLUMNS)
        raise UserError(f"{path}: line 1 names no column of the {lacking} ({', '.join(cells)}); "
                        f"call it one of {', '.join(known)}")
    return None


def _columns(cells: Sequence[str]) -> Columns:
    """Index of the pictures, of the prompts and of the image prompts among a header's cells or a record's keys.

    None where absent.
    """
    return tuple(named(cells, known) for known in (PICTURE_COLUMNS, PROMPT_COLUMNS, IMAGE_PROMPT_COLUMNS))


def _json(path: Path, text: str) -> Iterator[Entry]:
    content = _parsed(path, text, 1)
    if isinstance(content, _Object):
        yield from ((f"entry {number}", *pair, None) for number, pair in enumerate(content, 1))
    elif isinstance(content, list):
        for number, record in enumerate(content, 1):
            yield _record(path, f"entry {number}", record)
    else:
        raise UserError(f"{path}: holds {_short(content)}; give {{picture: prompt}} or a list of records")


def _lines(path: Path, text: str) -> Iterator[Entry]:
    for number, line in enumerate(lines_of(text), 1):
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


def _record(path: Path, place: str, record) -> Entry:
    keys = [key for key, _ in record] if isinstance(record, _Object) else []
    where = _columns(keys)
    if None in where[:2]:
        seen = f"has the keys {', '.join(keys)}" if keys else f"is {_short(record)}"
        raise UserError(f"{path}: {place} {seen}; give a record with a picture ({', '.join(PICTURE_COLUMNS)}) and a "
                        f"prompt ({', '.join(PROMPT_COLUMNS)})")
    return place, *(None if at is None else record[at][1] for at in where)


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


def _image(path: Path, place: str, name) -> str | None:
    """Check the name of an image prompt; None if there is none. UserError: it is not text."""
    if name is not None and not isinstance(name, str):
        raise UserError(f"{path}: {place}: its image prompt is {_short(name)}, not text; write its file name in double "
                        "quotes")
    return plain_name(name) or None if name else None


def _short(value) -> str:
    """A value on one line, cut after 60 characters."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."
