"""Cleaning of a prompt as in OpenAI's CLIP package: `ftfy.fix_text`, HTML entities twice, white space, lower case.

All repairs of ftfy are made except one: text that was decoded with a wrong encoding ("â€™" for an apostrophe) stays.
"""
import html
import re
import unicodedata
from functools import cache

LIGATURES = "ĲĳŉǱǲǳǄǅǆǇǈǉǊǋǌ\ufb00\ufb01\ufb02\ufb03\ufb04\ufb05\ufb06"
CONTROLS = (*range(0x00, 0x09), 0x0b, *range(0x0e, 0x20), 0x7f, *range(0x206a, 0x2070), 0xfeff, *range(0xfff9, 0xfffd))
_TERMINAL = re.compile("\033\\[[\\d;]*[a-zA-Z]")


def openai_clean(text: str) -> str:
    """The text as CLIP's own tokenizer splits it: on one line, in lower case."""
    lines, entities = [], True
    for line in text.split("\n"):
        entities = entities and "<" not in line     # after a tag ftfy takes the text for HTML and keeps its entities
        lines.append(_fixed(line, entities))
    text = html.unescape(html.unescape("\n".join(lines)))
    return re.sub(r"\s+", " ", text).strip().lower()


def _fixed(line: str, entities: bool) -> str:
    """ftfy's repairs of a line, repeated until nothing changes."""
    seen = None
    while line != seen:
        seen = line
        line = html.unescape(line) if entities and "<" not in line else line
        line = _TERMINAL.sub("", line)
        line = unicodedata.normalize("NFC", line.translate(_table()))
    return line


@cache
def _table() -> dict[int, str | None]:
    """Replacements of single characters: ligatures, wide and narrow forms, curled quotes, control characters.

    A control character from 0x80 on becomes the character that Windows-1252 has at that place, if it has one.
    """
    table = {ord(each): "".join(chr(int(code, 16)) for code in unicodedata.decomposition(each).split()[1:])
             for each in LIGATURES}
    table |= {code: unicodedata.normalize("NFKC", chr(code)) for code in (0x3000, *range(0xff01, 0xfff0))}
    table |= dict.fromkeys((0x2bc, *range(0x2018, 0x201c)), "'") | dict.fromkeys(range(0x201c, 0x2020), '"')
    table |= {code: bytes([code]).decode("windows-1252", "ignore") or chr(code) for code in range(0x80, 0xa0)}
    return table | dict.fromkeys((0x2028, 0x2029), "\n") | dict.fromkeys(CONTROLS)
