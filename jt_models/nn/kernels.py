"""Multi-threaded C++ for what Jittor's generated kernels do on one thread or in one pass.

Jittor computes variance as E[x^2]-E[x]^2 in one sequential float32 sum; these kernels
take two passes in double precision. CPU only, like the rest of the Jittor twin.
"""
from jt_models.boot import jt

_MOMENTS = """
    @alias(x, in0) @alias(y, out0) @alias(mean, out1) @alias(var, out2)
    const int64_t B = x_shape0, C = x_shape1, S = x_shape2;
    #pragma omp parallel for schedule(dynamic)
    for (int64_t c = 0; c < C; c++) {
        double sum = 0, square = 0;
        for (int64_t b = 0; b < B; b++) {
            const float* __restrict__ p = x_p + (b * C + c) * S;
            double part = 0;
            for (int64_t i = 0; i < S; i++) part += p[i];
            sum += part;
        }
        const float m = float(sum / (B * S));
        for (int64_t b = 0; b < B; b++) {
            const float* __restrict__ p = x_p + (b * C + c) * S;
            double part = 0;
            for (int64_t i = 0; i < S; i++) { double d = double(p[i]) - m; part += d * d; }
            square += part;
        }
        const float v = float(square / (B * S)), inv = float(1.0 / std::sqrt(double(v) + EPS));
        mean_p[c] = m;
        var_p[c] = v;
        for (int64_t b = 0; b < B; b++) {
            const float* __restrict__ p = x_p + (b * C + c) * S;
            float* __restrict__ q = y_p + (b * C + c) * S;
            for (int64_t i = 0; i < S; i++) q[i] = (p[i] - m) * inv;
        }
    }
"""

_MOMENTS_GRAD = """
    @alias(x, in0) @alias(mean, in1) @alias(var, in2) @alias(g, in3) @alias(dx, out0)
    const int64_t B = x_shape0, C = x_shape1, S = x_shape2;
    #pragma omp parallel for schedule(dynamic)
    for (int64_t c = 0; c < C; c++) {
        const float m = mean_p[c], inv = float(1.0 / std::sqrt(double(var_p[c]) + EPS));
        double total = 0, along = 0;
        for (int64_t b = 0; b < B; b++) {
            const float* __restrict__ p = x_p + (b * C + c) * S;
            const float* __restrict__ q = g_p + (b * C + c) * S;
            double t = 0, a = 0;
            for (int64_t i = 0; i < S; i++) { t += q[i]; a += double(q[i]) * ((p[i] - m) * inv); }
            total += t;
            along += a;
        }
        const float t = float(total / (B * S)), a = float(along / (B * S));
        for (int64_t b = 0; b < B; b++) {
            const float* __restrict__ p = x_p + (b * C + c) * S;
            const float* __restrict__ q = g_p + (b * C + c) * S;
            float* __restrict__ r = dx_p + (b * C + c) * S;
            for (int64_t i = 0; i < S; i++) r[i] = inv * (q[i] - t - (p[i] - m) * inv * a);
        }
    }
"""


class Normalize(jt.Function):
    """x (B, C, S) to its zero-mean unit-variance form over B and S; also mean and biased variance (C,)."""

    def __init__(self, eps: float):
        self.eps = eps

    def execute(self, x):
        batch, channels, _ = x.shape
        y, mean, variance = jt.code(
            [x.shape, [channels], [channels]], [x.dtype] * 3, [x],
            cpu_header="#include <cmath>", cpu_src=_MOMENTS.replace("EPS", repr(self.eps)))
        self.kept = x, mean, variance
        return y, mean, variance

    def grad(self, g, *_):
        x, mean, variance = self.kept
        return jt.code(x.shape, x.dtype, [x, mean, variance, g], cpu_header="#include <cmath>",
                       cpu_src=_MOMENTS_GRAD.replace("EPS", repr(self.eps)))


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
    """Maxima of windows of x (B, C, H, W); of equal ones the first gets the gradient, and a NaN is the maximum."""

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


_ADAM = """
    @alias(p, in0) @alias(g, in1) @alias(m, in2) @alias(v, in3) @alias(s, in4)
    @alias(p2, out0) @alias(m2, out1) @alias(v2, out2)
    const float keep = s_p[0], l2 = s_p[1], c1 = s_p[2], b2 = s_p[3], c2 = s_p[4];
    const float rate = s_p[5], root = s_p[6], eps = s_p[7];
    const int64_t n = p->num;
    #pragma omp parallel for if (n > 32768)
    for (int64_t i = 0; i < n; i++) {
        const float grad = g_p[i] + l2 * p_p[i];
        const float first = m_p[i] + c1 * (grad - m_p[i]);
        const float second = b2 * v_p[i] + c2 * grad * grad;
        m2_p[i] = first;
        v2_p[i] = second;
        p2_p[i] = keep * p_p[i] - rate * (first / (std::sqrt(second) / root + eps));
    }
"""


def adam(parameter, grad, first, second, scalars):
    """One Adam update in one pass over memory; returns (parameter, first moment, second moment).

    scalars (8,) float32: factor that keeps the parameter (decoupled decay), L2 decay, 1-beta1, beta2,
    1-beta2, bias-corrected rate, root of the second bias correction, eps.
    """
    return jt.code([parameter.shape] * 3, [parameter.dtype] * 3, [parameter, grad, first, second, scalars],
                   cpu_header="#include <cmath>", cpu_src=_ADAM)
