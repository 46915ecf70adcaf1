"""Resizing of pictures in multi-threaded C++: both axes in one pass, without a picture in between."""
import numpy as np

from jt_models.boot import jt
from jt_models.nn.kernels.kernel import Kernel

# Each row of the result: the sum of its rows of x, then of the columns of that. Row H and column W of x are zeros.
_RESAMPLE = """
    @alias(x, in0) @alias(rows, in1) @alias(high, in2) @alias(columns, in3) @alias(wide, in4) @alias(y, out0)
    const int64_t N = x_shape0 * x_shape1, H = x_shape2, W = x_shape3, P = y_shape2, Q = y_shape3;
    #pragma omp parallel for
    for (int64_t n = 0; n < N; n++) {
        std::vector<float> sums(W + 1);
        float* __restrict__ row = sums.data();
        for (int64_t p = 0; p < P; p++) {
            std::fill(sums.begin(), sums.end(), 0.f);
            for (int64_t i = 0; i < rows_shape0; i++) if (rows_p[i * P + p] < H) {
                const float* __restrict__ from = x_p + (n * H + rows_p[i * P + p]) * W;
                const float share = high_p[i * P + p];
                for (int64_t w = 0; w < W; w++) row[w] += share * from[w];
            }
            float* __restrict__ to = y_p + (n * P + p) * Q;
            for (int64_t q = 0; q < Q; q++) to[q] = wide_p[q] * row[columns_p[q]];
            for (int64_t j = 1; j < columns_shape0; j++)
                for (int64_t q = 0; q < Q; q++) to[q] += wide_p[j * Q + q] * row[columns_p[j * Q + q]];
        }
    }
"""


class Taps:
    """What each of the positions along a new axis is the sum of: elements (k, new) of the old axis times weights
    (k, new), or one element of weight 1 where `weights` is None. Element `old` is one past the end and counts as 0."""

    def __init__(self, elements, weights, old: int):
        self.elements, self.weights, self.old = np.asarray(elements, np.int32), weights, old
        self.new = self.elements.shape[1]

    def turned(self) -> "Taps":
        """What the gradient of each old position is the sum of, in the order of the new positions."""
        elements = self.elements.T.ravel()
        order = np.argsort(elements, kind="stable")
        elements = elements[order]
        place = np.arange(len(order)) - np.searchsorted(elements, elements)
        found = np.full((place.max() + 1, self.old), self.new)
        found[place, elements] = order // len(self.elements)
        shares = np.zeros(found.shape, np.float32)
        shares[place, elements] = self.factors().T.ravel()[order]
        return Taps(found, shares, self.new)

    def factors(self) -> np.ndarray:
        return np.ones(self.elements.shape, np.float32) if self.weights is None else np.float32(self.weights)

    def arrays(self) -> list:
        return [jt.array(self.elements), jt.array(self.factors())]


class Resample(Kernel):
    """x (B, C, H, W) with other rows and columns, each a weighted sum of those of x."""

    def __init__(self, rows: Taps, columns: Taps):
        self.taps = rows, columns

    def execute(self, x):
        return self.code(x, *self.taps)

    def grad(self, g):
        return self.code(g, *(taps.turned() for taps in self.taps))

    @staticmethod
    def code(x, rows: Taps, columns: Taps):
        return jt.code([*x.shape[:2], rows.new, columns.new], x.dtype, [x, *rows.arrays(), *columns.arrays()],
                       cpu_header="#include <algorithm>\n#include <vector>\n", cpu_src=_RESAMPLE)

    def plain(self, x):
        return _gathered(x, *self.taps)

    def plain_grad(self, g):
        return _gathered(g, *(taps.turned() for taps in self.taps))


def _gathered(x, *axes: Taps):
    for dim, taps in zip((2, 3), axes):
        shape, source, total = list(x.shape), ["i0", "i1", "i2", "i3"], None
        shape[dim], source[dim] = taps.new, f"@e0(i{dim})"
        for number, elements in enumerate(taps.elements):
            part = x.reindex(shape, source, extras=[jt.array(elements)])
            if taps.weights is not None:
                part = part * jt.array(taps.factors()[number].reshape((-1, 1) if dim == 2 else (-1,)))
            total = part if total is None else total + part
        x = total
    return x
