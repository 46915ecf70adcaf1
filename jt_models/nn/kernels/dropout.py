"""Dropout without stored masks."""
import numpy as np

from jt_models.boot import jt
from jt_models.nn.kernels.kernel import Kernel

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


class Drop(Kernel):
    """Dropout: a hash of each element's index, keyed by two 32-bit numbers, decides which elements become zero. The
    others are divided by 1 - p.

    The upper 24 bits of the hash are compared with p 2^24. The gradient computes the mask again. `key` holds the bits
    of the two numbers, of p 2^24 and of 1 / (1 - p). As constants in the source they would make Jittor compile a new
    kernel for every step and every p.
    """

    def __init__(self, p: float, first: int, second: int):
        self.numbers, self.scale = (first, second, round(p * 2 ** 24)), np.float32(1 / (1 - p) if p < 1 else 0.0)
        key = np.array([*self.numbers, self.scale.view(np.uint32)], np.uint32)
        self.key = jt.array(key.view(np.int32))

    def execute(self, x):
        return jt.code(x.shape, x.dtype, [x, self.key], cpu_header=DROPPED, cpu_src="""
            const Dropped dropped(in1_p);
            const int64_t n = in0->num;
            #pragma omp parallel for simd if (n > 32768)
            for (int64_t i = 0; i < n; i++) out0_p[i] = in0_p[i] * dropped(i);
        """)

    def grad(self, g):
        return self.execute(g)

    def plain(self, x):
        return x * self.factors(x.shape)

    plain_grad = plain

    def factors(self, shape):
        """What each element of an array of this shape is multiplied with."""
        constants = np.array([*self.numbers, 0x9E3779B1, 0xFFFFFFFF], np.int64)
        first, second, least, step, low = (jt.array(constants[i:i + 1], dtype="int64") for i in range(5))

        def times(h, constant: int):
            """The lower 32 bits of a product, from numbers that 64 bits hold."""
            return ((h * (constant >> 16) & 0xFFFF) * 65536 + h * (constant & 0xFFFF)) & low

        h = (first + step * jt.arange(int(np.prod(shape))).int64()) & low
        h = times(h ^ h >> 16, 0x85EBCA6B) ^ second
        h = times(h ^ h >> 13, 0xC2B2AE35)
        h = (h ^ h >> 16) >> 8
        return ((h >= least).float32() * jt.array(self.scale.reshape(1))).reshape(shape)
