"""Mean and covariance of feature vectors, gathered batch by batch in float64."""
import numpy as np
from scipy.linalg.blas import dsyrk


class Moments:
    """Streaming mean and covariance of rows (n, d); memory does not grow with n.

    The mean of the first batch is subtracted before summing, so that features far from zero lose no digits
    (Chan, Golub and LeVeque 1983, Algorithms for computing the sample variance).
    """

    def __init__(self):
        self.n = 0
        self.origin = None     # (d,)
        self.sum = None        # (d,), about the origin
        self.products = None   # (d, d), about the origin; only the upper triangle

    def add(self, rows: np.ndarray) -> None:
        """Add rows (n, d) of any floating type. ValueError: not finite, or another width than before."""
        rows = np.asarray(rows, np.float64)
        if not np.isfinite(rows).all():
            raise ValueError(f"{int((~np.isfinite(rows)).any(1).sum())} of {len(rows)} feature vectors are not finite")
        if self.origin is None:
            width = rows.shape[1]
            self.origin, self.sum, self.products = rows.mean(0), np.zeros(width), np.zeros((width, width))
        if rows.shape[1] != len(self.origin):
            raise ValueError(f"feature vectors of {rows.shape[1]} values after vectors of {len(self.origin)}")
        rows = rows - self.origin
        self.n += len(rows)
        self.sum += rows.sum(0)
        # Adds rows.T @ rows in place, ten times faster than NumPy. BLAS sees arrays of C transposed.
        dsyrk(1.0, rows.T, beta=1.0, c=self.products.T, lower=1, overwrite_c=1)

    @property
    def mean(self) -> np.ndarray:
        """(d,)"""
        return self.origin + self.sum / self.n

    @property
    def covariance(self) -> np.ndarray:
        """(d, d), the unbiased estimate. ValueError for fewer than two rows."""
        if self.n < 2:
            raise ValueError(f"a covariance needs at least two images, got {self.n}")
        products = self.products + np.triu(self.products, 1).T
        return (products - np.outer(self.sum, self.sum) / self.n) / (self.n - 1)
