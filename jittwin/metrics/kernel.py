"""Kernel inception distance: the squared maximum mean discrepancy of two sets of features.

Bińkowski et al. 2018, arXiv 1801.01401. Unlike FID its estimate is unbiased, so sets of different
sizes compare.
"""
import numpy as np

SUBSETS, SUBSET_SIZE = 100, 1000      # as the paper's authors use


def kernel_distance(a: np.ndarray, b: np.ndarray, rng: np.random.Generator, subsets: int = SUBSETS,
                    size: int = SUBSET_SIZE) -> tuple[float, float]:
    """(mean, standard error of the mean) over random subsets of features (n, d) and (m, d).

    Kernel (x.y / d + 1)^3. Subsets have `size` rows, or as many as the smaller set has; where that is
    all of both sets there is one subset and no spread, and the error is NaN. ValueError for n < 2.
    """
    size = min(size, len(a), len(b))
    if size < 2:
        raise ValueError(f"the kernel distance needs at least two images on either side, got {len(a)} and {len(b)}")
    if size == len(a) == len(b):
        return mmd2(a, b), float("nan")
    values = [mmd2(a[rng.choice(len(a), size, replace=False)], b[rng.choice(len(b), size, replace=False)])
              for _ in range(subsets)]
    return float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(subsets))


def mmd2(a: np.ndarray, b: np.ndarray) -> float:
    """The unbiased estimate from features (n, d) and (m, d)."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return float(_off_diagonal_mean(_kernel(a, a)) + _off_diagonal_mean(_kernel(b, b)) - 2 * _kernel(a, b).mean())


def _kernel(a, b) -> np.ndarray:
    return (a @ b.T / a.shape[1] + 1) ** 3


def _off_diagonal_mean(k: np.ndarray) -> float:
    n = len(k)
    return (k.sum() - np.trace(k)) / (n * (n - 1))
