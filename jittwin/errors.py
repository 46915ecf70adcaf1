"""Errors meant for people: one line with the file, the value seen, the legal values and the fix."""
import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake the user can mend. The command line prints the message alone and exits with 2."""


def nearest(name: str, options: Iterable[str]) -> str | None:
    """The option most like `name`, or None when nothing comes close."""
    return next(iter(difflib.get_close_matches(name, list(options), n=1, cutoff=0.5)), None)


def did_you_mean(name: str, options: Iterable[str]) -> str:
    """" (did you mean 'x'?)" for the nearest option, "" when nothing comes close."""
    match = nearest(name, options)
    return f" (did you mean '{match}'?)" if match else ""


def choose_from(value, options: Iterable[str]) -> str:
    """How a message about an illegal value ends: the nearest option and all legal ones."""
    options = list(options)
    return f"{did_you_mean(str(value), options)}: choose from {', '.join(options) or 'none'}"
