"""The measures of the structure track of NTIRE 2025 (arXiv 2505.16314): regions, scores, and the two in one number."""
import warnings
from collections.abc import Sequence
from dataclasses import astuple, dataclass

import numpy as np

from jittwin.data.submission import THRESHOLD, binarise
from jittwin.metrics.distortion_regions import PREDICTED_LEAST, TRUE_LEAST, Tally, compared, on_square, regions
from jittwin.metrics.ratings import correlations
from jittwin.processes import gathered

# Of a heat map from 0 to 255: those among which the original looks for the best.
THRESHOLDS = (0, 5, *range(10, 90, 10), 85, 90, 95, 100, 105, 110)
MEASURES = ("final", "f1", "precision", "recall", "plcc", "srcc", "iou")
_MOST_CALLS = 20_000        # of the fitted function


def final_score(f1: float, plcc: float, srcc: float) -> float:
    """The number by which the track ranks; a correlation that is not defined counts as 0."""
    return float(0.7 * f1 + 0.3 * (np.nan_to_num(plcc) + np.nan_to_num(srcc)) / 2)


def logistic(x, high, low, middle, width):
    """A curve from `low` to `high`."""
    with np.errstate(over="ignore"):        # the exponential may become infinite, and the curve then is `low`
        return low + (high - low) / (1 + np.exp(-(x - middle) / (np.abs(width) + 1e-8)))


def fitted(predicted: np.ndarray, votes: np.ndarray) -> np.ndarray:
    """The predictions (N,) through the logistic curve that comes nearest to the votes; as they are if none is found."""
    from scipy.optimize import OptimizeWarning, curve_fit

    start = votes.max(), votes.min(), predicted.mean(), predicted.std()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", OptimizeWarning)
            found, _ = curve_fit(logistic, predicted, votes, start, maxfev=_MOST_CALLS)
    except (RuntimeError, TypeError, ValueError):       # no fit; fewer than four pictures; not a number
        return predicted
    return logistic(predicted, *found)


def score_agreement(predicted: np.ndarray, votes: np.ndarray) -> tuple[float, float]:
    """(PLCC after the logistic fit, SRCC) of predictions (N,) with votes (N,); nan where not defined."""
    predicted, votes = np.asarray(predicted, np.float64), np.asarray(votes, np.float64)
    srcc, plcc = correlations(predicted, votes)
    if np.isnan(plcc):
        return plcc, srcc
    through = correlations(fitted(predicted, votes), votes)[1]
    return plcc if np.isnan(through) else through, srcc


@dataclass(frozen=True)
class Outcome:
    """threshold: the best of those compared. measures: MEASURES at it. by_threshold: the final score at each."""
    threshold: float
    measures: dict[str, float]
    by_threshold: dict[float, float]


class StructureTrack:
    """Collects pictures and measures them at one threshold or several.

    Heat maps are binarised by jittwin.data.submission.binarise, like what is handed in. least: see PREDICTED_LEAST.
    """

    def __init__(self, thresholds: Sequence[float] = (THRESHOLD,), least: float = PREDICTED_LEAST):
        self.tallies, self.least = dict.fromkeys(thresholds, Tally()), least
        self.predicted, self.votes = [], []

    def add(self, area: np.ndarray, score: float, true_area: np.ndarray, vote: float) -> None:
        """A picture. area: its heat map uint8 (H, W) from 0 to 255. true_area: uint8 (h, w), not 0 where it is marked.
        score, vote: from 0 to 1, or both in another scale."""
        true = on_square(true_area)
        true_regions = regions(true, TRUE_LEAST)
        for threshold in self.tallies:
            seen = on_square(binarise(area, threshold).astype(np.uint8))
            self.tallies[threshold] += compared(seen, true, self.least, true_regions)
        self.predicted.append(score)
        self.votes.append(vote)

    def join(self, backend) -> None:
        """Add what the other processes have collected, in the order of the processes."""
        if backend.world_size > 1:
            counts = backend.all_reduce(np.array([astuple(tally) for tally in self.tallies.values()], np.float64))
            for threshold, row in zip(self.tallies, counts):
                self.tallies[threshold] = Tally(*map(int, row[:-1]), row[-1])
            pairs = [np.array(list(zip(self.predicted, self.votes)))] if self.votes else []
            self.predicted, self.votes = gathered(backend, pairs).T.tolist()

    def outcome(self) -> Outcome:
        """The measures at the threshold with the highest final score; the lowest of several. ValueError: no picture."""
        if not self.votes:
            raise ValueError("no picture was added")
        plcc, srcc = score_agreement(np.array(self.predicted), np.array(self.votes))
        finals = {threshold: final_score(tally.f1, plcc, srcc) for threshold, tally in self.tallies.items()}
        best = max(finals, key=finals.get)
        tally = self.tallies[best]
        values = finals[best], tally.f1, tally.precision, tally.recall, plcc, srcc, tally.iou
        return Outcome(best, dict(zip(MEASURES, map(float, values), strict=True)), finals)
