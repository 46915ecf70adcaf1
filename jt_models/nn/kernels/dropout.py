"""Dropout without stored masks. CPU only."""
import numpy as np

from jt_models.boot import jt

# The index of an element decides the factor with which it is multiplied. The hash's constants are MurmurHash3's.
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
    """Dropout: a hash of each element's index, keyed by two 32-bit numbers, decides which elements become zero. The
    others are divided by 1 - p.

    The upper 24 bits of the hash are compared with p 2^24. The gradient computes the mask again. `key` holds the bits
    of the two numbers, of p 2^24 and of 1 / (1 - p). As constants in the source they would make Jittor compile a new
    kernel for every step and every p.
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
