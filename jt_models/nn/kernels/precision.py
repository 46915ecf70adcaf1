"""Rounding to shorter number types, which the CPU does not compute in."""
import contextlib

import numpy as np

from jt_models.boot import jt
from jt_models.nn.kernels.kernel import Kernel

arithmetic = {"precision": "float32", "autocast": False}


@contextlib.contextmanager
def autocast(on: bool = True):
    """While this context lasts, operands and results of matrix products and convolutions have the precision set.

    They are rounded to it but stay float32. This is no faster on the CPU, but training behaves as on a device that
    computes in that precision.
    """
    before, arithmetic["autocast"] = arithmetic["autocast"], on
    try:
        yield
    finally:
        arithmetic["autocast"] = before


_ROUND = {
    # Ties are rounded to even; NaN stays NaN.
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

# Bits of the fraction, the lowest exponent of a number with all of them, and from where on numbers become infinite.
_LIMITS = {"bfloat16": (7, -126, 2.0 ** 128), "float16": (10, -14, 65520.0)}


class Rounded(Kernel):
    """x (float32) rounded to values that `name` (bfloat16 or float16) can hold. The gradient is rounded too."""

    def __init__(self, name: str):
        self.source, self.limits = _ROUND[name], _LIMITS[name]

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

    def plain(self, x):
        bits, lowest, most = self.limits
        size = jt.abs(x.float64())
        # Next to a power of two the logarithm may be the wrong one of two, with which the result is the same.
        exponent = jt.floor(jt.log(jt.maximum(size, 2.0 ** lowest)) / np.log(2)).int32()
        powers = jt.array(2.0 ** (np.arange(-256, 256) - bits), dtype="float64")
        index = f"@e0({','.join(f'i{dim}' for dim in range(len(x.shape)))})"
        unit = powers.reindex(x.shape, [index], extras=[exponent + 256])        # 0 for what is not finite
        steps = size / unit
        whole = jt.floor(steps)
        rest, odd = steps - whole, whole - 2 * jt.floor(whole / 2)
        up = jt.logical_or(rest > 0.5, jt.logical_and(rest == 0.5, odd == 1))
        near = ((whole + up.float64()) * unit).float32()
        near = jt.ternary(size < most, near, jt.ternary(size == size, jt.full_like(near, np.inf), near * np.nan))
        return jt.ternary(x < 0, -near, near)

    plain_grad = plain
