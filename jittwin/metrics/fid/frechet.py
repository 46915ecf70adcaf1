"""The Fréchet distance between two normal distributions, the last step of FID.

Heusel et al. 2017, arXiv 1706.08500. The trace of the square root of a product of two covariances is the sum of the
square roots of the product's eigenvalues. A symmetric matrix with the same eigenvalues exists, so this module never
takes the square root of a general matrix, which is slow and, for the singular covariances of small sets, inaccurate.
"""
import numpy as np
from scipy import linalg


def frechet_distance(mean_a, covariance_a, mean_b, covariance_b, rank: int | None = None) -> float:
    """|mean_a - mean_b|^2 + tr(A) + tr(B) - 2 tr((A B)^(1/2)) in float64, from (d,) and (d, d) arrays.

    rank: largest possible rank of A B, one less than the number of images of the smaller set; None: unknown.
    """
    cross = trace_root(covariance_a, covariance_b, rank)
    return _distance(mean_a, np.trace(covariance_a), mean_b, np.trace(covariance_b), cross)


def frechet_distance_from_features(features, mean_b, covariance_b, rank: int | None = None) -> float:
    """frechet_distance with one side given as features (n, d); for n < d, the n x n matrices are smaller than d x d.

    With A = X^T X and X the centred features over sqrt(n - 1), the product A B has the non-zero
    eigenvalues of X B X^T (the small-sample form of Mathiasen and Hvilshøj 2020, arXiv 2009.14075).
    """
    features = np.asarray(features, np.float64)
    mean_a = features.mean(0)
    centred = (features - mean_a) / np.sqrt(len(features) - 1)
    values = linalg.eigvalsh(_symmetric(centred @ covariance_b @ centred.T))
    own = min(len(features) - 1, features.shape[1])
    cross = _sum_of_roots(values, own if rank is None else min(rank, own))
    return _distance(mean_a, np.square(centred).sum(), mean_b, np.trace(covariance_b), cross)


def trace_root(a: np.ndarray, b: np.ndarray, rank: int | None = None) -> float:
    """tr((a b)^(1/2)) of two covariances (d, d), through eigenvalues of the symmetric a^(1/2) b a^(1/2)."""
    values, vectors = linalg.eigh(_symmetric(a))
    kept = values > values[-1] * len(values) * np.finfo(np.float64).eps
    root = vectors[:, kept] * np.sqrt(values[kept])      # a = root root^T
    return _sum_of_roots(linalg.eigvalsh(_symmetric(root.T @ b @ root)), rank)


def _distance(mean_a, trace_a, mean_b, trace_b, cross) -> float:
    difference = np.asarray(mean_a, np.float64) - np.asarray(mean_b, np.float64)
    return max(float(difference @ difference + trace_a + trace_b - 2 * cross), 0.0)   # rounding may make it negative


def _sum_of_roots(values: np.ndarray, rank: int | None) -> float:
    """Sum of the square roots of the `rank` largest of ascending eigenvalues.

    The other eigenvalues are zero except for rounding, and the root of a rounding error of 1e-16 would be 1e-8.
    """
    if rank is not None:
        values = values[max(len(values) - rank, 0):]
    return float(np.sqrt(np.clip(values, 0, None)).sum())


def _symmetric(matrix: np.ndarray) -> np.ndarray:
    return (matrix + matrix.T) / 2
