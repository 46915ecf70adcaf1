"""Softmax and attention in multi-threaded C++.

Attention multiplies with oneDNN, one block of queries at a time, so that the scores stay in the cache. The backward
pass computes them again. Jittor alone would run softmax on one thread and the products as one huge loop.
"""
from jt_models.boot import jt, onednn_flags
from jt_models.nn.kernels import rows
from jt_models.nn.kernels.dropout import DROPPED, Drop
from jt_models.nn.kernels.kernel import Kernel, product, total, transposed

_HEADER = "#include <cmath>\n#include <algorithm>\n#include <vector>\n"

_SOFTMAX_ROW = """
    inline void softmax_row(const float* x, float* y, int64_t n, float scale, const float* mask = nullptr) {
        float top = x[0] * scale + (mask ? mask[0] : 0);
        if (mask) for (int64_t i = 0; i < n; i++) { y[i] = x[i] * scale + mask[i]; top = std::max(top, y[i]); }
        else for (int64_t i = 0; i < n; i++) { y[i] = x[i] * scale; top = std::max(top, y[i]); }
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


class Softmax(Kernel):
    """Softmax along the last axis."""

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

    def plain(self, x):
        self.y = softmax_rows(x)
        return self.y

    def plain_grad(self, g):
        return softmax_rows_grad(self.y, g)

    def on_gpu(self, x):
        self.y = rows.softmax(x)
        return self.y

    def on_gpu_grad(self, g):
        return rows.softmax_grad(self.y, g)


def softmax_rows(x):
    """Softmax along the last axis, in Jittor's own operators. A NaN gets into the sum, so its row becomes NaN."""
    parts = jt.exp(x - x.max(-1, keepdims=True))
    return parts / total(parts, [-1], keepdims=True)


def softmax_rows_grad(y, g):
    return y * (g - total(y * g, [-1], keepdims=True))


# S = weights of a block of queries of one head (rows x M). Heads lie side by side in the rows of q, k and v. Heads
# whose queries fit into one block are spread over the threads; of larger ones, the rows and the products are.
_GEMM = """
    inline void gemm(bool ta, bool tb, int64_t m, int64_t n, int64_t k, const float* a, int64_t lda, const float* b,
                     int64_t ldb, float beta, float* c, int64_t ldc) {
        dnnl_sgemm(ta ? 'T' : 'N', tb ? 'T' : 'N', m, n, k, 1.f, a, lda, b, ldb, beta, c, ldc);
    }
    const int64_t BLOCK = 1 << 18;      // scores at a time
"""

_SIZES = """
    const int64_t B = q_shape0, N = q_shape1, C = q_shape2, M = k_shape1, D = C / HEADS;
    const int64_t rows = std::max<int64_t>(1, std::min(N, BLOCK / M));
    const bool spread = rows == N && B * HEADS >= omp_get_max_threads();
    const float scale = 1 / std::sqrt(float(D));
"""

_MASK = """
    const int64_t QS = mask_shape2 > 1 ? M : 0;
    const int64_t HS = mask_shape1 > 1 ? mask_shape2 * M : 0, BS = mask_shape0 > 1 ? mask_shape1 * mask_shape2 * M : 0;
"""

_BLOCKS = """
    for (int64_t from = 0; from < N; from += rows) {
        const int64_t R = std::min(rows, N - from), at = (b * N + from) * C + h * D, key = b * M * C + h * D;
        gemm(false, true, R, M, D, q_p + at, C, k_p + key, C, 0, S, M);
        #pragma omp parallel for
        for (int64_t r = 0; r < R; r++) softmax_row(S + r * M, S + r * M, M, scale, MASKED);
"""

_ATTENTION = """
    const auto head = [&](int64_t b, int64_t h, float* S, float*) {""" + _BLOCKS + """
        if (DROPS) {
            #pragma omp parallel for
            for (int64_t r = 0; r < R; r++) drop_row(S + r * M, S + r * M, M, INDEX, dropped);
        }
        gemm(false, false, R, D, M, S, M, v_p + key, C, 0, y_p + at, C);
    }
    };
"""

_ATTENTION_GRAD = """
    const auto head = [&](int64_t b, int64_t h, float* S, float* T) {""" + _BLOCKS + """
        const float beta = from ? 1 : 0;
        if (DROPS) {
            #pragma omp parallel for
            for (int64_t r = 0; r < R; r++) drop_row(S + r * M, T + r * M, M, INDEX, dropped);
        }
        gemm(true, false, M, D, R, DROPS ? T : S, M, g_p + at, C, beta, dv_p + key, C);
        gemm(false, true, R, M, D, g_p + at, C, v_p + key, C, 0, T, M);
        #pragma omp parallel for
        for (int64_t r = 0; r < R; r++) {
            float *s = S + r * M, *t = T + r * M;
            if (DROPS) drop_row(t, t, M, INDEX, dropped);
            const float along = softmax_slope(s, t, M);
            for (int64_t i = 0; i < M; i++) s[i] *= (t[i] - along) * scale;
        }
        gemm(false, false, R, D, M, S, M, k_p + key, C, 0, dq_p + at, C);
        gemm(true, false, M, D, R, S, M, q_p + at, C, beta, dk_p + key, C);
    }
    };
"""

