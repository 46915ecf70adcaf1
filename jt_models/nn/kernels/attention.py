"""Softmax and attention in multi-threaded C++.

Attention multiplies with oneDNN, one block of queries at a time, so that its scores stay in the cache; the backward
pass computes them again. Jittor alone would run a softmax on one thread and the products as one huge loop. CPU only.
"""
from jt_models.boot import jt, onednn_flags

_HEADER = "#include <cmath>\n#include <algorithm>\n#include <vector>\n"

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
