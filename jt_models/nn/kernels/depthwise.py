"""Depthwise convolution in multi-threaded C++; Jittor's grouped one uses one thread."""
from jt_models.boot import jt
from jt_models.nn.kernels.conv import convolved, convolved_grad
from jt_models.nn.kernels.kernel import Kernel

_HEADER = "#include <cmath>\n#include <algorithm>\n#include <vector>\n"

# The usual kernels are known to the compiler, which then computes many pixels of a row at once, each in one sum.
_CORRELATE = """
    template <int SIDE> inline void correlate(const float* __restrict__ padded, const float* weights,
                                              float* __restrict__ y, int64_t P, int64_t Q, int64_t K, int64_t L) {
        const int64_t rows = SIDE ? SIDE : K, columns = SIDE ? SIDE : L, wide = Q + columns - 1;
        for (int64_t p = 0; p < P; p++, y += Q) {
            if (!SIDE) {
                std::fill(y, y + Q, 0.f);
                for (int64_t i = 0; i < rows; i++) for (int64_t j = 0; j < columns; j++)
                    for (int64_t q = 0; q < Q; q++) y[q] += weights[i * columns + j] * padded[(p + i) * wide + q + j];
            } else for (int64_t q = 0; q < Q; q++) {
                float sum = 0;
                for (int64_t i = 0; i < rows; i++) for (int64_t j = 0; j < columns; j++)
                    sum += weights[i * columns + j] * padded[(p + i) * wide + q + j];
                y[q] = sum;
            }
        }
    }
"""

_DEPTHWISE = """
    @alias(x, in0) @alias(w, in1) @alias(y, out0)
    const int64_t N = x_shape0 * x_shape1, C = x_shape1, H = x_shape2, W = x_shape3, P = y_shape2, Q = y_shape3;
    const int64_t K = w_shape2, L = w_shape3, wide = Q + L - 1;
    const auto sums = K != L ? correlate<0> : L == 3 ? correlate<3> : L == 5 ? correlate<5> : L == 7 ? correlate<7>
        : correlate<0>;
    const int64_t left = std::max<int64_t>(0, -LEFT), right = std::max(left, std::min(W, wide - LEFT));  // seen columns
    const int64_t rows = std::min(P, std::max<int64_t>(8, 4096 / wide));    // at a time: they stay in the L1 cache
    #pragma omp parallel for
    for (int64_t n = 0; n < N; n++) {
        std::vector<float> kernel(w_p + n % C * K * L, w_p + (n % C + 1) * K * L), padded((rows + K - 1) * wide);
        if (FLIPPED) std::reverse(kernel.begin(), kernel.end());
        for (int64_t from = 0; from < P; from += rows) {
            const int64_t count = std::min(rows, P - from);
            for (int64_t r = 0; r < count + K - 1; r++) {
                float* to = padded.data() + r * wide;
                const int64_t h = from + r - TOP;
                if (h < 0 || h >= H) std::fill(to, to + wide, 0.f);
                else std::copy(x_p + (n * H + h) * W + left, x_p + (n * H + h) * W + right, to + left + LEFT);
            }
            sums(padded.data(), kernel.data(), y_p + (n * P + from) * Q, count, Q, K, L);
        }
    }
"""

_DEPTHWISE_GRAD = """
    @alias(x, in0) @alias(g, in1) @alias(dw, out0)
    const int64_t B = x_shape0, C = x_shape1, H = x_shape2, W = x_shape3, P = g_shape2, Q = g_shape3;
    const int64_t K = dw_shape2, L = dw_shape3;
    #pragma omp parallel for
    for (int64_t c = 0; c < C; c++) for (int64_t i = 0; i < K; i++) for (int64_t j = 0; j < L; j++) {
        double total = 0;
        const int64_t shift = j - LEFT, end = std::min(Q, W - shift);
        for (int64_t b = 0; b < B; b++) for (int64_t p = 0; p < P; p++) {
            const int64_t at = p + i - TOP;
            if (at < 0 || at >= H) continue;
            const float* from = x_p + ((b * C + c) * H + at) * W + shift;
            const float* slope = g_p + ((b * C + c) * P + p) * Q;
            float part = 0;
            for (int64_t q = std::max<int64_t>(0, -shift); q < end; q++) part += slope[q] * from[q];
            total += part;
        }
        dw_p[(c * K + i) * L + j] = total;
    }
"""


class DepthwiseConv(Kernel):
    """Convolution of each channel of x (B, C, H, W) with its own kernel of weight (C, 1, k, l), stride 1.

    padding: (rows, columns).
    """

    def __init__(self, padding: tuple[int, int]):
        self.padding = padding

    def execute(self, x, weight):
        self.kept = x, weight
        return self.correlated(x, weight, self.padding, flipped=0)

    def grad(self, g):
        x, weight = self.kept
        dw = jt.code(weight.shape, g.dtype, [x, g], cpu_header=_HEADER, cpu_src=_placed(_DEPTHWISE_GRAD, self.padding))
        padding = tuple(side - 1 - padded for side, padded in zip(weight.shape[2:], self.padding))
        return self.correlated(g, weight, padding, flipped=1), dw

    def plain(self, x, weight):
        self.kept = x, weight
        return convolved(x, weight, (1, 1), self.padding, x.shape[1])

    def plain_grad(self, g):
        x, weight = self.kept
        return convolved_grad(x, weight, g, (1, 1), self.padding, x.shape[1])

    @staticmethod
    def correlated(x, weight, padding: tuple[int, int], flipped: int):
        sides = [side + 2 * padded - kernel + 1 for side, padded, kernel in zip(x.shape[2:], padding, weight.shape[2:])]
        return jt.code([*x.shape[:2], *sides], x.dtype, [x, weight], cpu_header=_HEADER + _CORRELATE,
                       cpu_src=_placed(_DEPTHWISE, padding).replace("FLIPPED", str(flipped)))


def _placed(source: str, padding: tuple[int, int]) -> str:
    return source.replace("TOP", f"({padding[0]})").replace("LEFT", f"({padding[1]})")
