"""Normalisation in multi-threaded C++: sums in double precision, variances in two passes.

Jittor computes a variance as E[x^2]-E[x]^2 in one sequential float32 sum, on one thread.
"""
from jt_models.boot import jt
from jt_models.nn import processes
from jt_models.nn.kernels import rows
from jt_models.nn.kernels.kernel import Kernel, total

_HEADER = "#include <cmath>\n#include <algorithm>\n#include <vector>\n"

_EACH_CHANNEL = """
    const int64_t B = x_shape0, C = x_shape1, S = x_shape2;
    #pragma omp parallel for schedule(dynamic)
    for (int64_t c = 0; c < C; c++) {
"""

# What is done with a channel: its mean m and variance v; x normalised by them, with the inverse deviation inv; the sums
# of the gradient and of its product with the normalised x; the gradient of x from the means t and a of these.
_OWN = """
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
        const float v = float(square / (B * S));
"""
_APART = """
        for (int64_t b = 0; b < B; b++) {
            const float* __restrict__ p = x_p + (b * C + c) * S;
            float* __restrict__ q = y_p + (b * C + c) * S;
            for (int64_t i = 0; i < S; i++) q[i] = (p[i] - m) * inv;
        }
"""
_GIVEN = "const float m = mean_p[c], inv = float(1.0 / std::sqrt(double(var_p[c]) + EPS));"
_SUMS = """
        double total = 0, along = 0;
        for (int64_t b = 0; b < B; b++) {
            const float* __restrict__ p = x_p + (b * C + c) * S;
            const float* __restrict__ q = g_p + (b * C + c) * S;
            double t = 0, a = 0;
            for (int64_t i = 0; i < S; i++) { t += q[i]; a += double(q[i]) * ((p[i] - m) * inv); }
            total += t;
            along += a;
        }
"""
_BACK = """
        for (int64_t b = 0; b < B; b++) {
            const float* __restrict__ p = x_p + (b * C + c) * S;
            const float* __restrict__ q = g_p + (b * C + c) * S;
            float* __restrict__ r = dx_p + (b * C + c) * S;
            for (int64_t i = 0; i < S; i++) r[i] = inv * (q[i] - t - (p[i] - m) * inv * a);
        }
"""

_MOMENTS = f"""
    @alias(x, in0) @alias(y, out0) @alias(mean, out1) @alias(var, out2)
    {_EACH_CHANNEL} {_OWN}
        const float inv = float(1.0 / std::sqrt(double(v) + EPS));
        mean_p[c] = m;
        var_p[c] = v;
        {_APART}
    }}
"""

_MOMENTS_GRAD = f"""
    @alias(x, in0) @alias(mean, in1) @alias(var, in2) @alias(g, in3) @alias(dx, out0)
    {_EACH_CHANNEL} {_GIVEN} {_SUMS}
        const float t = float(total / (B * S)), a = float(along / (B * S));
        {_BACK}
    }}
"""


def _code(shape, inputs, source: str, eps: float = 0.0):
    return jt.code(shape, "float32", inputs, cpu_header="#include <cmath>", cpu_src=source.replace("EPS", repr(eps)))


def moments(x, eps: float):
    """x (B, C, S) with zero mean and unit variance over B and S, the mean and the biased variance (C,), without
    gradients."""
    channels = x.shape[1]
    return jt.code([x.shape, [channels], [channels]], [x.dtype] * 3, [x], cpu_header="#include <cmath>",
                   cpu_src=_MOMENTS.replace("EPS", repr(eps)))


