"""Errors meant for people: one line with the file, the value seen, the legal values and the fix."""
import difflib
import re
from collections.abc import Iterable

# Names of files, and in files, may hold characters that would change the terminal.
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")
LONGEST_REASON, LONGEST_NAME = 200, 300     # characters


class UserError(Exception):
    """A mistake that the user can correct. The command line prints only the message and exits with 2."""


def nearest(name: str, options: Iterable[str]) -> str | None:
    """The option most similar to `name`, or None if none is similar."""
    # Names in a damaged file may be so long that comparing them would take minutes.
    options = [option for option in options if len(option) <= LONGEST_NAME] if len(name) <= LONGEST_NAME else []
    return next(iter(difflib.get_close_matches(name, options, n=1, cutoff=0.5)), None)


def did_you_mean(name: str, options: Iterable[str]) -> str:
    """" (did you mean 'x'?)" for the nearest option, or "" if none is similar."""
    match = nearest(name, options)
    return f" (did you mean '{match}'?)" if match else ""


def choose_from(value, options: Iterable[str]) -> str:
    """The end of a message about an illegal value: the nearest option and all legal options."""
    options = list(options)
    return f"{did_you_mean(str(value), options)}: choose from {', '.join(options) or 'none'}"


def reason(error: Exception) -> str:
    """Another library's message on one line. It may quote the file, so only its first characters are told."""
    return " ".join(str(error)[:LONGEST_REASON].split()) or type(error).__name__


def printable(text: str) -> str:
    """A text for the terminal: control characters, and bytes of a name that are not UTF-8, are escaped."""
    return _CONTROLS.sub(lambda match: ascii(match[0])[1:-1], text.encode(errors="backslashreplace").decode())
