"""Noise, scale and shift of every pixel by rows of a table, in multi-threaded C++."""
from jt_models.boot import jt
from jt_models.nn import processes
from jt_models.nn.kernels import pixels
from jt_models.nn.kernels.kernel import Kernel, checked, summed_by_row, total
from jt_models.nn.kernels.lookup import RANGE
from jt_models.nn.kernels.norm import joint_moments, joint_normalized, moments, normalized, normalized_grad, term

_HEADER = "#include <cmath>\n#include <vector>\n" + RANGE

# Each thread takes whole channels. The table's column of a channel is copied, so that it stays in the cache.
_NOISE = """
    @alias(x, in0) @alias(noise, in1) @alias(scale, in2) @alias(at, in3) @alias(y, out0)
    const int64_t B = x_shape0, C = x_shape1, S = at->num / B, U = scale_shape0;
    check_range(at_p, at->num, U, 0, "add_noise: the row");
    #pragma omp parallel for
    for (int64_t c = 0; c < C; c++) {
        std::vector<float> column(U);
        for (int64_t u = 0; u < U; u++) column[u] = scale_p[u * C + c];
        const float *__restrict__ s = column.data();
        for (int64_t b = 0; b < B; b++) {
            const float *__restrict__ p = x_p + (b * C + c) * S, *__restrict__ n = noise_p + b * S;
            const auto* __restrict__ r = at_p + b * S;
            float* __restrict__ q = y_p + (b * C + c) * S;
            for (int64_t i = 0; i < S; i++) q[i] = p[i] + n[i] * s[r[i]];
        }
    }
"""

_NOISE_GRAD = """
    @alias(g, in0) @alias(noise, in1) @alias(scale, in2) @alias(at, in3) @alias(dscale, out0)
    const int64_t B = g_shape0, C = g_shape1, S = at->num / B, U = scale_shape0;
    #pragma omp parallel for
    for (int64_t c = 0; c < C; c++) {
        std::vector<double> sums(U);
        for (int64_t b = 0; b < B; b++) {
            const float *__restrict__ q = g_p + (b * C + c) * S, *__restrict__ n = noise_p + b * S;
            const auto* __restrict__ r = at_p + b * S;
            for (int64_t i = 0; i < S; i++) sums[r[i]] += double(q[i]) * n[i];
        }
        for (int64_t u = 0; u < U; u++) dscale_p[u * C + c] = sums[u];
    }
"""

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
            for (int64_t i = 0; i < S; i++) {
                const float y = p[i] * s[r[i]] + o[r[i]];
                q[i] = y > 0 ? y : y * SLOPE;
            }
        }
    }
"""

_MODULATE_GRAD = """
    @alias(x, in0) @alias(gain, in1) @alias(at, in2) @alias(y, in3) @alias(g, in4)
    @alias(dx, out0) @alias(dgain, out1) @alias(dshift, out2)
    const int64_t B = x_shape0, C = x_shape1, S = at->num / B, U = gain_shape0;
    #pragma omp parallel for
    for (int64_t c = 0; c < C; c++) {
        std::vector<float> scale(U);
        std::vector<double> sums(2 * U);
        for (int64_t u = 0; u < U; u++) scale[u] = gain_p[u * C + c];
        for (int64_t b = 0; b < B; b++) {
            const float* __restrict__ p = x_p + (b * C + c) * S;
            const float* __restrict__ o = y_p + (b * C + c) * S;
            const float* __restrict__ q = g_p + (b * C + c) * S;
            const auto* __restrict__ r = at_p + b * S;
            float* __restrict__ d = dx_p + (b * C + c) * S;
            for (int64_t i = 0; i < S; i++) {
                const float slope = o[i] > 0 ? q[i] : q[i] * SLOPE;
                d[i] = slope * scale[r[i]];
                sums[2 * r[i]] += double(slope) * p[i];
                sums[2 * r[i] + 1] += slope;
            }
        }
        for (int64_t u = 0; u < U; u++) { dgain_p[u * C + c] = sums[2 * u]; dshift_p[u * C + c] = sums[2 * u + 1]; }
    }
"""


# The gradient of a channel: of its column of the table, with the sums that the gradient of x needs, then of x.
_TABLE = """
        const float m = mean_p[c], inv = float(1.0 / std::sqrt(double(var_p[c]) + EPS));
        std::vector<float> scale(U);
        for (int64_t u = 0; u < U; u++) scale[u] = gain_p[u * C + c];
