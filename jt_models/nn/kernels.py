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
