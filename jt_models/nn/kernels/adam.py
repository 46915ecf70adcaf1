"""The update of Adam in one pass over memory."""
from jt_models.boot import jt
from jt_models.nn.kernels.kernel import form

_ADAM = """
    @alias(p, in0) @alias(g, in1) @alias(m, in2) @alias(v, in3) @alias(s, in4)
    @alias(p2, out0) @alias(m2, out1) @alias(v2, out2)
    const float keep = s_p[0], l2 = s_p[1], c1 = s_p[2], b2 = s_p[3], c2 = s_p[4];
    const float rate = s_p[5], root = s_p[6], eps = s_p[7];
    const int64_t n = p->num;
    #pragma omp parallel for if (n > 32768)
    for (int64_t i = 0; i < n; i++) {
        const float grad = g_p[i] + l2 * p_p[i];
        const float first = m_p[i] + c1 * (grad - m_p[i]);
        const float second = b2 * v_p[i] + c2 * grad * grad;
        m2_p[i] = first;
        v2_p[i] = second;
        p2_p[i] = keep * p_p[i] - rate * (first / (std::sqrt(second) / root + eps));
    }
"""


def adam(parameter, grad, first, second, scalars):
    """One Adam update; returns (parameter, first moment, second moment).

    scalars (8,) float32: factor that keeps the parameter (decoupled decay), L2 decay, 1-beta1, beta2,
    1-beta2, bias-corrected rate, root of the second bias correction, eps.
    """
    if form() == "portable":
        keep, l2, c1, b2, c2, rate, root, eps = (scalars[i] for i in range(8))
        grad = grad + l2 * parameter
        first = first + c1 * (grad - first)
        second = b2 * second + c2 * grad * grad
        return keep * parameter - rate * (first / (second.sqrt() / root + eps)), first, second
    return jt.code([parameter.shape] * 3, [parameter.dtype] * 3, [parameter, grad, first, second, scalars],
                   cpu_header="#include <cmath>", cpu_src=_ADAM)
