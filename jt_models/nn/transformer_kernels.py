"""Multi-threaded C++ for the operators of transformers, which Jittor runs on one thread or as one huge product.

Sums along a row are in double precision, variances take two passes. Attention multiplies with oneDNN, one block of
queries at a time, so that its scores stay in the cache; the backward pass computes them again. CPU only.
"""
from jt_models.boot import jt, onednn_flags

_HEADER = "#include <cmath>\n#include <algorithm>\n#include <vector>\n"

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


class LayerNorm(jt.Function):
    """x (…, C), gain and shift (C,): every row to zero mean and unit variance, then scaled."""

    def __init__(self, eps: float):
        self.eps = repr(eps)

    def execute(self, x, weight, bias):
        self.kept = x, weight
        return jt.code(x.shape, x.dtype, [x, weight, bias], cpu_header=_HEADER,
                       cpu_src=_LAYER_NORM.replace("EPS", self.eps))

    def grad(self, g):
        x, weight = self.kept
        return jt.code([x.shape, weight.shape, weight.shape], [x.dtype] * 3, [x, weight, g], cpu_header=_HEADER,
                       cpu_src=_LAYER_NORM_GRAD.replace("EPS", self.eps))


_SOFTMAX_ROW = """
    inline void softmax_row(const float* x, float* y, int64_t n, float scale) {
        float top = x[0] * scale;
        for (int64_t i = 0; i < n; i++) { y[i] = x[i] * scale; top = std::max(top, y[i]); }
        float sum = 0;
        for (int64_t i = 0; i < n; i++) { y[i] = std::exp(y[i] - top); sum += y[i]; }   // a NaN gets into the sum
        const float inv = 1 / sum;
        for (int64_t i = 0; i < n; i++) y[i] *= inv;
    }
    inline float softmax_slope(const float* y, const float* g, int64_t n) {
        double along = 0;
        for (int64_t i = 0; i < n; i++) along += double(y[i]) * g[i];
        return float(along);
    }
"""


class Softmax(jt.Function):
    """Along the last axis."""

    def execute(self, x):
        self.y = jt.code(x.shape, x.dtype, [x], cpu_header=_HEADER + _SOFTMAX_ROW, cpu_src="""
            const int64_t C = in0->shape[in0->shape.size() - 1], N = in0->num / C;
            #pragma omp parallel for
            for (int64_t n = 0; n < N; n++) softmax_row(in0_p + n * C, out0_p + n * C, C, 1);
        """)
        return self.y

    def grad(self, g):
        return jt.code(g.shape, g.dtype, [self.y, g], cpu_header=_HEADER + _SOFTMAX_ROW, cpu_src="""
            const int64_t C = in0->shape[in0->shape.size() - 1], N = in0->num / C;
            #pragma omp parallel for
            for (int64_t n = 0; n < N; n++) {
                const float *y = in0_p + n * C, *g = in1_p + n * C, along = softmax_slope(y, g, C);
                for (int64_t i = 0; i < C; i++) out0_p[n * C + i] = y[i] * (g[i] - along);
            }
        """)


class Gelu(jt.Function):
    """x Phi(x) with the exact normal distribution function (Hendrycks and Gimpel 2016, arXiv 1606.08415)."""

    def execute(self, x):
        self.x = x
        return jt.code(x.shape, x.dtype, [x], cpu_header=_HEADER, cpu_src="""
            const int64_t n = in0->num;
            #pragma omp parallel for simd if (n > 32768)
            for (int64_t i = 0; i < n; i++)
                out0_p[i] = in0_p[i] * 0.5f * (1 + std::erf(in0_p[i] * 0.70710678118654752f));
        """)

    def grad(self, g):
        return jt.code(g.shape, g.dtype, [self.x, g], cpu_header=_HEADER, cpu_src="""
            const int64_t n = in0->num;
            #pragma omp parallel for simd if (n > 32768)
            for (int64_t i = 0; i < n; i++) {
                const float x = in0_p[i], below = 0.5f * (1 + std::erf(x * 0.70710678118654752f));
                out0_p[i] = in1_p[i] * (below + x * 0.39894228040143268f * std::exp(-0.5f * x * x));
            }
        """)


