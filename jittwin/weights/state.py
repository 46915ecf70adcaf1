"""Strict comparison of the arrays of a model with those of a file."""
from collections.abc import Iterable, Mapping
from fnmatch import fnmatch

from jittwin.errors import UserError, did_you_mean
from jittwin.weights.lazy import LazyArrays, shapes_of

Shapes = Mapping[str, tuple[int, ...]]
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


def _listed(kind: str, names: list[str], describe) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{len(names)} {kind}: " + ", ".join(map(describe, names[:SHOWN])) + more if names else ""
