"""Cross entropy in multi-threaded C++.

Jittor's own takes eight times as long and accepts labels that are no class.
"""
import numpy as np

from jt_models.boot import jt
from jt_models.nn.kernels.kernel import Kernel, checked, total
from jt_models.nn.kernels.lookup import RANGE

_HEADER = "#include <cmath>\n#include <algorithm>\n" + RANGE

_CROSS_ENTROPY = """
    @alias(labels, in0) @alias(x, in1) @alias(y, out0)
    const int64_t N = x_shape0, C = x_shape1;
    check_range(labels_p, N, C, IGNORED, "cross_entropy: the label");
    double total = 0;
    int64_t count = 0;
    for (int64_t from = 0; from < N; from += 1024) {        // losses of a block, then their sum in a fixed order
        const int64_t R = std::min<int64_t>(1024, N - from);
        double loss[1024];
        #pragma omp parallel for if (R * C > 8192)
        for (int64_t r = 0; r < R; r++) {
            const float* __restrict__ p = x_p + (from + r) * C;
            loss[r] = 0;
            if (int64_t(labels_p[from + r]) == IGNORED) continue;
            float top = p[0];
            for (int64_t i = 0; i < C; i++) top = std::max(top, p[i]);
            double sum = 0;
            for (int64_t i = 0; i < C; i++) sum += std::exp(p[i] - top);       // a NaN gets into the sum
            loss[r] = std::log(sum) + (double(top) - p[labels_p[from + r]]);
        }
        for (int64_t r = 0; r < R; r++) {
            if (EACH) y_p[from + r] = loss[r];
            total += loss[r];
            count += int64_t(labels_p[from + r]) != IGNORED;
        }
    }
    if (!EACH) y_p[0] = total / (MEAN ? count : 1);
"""

_CROSS_ENTROPY_GRAD = """
    @alias(labels, in0) @alias(x, in1) @alias(g, in2) @alias(dx, out0)
    const int64_t N = x_shape0, C = x_shape1;
    int64_t count = 0;
    for (int64_t n = 0; n < N; n++) count += int64_t(labels_p[n]) != IGNORED;
    #pragma omp parallel for if (N * C > 8192)
    for (int64_t n = 0; n < N; n++) {
        const float* __restrict__ p = x_p + n * C;
        float* __restrict__ r = dx_p + n * C;
        const bool ignored = int64_t(labels_p[n]) == IGNORED;
        float top = p[0];
        for (int64_t i = 0; i < C; i++) top = std::max(top, p[i]);
        double sum = 0;
        for (int64_t i = 0; i < C; i++) { r[i] = std::exp(p[i] - top); sum += r[i]; }
        const float slope = ignored ? 0 : g_p[EACH ? n : 0] / (MEAN ? count : 1);
        const float share = float(slope / sum);         // of an ignored row with a NaN, NaN, as in PyTorch
        for (int64_t i = 0; i < C; i++) r[i] *= share;
        if (!ignored) r[labels_p[n]] -= slope;
    }
"""


class CrossEntropy(Kernel):
    """-log softmax(logits)[label] for each row of logits (N, C), or the sum or mean (1,) over labels not ignored."""

    def __init__(self, labels, reduction: str, ignored: int):
        self.labels = labels
        self.words = {"IGNORED": ignored, "EACH": int(reduction == "none"), "MEAN": int(reduction == "mean")}

    def execute(self, logits):
        self.logits = logits
        shape = [logits.shape[0] if self.words["EACH"] else 1]
        return jt.code(shape, logits.dtype, [self.labels, logits], cpu_header=_HEADER,
                       cpu_src=self.filled(_CROSS_ENTROPY))

    def grad(self, g):
        return jt.code(self.logits.shape, g.dtype, [self.labels, self.logits, g], cpu_header=_HEADER,
                       cpu_src=self.filled(_CROSS_ENTROPY_GRAD))

    def plain(self, logits):
        ignored, each, mean = self.words.values()
        labels = checked(self.labels, logits.shape[1], "cross_entropy: the label", ignored)
        counted = labels != ignored
        self.at, self.counted = jt.array(np.where(counted, labels, 0).astype("int32")), jt.array(counted)
        self.count = float(counted.sum()) if mean else 1.0
        top = logits.max(1, keepdims=True)
        self.shares = jt.exp(logits - top)          # a NaN gets into the sum
        self.sums = total(self.shares, [1], keepdims=True)
        chosen = logits.reindex([logits.shape[0]], ["i0", "@e0(i0)"], extras=[self.at])
        losses = jt.log(self.sums.reshape(-1)) + (top.reshape(-1) - chosen)
        losses = jt.ternary(self.counted, losses, jt.zeros_like(losses))
        # Without a label there is no mean: 0 / 0.
        return losses if each else total(losses, [0]) / jt.array(np.array([self.count], np.float32))

    def plain_grad(self, g):
        slope = jt.ternary(self.counted, (g / max(self.count, 1)).broadcast(self.at.shape), jt.zeros(self.at.shape))
        slope = slope.unsqueeze(1)
        right = jt.arange(self.shares.shape[1]).unsqueeze(0) == self.at.unsqueeze(1)
        return self.shares * (slope / self.sums) - slope * right.float32()

    def filled(self, source: str) -> str:
        for word, value in self.words.items():
            source = source.replace(word, f"({value})")
        return source
