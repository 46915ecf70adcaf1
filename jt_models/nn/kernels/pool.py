"""Pooling in multi-threaded C++."""
import numpy as np

from jt_models.boot import jt
from jt_models.nn.kernels.kernel import Kernel, total

# The windows beside each other are compared at once, one element of each at a time. -INFINITY stands for what is beside
# the picture: no element is less, so it is never the maximum.
_MAX_POOL = """
    @alias(x, in0) @alias(y, out0) @alias(at, out1)
    const int64_t N = x_shape0 * x_shape1, H = x_shape2, W = x_shape3, P = y_shape2, Q = y_shape3;
    #pragma omp parallel for
    for (int64_t n = 0; n < N; n++) {
        const float* image = x_p + n * H * W;
        std::vector<float> padded(W + 2 * PADDING, -INFINITY);
        float* __restrict__ row = padded.data();
        for (int64_t p = 0; p < P; p++) {
            float* __restrict__ best = y_p + (n * P + p) * Q;
            int* __restrict__ place = at_p + (n * P + p) * Q;
            const int64_t top = p * STRIDE - PADDING, first = std::max<int64_t>(top, 0);
            for (int64_t q = 0; q < Q; q++) {
                place[q] = first * W + std::max<int64_t>(q * STRIDE - PADDING, 0);
                best[q] = image[place[q]];
            }
            for (int64_t i = first; i < std::min(top + KERNEL, H); i++) {
                std::copy(image + i * W, image + (i + 1) * W, row + PADDING);
                for (int q = 0; q < Q; q++) for (int j = 0; j < KERNEL; j++) {
                    const float seen = row[q * STRIDE + j];
                    const bool better = seen > best[q] || std::isnan(seen);
                    best[q] = better ? seen : best[q];
                    place[q] = better ? int(i * W) + q * STRIDE + j - PADDING : place[q];
                }
            }
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


class MaxPool(Kernel):
    """The maxima of windows of x (B, C, H, W). The first of equal maxima gets the gradient; a NaN is the maximum."""

    def __init__(self, kernel: int, stride: int, padding: int):
        self.sizes = {"KERNEL": kernel, "STRIDE": stride, "PADDING": padding}

    def execute(self, x):
        source = _MAX_POOL
        for name, size in self.sizes.items():
            source = source.replace(name, str(size))
        shape = [*x.shape[:2], *_sides(x, *self.sizes.values())]
        y, self.at = jt.code([shape, shape], [x.dtype, "int32"], [x], cpu_src=source,
                             cpu_header="#include <algorithm>\n#include <cmath>\n#include <vector>\n")
        self.shape = x.shape
        return y

    def grad(self, g):
        return jt.code(self.shape, g.dtype, [self.at, g], cpu_src=_MAX_POOL_GRAD)

    def plain(self, x):
        window, stride, padding = self.sizes.values()
        self.shape, width = x.shape, x.shape[3]
        shape = [*x.shape[:2], *_sides(x, *self.sizes.values())]
        rows, columns = (jt.array(np.arange(count, dtype=np.int32) * stride - padding) for count in shape[2:])
        rows, columns = rows.reshape(-1, 1), columns.reshape(1, -1)
        at = (jt.maximum(rows, 0) * width + jt.maximum(columns, 0)).broadcast(shape)        # the first of a window
        best = x.reshape(*x.shape[:2], -1).reindex(shape, ["i0", "i1", "@e0(i0,i1,i2,i3)"], extras=[at])
        for i in range(window):
            for j in range(window):
                seen = x.reindex(shape, ["i0", "i1", f"i2*{stride}+{i - padding}", f"i3*{stride}+{j - padding}"],
                                 overflow_value=-np.inf)
                better = jt.logical_or(seen > best, seen != seen)
                best = jt.ternary(better, seen, best)
                at = jt.ternary(better, ((rows + i) * width + (columns + j)).broadcast(shape), at)
        self.at = at
        return best

    def plain_grad(self, g):
        # Each pixel collects from the windows of which it is the maximum.
        height, width = self.shape[2:]
        pixel = (jt.arange(height).reshape(-1, 1) * width + jt.arange(width)).reshape(1, 1, height, width, 1, 1)
        at, slopes = (_collected(given, self.shape, *self.sizes.values(), nothing)
                      for given, nothing in ((self.at, -1), (g, 0)))
        return total(jt.ternary(at == pixel.broadcast(at.shape), slopes, jt.zeros_like(slopes)), [4, 5])


def _sides(x, kernel: int, stride: int, padding: int) -> list[int]:
    """How many windows fit into a picture, by rows and columns."""
    return [(side + 2 * padding - kernel) // stride + 1 for side in x.shape[2:]]


def _collected(given, shape, kernel: int, stride: int, padding: int, nothing: float):
    """(B, C, H, W, k, k): the elements of the windows (B, C, P, Q) that hold a pixel, and `nothing` where none does."""
    rows, columns = f"(i2+{padding}-i4)", f"(i3+{padding}-i5)"
    return given.reindex([*shape, kernel, kernel], ["i0", "i1", f"{rows}/{stride}", f"{columns}/{stride}"],
                         overflow_value=nothing, overflow_conditions=[
                             f"{rows}<0", f"{columns}<0", f"{rows}%{stride}!=0", f"{columns}%{stride}!=0"])


# sums: of a window's rows, with zeros beside the picture. wide: how many columns of a window count.
_WINDOWS = """
    const int64_t N = x_shape0 * x_shape1, H = x_shape2, W = x_shape3, P = y_shape2, Q = y_shape3;
    std::vector<float> wide(Q);
    for (int64_t q = 0; q < Q; q++) {
        const int64_t left = q * STRIDE - PADDING;
        wide[q] = PADDED ? KERNEL : std::min(left + KERNEL, W) - std::max<int64_t>(left, 0);
    }
    #pragma omp parallel for
    for (int64_t n = 0; n < N; n++) {
        std::vector<float> sums(W + 2 * PADDING), shares(Q);
        START
        for (int64_t p = 0; p < P; p++) {
            const int64_t top = p * STRIDE - PADDING;
            const int64_t first = std::max<int64_t>(top, 0), end = std::min(top + KERNEL, H);
            const float high = PADDED ? KERNEL : end - first;
            WINDOW
        }
    }
