"""Kernel inception distance: the squared maximum mean discrepancy of two sets of features.

Bińkowski et al. 2018, arXiv 1801.01401. Unlike that of FID, its estimate is unbiased, so values of sets of different
sizes can be compared. The paper averages over random subsets of 1000; the mean over all pairs estimates the same value
with less noise, and its standard error can be computed.
"""
import numpy as np

ROWS = 1024      # rows per block: memory grows with ROWS * m, not with n * m


def kernel_distance(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """(unbiased estimate, its standard error) from all pairs of features (n, d) and (m, d).

    The kernel is (x.y / d + 1)^3. The error is the first-order standard error of a U-statistic (Hoeffding 1948), from
    the variance of the rows' contributions. ValueError: fewer than two rows on either side.
    """
    n, m = len(a), len(b)
    if min(n, m) < 2:
        raise ValueError(f"the kernel distance needs at least two images on either side, got {n} and {m}")
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    across = _means(a, b)
    within = [(_means(x, x)[0] * len(x) - _kernel(np.square(x).sum(1), x.shape[1])) / (len(x) - 1) for x in (a, b)]
    variance = sum(np.var(2 * (own - other), ddof=1) / len(own) for own, other in zip(within, across, strict=True))
    return float(within[0].mean() + within[1].mean() - 2 * across[0].mean()), float(np.sqrt(variance))


def _means(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean of the kernel over the rows of b for each row of a, (n,), and over the rows of a for each row of b, (m,)."""
    rows, columns = [], np.zeros(len(b))
    for start in range(0, len(a), ROWS):
        block = _kernel(a[start:start + ROWS] @ b.T, a.shape[1])
        rows.append(block.mean(1))
        columns += block.sum(0)
    return np.concatenate(rows), columns / len(a)


def _kernel(products: np.ndarray, width: int) -> np.ndarray:
    base = products / width + 1
    return base * base * base       # several times faster than a power
