"""Dropout without stored masks. CPU only."""
import numpy as np

from jt_models.boot import jt

# What an element is multiplied with follows from its index. The multipliers are those of MurmurHash3.
DROPPED = """#include <cstring>
    struct Dropped {
        uint32_t first, second, least;
        float scale;
        explicit Dropped(const int* key) : first(key[0]), second(key[1]), least(key[2]) {
            std::memcpy(&scale, key + 3, 4);
        }
        inline float operator()(uint32_t i) const {
            uint32_t h = first + 0x9E3779B1u * i;
            h = (h ^ h >> 16) * 0x85EBCA6Bu ^ second;
            h = (h ^ h >> 13) * 0xC2B2AE35u;
            h = (h ^ h >> 16) >> 8;
            return h >= least ? scale : 0.f;
        }
    };
"""


class Drop(jt.Function):
    """x without the elements that a hash of their index, keyed by two 32-bit numbers, drops; over 1 - p.

    The upper 24 bits of the hash are compared with p 2^24. The gradient draws the mask again. `key` has, bit for bit,
    the two numbers, p 2^24 and 1 / (1 - p): as source text they would have every step, and every p, compile anew.
    """

    def __init__(self, p: float, first: int, second: int):
        scale = np.float32(1 / (1 - p) if p < 1 else 0.0).view(np.uint32)
        self.key = jt.array(np.array([first, second, round(p * 2 ** 24), scale], np.uint32).view(np.int32))

    def execute(self, x):
        return jt.code(x.shape, x.dtype, [x, self.key], cpu_header=DROPPED, cpu_src="""
            const Dropped dropped(in1_p);
            const int64_t n = in0->num;
            #pragma omp parallel for simd if (n > 32768)
            for (int64_t i = 0; i < n; i++) out0_p[i] = in0_p[i] * dropped(i);
        """)

    def grad(self, g):
        return self.execute(g)
