"""Normalisation and modulation of pixels (kernels/modulation.py) for a GPU, as CUDA sources. Nothing here has run on a
GPU.

Jittor's own operators read or write a whole map 19 times for the result and its gradients, fused as on a CPU; here it
is 10 times. They add up in no fixed order; here every sum is added up in double precision in the same order every time.
For the gradient of a row of the table, the host sorts the pixels by row. The tests run these very sources on the CPU,
thread by thread, and compile them with nvcc.
"""
import numpy as np

from jt_models.boot import jt
from jt_models.nn.kernels.rows import BLOCK, with_numbers

PART = 2048     # pixels of a channel that a block takes, in each picture of the batch
PIECE = 256     # pixels of a row of the table that a thread adds up

HEADER = BLOCK + f"#define PART {PART}\n" + """
// x, y, g and dx are (B, C, S). Block n of the kernels of pixels takes part n % parts of channel n / parts.
static __device__ int64_t part_end(int64_t from, int64_t S) { return from + PART < S ? from + PART : S; }

static __device__ float inverse_deviation(float variance, double eps) { return float(1 / sqrt(variance + eps)); }

// Of each part of a channel the mean and the sum of squared distances from it: found (C, parts, 2).
static __global__ void part_moments(const float* x, double* found, int64_t B, int64_t C, int64_t S, int64_t parts) {
    const int64_t c = blockIdx.x / parts, from = blockIdx.x % parts * PART, to = part_end(from, S);
    double sum = 0, square = 0;
    for (int64_t b = 0; b < B; b++)
        for (int64_t i = from + threadIdx.x; i < to; i += THREADS) sum += x[(b * C + c) * S + i];
    const double m = block_sum(sum) / (B * (to - from));
    for (int64_t b = 0; b < B; b++)
        for (int64_t i = from + threadIdx.x; i < to; i += THREADS) {
            const double d = x[(b * C + c) * S + i] - m;
            square += d * d;
        }
    square = block_sum(square);
    if (threadIdx.x == 0) { found[2 * blockIdx.x] = m; found[2 * blockIdx.x + 1] = square; }
}

// The mean and the biased variance of each channel, from those of its parts, which is as exact as a second pass (Chan,
// Golub and LeVeque 1979). A thread takes a channel.
static __global__ void channel_moments(const double* found, float* mean, float* variance, int64_t B, int64_t C,
                                       int64_t S, int64_t parts) {
    const int64_t c = blockIdx.x * int64_t(THREADS) + threadIdx.x;
    if (c >= C) return;
    found += 2 * c * parts;
    double m = 0, square = 0;
    for (int64_t k = 0; k < parts; k++) m += found[2 * k] * (part_end(k * PART, S) - k * PART) / S;
    for (int64_t k = 0; k < parts; k++) {
        const double d = found[2 * k] - m;
        square += found[2 * k + 1] + d * d * B * (part_end(k * PART, S) - k * PART);
    }
    mean[c] = float(m);
    variance[c] = float(square / (B * S));
}

// x normalised, times row at (B, S) of gain (U, C) plus that of shift, then leaky ReLU.
static __global__ void modulate_pixels(const float* x, const float* mean, const float* variance, const float* gain,
                                       const float* shift, const int32_t* at, float* y, int64_t B, int64_t C,
                                       int64_t S, int64_t parts, double eps, float slope) {
    const int64_t c = blockIdx.x / parts, from = blockIdx.x % parts * PART, to = part_end(from, S);
    const float m = mean[c], inv = inverse_deviation(variance[c], eps);
    for (int64_t b = 0; b < B; b++)
        for (int64_t i = from + threadIdx.x; i < to; i += THREADS) {
            const int64_t p = (b * C + c) * S + i, row = at[b * S + i] * C + c;
            const float value = (x[p] - m) * inv * gain[row] + shift[row];
            y[p] = value > 0 ? value : value * slope;
        }
}

// Of each piece of a row of the table, the gradient before the leaky ReLU added up over its pixels, times the
// normalised x and alone: sums (C, pieces, 2). order has the pixels sorted by row; piece k is those from starts[k] to
// starts[k + 1]. A thread takes a piece of a channel; `blocks` blocks take all pieces of one.
static __global__ void piece_sums(const float* x, const float* mean, const float* variance, const float* y,
                                  const float* g, const int32_t* order, const int32_t* starts, double* sums, int64_t C,
                                  int32_t S, int64_t pieces, int64_t blocks, double eps, float slope) {
    const int64_t c = blockIdx.x / blocks, k = blockIdx.x % blocks * THREADS + threadIdx.x;
    if (k >= pieces) return;
    const float m = mean[c], inv = inverse_deviation(variance[c], eps);
    double scaled = 0, alone = 0;
    for (int32_t j = starts[k]; j < starts[k + 1]; j++) {
        const int64_t p = (order[j] / S * C + c) * S + order[j] % S;
        const float before = y[p] > 0 ? g[p] : g[p] * slope;
        scaled += double(before) * ((x[p] - m) * inv);
        alone += before;
    }
    sums[2 * (c * pieces + k)] = scaled;
    sums[2 * (c * pieces + k) + 1] = alone;
}

// The gradients of gain and shift; and, for the gradient of x, the sums over each channel of the gradient of the
// normalised x, alone and times the normalised x: channels (2, C). The pieces of row u are those from firsts[u] to
// firsts[u + 1]. A block takes a channel.
static __global__ void row_sums(const double* sums, const float* gain, const int32_t* firsts, float* channels,
                                float* dgain, float* dshift, int64_t C, int64_t U, int64_t pieces) {
    const int64_t c = blockIdx.x;
    double total = 0, along = 0;
    for (int64_t u = threadIdx.x; u < U; u += THREADS) {
        double scaled = 0, alone = 0;
        for (int64_t k = c * pieces + firsts[u]; k < c * pieces + firsts[u + 1]; k++) {
            scaled += sums[2 * k];
            alone += sums[2 * k + 1];
        }
        dgain[u * C + c] = float(scaled);
        dshift[u * C + c] = float(alone);
        if (firsts[u] == firsts[u + 1]) continue;       // whatever the gain of a row without pixels is
        total += gain[u * C + c] * alone;
        along += gain[u * C + c] * scaled;
    }
    total = block_sum(total);
    along = block_sum(along);
    if (threadIdx.x == 0) { channels[c] = float(total); channels[C + c] = float(along); }
}

// The gradient of x from those sums divided by the number of pixels: means (2, C).
static __global__ void pixels_grad(const float* x, const float* mean, const float* variance, const float* gain,
                                   const int32_t* at, const float* y, const float* g, const float* means, float* dx,
                                   int64_t B, int64_t C, int64_t S, int64_t parts, double eps, float slope) {
    const int64_t c = blockIdx.x / parts, from = blockIdx.x % parts * PART, to = part_end(from, S);
    const float m = mean[c], inv = inverse_deviation(variance[c], eps), t = means[c], a = means[C + c];
    for (int64_t b = 0; b < B; b++)
        for (int64_t i = from + threadIdx.x; i < to; i += THREADS) {
            const int64_t p = (b * C + c) * S + i;
            const float before = y[p] > 0 ? g[p] : g[p] * slope;
            dx[p] = inv * (before * gain[at[b * S + i] * C + c] - t - (x[p] - m) * inv * a);
        }
}
"""

