"""Softmax and layer norm of rows for a GPU, as CUDA sources. Nothing here has run on a GPU.

Plain Jittor reads and writes a whole array for each step of these formulas, and adds up in no fixed order. Here a block
of threads takes a row, and adds up in double precision in the same order every time. The tests run these very sources
on the CPU, thread by thread, and compile them with nvcc.
"""
from jt_models.boot import jt

BLOCK = """
#include <cmath>
#include <cstdint>

#define THREADS 256     // of a block; a power of two

// The sum of the values of all threads of a block, for each of them.
static __device__ double block_sum(double value) {
    __shared__ double shared[THREADS];
    __syncthreads();                            // no thread still reads the result before
    shared[threadIdx.x] = value;
    __syncthreads();
    for (int half = THREADS / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) shared[threadIdx.x] += shared[threadIdx.x + half];
        __syncthreads();
    }
    return shared[0];
}
"""

HEADER = BLOCK + """
#define COLUMNS 32      // divides THREADS

// The maximum of the values of all threads of a block, for each of them.
static __device__ float block_max(float value) {
    __shared__ float shared[THREADS];
    __syncthreads();
    shared[threadIdx.x] = value;
    __syncthreads();
    for (int half = THREADS / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) shared[threadIdx.x] = fmaxf(shared[threadIdx.x], shared[threadIdx.x + half]);
        __syncthreads();
    }
    return shared[0];
}

// Softmax of scale * x + mask along rows of M. The rows are of B images, heads and queries; the mask's row of image b,
// head h and query q begins at b * image + h * head + q * query. mask may be null.
static __global__ void softmax_rows(const float* x, const float* mask, float* y, int64_t M, float scale,
                                    int64_t heads, int64_t queries, int64_t image, int64_t head, int64_t query) {
    const int64_t row = blockIdx.x, q = row % queries, h = row / queries % heads, b = row / queries / heads;
    x += row * M;
    y += row * M;
    if (mask) mask += b * image + h * head + q * query;
    float top = -INFINITY;
    for (int64_t i = threadIdx.x; i < M; i += THREADS) {
        y[i] = x[i] * scale + (mask ? mask[i] : 0.f);
        top = fmaxf(top, y[i]);
    }
    top = block_max(top);
    double sum = 0;
    for (int64_t i = threadIdx.x; i < M; i += THREADS) {
        y[i] = expf(y[i] - top);                // a NaN gets into the sum
        sum += y[i];
    }
    const float inverse = float(1 / block_sum(sum));
    for (int64_t i = threadIdx.x; i < M; i += THREADS) y[i] *= inverse;
}

// The gradient of x, where y is the softmax and g its gradient.
static __global__ void softmax_rows_grad(const float* y, const float* g, float* dx, int64_t M, float scale) {
    const int64_t at = blockIdx.x * M;
    double part = 0;
    for (int64_t i = threadIdx.x; i < M; i += THREADS) part += double(y[at + i]) * g[at + i];
    const float along = float(block_sum(part));
    for (int64_t i = threadIdx.x; i < M; i += THREADS) dx[at + i] = y[at + i] * (g[at + i] - along) * scale;
}

// Each row of C with zero mean and unit variance, then times w plus b; and the mean and 1 / deviation of each row.
static __global__ void layer_norm_rows(const float* x, const float* w, const float* b, float* y, float* mean,
                                       float* inverse, int64_t C, double eps) {
    const int64_t at = blockIdx.x * C;
    double part = 0;
    for (int64_t i = threadIdx.x; i < C; i += THREADS) part += x[at + i];
    const float m = float(block_sum(part) / C);
    part = 0;
    for (int64_t i = threadIdx.x; i < C; i += THREADS) { const double d = double(x[at + i]) - m; part += d * d; }
    const float inv = float(1 / sqrt(block_sum(part) / C + eps));
    for (int64_t i = threadIdx.x; i < C; i += THREADS) y[at + i] = (x[at + i] - m) * inv * w[i] + b[i];
    if (threadIdx.x == 0) { mean[blockIdx.x] = m; inverse[blockIdx.x] = inv; }
}

static __global__ void layer_norm_rows_grad(const float* x, const float* w, const float* mean, const float* inverse,
                                            const float* g, float* dx, int64_t C) {
    const int64_t at = blockIdx.x * C;
    const float m = mean[blockIdx.x], inv = inverse[blockIdx.x];
    double total = 0, along = 0;
    for (int64_t i = threadIdx.x; i < C; i += THREADS) {
        const double t = double(g[at + i]) * w[i];
        total += t;
        along += t * ((x[at + i] - m) * inv);
    }
    const float t = float(block_sum(total) / C), a = float(block_sum(along) / C);
    for (int64_t i = threadIdx.x; i < C; i += THREADS)
        dx[at + i] = inv * (g[at + i] * w[i] - t - (x[at + i] - m) * inv * a);
}

// The gradients of w and b. A block takes COLUMNS columns; its threads of one column take every k-th row.
static __global__ void layer_norm_columns_grad(const float* x, const float* mean, const float* inverse, const float* g,
                                               float* dw, float* db, int64_t N, int64_t C) {
    __shared__ double gains[THREADS], shifts[THREADS];
    const int64_t c = blockIdx.x * int64_t(COLUMNS) + threadIdx.x % COLUMNS;
    double gain = 0, shift = 0;
    for (int64_t n = threadIdx.x / COLUMNS; c < C && n < N; n += THREADS / COLUMNS) {
        const double q = g[n * C + c];
        gain += q * ((x[n * C + c] - mean[n]) * inverse[n]);
        shift += q;
    }
    gains[threadIdx.x] = gain;
    shifts[threadIdx.x] = shift;
    __syncthreads();
    if (threadIdx.x < COLUMNS && c < C) {
        for (int k = threadIdx.x + COLUMNS; k < THREADS; k += COLUMNS) { gain += gains[k]; shift += shifts[k]; }
        dw[c] = float(gain);
        db[c] = float(shift);
    }
}
"""

