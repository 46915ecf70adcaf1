"""Indexing in multi-threaded C++ that refuses numbers out of range; Jittor's own reads memory outside the array.

The gradients of an entry that was read more than once are summed in the order of reading, so the result is the same
every time.
"""
from jt_models.boot import jt
from jt_models.nn.kernels.kernel import Kernel, checked, summed_by_row, total

RANGE = """
    template <class T> void check_range(const T* at, int64_t n, int64_t limit, int64_t ignored, const char* what) {
        for (int64_t i = 0; i < n; i++) if (int64_t(at[i]) != ignored && (at[i] < 0 || int64_t(at[i]) >= limit))
            LOGf << what << int64_t(at[i]) << "is not in the range from 0 to" << limit - 1;
    }
"""
_HEADER = "#include <algorithm>\n#include <cstring>\n#include <vector>\n" + RANGE

_ROWS = """
    @alias(at, in0) @alias(w, in1) @alias(y, out0)
    const int64_t N = at->num, C = w_shape1;
    check_range(at_p, N, w_shape0, 0, "embedding: the number");
    #pragma omp parallel for if (N * C > 32768)
    for (int64_t n = 0; n < N; n++) std::memcpy(y_p + n * C, w_p + at_p[n] * C, C * sizeof(float));
"""

# The readings are sorted by row. The gradient of a row is the sum of consecutive readings, 64 columns at a time.
_ROWS_GRAD = """
    @alias(at, in0) @alias(g, in1) @alias(dw, out0)
    const int64_t N = at->num, V = dw_shape0, C = dw_shape1;
    std::vector<int64_t> order(N), starts;
    for (int64_t n = 0; n < N; n++) order[n] = n;
    std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return at_p[a] < at_p[b]; });
    for (int64_t i = 0; i < N; i++) if (i == 0 || at_p[order[i]] != at_p[order[i - 1]]) starts.push_back(i);
    const int64_t groups = starts.size();
    starts.push_back(N);
    #pragma omp parallel for
    for (int64_t v = 0; v < V; v++) std::memset(dw_p + v * C, 0, C * sizeof(float));
    #pragma omp parallel for collapse(2)
    for (int64_t s = 0; s < groups; s++) for (int64_t from = 0; from < C; from += 64) {
        const int64_t row = at_p[order[starts[s]]], wide = std::min<int64_t>(64, C - from);
        if (row == PADDING) continue;
        double sum[64] = {};
        for (int64_t i = starts[s]; i < starts[s + 1]; i++)
            for (int64_t c = 0; c < wide; c++) sum[c] += g_p[order[i] * C + from + c];
        for (int64_t c = 0; c < wide; c++) dw_p[row * C + from + c] = sum[c];
    }
"""


class Rows(Kernel):
    """Rows of weight (V, C) selected by numbers (…): (…, C). padding: the row that gets no gradient, or None."""

    def __init__(self, numbers, padding: int | None):
        self.numbers = numbers
        self.padding = -1 if padding is None else padding

    def execute(self, weight):
        self.shape = weight.shape
        return jt.code([*self.numbers.shape, weight.shape[1]], weight.dtype, [self.numbers, weight],
                       cpu_header=_HEADER, cpu_src=_ROWS)

    def grad(self, g):
        return jt.code(self.shape, g.dtype, [self.numbers, g], cpu_header=_HEADER,
                       cpu_src=_ROWS_GRAD.replace("PADDING", str(self.padding)))

    def plain(self, weight):
        self.shape = weight.shape
        rows = checked(self.numbers, weight.shape[0], "embedding: the number").reshape(-1).astype("int32")
        self.rows = rows
        found = weight.reindex([len(rows), weight.shape[1]], ["@e0(i0)", "i1"], extras=[jt.array(rows)])
        return found.reshape([*self.numbers.shape, weight.shape[1]])

    def plain_grad(self, g):
        self.rows[self.rows == self.padding] = -1
        return summed_by_row(g.reshape(-1, self.shape[1]), self.rows, self.shape[0])


_ALONG = """
    @alias(at, in0) @alias(x, in1) @alias(y, out0)
    const int64_t O = x_shape0, N = x_shape1, I = x_shape2, K = at_shape1;
    check_range(at_p, at->num, N, 0, "take_along_dim: the number");
    #pragma omp parallel for if (O * K * I > 32768)
    for (int64_t o = 0; o < O; o++) for (int64_t k = 0; k < K; k++) for (int64_t i = 0; i < I; i++)
        y_p[(o * K + k) * I + i] = x_p[(o * N + at_p[(o * K + k) * I + i]) * I + i];
"""

_ALONG_GRAD = """
    @alias(at, in0) @alias(g, in1) @alias(dx, out0)
    const int64_t O = dx_shape0, N = dx_shape1, I = dx_shape2, K = at_shape1;
    #pragma omp parallel for if (O * N * I > 32768)
    for (int64_t o = 0; o < O; o++) {
        std::memset(dx_p + o * N * I, 0, N * I * sizeof(float));
        for (int64_t k = 0; k < K; k++) for (int64_t i = 0; i < I; i++)
            dx_p[(o * N + at_p[(o * K + k) * I + i]) * I + i] += g_p[(o * K + k) * I + i];
    }
"""


class Along(Kernel):
    """y[o, k, i] = x[o, numbers[o, k, i], i]."""

    def __init__(self, numbers):
        self.numbers = numbers

    def execute(self, x):
        self.shape = x.shape
        return jt.code(self.numbers.shape, x.dtype, [self.numbers, x], cpu_header=_HEADER, cpu_src=_ALONG)

    def grad(self, g):
        return jt.code(self.shape, g.dtype, [self.numbers, g], cpu_header=_HEADER, cpu_src=_ALONG_GRAD)

    def plain(self, x):
        self.shape = x.shape
        checked(self.numbers, x.shape[1], "take_along_dim: the number")
        return x.reindex(self.numbers.shape, ["i0", "@e0(i0,i1,i2)", "i2"], extras=[self.numbers.int32()])

    def plain_grad(self, g):
        outer, length, inner = self.shape
        wide = [outer, length, g.shape[1], inner]
        read = self.numbers.int32().unsqueeze(1).broadcast(wide) == jt.arange(length).reshape(1, length, 1, 1)
        return total(jt.ternary(read, g.unsqueeze(1).broadcast(wide), jt.zeros(wide, g.dtype)), [2])