SIZES = """
    const int64_t B = in0->shape[0], C = in0->shape[1], S = in0->num / (B * C), parts = (S + PART - 1) / PART;
"""

MOMENTS = SIZES + """
    part_moments<<<C * parts, THREADS>>>(in0_p, out2_p, B, C, S, parts);
    channel_moments<<<(C + THREADS - 1) / THREADS, THREADS>>>(out2_p, out0_p, out1_p, B, C, S, parts);
"""

MODULATE = SIZES + """
    modulate_pixels<<<C * parts, THREADS>>>(
        in0_p, in1_p, in2_p, in3_p, in4_p, in5_p, out0_p, B, C, S, parts, EPS, SLOPE);
"""

ROW_SUMS = """
    const int64_t C = in0->shape[1], S = in0->num / (in0->shape[0] * C), U = in3->shape[0], pieces = in7->num - 1;
    const int64_t blocks = (pieces + THREADS - 1) / THREADS;
    piece_sums<<<C * blocks, THREADS>>>(
        in0_p, in1_p, in2_p, in4_p, in5_p, in6_p, in7_p, out3_p, C, int32_t(S), pieces, blocks, EPS, SLOPE);
    row_sums<<<C, THREADS>>>(out3_p, in3_p, in8_p, out0_p, out1_p, out2_p, C, U, pieces);
"""

