"""Strict comparison of the arrays of a model with those of a file, and whether a network can compute with them."""
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatch

import numpy as np

from jittwin.errors import UserError, did_you_mean
from jittwin.weights.lazy import LazyArrays, no_floats, shapes_of

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


def checked(array, name: str, where: str = "", floating: bool = True) -> np.ndarray:
    """The array, if a network can compute with it. where: its file. UserError: as value_of."""
    array = np.asarray(array)
    if floating and array.dtype.kind in "iub":
        raise no_floats(array, name, where)
    if not is_finite(array):
        count = array.size - np.count_nonzero(np.isfinite(array))
        raise UserError(f"{where}{': ' if where else ''}{name} holds {count} NaN or infinite numbers of {array.size}: "
                        "the training diverged, or the file is damaged; give an earlier checkpoint")
    return array


def is_finite(array: np.ndarray) -> bool:
    """Whether an array has neither NaN nor infinity; integers have none."""
    if not array.size or array.dtype.kind in "iub":
        return True
    if array.dtype.kind == "f":     # faster, and without memory for a mask
        return bool(np.isfinite(array.max()) and np.isfinite(array.min()))
    return bool(np.isfinite(array).all())


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
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{len(names)} {kind}: {listed([describe(name) for name in names[:SHOWN]])}{more}" if names else ""
