"""Strict comparison of a state dict with the file that shall fill it."""
from collections.abc import Iterable, Mapping
from fnmatch import fnmatch

from jittwin.errors import UserError, did_you_mean


def check_state(shapes: Mapping[str, tuple[int, ...]], arrays: Mapping, allow_missing: Iterable[str] = (),
                allow_unexpected: Iterable[str] = ()) -> list[str]:
    """The names to copy. UserError lists the first five missing, unexpected and wrongly shaped ones.

    shapes: what the module has; arrays: what the file has; the allowances are shell patterns.
    """
    def allowed(name, patterns):
        return any(fnmatch(name, pattern) for pattern in patterns)

    missing = [n for n in shapes if n not in arrays and not allowed(n, allow_missing)]
    unexpected = [n for n in arrays if n not in shapes and not allowed(n, allow_unexpected)]
    wrong = [n for n in shapes if n in arrays and tuple(arrays[n].shape) != shapes[n]]
    complaints = []
    if missing:
        complaints.append(_listed("missing", missing, lambda n: n + did_you_mean(n, unexpected)))
    if unexpected:
        complaints.append(_listed("unexpected", unexpected, str))
    if wrong:
        complaints.append(_listed("of another shape", wrong, lambda n: (
            f"{n} is {tuple(arrays[n].shape)} in the file and {shapes[n]} in the model")))
    if complaints:
        raise UserError("the weights do not fit the model: " + "; ".join(complaints))
    return [n for n in shapes if n in arrays]


def _listed(kind: str, names: list[str], describe) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"{len(names)} {kind}: " + ", ".join(map(describe, names[:5])) + more
