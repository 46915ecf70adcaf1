"""The text each picture was made from, out of a CSV, TSV, JSON or JSONL file, and which picture each text is of.

CSV and TSV: two columns, picture and prompt, or any columns below a header that names these two. JSON: {picture:
prompt} or a list of records. JSONL: one record per line. Text is UTF-8, or UTF-16 with a byte order mark.
"""
import csv
import io
import json
import sys
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from jittwin.data.pictures import SUFFIXES, ImageSet
from jittwin.errors import UserError, choose_from

# What a column or a key of a record may be called, the first present one counting; case, spaces, "_" and "-" do not
# matter. Besides the plain words these are the names of PKU-AIGIQA-4K and of EvalMuse.
PICTURE_COLUMNS = ("picture", "image", "file", "filename", "path", "imagepath", "imgpath", "filepath", "imagename",
                   "img", "generatedimage", "name")
PROMPT_COLUMNS = ("prompt", "textprompt", "caption", "text")
DELIMITERS = {".csv": ",", ".tsv": "\t", ".txt": "\t"}
FORMATS = (*DELIMITERS, ".json", ".jsonl")
MOST_NAMED = 5      # pictures that a message names


@dataclass(frozen=True)
class Prompts:
    """The prompts of a file by the picture's name as the file writes it, with "/" between folders."""
    path: Path
    by_name: dict[str, str]

    def __len__(self) -> int:
        return len(self.by_name)

    def of(self, images: ImageSet) -> list[str]:
        """The prompt of each picture, in the order of images.names.

        A name of the file belongs to the picture of that relative path, else of that path without its suffix, else of
        that file name in any folder, else of that file name without its suffix. Prompts of no picture are told on
        stderr. UserError: a picture without a prompt; a name that could mean two pictures, or the other way round.
        """
        found, rest = self._matched(images.names)
        missing = [name for name in images.names if name not in found]
        if missing:
            raise UserError(f"{self.path}: no prompt for {len(missing)} of the {len(images)} pictures in {images}: "
                            f"{_few(missing)}; add their prompts, or take these pictures away")
        if rest:
            print(f"{self.path}: {len(rest)} of its {len(self)} prompts are of no picture in {images}: {_few(rest)}",
                  file=sys.stderr)
        return [self.by_name[found[name]] for name in images.names]

    def _matched(self, pictures: Sequence[str]) -> tuple[dict[str, str], list[str]]:
        """The file's name for each picture that has one, and its names that no picture has."""
        found, rest = {}, dict.fromkeys(self.by_name)
        for key in (_same, _without_suffix, _file_name, lambda name: _without_suffix(_file_name(name))):
            pictures_of, names_of = _grouped(pictures, key), _grouped(rest, key)
            for picture in pictures:
                names = names_of.get(key(picture), ())
                if picture in found or not names:
                    continue
                twins = pictures_of[key(picture)]
                if len(names) > 1 or len(twins) > 1:
                    one, others = (picture, names) if len(names) > 1 else (names[0], twins)
                    raise UserError(f"{self.path}: '{one}' could be any of {len(others)}: {_few(others)}; write the "
                                    "paths of the pictures from their folder on, such as sub/1.png")
                found[picture] = names[0]
            for name in found.values():
                rest.pop(name, None)
        return found, list(rest)


def read_prompts(path, allow_empty: bool = False) -> Prompts:
    """The prompts of a file; the suffix says which format it has.

    A picture that is listed again with the same prompt is told on stderr. allow_empty: an empty prompt is one.
    UserError: no such file, another format or encoding, damage, a prompt that is empty or no text, a picture with two
    prompts.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise UserError(f"{path}: its suffix '{path.suffix}' is of no file of prompts{choose_from(suffix, FORMATS)}")
    text = read_text(path)
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
              f"{_few(list(again))}", file=sys.stderr)
    return Prompts(path, prompts)


def read_text(path: Path) -> str:
    """A file of UTF-8, with or without a byte order mark, or of UTF-16 with one. UserError: unreadable, another."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give a file of prompts") from error
    sixteen = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    encoding = "utf-16" if sixteen else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[:error.start].decode(encoding, "ignore").count("\n") + 1
        raise UserError(f"{path}: line {line} is no {'UTF-16' if sixteen else 'UTF-8'} (byte {error.start} is "
                        f"0x{content[error.start]:02x}); save the file as UTF-8") from error
    if "\0" in text:
        line = text[:text.index("\0")].count("\n") + 1
        raise UserError(f"{path}: line {line} holds a zero character, as UTF-16 without a byte order mark does; save "
                        "the file as UTF-8")
    return text