"""
_SUMS = """
        std::vector<double> sums(2 * U);
        double total = 0, along = 0;
        for (int64_t b = 0; b < B; b++) {
            const float* __restrict__ p = x_p + (b * C + c) * S;
            const float* __restrict__ o = y_p + (b * C + c) * S;
            const float* __restrict__ q = g_p + (b * C + c) * S;
            const auto* __restrict__ r = at_p + b * S;
            for (int64_t i = 0; i < S; i++) {
                const float slope = o[i] > 0 ? q[i] : q[i] * SLOPE, normal = (p[i] - m) * inv, d = slope * scale[r[i]];
                sums[2 * r[i]] += double(slope) * normal;
                sums[2 * r[i] + 1] += slope;
                along += double(d) * normal;
                total += d;
            }
        }
        for (int64_t u = 0; u < U; u++) { dgain_p[u * C + c] = sums[2 * u]; dshift_p[u * C + c] = sums[2 * u + 1]; }
"""
_BACK = """
        for (int64_t b = 0; b < B; b++) {
            const float* __restrict__ p = x_p + (b * C + c) * S;
            const float* __restrict__ o = y_p + (b * C + c) * S;
            const float* __restrict__ q = g_p + (b * C + c) * S;
            const auto* __restrict__ r = at_p + b * S;
            float* __restrict__ d = dx_p + (b * C + c) * S;
            for (int64_t i = 0; i < S; i++) {
                const float slope = o[i] > 0 ? q[i] : q[i] * SLOPE;
                d[i] = inv * (slope * scale[r[i]] - t - (p[i] - m) * inv * a);
            }
        }
"""
_GIVEN = """
    @alias(x, in0) @alias(mean, in1) @alias(var, in2) @alias(gain, in3) @alias(at, in4) @alias(y, in5) @alias(g, in6)
