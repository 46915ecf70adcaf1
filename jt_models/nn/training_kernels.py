"""What training large networks needs beside plain operators: dropout without stored masks, layers that are computed
again for their gradient, and rounding to shorter types. CPU only.
"""
import contextlib

import numpy as np

from jt_models.boot import jt

arithmetic = {"precision": "float32", "autocast": False}


@contextlib.contextmanager
def autocast(on: bool = True):
    """Inside, the operands and results of matrix products and convolutions have the precision that was set.

    They are rounded to it and stay float32: the CPU has no faster way, but training behaves as on a device that has.
    """
    before, arithmetic["autocast"] = arithmetic["autocast"], on
    try:
        yield
    finally:
        arithmetic["autocast"] = before


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


_ROUND = {
    # Ties to even; a NaN stays one.
    "bfloat16": """
        uint32_t u;
        std::memcpy(&u, &x, 4);
        u = (u + 0x7FFFu + (u >> 16 & 1u)) & 0xFFFF0000u;
        std::memcpy(&y, &u, 4);
        if (!(x == x)) y = x;
    """,
    # Adding and taking away a number 2^13 times as large leaves 10 fraction bits, and fewer below 2^-14.
    "float16": """
        const float size = std::abs(x);
        uint32_t u;
        std::memcpy(&u, &size, 4);
        u = std::max(u & 0x7F800000u, 0x38800000u) + (13u << 23);
        float large;
        std::memcpy(&large, &u, 4);
        volatile float sum = size + large;
        y = std::copysign(size < 65520.f ? sum - large : size == size ? INFINITY : size, x);
    """,
}


class Rounded(jt.Function):
    """x (float32) with the values that `name` (bfloat16, float16) can hold; so is its gradient."""

    def __init__(self, name: str):
        self.source = _ROUND[name]

    def execute(self, x):
        return jt.code(x.shape, x.dtype, [x], cpu_header="#include <cmath>\n#include <cstring>\n#include <algorithm>\n",
                       cpu_src="""
            const int64_t n = in0->num;
            #pragma omp parallel for if (n > 32768)
            for (int64_t i = 0; i < n; i++) {
                const float x = in0_p[i];
                float y;
                ROUND
                out0_p[i] = y;
            }
        """.replace("ROUND", self.source))

    def grad(self, g):
        return self.execute(g)


class Checkpoint(jt.Function):
    """module(*arguments) without the graph inside, which is built again for the gradient.

    Called with the arguments and then `parameters`, those of the module that are to have gradients. The gradients of
    one module are computed before those of the next are asked for: Jittor's lazy graph would hold all layers at once.
    """

    def __init__(self, module, parameters: list):
        self.module, self.parameters, self.autocast = module, parameters, arithmetic["autocast"]

    def execute(self, *inputs):
        self.arguments = inputs[:len(inputs) - len(self.parameters)]
        self.smooth = [x.requires_grad for x in self.arguments]     # asked here, as Jittor stops them afterwards
        with jt.no_grad():
            y = self.module(*self.arguments)
        return y.start_grad()

    def grad(self, g):
        arguments = [x.detach() for x in self.arguments]
        wanted = [x for x, smooth in zip(arguments, self.smooth) if smooth]
        with autocast(self.autocast):
            y = self.module(*arguments)
        # The gradient so far was itself computed from the parameters, of which it is no function here.
        found = jt.grad((y * g.detach()).sum(), [*wanted, *self.parameters])
        for gradient in found:
            gradient.stop_grad()
        jt.sync(found)
        found = iter(found)
        return [next(found) if smooth else None for smooth in (*self.smooth, *[True] * len(self.parameters))]
