"""Agreement of metrics with people's votes, with bootstrap intervals, overall and per subset and part of the data.

An interval holds the middle 95 % of the values of RESAMPLES samples of equally many pictures, drawn with replacement
(Efron 1979, doi 10.1214/aos/1176344552).
"""
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from jittwin.data.votes import Vote
from jittwin.draws import Draws
from jittwin.metrics.metric import Metric
from jittwin.metrics.ratings import AGREEMENT, agreement

RESAMPLES = 1000
LEVEL = 0.95
SEED = 0
_BLOCK = 1024       # pictures compared with all others at a time
_CELLS = 4_000_000  # resampled values held at a time


@dataclass(frozen=True)
class Estimate:
    """A value, and the ends of its interval; nan where it is not defined."""
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Group:
    """A group of pictures. subset, split: None for all. measures: by name of the metric and name of AGREEMENT."""
    subset: str | None
    split: str | None
    count: int
    measures: dict[str, dict[str, Estimate]]

    @property
    def name(self) -> str:
        """A name of the group for people."""
        return " ".join(part for part in (self.subset, self.split) if part is not None) or "all"


@dataclass(frozen=True)
class Agreement:
    """Agreement with a file of votes.

    file, column: where the votes are. unrated: pictures without a vote. unused: names in the file without a picture.
    """
    file: str
    column: str
    groups: list[Group]
    unrated: list[str]
    unused: list[str]


def agreements(rows: Sequence[dict], metrics: Sequence[Metric], votes: Mapping[str, Vote]) -> list[Group]:
    """Agreement for the rows of an assessment that have a vote: for all, by subset, by split, and by both together."""
    rated = [(row, votes[row["image"]]) for row in rows if row["image"] in votes]
    groups = []
    for subset, split in _kinds([vote for _, vote in rated]):
        chosen = [(row, vote) for row, vote in rated if subset in (None, vote.subset) and split in (None, vote.split)]
        values = np.array([vote.value for _, vote in chosen])
        groups.append(Group(subset, split, len(chosen), {
            metric.info.name: estimates(np.array([row[metric.info.name] for row, _ in chosen]), values)
            for metric in metrics}))
    return groups


def _kinds(votes: Sequence[Vote]) -> Iterator[tuple[str | None, str | None]]:
    """(subset, split) of each group."""
    subsets = sorted({vote.subset for vote in votes} - {None})
    splits = sorted({vote.split for vote in votes} - {None})
    yield None, None
    yield from ((subset, None) for subset in subsets)
    yield from ((None, split) for split in splits)
    pairs = {(vote.subset, vote.split) for vote in votes}
    yield from ((subset, split) for subset in subsets for split in splits if (subset, split) in pairs)


def estimates(predicted: np.ndarray, votes: np.ndarray, resamples: int = RESAMPLES,
              seed: int = SEED) -> dict[str, Estimate]:
    """The AGREEMENT of scores (N,) with votes (N,), with intervals; nan of nothing.

    Resamples in which a correlation is not defined, since all pictures in it are equal, are excluded from its interval.
    """
    if not len(votes):
        return dict.fromkeys(AGREEMENT, Estimate(np.nan, np.nan, np.nan))
    predicted, votes = np.asarray(predicted, np.float64), np.asarray(votes, np.float64)
    picked = Draws(seed).integers("bootstrap", 0, len(votes) - 1, (resamples, len(votes)))
    some = max(1, _CELLS // len(votes))
    parts = [resampled(predicted, votes, np.array([np.bincount(row, minlength=len(votes)) for row in rows]))
             for rows in (picked[at:at + some] for at in range(0, resamples, some))]
    drawn, found = {name: np.concatenate([part[name] for part in parts]) for name in AGREEMENT}, {}
    for name, value in agreement(predicted, votes).items():
        defined = drawn[name][np.isfinite(drawn[name])]
        low, high = (np.quantile(defined, ((1 - LEVEL) / 2, (1 + LEVEL) / 2)) if np.isfinite(value) and len(defined)
                     else (np.nan, np.nan))
        found[name] = Estimate(value, float(low), float(high))
    return found


def resampled(predicted: np.ndarray, votes: np.ndarray, times: np.ndarray) -> dict[str, np.ndarray]:
    """The AGREEMENT, each (R,), of R resamples of scores (N,) and votes (N,), from how many times each holds a picture.

    times: integers (R, N). It gives what scipy gives of the repeated values, for all resamples at once.
    """
    times = times.astype(np.float64)
    ranks, untied = zip(*(_ranks(values, times) for values in (predicted, votes)))
    with np.errstate(invalid="ignore", divide="ignore"):
        measures = (_pearson(*ranks, times), _pearson(predicted, votes, times),
                    _concordance(predicted, votes, times) / np.sqrt(untied[0] * untied[1]),
                    np.sqrt(times @ (predicted - votes) ** 2 / times.sum(1)))
    return dict(zip(AGREEMENT, measures, strict=True))


def _ranks(values: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ranks (R, N) in each resample, equal values sharing their mean; ordered pairs (R,) of values that differ."""
    _, group, sizes = np.unique(values, return_inverse=True, return_counts=True)
    by_value = times[:, np.argsort(group, kind="stable")]
    counts = np.add.reduceat(by_value, np.cumsum(sizes) - sizes, axis=1)
    middle = np.cumsum(counts, 1) - counts / 2 + 0.5
    return middle[:, group], counts.sum(1) ** 2 - (counts ** 2).sum(1)


def _pearson(a: np.ndarray, b: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Pearson's correlation (R,) of values (N,) or (R, N) in each resample; nan where one side is constant."""
    total = times.sum(1, keepdims=True)
    a, b = (each - (times * each).sum(1, keepdims=True) / total for each in (a, b))
    # A constant side leaves rounding errors, not zeros.
    spread = [np.sqrt((times * each ** 2).sum(1)) for each in (a, b)]
    least = [1e-12 * np.abs(each).max() * np.sqrt(total[:, 0]) for each in (a, b)]
    scale = np.where((spread[0] > least[0]) & (spread[1] > least[1]), spread[0] * spread[1], np.nan)
    return (times * a * b).sum(1) / scale


def _concordance(a: np.ndarray, b: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Ordered pairs (R,) that a and b put in the same order, less those that they put in opposite orders."""
    found = np.zeros(len(times))
    exact = times.astype(np.float32)        # sums of so few whole numbers are exact
    for at in range(0, len(a), _BLOCK):
        part = slice(at, at + _BLOCK)
        signs = np.sign(a[part, None] - a) * np.sign(b[part, None] - b)
        found += ((exact @ signs.T.astype(np.float32)).astype(np.float64) * times[:, part]).sum(1)
    return found