"""
_EACH_CHANNEL = f"""
    const int64_t B = x_shape0, C = x_shape1, S = at->num / B, U = gain_shape0;
    #pragma omp parallel for
    for (int64_t c = 0; c < C; c++) {{ {_TABLE}
"""


def _modulated(x, gain, shift, index, slope: float):
    return jt.code(x.shape, x.dtype, [x, gain, shift, index], cpu_header=_HEADER,
                   cpu_src=_MODULATE.replace("SLOPE", f"{slope!r}f"))


class AddNoise(Kernel):
    """x (B, C, H, W) plus the noise (B, 1, H, W) times row index[b, h, w] of the scale (U, C)."""

    def __init__(self, index):
        self.index = index

    def execute(self, x, noise, scale):
        self.kept = noise, scale
        return jt.code(x.shape, x.dtype, [x, noise, scale, self.index], cpu_header=_HEADER, cpu_src=_NOISE)

    def grad(self, g):
        noise, scale = self.kept
        return g, self.noise_grad(g), jt.code(scale.shape, scale.dtype, [g, noise, scale, self.index],
                                              cpu_header=_HEADER, cpu_src=_NOISE_GRAD)

    def noise_grad(self, g):
        return total(g * spread(self.kept[1], self.index, g), [1], keepdims=True)

    def plain(self, x, noise, scale):
        self.kept, self.rows = (noise, scale), checked(self.index, scale.shape[0], "add_noise: the row")
        return x + noise * spread(scale, self.index, x)

    def plain_grad(self, g):
        noise, scale = self.kept
        return g, self.noise_grad(g), summed(g * noise, self.rows, scale.shape[0])


class Modulate(Kernel):
    """x (B, C, H, W) times row index[b, h, w] of the gain (U, C), plus the same row of the shift (U, C), and then leaky
    ReLU."""

    def __init__(self, index, slope: float):
        self.index, self.slope = index, slope

    def execute(self, x, gain, shift):
        y = _modulated(x, gain, shift, self.index, self.slope)
        self.kept = x, gain, y
        return y

    def grad(self, g):
        x, gain, y = self.kept
        return jt.code([x.shape, gain.shape, gain.shape], [x.dtype] * 3, [x, gain, self.index, y, g],
                       cpu_header=_HEADER, cpu_src=_MODULATE_GRAD.replace("SLOPE", f"{self.slope!r}f"))

    def plain(self, x, gain, shift):
        self.rows = checked(self.index, gain.shape[0], "modulate: the row")
        y = x * spread(gain, self.index, x) + spread(shift, self.index, x)
        y = jt.where(y > 0, y, y * self.slope)
        self.kept = x, gain, y
        return y

    def plain_grad(self, g):
        x, gain, y = self.kept
        slope = jt.where(y > 0, g, g * self.slope)
        dgain, dshift = (summed(part, self.rows, gain.shape[0]) for part in (slope * x, slope))
        return slope * spread(gain, self.index, x), dgain, dshift


def spread(table, index, x):
    """The row of each pixel: a table (U, C) in the shape of x (B, C, H, W)."""
    return table.reindex(x.shape, ["@e0(i0,i2,i3)", "i1"], extras=[index.int32()])


def summed(x, rows, count: int):
    """The pixels of x (B, C, H, W) added up by their rows (B, H, W), on the host, to (count, C)."""
    return summed_by_row(x.permute(0, 2, 3, 1).reshape(-1, x.shape[1]), rows.reshape(-1), count)


class NormalizeModulate(Kernel):
    """As Modulate of x with zero mean and unit variance in each channel, and then leaky ReLU; and the mean and biased
    variance (C,). Of the maps in between, none is kept."""

    def __init__(self, index, eps: float, slope: float, joint: bool = False):
        self.index, self.eps, self.slope, self.joint = index, eps, slope, joint

    def execute(self, x, gain, shift):
        batch, channels, height, width = x.shape
        flat = x.reshape(batch, channels, height * width)
        if self.joint:
            normal, mean, variance, count = joint_moments(flat, self.eps)
            self.term = term(count)
        else:
            normal, mean, variance = moments(flat, self.eps)
        y = _modulated(normal.reshape(x.shape), gain, shift, self.index, self.slope)
        self.kept = x, mean, variance, gain, y
        return y, mean, variance

    def grad(self, g, *_):
        x, mean, variance, gain, y = self.kept
        given = [x, mean, variance, gain, self.index, y, g]
        if not self.joint:
            return self.code([x.shape, gain.shape, gain.shape], given, f"""
                {_GIVEN} @alias(dx, out0) @alias(dgain, out1) @alias(dshift, out2)
                {_EACH_CHANNEL} {_SUMS}
                    const float t = float(total / (B * S)), a = float(along / (B * S));
                    {_BACK}
                }}
            """)
        sums, dgain, dshift = self.code([[2, x.shape[1]], gain.shape, gain.shape], given, f"""
            {_GIVEN} @alias(sums_of, out0) @alias(dgain, out1) @alias(dshift, out2)
            {_EACH_CHANNEL} {_SUMS}
                sums_of_p[c] = total;
                sums_of_p[C + c] = along;
            }}
        """)
        (dx,) = self.code([x.shape], [*given, processes.all_sum(sums) * self.term], f"""
            {_GIVEN} @alias(means, in7) @alias(dx, out0)
            {_EACH_CHANNEL}
                const float t = means_p[c], a = means_p[C + c];
                {_BACK}
            }}
        """)
        return dx, dgain, dshift

    def code(self, shapes, inputs, source: str):
        source = source.replace("EPS", repr(self.eps)).replace("SLOPE", f"{self.slope!r}f")
        return jt.code(shapes, ["float32"] * len(shapes), inputs, cpu_header=_HEADER, cpu_src=source)

    def plain(self, x, gain, shift):
        self.rows = checked(self.index, gain.shape[0], "modulate: the row")
        if self.joint:
            normal, mean, variance, self.inverse, count = joint_normalized(x, (0, 2, 3), self.eps)
            self.term = term(count)
        else:
            normal, mean, variance, self.inverse = normalized(x, (0, 2, 3), self.eps)
        y = normal * spread(gain, self.index, x) + spread(shift, self.index, x)
        y = jt.where(y > 0, y, y * self.slope)
        self.kept = normal, gain, y
        return y, mean.reshape(-1), variance.reshape(-1)

    def plain_grad(self, g, *_):
        normal, gain, y = self.kept
        slope = jt.where(y > 0, g, g * self.slope)
        dgain, dshift = (summed(part, self.rows, gain.shape[0]) for part in (slope * normal, slope))
        dx = normalized_grad(normal, slope * spread(gain, self.index, normal), (0, 2, 3), self.inverse,
                             self.term if self.joint else None)
        return dx, dgain, dshift

    def on_gpu(self, x, gain, shift):
        self.rows = checked(self.index, gain.shape[0], "modulate: the row")
        mean, variance = pixels.moments(x)
        count = x.numel() // x.shape[1]
        if self.joint:
            mean, variance, count = processes.statistics(jt.stack([mean, variance]), count)
        self.term = term(count) if self.joint else 1 / count
        y = pixels.modulated(x, mean, variance, gain, shift, self.index, self.eps, self.slope)
        self.kept = x, mean, variance, gain, y
        return y, mean, variance

    def on_gpu_grad(self, g, *_):
        x, mean, variance, gain, y = self.kept
        own, dgain, dshift = pixels.row_sums(*self.kept, g, self.rows, self.eps, self.slope)
        means = self.term * (processes.all_sum(own) if self.joint else own)
        return pixels.gradient(x, mean, variance, gain, self.index, y, g, means, self.eps, self.slope), dgain, dshift