# ---- formats: (place, name, prompt) of each entry -----------------------------------

def _table(path: Path, text: str, delimiter: str) -> Iterator[tuple[str, str, str]]:
    first = text.lstrip().split("\n", 1)[0]
    # A spreadsheet may write the suffix .csv and not the comma.
    delimiter = next((each for each in (delimiter, *",;\t") if None not in _columns(first.split(each))), delimiter)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
    columns, width = None, 2
    try:
        for cells in rows:
            place = f"line {rows.line_num}"
            if not any(cell.strip() for cell in cells):
                continue
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
    except csv.Error as error:
        raise UserError(f"{path}: line {rows.line_num} is no row of a table ({error}); write a double quote inside "
                        "quotes twice, and close those that open") from error


def _header(path: Path, cells: Sequence[str]) -> tuple[int, int] | None:
    """The columns of the pictures and of the prompts; None for a row that is no header. UserError: half a header."""
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
    """Where the pictures and where the prompts are, by a header's cells or a record's keys."""
    return _named(cells, PICTURE_COLUMNS), _named(cells, PROMPT_COLUMNS)


def _named(names: Sequence[str], known: Sequence[str]) -> int | None:
    """Where the first of the known names is."""
    plain = [name.strip().casefold().translate(dict.fromkeys(map(ord, ' "_-'))) for name in names]
    return next((plain.index(name) for name in known if name in plain), None)


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
    """A JSON object as its (key, value) pairs: a dict would lose a picture that is listed twice."""


def _parsed(path: Path, text: str, line: int):
    try:
        return json.loads(text, object_pairs_hook=_Object)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: line {line + error.lineno - 1}, column {error.colno} is no JSON ({error.msg}); "
                        "mend it there") from error
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
    """The name with "/" between folders. UserError: no name, no text, an empty prompt that is not allowed."""
    for what, value in (("picture", name), ("prompt", prompt)):
        if not isinstance(value, str):
            raise UserError(f"{path}: {place}: its {what} is {_short(value)}, not text; write it in double quotes")
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise UserError(f"{path}: {place}: its {what} holds half a character (\\ud800 to \\udfff); write it whole")
    name = name.strip().replace("\\", "/")
    while name.startswith("./"):
        name = name[2:]
    if not name:
        raise UserError(f"{path}: {place} names no picture; write its file name")
    if not prompt.strip() and not allow_empty:
        raise UserError(f"{path}: '{name}' ({place}) has an empty prompt; write what the picture was made from, or "
                        "remove the entry together with the picture")
    return name


def _same(name: str) -> str:
    return unicodedata.normalize("NFC", name)       # file systems differ in how they write an accent


def _file_name(name: str) -> str:
    return _same(name).rpartition("/")[2]


def _without_suffix(name: str) -> str:
    """A name may hold dots without having a suffix: v1.5."""
    suffix = next((suffix for suffix in SUFFIXES if name.lower().endswith(suffix)), "")
    return _same(name)[:-len(suffix)] if suffix else _same(name)


def _grouped(names: Sequence[str], key: Callable[[str], str]) -> dict[str, list[str]]:
    groups = defaultdict(list)
    for name in names:
        groups[key(name)].append(name)
    return groups


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:MOST_NAMED]) + (", ..." if len(names) > MOST_NAMED else "")


def _short(value) -> str:
    """A value on one line, cut after 60 characters."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."