class GeluTanh(jt.Function):
    """GELU with tanh in place of the error function: x times the logistic function of 2 u."""

    CURVE = """
        const float u = 0.79788456080286536f * (x + 0.044715f * x * x * x), s = 1 / (1 + std::exp(-2 * u));
    """

    def execute(self, x):
        self.x = x
        return jt.code(x.shape, x.dtype, [x], cpu_header=_HEADER, cpu_src="""
            const int64_t n = in0->num;
            #pragma omp parallel for simd if (n > 32768)
            for (int64_t i = 0; i < n; i++) {
                const float x = in0_p[i];
                CURVE
                out0_p[i] = x * s;
            }
        """.replace("CURVE", self.CURVE))

    def grad(self, g):
        return jt.code(g.shape, g.dtype, [self.x, g], cpu_header=_HEADER, cpu_src="""
            const int64_t n = in0->num;
            #pragma omp parallel for simd if (n > 32768)
            for (int64_t i = 0; i < n; i++) {
                const float x = in0_p[i];
                CURVE
                const float slope = 1.59576912160573071f * (1 + 0.134145f * x * x);
                out0_p[i] = in1_p[i] * (s + x * s * (1 - s) * slope);
            }
        """.replace("CURVE", self.CURVE))


# S = scores of a block of queries of one head (rows x M). Heads lie side by side in the rows of q, k and v.
_GEMM = """
    inline void gemm(bool ta, bool tb, int64_t m, int64_t n, int64_t k, const float* a, int64_t lda, const float* b,
                     int64_t ldb, float beta, float* c, int64_t ldc) {
        dnnl_sgemm(ta ? 'T' : 'N', tb ? 'T' : 'N', m, n, k, 1.f, a, lda, b, ldb, beta, c, ldc);
    }
    const int64_t BLOCK = 1 << 18;      // scores at a time
"""

_ATTENTION = """
    @alias(q, in0) @alias(k, in1) @alias(v, in2) @alias(y, out0)
    const int64_t B = q_shape0, N = q_shape1, C = q_shape2, M = k_shape1, D = C / HEADS;
    const int64_t rows = std::max<int64_t>(1, std::min(N, BLOCK / M));
    const float scale = 1 / std::sqrt(float(D));
    std::vector<float> S(rows * M);
    for (int64_t b = 0; b < B; b++) for (int64_t h = 0; h < HEADS; h++) for (int64_t from = 0; from < N; from += rows) {
        const int64_t R = std::min(rows, N - from), at = (b * N + from) * C + h * D, key = b * M * C + h * D;
        gemm(false, true, R, M, D, q_p + at, C, k_p + key, C, 0, S.data(), M);
        #pragma omp parallel for
        for (int64_t r = 0; r < R; r++) softmax_row(&S[r * M], &S[r * M], M, scale);
        gemm(false, false, R, D, M, S.data(), M, v_p + key, C, 0, y_p + at, C);
    }
"""

_ATTENTION_GRAD = """
    @alias(q, in0) @alias(k, in1) @alias(v, in2) @alias(g, in3) @alias(dq, out0) @alias(dk, out1) @alias(dv, out2)
    const int64_t B = q_shape0, N = q_shape1, C = q_shape2, M = k_shape1, D = C / HEADS;
    const int64_t rows = std::max<int64_t>(1, std::min(N, BLOCK / M));
    const float scale = 1 / std::sqrt(float(D));
    std::vector<float> S(rows * M), T(rows * M);
    for (int64_t b = 0; b < B; b++) for (int64_t h = 0; h < HEADS; h++) for (int64_t from = 0; from < N; from += rows) {
        const int64_t R = std::min(rows, N - from), at = (b * N + from) * C + h * D, key = b * M * C + h * D;
        const float beta = from ? 1 : 0;
        gemm(false, true, R, M, D, q_p + at, C, k_p + key, C, 0, S.data(), M);
        #pragma omp parallel for
        for (int64_t r = 0; r < R; r++) softmax_row(&S[r * M], &S[r * M], M, scale);
        gemm(true, false, M, D, R, S.data(), M, g_p + at, C, beta, dv_p + key, C);
        gemm(false, true, R, M, D, g_p + at, C, v_p + key, C, 0, T.data(), M);
        #pragma omp parallel for
        for (int64_t r = 0; r < R; r++) {
            float *s = &S[r * M], *t = &T[r * M];
            const float along = softmax_slope(s, t, M);
            for (int64_t i = 0; i < M; i++) s[i] *= (t[i] - along) * scale;
        }
        gemm(false, false, R, D, M, S.data(), M, k_p + key, C, 0, dq_p + at, C);
        gemm(true, false, M, D, R, S.data(), M, q_p + at, C, beta, dk_p + key, C);
    }
"""


