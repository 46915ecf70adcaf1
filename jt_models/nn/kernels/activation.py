"""Activation functions in multi-threaded C++."""
from jt_models.boot import jt
from jt_models.nn.kernels.kernel import Kernel

_HEADER = "#include <cmath>\n#include <algorithm>\n#include <vector>\n"

# The error function as a quotient of polynomials in x^2, fitted for the least relative error: 2e-8, and 3.4e-7 with
# the roundings. From 3.9 on, 1 is 4e-8 off at most. A NaN becomes 1; what multiplies that by x makes it NaN again.
_ERF = """
    inline float erf_of(float x) {
        const float s = x * x;
        const float p = ((((2.0664713e-6f * s + 2.8506326e-4f) * s + 3.7383791e-3f) * s + 5.2668184e-2f) * s
                         + 1.8966755e-1f) * s + 1.1283791f;
        const float q = ((((3.8270056e-5f * s + 1.1573849e-3f) * s + 1.4914342e-2f) * s + 1.1381926e-1f) * s
                         + 5.0142127e-1f) * s + 1;
        return std::abs(x) < 3.9f ? x * p / q : std::copysign(1.f, x);
    }
"""


class Relu(Kernel):
    """max(x, 0); NaN stays NaN. The gradient needs the result alone, which the next layer keeps too."""

    def execute(self, x):
        self.y = jt.code(x.shape, x.dtype, [x], cpu_src="""
            const int64_t n = in0->num;
            #pragma omp parallel for simd if (n > 32768)
            for (int64_t i = 0; i < n; i++) out0_p[i] = in0_p[i] <= 0 ? 0 : in0_p[i];
        """)
        return self.y

    def grad(self, g):
        return jt.code(g.shape, g.dtype, [self.y, g], cpu_src="""
            const int64_t n = in0->num;
            #pragma omp parallel for simd if (n > 32768)
            for (int64_t i = 0; i < n; i++) out0_p[i] = in0_p[i] <= 0 ? 0 : in1_p[i];
        """)

    def plain(self, x):
        self.y = jt.ternary(x <= 0, jt.zeros_like(x), x)
        return self.y

    def plain_grad(self, g):
        return jt.ternary(self.y <= 0, jt.zeros_like(g), g)


class Gelu(Kernel):
    """x Phi(x) with the exact normal distribution function (Hendrycks and Gimpel 2016, arXiv 1606.08415)."""

    def execute(self, x):
        self.x = x
        return jt.code(x.shape, x.dtype, [x], cpu_header=_HEADER + _ERF, cpu_src="""
            const int64_t n = in0->num;
            #pragma omp parallel for simd if (n > 32768)
            for (int64_t i = 0; i < n; i++)
                out0_p[i] = in0_p[i] * 0.5f * (1 + erf_of(in0_p[i] * 0.70710678118654752f));
        """)

    def grad(self, g):
        return jt.code(g.shape, g.dtype, [self.x, g], cpu_header=_HEADER + _ERF, cpu_src="""
            const int64_t n = in0->num;
            #pragma omp parallel for simd if (n > 32768)
            for (int64_t i = 0; i < n; i++) {
                const float x = in0_p[i], below = 0.5f * (1 + erf_of(x * 0.70710678118654752f));
                out0_p[i] = in1_p[i] * (below + x * 0.39894228040143268f * std::exp(-0.5f * x * x));
            }
        """)

    def plain(self, x):
        self.x = x
        return x * 0.5 * (1 + jt.erf(x * 0.70710678118654752))

    def plain_grad(self, g):
        below = 0.5 * (1 + jt.erf(self.x * 0.70710678118654752))
        return g * (below + self.x * 0.39894228040143268 * jt.exp(-0.5 * self.x * self.x))


class GeluTanh(Kernel):
    """GELU with tanh in place of the error function: x times the logistic function of 2 u."""

    CURVE = """
        const float u = 0.79788456080286536f * (x + 0.044715f * x * x * x), s = 1 / (1 + std::exp(-2 * u));
    """

    def execute(self, x):
        self.x = x
        return jt.code(x.shape, x.dtype, [x], cpu_header=_HEADER, cpu_src="""
            const int64_t n = in0->num;
            #pragma omp parallel for simd if (n > 32768)
            for (int64_t i = 0; i < n; i++) {
                const float x = in0_p[i];
                CURVE
                out0_p[i] = x * s;
            }
        """.replace("CURVE", self.CURVE))

    def grad(self, g):
        return jt.code(g.shape, g.dtype, [self.x, g], cpu_header=_HEADER, cpu_src="""
            const int64_t n = in0->num;
            #pragma omp parallel for simd if (n > 32768)
            for (int64_t i = 0; i < n; i++) {
                const float x = in0_p[i];
                CURVE
                const float slope = 1.59576912160573071f * (1 + 0.134145f * x * x);
                out0_p[i] = in1_p[i] * (s + x * s * (1 - s) * slope);
            }
        """.replace("CURVE", self.CURVE))

    def plain(self, x):
        self.x = x
        return x * self.curve(x)

    def plain_grad(self, g):
        x, s = self.x, self.curve(self.x)
        return g * (s + x * s * (1 - s) * (1.59576912160573071 * (1 + 0.134145 * x * x)))

    @staticmethod
    def curve(x):
        return 1 / (1 + jt.exp(-2 * (0.79788456080286536 * (x + 0.044715 * x * x * x))))


class QuickGelu(Kernel):
    """x times the logistic function of 1.702 x."""

    def execute(self, x):
        self.x = x
        return jt.code(x.shape, x.dtype, [x], cpu_header=_HEADER, cpu_src="""
            const int64_t n = in0->num;
            #pragma omp parallel for simd if (n > 32768)
            for (int64_t i = 0; i < n; i++) out0_p[i] = in0_p[i] * (1 / (1 + std::exp(-1.702f * in0_p[i])));
        """)

    def grad(self, g):
        return jt.code(g.shape, g.dtype, [self.x, g], cpu_header=_HEADER, cpu_src="""
            const int64_t n = in0->num;
            #pragma omp parallel for simd if (n > 32768)
            for (int64_t i = 0; i < n; i++) {
                const float x = in0_p[i], s = 1 / (1 + std::exp(-1.702f * x));
                out0_p[i] = in1_p[i] * (s + x * s * (1 - s) * 1.702f);
            }
        """)

    def plain(self, x):
        self.x = x
        return x * (1 / (1 + jt.exp(-1.702 * x)))

    def plain_grad(self, g):
        x, s = self.x, 1 / (1 + jt.exp(-1.702 * self.x))
        return g * (s + x * s * (1 - s) * 1.702)