"""

_AVG_POOL = "@alias(x, in0) @alias(y, out0)" + _WINDOWS.replace("START", "").replace("WINDOW", """
            std::fill(sums.begin() + PADDING, sums.end() - PADDING, 0.f);
            for (int64_t h = first; h < end; h++)
                for (int64_t w = 0; w < W; w++) sums[PADDING + w] += x_p[(n * H + h) * W + w];
            for (int64_t q = 0; q < Q; q++) {
                float sum = 0;
                for (int64_t j = 0; j < KERNEL; j++) sum += sums[q * STRIDE + j];
                y_p[(n * P + p) * Q + q] = sum / (high * wide[q]);
            }
""")

_AVG_POOL_GRAD = "@alias(y, in0) @alias(x, out0)" + _WINDOWS.replace("START", """
        std::fill(x_p + n * H * W, x_p + (n + 1) * H * W, 0.f);
""").replace("WINDOW", """
            std::fill(sums.begin(), sums.end(), 0.f);
            for (int64_t q = 0; q < Q; q++) shares[q] = y_p[(n * P + p) * Q + q] / (high * wide[q]);
            for (int64_t j = 0; j < KERNEL; j++)
                for (int64_t q = 0; q < Q; q++) sums[q * STRIDE + j] += shares[q];
            for (int64_t h = first; h < end; h++)
                for (int64_t w = 0; w < W; w++) x_p[(n * H + h) * W + w] += sums[PADDING + w];
""")


class AvgPool(Kernel):
    """The means of windows of x (B, C, H, W). padded: whether the zeros beside the picture count."""

    def __init__(self, kernel: int, stride: int, padding: int, padded: bool):
        self.sizes = {"KERNEL": kernel, "STRIDE": stride, "PADDING": padding, "PADDED": int(padded)}
        self.window = kernel, stride, padding

    def execute(self, x):
        self.shape = x.shape
        return self.code([*x.shape[:2], *_sides(x, *self.window)], x, _AVG_POOL)

    def grad(self, g):
        return self.code(self.shape, g, _AVG_POOL_GRAD)

    def code(self, shape, given, source: str):
        for name, size in self.sizes.items():
            source = source.replace(name, str(size))
        return jt.code(shape, given.dtype, [given], cpu_header="#include <algorithm>\n#include <vector>\n",
                       cpu_src=source)

    def plain(self, x):
        kernel, stride, padding = self.window
        self.shape, sides = x.shape, _sides(x, *self.window)
        counts = []         # of the rows, and of the columns of each window that are averaged
        for side, count in zip(x.shape[2:], sides):
            first = np.arange(count) * stride - padding
            inside = np.minimum(first + kernel, side) - np.maximum(first, 0)
            counts.append(np.full(count, kernel) if self.sizes["PADDED"] else inside)
        self.counts = jt.array(np.outer(*counts).astype(np.float32))
        windows = x.reindex([*x.shape[:2], *sides, kernel, kernel], [
            "i0", "i1", f"i2*{stride}+i4-{padding}", f"i3*{stride}+i5-{padding}"])
        return total(windows, [4, 5]) / self.counts

    def plain_grad(self, g):
        return total(_collected(g / self.counts, self.shape, *self.window, 0), [4, 5])