SOFTMAX = """
    const int64_t M = in0->shape[in0->shape.size() - 1];
    if (in0->num) softmax_rows<<<in0->num / M, THREADS>>>(in0_p, nullptr, out0_p, M, SCALE, 1, 1, 0, 0, 0);
"""

MASKED_SOFTMAX = """
    const int64_t M = in0->shape[2], heads = in1->shape[1], queries = in1->shape[2];
    if (in0->num) softmax_rows<<<in0->num / M, THREADS>>>(
        in0_p, in1_p, out0_p, M, SCALE, HEADS, in0->shape[1], in1->shape[0] > 1 ? heads * queries * M : 0,
        heads > 1 ? queries * M : 0, queries > 1 ? M : 0);
"""

SOFTMAX_GRAD = """
    const int64_t M = in0->shape[in0->shape.size() - 1];
    if (in0->num) softmax_rows_grad<<<in0->num / M, THREADS>>>(in0_p, in1_p, out0_p, M, SCALE);
"""

LAYER_NORM = """
    const int64_t C = in1->num, N = C ? in0->num / C : 0;
    if (N) layer_norm_rows<<<N, THREADS>>>(in0_p, in1_p, in2_p, out0_p, out1_p, out2_p, C, EPS);
"""

LAYER_NORM_GRAD = """
    const int64_t C = in1->num, N = C ? in0->num / C : 0;
    if (N) layer_norm_rows_grad<<<N, THREADS>>>(in0_p, in1_p, in2_p, in3_p, in4_p, out0_p, C);
    if (C) layer_norm_columns_grad<<<(C + COLUMNS - 1) / COLUMNS, THREADS>>>(
        in0_p, in2_p, in3_p, in4_p, out1_p, out2_p, N, C);
"""


def with_numbers(source: str, **numbers) -> str:
    """The source with these constants, in upper case there."""
    for name, value in numbers.items():
        source = source.replace(name.upper(), value)
    return source


def softmax(x, scale: float = 1.0, mask=None, heads: int = 1):
    """Softmax of scale * x + mask along the last axis of x (…, M). With a mask (B or 1, heads or 1, N or 1, M), x is
    (B heads, N, M)."""
    source = with_numbers(SOFTMAX if mask is None else MASKED_SOFTMAX, scale=f"{scale!r}f", heads=str(heads))
    return jt.code(x.shape, x.dtype, [x] if mask is None else [x, mask], cuda_header=HEADER, cuda_src=source)


def softmax_grad(y, g, scale: float = 1.0):
    source = with_numbers(SOFTMAX_GRAD, scale=f"{scale!r}f")
    return jt.code(y.shape, y.dtype, [y, g], cuda_header=HEADER, cuda_src=source)


def layer_norm(x, weight, bias, eps: float):
    """x (…, C) normalised, then times weight plus bias; and the mean and 1 / deviation of each row, (N,)."""
    rows = [x.numel() // x.shape[-1]]
    return jt.code([x.shape, rows, rows], [x.dtype] * 3, [x, weight, bias], cuda_header=HEADER,
                   cuda_src=with_numbers(LAYER_NORM, eps=repr(eps)))


def layer_norm_grad(x, weight, mean, inverse, g):
    """The gradients of x, weight and bias."""
    return jt.code([x.shape, weight.shape, weight.shape], [x.dtype] * 3, [x, weight, mean, inverse, g],
                   cuda_header=HEADER, cuda_src=LAYER_NORM_GRAD)