class Attention(jt.Function):
    """softmax(q k^T / sqrt(C / heads)) v for each head: q (B, N, C), k and v (B, M, C) to (B, N, C)."""

    def __init__(self, heads: int):
        self.heads = str(heads)

    def execute(self, q, k, v):
        self.kept = q, k, v
        return self.code(q.shape, q.dtype, [q, k, v], _ATTENTION)

    def grad(self, g):
        q, k, v = self.kept
        return self.code([q.shape, k.shape, v.shape], [q.dtype] * 3, [q, k, v, g], _ATTENTION_GRAD)

    def code(self, shapes, types, inputs, source: str):
        with jt.flag_scope(compile_options={onednn_flags(): 1}):
            return jt.code(shapes, types, inputs, cpu_header=_HEADER + "#include <dnnl.h>\n" + _SOFTMAX_ROW + _GEMM,
                           cpu_src=source.replace("HEADS", self.heads))


_DEPTHWISE = """
    @alias(x, in0) @alias(w, in1) @alias(y, out0)
    const int64_t N = x_shape0 * x_shape1, C = x_shape1, H = x_shape2, W = x_shape3, P = y_shape2, Q = y_shape3;
    const int64_t K = w_shape2, L = w_shape3;
    #pragma omp parallel for
    for (int64_t n = 0; n < N; n++) {
        const float* __restrict__ image = x_p + n * H * W;
        const float* __restrict__ kernel = w_p + n % C * K * L;
        for (int64_t p = 0; p < P; p++) {
            float* __restrict__ row = y_p + (n * P + p) * Q;
            for (int64_t q = 0; q < Q; q++) row[q] = 0;
            for (int64_t i = 0; i < K; i++) for (int64_t j = 0; j < L; j++) {
                const int64_t at = p + i - PADDING, shift = j - PADDING;
                if (at < 0 || at >= H) continue;
                const float* __restrict__ from = image + at * W + shift;
                const float weight = FLIPPED ? kernel[(K - 1 - i) * L + L - 1 - j] : kernel[i * L + j];
                const int64_t end = std::min(Q, W - shift);
                for (int64_t q = std::max<int64_t>(0, -shift); q < end; q++) row[q] += weight * from[q];
            }
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
        const int64_t shift = j - PADDING, end = std::min(Q, W - shift);
        for (int64_t b = 0; b < B; b++) for (int64_t p = 0; p < P; p++) {
            const int64_t at = p + i - PADDING;
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


class DepthwiseConv(jt.Function):
    """Each channel of x (B, C, H, W) by its own kernel of weight (C, 1, k, k), stride 1, with zero padding."""

    def __init__(self, padding: int):
        self.padding = padding

    def execute(self, x, weight):
        self.kept = x, weight
        return self.correlated(x, weight, self.padding, flipped=0)

    def grad(self, g):
        x, weight = self.kept
        dw = jt.code(weight.shape, g.dtype, [x, g], cpu_header=_HEADER,
                     cpu_src=_DEPTHWISE_GRAD.replace("PADDING", str(self.padding)))
        return self.correlated(g, weight, weight.shape[-1] - 1 - self.padding, flipped=1), dw

    @staticmethod
    def correlated(x, weight, padding: int, flipped: int):
        sides = [side + 2 * padding - weight.shape[-1] + 1 for side in x.shape[2:]]
        return jt.code([*x.shape[:2], *sides], x.dtype, [x, weight], cpu_header=_HEADER,
                       cpu_src=_DEPTHWISE.replace("PADDING", str(padding)).replace("FLIPPED", str(flipped)))
