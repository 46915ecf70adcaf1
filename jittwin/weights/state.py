"""Strict comparison of the arrays of a model with those of a file."""
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatch

import numpy as np

from jittwin.errors import UserError, did_you_mean
from jittwin.weights.lazy import LazyArrays, shapes_of
from jittwin.weights.usable import checked

Shapes = Mapping[str, tuple[int, ...]]
LONGEST = 400   # characters of a name in a message
SHOWN = 5   # a message shows at most this many names of each kind


def check_state(shapes: Shapes, arrays: Mapping, allow_missing: Iterable[str] = (),
                allow_unexpected: Iterable[str] = ()) -> list[str]:
    """The names to copy. UserError lists the first five missing, unexpected and wrongly shaped names.

    shapes: of the module. arrays: of the file. allow_missing, allow_unexpected: shell patterns of names that need not
    agree.
    """
    problems = differences(shapes, shapes_of(arrays), allow_missing, allow_unexpected)
    if problems:
        source = arrays.source if isinstance(arrays, LazyArrays) else ""
        raise UserError(f"{source}{': ' if source else ''}the weights do not fit the model: {problems}")
    return [n for n in shapes if n in arrays]


def value_of(arrays: Mapping, name: str, floating: bool) -> np.ndarray:
    """An array for a tensor of a network. floating: whether the tensor holds floating-point numbers.

    UserError: integers for a tensor of floating-point numbers, or NaN or infinity.
    """
    return checked(arrays[name], name, arrays.source if isinstance(arrays, LazyArrays) else "", floating)


def differences(expected: Shapes, found: Shapes, allow_missing: Iterable[str] = (),
                allow_unexpected: Iterable[str] = ()) -> str:
    """A message with a few names that are missing, unexpected or of another shape; "" if there are none."""
    missing = [n for n in expected if n not in found and not matches(n, allow_missing)]
    unexpected = [n for n in found if n not in expected and not matches(n, allow_unexpected)]
    return "; ".join(filter(None, (
        _listed("missing", missing, str),
        _listed("unexpected", unexpected, lambda n: n + did_you_mean(n, missing)),
        changes("of another shape", expected, found))))


def changes(kind: str, expected: Mapping, found: Mapping) -> str:
    """A message with a few names that both have with different values; "" if there are none."""
    wrong = [n for n in expected if n in found and found[n] != expected[n]]
    return _listed(kind, wrong, lambda n: f"{n} {found[n]} instead of {expected[n]}")


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether the name matches one of the shell patterns."""
    return any(fnmatch(name, pattern) for pattern in patterns)


def listed(names: Sequence[str]) -> str:
    """The first of these names, for a message."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(name[:LONGEST] for name in names[:SHOWN]) + more


def _listed(kind: str, names: list[str], describe) -> str:
    return f"{len(names)} {kind}: {listed(list(map(describe, names)))}" if names else ""