def joint_moments(x, eps: float):
    """As `moments`, over the rows of all processes; and the number of values."""
    own = _code([2, x.shape[1]], [x], f"""
        @alias(x, in0)
        {_EACH_CHANNEL} {_OWN}
            out0_p[c] = m;
            out0_p[C + c] = v;
        }}
    """)
    mean, variance, count = processes.statistics(own, x.numel() // x.shape[1])
    y = _code(x.shape, [x, mean, variance], f"""
        @alias(x, in0) @alias(mean, in1) @alias(var, in2) @alias(y, out0)
        {_EACH_CHANNEL} {_GIVEN} {_APART} }}
    """, eps)
    return y, mean, variance, count


def term(count):
    """What a value of this process adds to the mean of so many values of all processes."""
    return (1.0 if processes.share().rows else 0.0) / count


class Normalize(Kernel):
    """x (B, C, S) with zero mean and unit variance over B and S; and the mean and biased variance (C,).

    joint: B is the batch of all processes; one exchange forward and one backward. The number of values is in `count`.
    """

    def __init__(self, eps: float, joint: bool = False):
        self.eps, self.joint = eps, joint

    def execute(self, x):
        if self.joint:
            y, mean, variance, self.count = joint_moments(x, self.eps)
            self.term = term(self.count)
        else:
            y, mean, variance = moments(x, self.eps)
        self.kept = x, mean, variance
        return y, mean, variance

    def grad(self, g, *_):
        x, mean, variance = self.kept
        if not self.joint:
            return _code(x.shape, [x, mean, variance, g], _MOMENTS_GRAD, self.eps)
        sums = _code([2, x.shape[1]], [x, mean, variance, g], f"""
            @alias(x, in0) @alias(mean, in1) @alias(var, in2) @alias(g, in3)
            {_EACH_CHANNEL} {_GIVEN} {_SUMS}
                out0_p[c] = total;
                out0_p[C + c] = along;
            }}
        """, self.eps)
        return _code(x.shape, [x, mean, variance, g, processes.all_sum(sums) * self.term], f"""
            @alias(x, in0) @alias(mean, in1) @alias(var, in2) @alias(g, in3) @alias(means, in4) @alias(dx, out0)
            {_EACH_CHANNEL} {_GIVEN}
                const float t = means_p[c], a = means_p[C + c];
                {_BACK}
            }}
        """, self.eps)

    def plain(self, x):
        if self.joint:
            y, mean, variance, self.inverse, self.count = joint_normalized(x, (0, 2), self.eps)
            self.term = term(self.count)
        else:
            y, mean, variance, self.inverse = normalized(x, (0, 2), self.eps)
        self.y = y
        return y, mean.reshape(-1), variance.reshape(-1)

    def plain_grad(self, g, *_):
        return normalized_grad(self.y, g, (0, 2), self.inverse, self.term if self.joint else None)


def normalized(x, dims, eps: float):
    """x with zero mean and unit variance over some dimensions, the mean, the biased variance, and 1 / deviation."""
    count = 1
    for dim in dims:
        count *= x.shape[dim]
    mean = total(x, dims, keepdims=True) / count
    variance = total((x - mean) * (x - mean), dims, keepdims=True) / count
    inverse = 1 / (variance + eps).sqrt()
    return (x - mean) * inverse, mean, variance, inverse


def joint_normalized(x, dims, eps: float):
    """As `normalized` over the rows of all processes and all dimensions but the channels'; and the number of values."""
    _, mean, variance, _ = normalized(x, dims, eps)
    own = jt.stack([mean.reshape(-1), variance.reshape(-1)])
    *parts, count = processes.statistics(own, x.numel() // x.shape[1])
    mean, variance = (part.reshape(mean.shape) for part in parts)
    inverse = 1 / (variance + eps).sqrt()
    return (x - mean) * inverse, mean, variance, inverse, count


def normalized_grad(y, g, dims, inverse, term=None):
    """The gradient of x, where y is x normalised over some dimensions and g the gradient of y. term: see `term`, where
    x was normalised over the rows of all processes."""
    count = y.numel() // inverse.numel()
    sums = total(g, dims, keepdims=True), total(g * y, dims, keepdims=True)
    if term is not None:
        everyone = processes.all_sum(jt.stack([each.reshape(-1) for each in sums])) * term
        centre, along = everyone[0].reshape(inverse.shape), everyone[1].reshape(inverse.shape)
        return inverse * (g - centre - y * along)
    return inverse * (g - sums[0] / count - y * (sums[1] / count))


_LAYER_NORM = """
    @alias(x, in0) @alias(w, in1) @alias(b, in2) @alias(y, out0)
    const int64_t C = w->num, N = x->num / C;
    #pragma omp parallel for
    for (int64_t n = 0; n < N; n++) {
        const float* __restrict__ p = x_p + n * C;
        float* __restrict__ q = y_p + n * C;
        double sum = 0, square = 0;
        for (int64_t i = 0; i < C; i++) sum += p[i];
        const float m = float(sum / C);
        for (int64_t i = 0; i < C; i++) { const double d = double(p[i]) - m; square += d * d; }
        const float inv = float(1.0 / std::sqrt(square / C + EPS));
        for (int64_t i = 0; i < C; i++) q[i] = (p[i] - m) * inv * w_p[i] + b_p[i];
    }
"""

_LAYER_NORM_GRAD = """
    @alias(x, in0) @alias(w, in1) @alias(g, in2) @alias(dx, out0) @alias(dw, out1) @alias(db, out2)
    const int64_t C = w->num, N = x->num / C;
    std::vector<float> mean(N), inverse(N);
    #pragma omp parallel for
    for (int64_t n = 0; n < N; n++) {
        const float* __restrict__ p = x_p + n * C;
        const float* __restrict__ q = g_p + n * C;
        float* __restrict__ r = dx_p + n * C;
        double sum = 0, square = 0, total = 0, along = 0;
        for (int64_t i = 0; i < C; i++) sum += p[i];
        const float m = float(sum / C);
        for (int64_t i = 0; i < C; i++) { const double d = double(p[i]) - m; square += d * d; }
        const float inv = float(1.0 / std::sqrt(square / C + EPS));
        for (int64_t i = 0; i < C; i++) {
            const double t = double(q[i]) * w_p[i];
            total += t;
            along += t * ((p[i] - m) * inv);
        }
        const float t = float(total / C), a = float(along / C);
        for (int64_t i = 0; i < C; i++) r[i] = inv * (q[i] * w_p[i] - t - (p[i] - m) * inv * a);
        mean[n] = m;
        inverse[n] = inv;
    }
    #pragma omp parallel for
    for (int64_t from = 0; from < C; from += 64) {
        const int64_t wide = std::min<int64_t>(64, C - from);
        double gain[64] = {}, shift[64] = {};
        for (int64_t n = 0; n < N; n++) for (int64_t i = 0; i < wide; i++) {
            const double q = g_p[n * C + from + i];
            gain[i] += q * ((x_p[n * C + from + i] - mean[n]) * inverse[n]);
            shift[i] += q;
        }
        for (int64_t i = 0; i < wide; i++) { dw_p[from + i] = gain[i]; db_p[from + i] = shift[i]; }
    }
"""


class LayerNorm(Kernel):
    """Each row of x (…, C) with zero mean and unit variance, then times the gain (C,) plus the shift (C,)."""

    def __init__(self, eps: float):
        self.eps = eps

    def execute(self, x, weight, bias):
        self.kept = x, weight
        return jt.code(x.shape, x.dtype, [x, weight, bias], cpu_header=_HEADER,
                       cpu_src=_LAYER_NORM.replace("EPS", repr(self.eps)))

    def grad(self, g):
        x, weight = self.kept
        return jt.code([x.shape, weight.shape, weight.shape], [x.dtype] * 3, [x, weight, g], cpu_header=_HEADER,
                       cpu_src=_LAYER_NORM_GRAD.replace("EPS", repr(self.eps)))

    def plain(self, x, weight, bias):
        self.y, _, _, self.inverse = normalized(x, (-1,), self.eps)
        self.weight = weight
        return self.y * weight + bias

    def plain_grad(self, g):
        outer = range(len(g.shape) - 1)
        return normalized_grad(self.y, g * self.weight, (-1,), self.inverse), total(g * self.y, outer), total(g, outer)

    def on_gpu(self, x, weight, bias):
        y, *self.moments = rows.layer_norm(x, weight, bias, self.eps)
        self.kept = x, weight
        return y

    def on_gpu_grad(self, g):
        return rows.layer_norm_grad(*self.kept, *self.moments, g)
