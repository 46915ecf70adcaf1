"""Pooling in multi-threaded C++. CPU only."""
from jt_models.boot import jt

_MAX_POOL = """
    @alias(x, in0) @alias(y, out0) @alias(at, out1)
    const int64_t N = x_shape0 * x_shape1, H = x_shape2, W = x_shape3, P = y_shape2, Q = y_shape3;
    #pragma omp parallel for
    for (int64_t n = 0; n < N; n++) {
        const float* __restrict__ image = x_p + n * H * W;
        for (int64_t p = 0; p < P; p++) for (int64_t q = 0; q < Q; q++) {
            const int64_t top = p * STRIDE - PADDING, left = q * STRIDE - PADDING;
            const int64_t bottom = std::min(top + KERNEL, H), right = std::min(left + KERNEL, W);
            int64_t best = std::max<int64_t>(top, 0) * W + std::max<int64_t>(left, 0);
            for (int64_t i = std::max<int64_t>(top, 0); i < bottom; i++)
                for (int64_t j = std::max<int64_t>(left, 0); j < right; j++)
                    if (image[i * W + j] > image[best] || std::isnan(image[i * W + j])) best = i * W + j;
            y_p[(n * P + p) * Q + q] = image[best];
            at_p[(n * P + p) * Q + q] = best;
        }
    }
"""

_MAX_POOL_GRAD = """
    @alias(at, in0) @alias(g, in1) @alias(dx, out0)
    const int64_t N = dx_shape0 * dx_shape1, S = dx_shape2 * dx_shape3, T = g_shape2 * g_shape3;
    #pragma omp parallel for
    for (int64_t n = 0; n < N; n++) {
        float* __restrict__ image = dx_p + n * S;
        for (int64_t s = 0; s < S; s++) image[s] = 0;
        for (int64_t t = 0; t < T; t++) image[at_p[n * T + t]] += g_p[n * T + t];
    }
"""


class MaxPool(jt.Function):
    """The maxima of windows of x (B, C, H, W). The first of equal maxima gets the gradient; a NaN is the maximum."""

    def __init__(self, kernel: int, stride: int, padding: int):
        self.sizes = {"KERNEL": kernel, "STRIDE": stride, "PADDING": padding}

    def execute(self, x):
        window, stride, padding = self.sizes.values()
        sides = [(side + 2 * padding - window) // stride + 1 for side in x.shape[2:]]
        source = _MAX_POOL
        for name, size in self.sizes.items():
            source = source.replace(name, str(size))
        shape = [*x.shape[:2], *sides]
        y, self.at = jt.code([shape, shape], [x.dtype, "int32"], [x], cpu_src=source,
                             cpu_header="#include <algorithm>\n#include <cmath>")
        self.shape = x.shape
        return y

    def grad(self, g):
        return jt.code(self.shape, g.dtype, [self.at, g], cpu_src=_MAX_POOL_GRAD)
