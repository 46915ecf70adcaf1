"""Dropout without stored masks. CPU only."""
import numpy as np

from jt_models.boot import jt

_DROP = """
    @alias(x, in0) @alias(key, in1) @alias(y, out0)
    const uint32_t first = key_p[0], second = key_p[1], least = LEAST;
    const int64_t n = x->num;
    #pragma omp parallel for simd if (n > 32768)
    for (int64_t i = 0; i < n; i++) {
        uint32_t h = first + 0x9E3779B1u * uint32_t(i);
        h = (h ^ h >> 16) * 0x85EBCA6Bu ^ second;
        h = (h ^ h >> 13) * 0xC2B2AE35u;
        h = (h ^ h >> 16) >> 8;
        y_p[i] = x_p[i] * (h >= least ? SCALE : 0.f);
    }
"""


class Drop(jt.Function):
    """x without the elements that a hash of their index, keyed by two 32-bit numbers, drops; over 1 - p.

    The upper 24 bits are compared with p 2^24; the multipliers are those of MurmurHash3. The gradient draws the mask
    again. The key enters as data: as source text it would have every step compile anew.
    """

    def __init__(self, p: float, first: int, second: int):
        self.source = _DROP.replace("LEAST", f"{round(p * 2 ** 24)}u")
        self.source = self.source.replace("SCALE", f"float({1 / (1 - p) if p < 1 else 0.0!r})")
        self.key = np.array([first, second], np.uint32).view(np.int32)

    def execute(self, x):
        return jt.code(x.shape, x.dtype, [x, jt.array(self.key)], cpu_src=self.source)

    def grad(self, g):
        return self.execute(g)
