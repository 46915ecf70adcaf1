"""Text files of any system: lists, tables, settings and records are read here.

Text is UTF-8, with or without a byte order mark, or UTF-16 or UTF-32 with one. Lines end as on Linux, Windows or the
old Mac. Anything else is refused, because a guess at an encoding would change names in silence.
"""
import codecs
import contextlib
import json
import re
from pathlib import Path
from typing import Any

from jittwin.errors import UserError
from jittwin.file_kinds import HEAD, other_content

# The mark of UTF-32 begins with that of UTF-16.
_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
          (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_LINE_END = re.compile(r"\r\n|\r|\n")
_INNER_MARK = re.compile(r"^\ufeff|(?<=[\r\n])\ufeff")      # of files that were joined
# Encodings of other systems, as iconv calls them. A message names those that decode the whole file.
_LIKELY = ("GB18030", "BIG5", "SHIFT_JIS", "EUC-KR", "WINDOWS-1252")


def read_text(path, what: str = "a text file") -> str:
    """The text of a file, without its byte order mark; ends of lines stay as they are.

    what: the file that is wanted, for messages. UserError: unreadable, no text, or in another encoding.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give {what}") from error
    return decoded(content, path, what)


def decoded(content: bytes, path, what: str = "a text file") -> str:
    """The text that these bytes of the file `path` hold. UserError: as read_text."""
    if told := other_content(content[:HEAD]) or ("is a zip archive" if content.startswith(b"PK\x03\x04") else ""):
        raise UserError(f"{path}: {told}; give {what}")
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        name = encoding.removesuffix("-sig").upper()
        line = 1 + _count(content[:error.start].decode(encoding, "ignore"))
        raise UserError(f"{path}: line {line} is not {name} (byte {error.start} is 0x{content[error.start]:02x})"
                        f"{_other_encoding(content)}; save the file as UTF-8") from error
    if "\0" in text:
        raise UserError(f"{path}: line {1 + _count(text[:text.index(chr(0))])} holds a zero character, as UTF-16 "
                        "without a byte order mark does; save the file as UTF-8")
    return _INNER_MARK.sub("", text)


def lines_of(text: str) -> list[str]:
    """The lines of a text, without their ends. Only the ends of Linux, Windows and the old Mac end a line."""
    lines = _LINE_END.split(text)
    return lines[:-1] if lines[-1] == "" else lines


def read_lines(path, what: str = "a text file with one name per line") -> list[str]:
    """The lines of a file that are not blank, without blanks around them. UserError: as read_text."""
    return [line for line in map(str.strip, lines_of(read_text(path, what))) if line]


def read_object(path, advice: str = "fetch the file again") -> dict[str, Any]:
    """The object in a JSON file. advice: the end of messages. UserError: unreadable, or not a JSON object."""
    try:
        found = json.loads(read_text(path, "a JSON file"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({' '.join(str(error).split())}); {advice}") from error
    if not isinstance(found, dict):
        raise UserError(f"{path}: holds a {type(found).__name__} instead of an object; {advice}")
    return found


def _count(text: str) -> int:
    return len(_LINE_END.findall(text))


def _other_encoding(content: bytes) -> str:
    """", it may be …" with the encodings that could be those of a text that is not UTF-8; "" for none."""
    found = []
    for name in _LIKELY:
        with contextlib.suppress(UnicodeDecodeError, LookupError):
            content.decode(name)
            found.append(name)
    if not found:
        return ""
    return f", it may be {' or '.join(found)} (iconv -f {found[0]} -t UTF-8 OLD > NEW)"
