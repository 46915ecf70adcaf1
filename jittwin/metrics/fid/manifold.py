"""Precision and recall of a generator: shares of one set of features that lie within the other's manifold.

Kynkäänniemi et al. 2019, arXiv 1904.06991. The manifold of a set is the union of balls around its points, each
reaching to the k-th nearest neighbour.
"""
import numpy as np

NEIGHBOURS = 3
ROWS = 1024      # at a time: memory grows with ROWS * m, not with n * m


def precision_recall(real: np.ndarray, fake: np.ndarray, k: int = NEIGHBOURS) -> tuple[float, float]:
    """(share of fake within real's manifold, share of real within fake's), features (n, d) and (m, d).

    ValueError where a set has no k-th neighbour.
    """
    for features in (real, fake):
        if len(features) <= k:
            raise ValueError(f"precision and recall need more than {k} images on either side, got {len(features)}")
    return _share_within(real, fake, k), _share_within(fake, real, k)


def _share_within(manifold: np.ndarray, points: np.ndarray, k: int) -> float:
    manifold, points = np.asarray(manifold, np.float64), np.asarray(points, np.float64)
    # The nearest is the point itself.
    reach = np.concatenate([np.partition(d, k, axis=1)[:, k] for d in _square_distances(manifold, manifold)])
    inside = [(d <= reach).any(1) for d in _square_distances(points, manifold)]
    return float(np.concatenate(inside).mean())


def _square_distances(a: np.ndarray, b: np.ndarray):
    """Blocks of rows of the (n, m) squared Euclidean distances."""
    lengths = np.square(b).sum(1)
    for start in range(0, len(a), ROWS):
        block = a[start:start + ROWS]
        yield np.maximum(np.square(block).sum(1)[:, None] - 2 * block @ b.T + lengths, 0)