# Not one parallel region with a condition: threads started inside even an inactive one are new ones every time.
_HEADS = """
    if (spread) {
        #pragma omp parallel
        {
            std::vector<float> S(rows * M), T(rows * M);
            #pragma omp for collapse(2)
            for (int64_t b = 0; b < B; b++) for (int64_t h = 0; h < HEADS; h++) head(b, h, S.data(), T.data());
        }
    } else {
        std::vector<float> S(rows * M), T(rows * M);
        for (int64_t b = 0; b < B; b++) for (int64_t h = 0; h < HEADS; h++) head(b, h, S.data(), T.data());
    }
"""

_DROP_ROW = """
    inline void drop_row(const float* x, float* y, int64_t n, uint32_t at, const Dropped& dropped) {
        for (int64_t i = 0; i < n; i++) y[i] = x[i] * dropped(at + uint32_t(i));
    }
"""

_NO_DROP_ROW = "inline void drop_row(const float*, float*, int64_t, uint32_t, int) {}"


class Attention(Kernel):
    """dropout(softmax(q k^T / sqrt(C / heads) + mask)) v for each head: q (B, N, C), k and v (B, M, C) to (B, N, C).

    mask: (B or 1, heads or 1, N or 1, M), or None; it gets no gradient. For dropout the index of a weight is its index
    in an array (B, heads, N, M).
    """

    def __init__(self, heads: int, mask=None, drop: Drop | None = None):
        self.heads, self.mask, self.drop, self.rows = heads, mask, drop, None
        self.options = {name: value for name, value in (("mask", mask), ("drop", drop and drop.key))
                        if value is not None}

    def execute(self, q, k, v):
        self.kept = {"q": q, "k": k, "v": v}
        return self.code([q.shape], self.kept, ("y",), _ATTENTION)[0]

    def grad(self, g):
        shapes = [x.shape for x in self.kept.values()]
        return self.code(shapes, {**self.kept, "g": g}, ("dq", "dk", "dv"), _ATTENTION_GRAD)

    def code(self, shapes, inputs: dict, outputs, source: str):
        inputs = inputs | self.options
        aliases = [f"@alias({name}, {side}{number})" for side, names in (("in", inputs), ("out", outputs))
                   for number, name in enumerate(names)]
        masked, drops = "mask" in inputs, "drop" in inputs
        source = "\n".join([*aliases, _SIZES, _MASK if masked else "",
                            "const Dropped dropped(drop_p);" if drops else "const int dropped = 0;", source,
                            _HEADS])
        for name, value in (("MASKED", "mask_p + b * BS + h * HS + (from + r) * QS" if masked else "nullptr"),
                            ("INDEX", "uint32_t(((b * HEADS + h) * N + from + r) * M)"),
                            ("DROPS", str(int(drops))), ("HEADS", str(self.heads))):
            source = source.replace(name, value)
        header = _HEADER + "#include <dnnl.h>\n#include <omp.h>\n" + _SOFTMAX_ROW + _GEMM
        header += DROPPED + _DROP_ROW if drops else _NO_DROP_ROW
        with jt.flag_scope(compile_options={onednn_flags(): 1}):
            return jt.code(shapes, [inputs["q"].dtype] * len(shapes), list(inputs.values()), cpu_header=header,
                           cpu_src=source)

    def plain(self, q, k, v):
        self.shape, self.kept = q.shape, [self.split(x) for x in (q, k, v)]
        weights, factors = self.weights()
        return self.joined(product(weights * factors, self.kept[2]))

    def plain_grad(self, g):
        q, k, v = self.kept
        g = self.split(g)
        weights, factors = self.weights()
        slopes = product(g, transposed(v)) * factors
        slopes = (self.rows.softmax_grad(weights, slopes, self.scale()) if self.rows
                  else softmax_rows_grad(weights, slopes) * self.scale())
        return [self.joined(x) for x in (product(slopes, k), product(transposed(slopes), q),
                                         product(transposed(weights * factors), g))]

    def on_gpu(self, q, k, v):
        """The products are cuBLAS's; only the softmax between them is ours."""
        self.rows = rows
        return self.plain(q, k, v)

    def on_gpu_grad(self, g):
        return self.plain_grad(g)

    def weights(self):
        """The weights (B heads, N, M) before dropout, and the factors of dropout."""
        q, k, _ = self.kept
        scores = product(q, transposed(k))
        factors = 1.0 if self.drop is None else self.drop.factors(scores.shape)
        if self.rows:
            return self.rows.softmax(scores, self.scale(), self.mask, self.heads), factors
        batch, sides = self.shape[0], (q.shape[1], k.shape[1])
        scores = scores * self.scale()
        if self.mask is not None:
            scores = (scores.reshape(batch, self.heads, *sides) + self.mask).reshape(scores.shape)
        return softmax_rows(scores), factors

    def scale(self) -> float:
        return (self.shape[2] // self.heads) ** -0.5

    def split(self, x):
        """(B, N, C) to (B heads, N, C / heads)."""
        batch, length, channels = x.shape
        x = x.reshape(batch, length, self.heads, channels // self.heads).permute(0, 2, 1, 3)
        return x.reshape(batch * self.heads, length, channels // self.heads)

    def joined(self, x):
        """The inverse of `split`."""
        _, length, width = x.shape
        x = x.reshape(self.shape[0], self.heads, length, width).permute(0, 2, 1, 3)
        return x.reshape(self.shape[0], length, self.heads * width)