PIXELS_GRAD = SIZES + """
    pixels_grad<<<C * parts, THREADS>>>(
        in0_p, in1_p, in2_p, in3_p, in4_p, in5_p, in6_p, in7_p, out0_p, B, C, S, parts, EPS, SLOPE);
"""


def moments(x):
    """The mean and the biased variance (C,) of x (B, C, H, W)."""
    channels, parts = x.shape[1], -(-x.shape[2] * x.shape[3] // PART)
    return jt.code([[channels], [channels], [channels, parts, 2]], [x.dtype, x.dtype, "float64"], [x],
                   cuda_header=HEADER, cuda_src=MOMENTS)[:2]


def modulated(x, mean, variance, gain, shift, index, eps: float, slope: float):
    """x (B, C, H, W) normalised, then modulated by rows index (B, H, W) of gain and shift (U, C), then leaky ReLU."""
    return jt.code(x.shape, x.dtype, [x, mean, variance, gain, shift, index.int32()], cuda_header=HEADER,
                   cuda_src=with_numbers(MODULATE, eps=repr(eps), slope=f"{slope!r}f"))


def cut(rows, count: int):
    """The pixels of each row of the table, `count` rows, in pieces: three arrays (order, starts, firsts). The pixels
    order[starts[k]:starts[k + 1]] are piece k, and the pieces from firsts[u] to firsts[u + 1] are those of row u."""
    rows = rows.reshape(-1)
    order = np.argsort(rows.astype(np.uint16) if count <= 1 << 16 else rows, kind="stable")    # short numbers are fast
    pixels = np.bincount(rows, minlength=count)
    pieces = -(-pixels // PIECE)
    firsts, begins = (np.concatenate([[0], np.cumsum(each)]) for each in (pieces, pixels))
    place = np.arange(firsts[-1]) - np.repeat(firsts[:-1], pieces)              # of a piece among those of its row
    starts = np.append(np.repeat(begins[:-1], pieces) + place * PIECE, len(rows))
    return tuple(each.astype(np.int32) for each in (order, starts, firsts))


def row_sums(x, mean, variance, gain, y, g, rows, eps: float, slope: float):
    """(sums, dgain, dshift): the gradients of gain and shift (U, C), where y is what `modulated` gave and g its
    gradient, and the sums (2, C) for `gradient`. rows (B, H, W): the index, on the host."""
    order, starts, firsts = map(jt.array, cut(rows, gain.shape[0]))
    return jt.code([[2, x.shape[1]], gain.shape, gain.shape, [x.shape[1], len(starts) - 1, 2]],
                   [x.dtype] * 3 + ["float64"], [x, mean, variance, gain, y, g, order, starts, firsts],
                   cuda_header=HEADER, cuda_src=with_numbers(ROW_SUMS, eps=repr(eps), slope=f"{slope!r}f"))[:3]


def gradient(x, mean, variance, gain, index, y, g, means, eps: float, slope: float):
    """The gradient of x. means (2, C): the sums of `row_sums` divided by the number of values of a channel."""
    return jt.code(x.shape, x.dtype, [x, mean, variance, gain, index.int32(), y, g, means], cuda_header=HEADER,
                   cuda_src=with_numbers(PIXELS_GRAD, eps=repr(eps), slope=f"{slope!r}f"))
