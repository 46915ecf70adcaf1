"""Precision and recall of a generator: fractions of one set of features that lie within the other's manifold.

Kynkäänniemi et al. 2019, arXiv 1904.06991. The manifold of a set is the union of balls around its points; the radius
of each ball is the distance to the k-th nearest neighbour.
"""
import numpy as np

NEIGHBOURS = 3
ROWS = 1024      # rows per block: memory grows with ROWS * m, not with n * m


def precision_recall(real: np.ndarray, fake: np.ndarray, k: int = NEIGHBOURS) -> tuple[float, float]:
    """(precision, recall): the fraction of fake within real's manifold, and of real within fake's.

    real, fake: features (n, d) and (m, d). ValueError: a set has at most k rows.
    """
    for features in (real, fake):
        if len(features) <= k:
            raise ValueError(f"precision and recall need more than {k} images on either side, got {len(features)}")
    return _fraction_within(real, fake, k), _fraction_within(fake, real, k)


def _fraction_within(manifold: np.ndarray, points: np.ndarray, k: int) -> float:
    manifold, points = np.asarray(manifold, np.float64), np.asarray(points, np.float64)
    # Index k, because index 0 is the distance of a point to itself.
    reach = np.concatenate([np.partition(d, k, axis=1)[:, k] for d in _square_distances(manifold, manifold)])
    inside = [(d <= reach).any(1) for d in _square_distances(points, manifold)]
    return float(np.concatenate(inside).mean())


def _square_distances(a: np.ndarray, b: np.ndarray):
    """Yield the squared Euclidean distances (n, m) in blocks of rows."""
    lengths = np.square(b).sum(1)
    for start in range(0, len(a), ROWS):
        block = a[start:start + ROWS]
        yield np.maximum(np.square(block).sum(1)[:, None] - 2 * block @ b.T + lengths, 0)
