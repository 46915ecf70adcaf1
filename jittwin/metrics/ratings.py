"""Agreement of predictions with people's votes: distances of distributions of the ratings 1..10, errors, correlations.

The measures of NIMA (Talebi and Milanfar 2018, doi 10.1109/TIP.2018.2831899) and of the AVA benchmark (Murray et al.
2012). Every sample has the same weight, however the batches were cut; all sums are float64.
"""
import warnings

import numpy as np

from jittwin.models.aesthetic import emd, mean_score

THRESHOLD = 5 + 1e-6  # AVA's border of high quality; the margin exceeds the error of a mean of float32 fractions
AGREEMENT = ("srcc", "plcc", "krcc", "rmse")
METRICS = ("emd", "emd_r1", "mse", "mae", "srcc", "plcc", "accuracy")


def quality_metrics(predicted: np.ndarray, target: np.ndarray) -> dict[str, float]:
    """The METRICS of predicted distributions (N, 10) against voted distributions (N, 10).

    emd and emd_r1: mean earth mover's distance with r=2 and r=1. Of the mean scores: mse, mae, srcc (Spearman), plcc
    (Pearson, no logistic fit) and accuracy, the fraction on the target's side of 5 (exactly 5 counts as low).
    srcc and plcc are nan where one side is constant, holds a nan, or has fewer than two samples.
    ValueError: shapes differ or are empty.
    """
    predicted, target = np.asarray(predicted, np.float64), np.asarray(target, np.float64)
    if predicted.shape != target.shape or predicted.ndim != 2 or not len(target):
        raise ValueError(f"distributions of shape {predicted.shape} against {target.shape}: both must be (N, K), N > 0")
    score, truth = mean_score(predicted), mean_score(target)
    error = score - truth
    accuracy = np.where(np.isfinite(error), (score > THRESHOLD) == (truth > THRESHOLD), np.nan).mean()
    values = (emd(predicted, target).mean(), emd(predicted, target, r=1).mean(), (error ** 2).mean(),
              np.abs(error).mean(), *correlations(score, truth), accuracy)
    return dict(zip(METRICS, map(float, values), strict=True))


def agreement(predicted: np.ndarray, votes: np.ndarray) -> dict[str, float]:
    """The AGREEMENT of scores (N,) with people's votes (N,), N > 0, of the numbers as they are, without a logistic fit.

    srcc, plcc, krcc: Spearman's, Pearson's and Kendall's correlation (tau-b); nan where they are not defined, see
    `correlations`. rmse: the root of the mean squared difference, in which the scale of the scores counts.
    """
    from scipy import stats

    predicted, votes = np.asarray(predicted, np.float64), np.asarray(votes, np.float64)
    srcc, plcc = correlations(predicted, votes)
    krcc = float("nan") if np.isnan(srcc) else float(stats.kendalltau(predicted, votes).statistic)
    return dict(zip(AGREEMENT, (srcc, plcc, krcc, float(np.sqrt(np.mean((predicted - votes) ** 2)))), strict=True))


def correlations(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """(Spearman's, Pearson's) correlation of (N,) with (N,); nan where undefined."""
    from scipy import stats  # takes half a second to import

    if len(a) < 2 or not (np.isfinite(a).all() and np.isfinite(b).all()):
        return float("nan"), float("nan")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scipy warns about constant input; the result is nan
        return float(stats.spearmanr(a, b).statistic), float(stats.pearsonr(a, b).statistic)
