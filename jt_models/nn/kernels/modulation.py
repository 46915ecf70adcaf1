"""Scale and shift of every pixel by rows of a table, in multi-threaded C++."""
from jt_models.boot import jt
from jt_models.nn.kernels.kernel import Kernel, checked, summed_by_row
from jt_models.nn.kernels.lookup import RANGE

_HEADER = "#include <vector>\n" + RANGE

# Each thread takes whole channels. The table's column of a channel is copied, so that it stays in the cache.
_MODULATE = """
    @alias(x, in0) @alias(gain, in1) @alias(shift, in2) @alias(at, in3) @alias(y, out0)
    const int64_t B = x_shape0, C = x_shape1, S = at->num / B, U = gain_shape0;
    check_range(at_p, at->num, U, 0, "modulate: the row");
    #pragma omp parallel for
    for (int64_t c = 0; c < C; c++) {
        std::vector<float> scale(U), offset(U);
        for (int64_t u = 0; u < U; u++) { scale[u] = gain_p[u * C + c]; offset[u] = shift_p[u * C + c]; }
        const float *__restrict__ s = scale.data(), *__restrict__ o = offset.data();
        for (int64_t b = 0; b < B; b++) {
            const float* __restrict__ p = x_p + (b * C + c) * S;
            const auto* __restrict__ r = at_p + b * S;
            float* __restrict__ q = y_p + (b * C + c) * S;
            for (int64_t i = 0; i < S; i++) q[i] = p[i] * s[r[i]] + o[r[i]];
        }
    }
"""

_MODULATE_GRAD = """
    @alias(x, in0) @alias(gain, in1) @alias(at, in2) @alias(g, in3)
    @alias(dx, out0) @alias(dgain, out1) @alias(dshift, out2)
    const int64_t B = x_shape0, C = x_shape1, S = at->num / B, U = gain_shape0;
    #pragma omp parallel for
    for (int64_t c = 0; c < C; c++) {
        std::vector<float> scale(U);
        std::vector<double> sums(2 * U);
        for (int64_t u = 0; u < U; u++) scale[u] = gain_p[u * C + c];
        for (int64_t b = 0; b < B; b++) {
            const float* __restrict__ p = x_p + (b * C + c) * S;
            const float* __restrict__ q = g_p + (b * C + c) * S;
            const auto* __restrict__ r = at_p + b * S;
            float* __restrict__ d = dx_p + (b * C + c) * S;
            for (int64_t i = 0; i < S; i++) {
                d[i] = q[i] * scale[r[i]];
                sums[2 * r[i]] += double(q[i]) * p[i];
                sums[2 * r[i] + 1] += q[i];
            }
        }
        for (int64_t u = 0; u < U; u++) { dgain_p[u * C + c] = sums[2 * u]; dshift_p[u * C + c] = sums[2 * u + 1]; }
    }
"""


class Modulate(Kernel):
    """x (B, C, H, W) times row index[b, h, w] of the gain (U, C), plus the same row of the shift (U, C)."""

    def __init__(self, index):
        self.index = index

    def execute(self, x, gain, shift):
        self.kept = x, gain
        return jt.code(x.shape, x.dtype, [x, gain, shift, self.index], cpu_header=_HEADER, cpu_src=_MODULATE)

    def grad(self, g):
        x, gain = self.kept
        return jt.code([x.shape, gain.shape, gain.shape], [x.dtype] * 3, [x, gain, self.index, g],
                       cpu_header=_HEADER, cpu_src=_MODULATE_GRAD)

    def plain(self, x, gain, shift):
        self.kept, self.rows = (x, gain), checked(self.index, gain.shape[0], "modulate: the row")
        return x * self.spread(gain, x) + self.spread(shift, x)

    def plain_grad(self, g):
        x, gain = self.kept
        dgain, dshift = (summed_by_row(slope.permute(0, 2, 3, 1).reshape(-1, x.shape[1]), self.rows.reshape(-1),
                                       gain.shape[0]) for slope in (g * x, g))
        return g * self.spread(gain, x), dgain, dshift

    def spread(self, table, x):
        """The row of each pixel: (U, C) to the shape of x."""
        return table.reindex(x.shape, ["@e0(i0,i2,i3)", "i1"], extras=[self.index.int32()])
