"""Kernels that change many tensors in place, one launch for all of them, in multi-threaded C++.

Jittor compiles an operator anew for every number of inputs and of their dimensions. These kernels get addresses
instead, so that each is compiled once, for all networks. The portable form takes one tensor after the other.
"""
import numpy as np

from jt_models.boot import jt
from jt_models.nn.kernels.kernel import form, total

_HEADER = "#include <algorithm>\n#include <cmath>\n#include <utility>\n#include <vector>\n"

# The tensors are cut into blocks. BODY sees the addresses a[0], a[1] … of the n elements of a block, one for each list,
# and the numbers s, and may set `sum`. END sees the sum over all blocks, added in their order, and may set `result`.
_EACH = """
    const int64_t LISTS = in0_shape0 - 1, COUNT = in0_shape1, BLOCK = 32768;
    const auto *at = in0_p, *size = in0_p + LISTS * COUNT;
    const float* s = in1_p;
    std::vector<std::pair<int64_t, int64_t>> blocks;
    for (int64_t t = 0; t < COUNT; t++) for (int64_t i = 0; i < size[t]; i += BLOCK) blocks.push_back({t, i});
    std::vector<double> sums(blocks.size());
    #pragma omp parallel for if (blocks.size() > 1)
    for (int64_t b = 0; b < int64_t(blocks.size()); b++) {
        const int64_t t = blocks[b].first, from = blocks[b].second, n = std::min<int64_t>(BLOCK, size[t] - from);
        float* a[4];
        for (int64_t k = 0; k < LISTS; k++) a[k] = reinterpret_cast<float*>(at[k * COUNT + t]) + from;
        double sum = 0;
        BODY
        sums[b] = sum;
    }
    double sum = 0, result = 0;
    for (const double part : sums) sum += part;
    END
    out0_p[0] = result;
"""


def _each(lists, numbers, body: str, end: str = ""):
    """Run the C++ `body` for at most four lists of float32 tensors; returns the result (1,) of `end`.

    The lists have one length, and the tensors with one index one shape. All that is still to be computed is computed
    first, because it may read the tensors.
    """
    for tensors in zip(*lists, strict=True):
        if any(t.dtype != "float32" or t.shape != tensors[0].shape for t in tensors):
            raise ValueError(f"not float32 tensors of one shape: {', '.join(f'{t.dtype} {t.shape}' for t in tensors)}")
    jt.sync_all()
    rows = [*([t.raw_ptr for t in tensors] for tensors in lists), [t.numel() for t in lists[0]]]
    table, numbers = jt.array(np.array(rows, np.int64), dtype="int64"), jt.array(np.array(numbers, np.float32))
    source = _EACH.replace("BODY", body).replace("END", end)
    return jt.code([1], "float32", [table, numbers], cpu_header=_HEADER, cpu_src=source).stop_grad().sync()


def _scalars(numbers) -> list:
    """Tensors (1,). As constants in the source, numbers would make Jittor compile a new kernel for every step."""
    values = jt.array(np.array(numbers, np.float32))
    return [values[i] for i in range(len(numbers))]


def _replace(pairs) -> None:
    """Give each of some tensors a new value."""
    for tensor, value in pairs:
        tensor.update(value.detach())
    jt.sync([tensor for tensor, _ in pairs])


def clip_factor(gradients, limit: float):
    """The factor (1,), at most 1, with which the joint norm of the gradients is at most `limit`."""
    if form() != "native":
        squares = sum(total(g * g, range(len(g.shape))) for g in gradients)
        return jt.minimum(limit / (squares.sqrt() + 1e-6), 1.0)
    return _each([gradients], [limit], "for (int64_t i = 0; i < n; i++) sum += double(a[0][i]) * a[0][i];",
                 "result = std::min(1.0, s[0] / (std::sqrt(sum) + 1e-6));")


def follow(averages, values, weight: float) -> None:
    """Add `weight` times (value - average) to each average."""
    if form() != "native":
        factor = _scalars([weight])[0]
        return _replace([(m, m + factor * (v - m)) for m, v in zip(averages, values)])
    _each([averages, values], [weight], """
        float *m = a[0]; const float *v = a[1], w = s[0];
        #pragma GCC ivdep
        for (int64_t i = 0; i < n; i++) m[i] += w * (v[i] - m[i]);
    """)


def sgd(lists, numbers) -> None:
    """One step of stochastic gradient descent. lists: parameters, gradients and, with momentum, buffers.

    numbers (4,): rate, L2 decay, momentum of the buffer (0 in the first step), momentum of Nesterov's look-ahead or 0.
    """
    if form() != "native":
        rate, l2, momentum, ahead = _scalars(numbers)
        for p, g, *m in zip(*lists):
            g = g + l2 * p
            after = momentum * m[0] + g if m else g
            _replace([(p, p - rate * (g + ahead * after if numbers[3] else after)), *((each, after) for each in m)])
        return
    _each(lists, numbers, """
        float *p = a[0], *m = LISTS > 2 ? a[2] : nullptr; const float* g = a[1];
        const float rate = s[0], l2 = s[1], momentum = s[2], ahead = s[3];
        #pragma GCC ivdep
        for (int64_t i = 0; i < n; i++) {
            const float grad = g[i] + l2 * p[i];
            const float sum = m ? momentum * m[i] + grad : grad;
            if (m) m[i] = sum;
            p[i] -= rate * (ahead != 0 ? grad + ahead * sum : sum);
        }
    """)


def adam(lists, numbers) -> None:
    """One step of Adam. lists: parameters, gradients, second moments and, if they are stored, first moments.

    numbers (8,): factor that keeps the parameter (decoupled decay), L2 decay, 1-beta1, beta2, 1-beta2, bias-corrected
    rate, root of the second bias correction, eps.
    """
    if form() != "native":
        keep, l2, c1, b2, c2, rate, root, eps = _scalars(numbers)
        for p, g, v, *m in zip(*lists):
            g = g + l2 * p
            first, second = m[0] + c1 * (g - m[0]) if m else g, b2 * v + c2 * g * g
            after = keep * p - rate * (first / (second.sqrt() / root + eps))
            _replace([(p, after), (v, second), *((each, first) for each in m)])
        return
    _each(lists, numbers, """
        float *p = a[0], *v = a[2], *m = LISTS > 3 ? a[3] : nullptr;
        const float *g = a[1], *before = m ? m : g;
        const float keep = s[0], l2 = s[1], c1 = s[2], b2 = s[3], c2 = s[4], rate = s[5], root = s[6], eps = s[7];
        #pragma GCC ivdep
        for (int64_t i = 0; i < n; i++) {
            const float grad = g[i] + l2 * p[i];
            const float first = before[i] + c1 * (grad - before[i]);
            const float second = b2 * v[i] + c2 * grad * grad;
            if (m) m[i] = first;
            v[i] = second;
            p[i] = keep * p[i] - rate * (first / (std::sqrt(second) / root + eps));
        }
    """)
