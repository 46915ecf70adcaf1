"""Which form of a kernel computes, and sums and products in Jittor's own operators.

Every kernel has two forms: C++ for the CPU in float32, and Jittor's own operators, which run on any device in any type.
A few have a third one, in CUDA for a GPU in float32. The environment variable JITTWIN_KERNELS chooses: "native" (the
C++, or on a GPU the CUDA where there is any; the default) or "portable" (the operators).
"""
import os

import numpy as np

from jittwin.errors import UserError, choose_from
from jt_models.boot import jt

VARIABLE, FORMS = "JITTWIN_KERNELS", ("native", "portable")


def form() -> str:
    """The form that JITTWIN_KERNELS asks for; on a GPU "cuda" in place of "native". UserError: another value."""
    asked = os.environ.get(VARIABLE) or "native"
    if asked not in FORMS:
        raise UserError(f"{VARIABLE}={asked}{choose_from(asked, FORMS)}")
    return "cuda" if jt.flags.use_cuda and asked == "native" else asked


class Kernel(jt.Function):
    """A function with its gradient in two forms: `execute` and `grad` in C++, `plain` and `plain_grad` in Jittor's own
    operators. Some have `on_gpu` and `on_gpu_grad` in CUDA besides; the others compute in the operators on a GPU. The
    type of the first argument decides too, since C++ and CUDA are for float32."""

    def __call__(self, *arguments):
        chosen = form() if arguments[0].dtype == "float32" else "portable"
        if chosen == "cuda" and hasattr(self, "on_gpu"):
            self.execute, self.grad = self.on_gpu, self.on_gpu_grad
        elif chosen != "native":
            self.execute, self.grad = self.plain, self.plain_grad
        return super().__call__(*arguments)


def total(x, dims, keepdims: bool = False):
    """The sum over some dimensions, added up in double precision [N1]."""
    return x.float64().sum(tuple(dims), keepdims=keepdims).cast(x.dtype)


def product(a, b):
    """The matrix products (…, n, k) (…, k, m) of two arrays with as many dimensions."""
    if len(a.shape) == 2 or jt.flags.use_cuda:
        return jt.matmul(a, b)
    return total(a.unsqueeze(-1) * b.unsqueeze(-3), [-2])       # Jittor fuses this: no array of all terms is made


def transposed(x):
    """x (…, n, m) as (…, m, n)."""
    return x.permute(*range(len(x.shape) - 2), len(x.shape) - 1, len(x.shape) - 2)


FAN = 64        # terms of a partial sum


def summed_by_row(values, rows, count: int):
    """The values (N, C) added up by their rows, N numbers on the host, to (count, C). Rows below 0 are left out.

    The values of a row are added in their order, FAN of them to a partial sum, then FAN partial sums, and so on. So the
    result is the same every time, and no sum is long.
    """
    order = np.argsort(rows, kind="stable")
    order = order[np.count_nonzero(rows < 0):]
    rows = rows[order]
    while True:
        starts = np.flatnonzero(np.diff(rows, prepend=-1))                  # where the values of a row begin
        place = np.arange(len(rows)) - np.repeat(starts, np.diff(starts, append=len(rows)))
        first = place % FAN == 0
        table = np.full((max(1, np.count_nonzero(first)), FAN), -1, np.int32)       # -1 reads a zero
        table[np.cumsum(first) - 1, place % FAN] = order
        parts = values.reindex([*table.shape, values.shape[1]], ["@e0(i0,i1)", "i2"], extras=[jt.array(table)])
        values, rows, order = total(parts, [1]), rows[first], np.arange(np.count_nonzero(first))
        if len(rows) == len(starts):
            break
    where = np.full(count, -1, np.int32)
    where[rows] = order
    return values.reindex([count, values.shape[1]], ["@e0(i0)", "i1"], extras=[jt.array(where)])


def checked(numbers, limit: int, what: str, ignored: int = 0) -> np.ndarray:
    """The whole numbers of a tensor on the host. RuntimeError: one is not from 0 to limit - 1, nor `ignored`."""
    found = numbers.numpy()
    wrong = found[((found < 0) | (found >= limit)) & (found != ignored)]
    if wrong.size:
        raise RuntimeError(f"{what} {wrong[0]} is not in the range from 0 to {limit - 1}")
    return found
