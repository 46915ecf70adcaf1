"""Averages of several checkpoints' weights, summed in float64 with one checkpoint in memory at a time."""
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from jittwin.errors import UserError
from jittwin.weights import FLOATS
from jittwin.weights.state import differences

Arrays = dict[str, np.ndarray]


def weighted_sum(parts: Iterable[tuple[str, Mapping[str, np.ndarray], float]]) -> Arrays:
    """The sum of factor * arrays over (name, arrays, factor), in float64; integer arrays are those of the first.

    UserError: keys or shapes differ from those of the first, or integer arrays that are no counters.
    """
    total, first = {}, ""
    for name, arrays, factor in parts:
        if not total:
            first = name
            total = {key: a.astype(np.float64) * factor if _is_float(a) else a.copy() for key, a in arrays.items()}
            continue
        check_same(first, {key: a.shape for key, a in total.items()}, name, {key: a.shape for key, a in arrays.items()})
        for key, a in arrays.items():
            if _is_float(a):
                total[key] += a.astype(np.float64) * factor
            elif a.ndim and not np.array_equal(a, total[key]):
                raise UserError(f"{name}: {key} holds {a.dtype} and differs from that of {first}: integers, such as "
                                "quantised weights, have no average; give checkpoints of floating-point numbers")
    return total


def check_same(first: str, shapes: Mapping[str, tuple], name: str, others: Mapping[str, tuple]) -> None:
    """UserError: keys or shapes of the checkpoint `name` are not those of the checkpoint `first`."""
    if problems := differences(shapes, others):
        raise UserError(f"{name}: not the same network as {first}: {problems}; average checkpoints of one network in "
                        "one phase of training")


def mean_factors(count: int) -> list[float]:
    return [1 / count] * count


def ema_factors(count: int, decay: float) -> list[float]:
    """Factors of an exponential moving average over `count` checkpoints in order, starting at the first."""
    return [decay ** (count - 1)] + [(1 - decay) * decay ** (count - 1 - i) for i in range(1, count)]


def average(sources: Sequence[tuple[str, callable]], factors: Sequence[float], dtype=np.float32) -> Arrays:
    """The weighted sum of checkpoints, floats in `dtype`. sources: (name, function that reads the arrays)."""
    def parts() -> Iterator:
        for (name, read), factor in zip(sources, factors, strict=True):
            yield name, read(), factor
    total = weighted_sum(parts())
    return {key: a.astype(dtype) if _is_float(a) else a for key, a in total.items()}


def greedy_soup(names: Sequence[str], score) -> tuple[list[str], list[tuple[str, float, bool]]]:
    """Greedy soup (Wortsman et al. 2022, arXiv 2203.05482): a checkpoint is kept if the average then scores lower.

    names: best first. score(names): the score of the average of these checkpoints; lower is better. Returns the
    names kept, and for each name tried (name, score of the average with it, whether it was kept).
    """
    kept, best, log = [names[0]], score([names[0]]), []
    log.append((names[0], best, True))
    for name in names[1:]:
        value = score([*kept, name])
        log.append((name, value, value < best))
        if value < best:
            kept, best = [*kept, name], value
    return kept, log


def _is_float(a: np.ndarray) -> bool:
    return a.dtype in FLOATS.values()       # also bfloat16, which is no type of NumPy's own
