"""The CUDA sources, run on the CPU thread by thread in place of jt.code, pass the tests of the C++; nvcc compiles them.

Nothing here needs a GPU, and nothing here shows that one computes the same.
"""
import ctypes
import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import joint_norm
import numpy as np
import pytest
from joint_norm import EPS, SLOPE
from test_backend import test_the_self_check_passes  # noqa: F401
from test_text_ops import (  # noqa: F401
    test_a_causal_mask_hides_what_comes_after,
    test_a_row_that_sees_nothing_sees_all_alike,
    test_dropout_of_attention,
    test_masked_attention,
    test_normalised_modulation_and_its_gradients,
    test_the_gradient_of_a_row_that_sees_nothing,
)
from test_transformer_ops import (  # noqa: F401
    test_infinities_and_nans,
    test_rows_with_a_large_mean_keep_their_variance,
    test_values_and_gradients,
)

from jt_models.boot import jt
from jt_models.nn import ops, processes
from jt_models.nn.kernels import kernel, pixels, rows

EMULATION = (Path(__file__).parent / "cuda_emulation.h").read_text()
TYPES = {"float32": "float", "float64": "double", "int32": "int32_t"}
LAUNCH = re.compile(r"(\w+)<<<(.*?), (\w+)>>>\((.*?)\);", re.DOTALL)


def function(header: str, source: str, inputs, outputs) -> str:
    """A function in which `source` finds the names that Jittor gives it. inputs, outputs: their number types. shapes:
    of each array its count and sides."""
    names = [f"in{i}" for i in range(len(inputs))] + [f"out{i}" for i in range(len(outputs))]
    lines = [f"Var {name}_var = read(shapes), *{name} = &{name}_var; (void){name};" for name in names]
    lines += [f"{'const ' if name.startswith('in') else ''}{TYPES[kind]}* {name}_p = ({TYPES[kind]}*)arrays[{i}];"
              for i, (name, kind) in enumerate(zip(names, (*inputs, *outputs)))]
    return (f"{header}\nstatic Var read(const int64_t*& at) {{\n"
            "    Var found{1, {}};\n    const int count = *at++;\n"
            "    while (found.shape.count < count) found.num *= found.shape.sides[found.shape.count++] = *at++;\n"
            "    return found;\n}\n"
            f'extern "C" void run(void** arrays, const int64_t* shapes) {{\n' + "\n".join(lines) + f"\n{source}\n}}\n")


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """built(header, source, inputs, outputs): the library of the emulated source, for arrays of these types."""
    folder, made = tmp_path_factory.mktemp("cuda"), {}

    def build(header, source, inputs, outputs):
        source = LAUNCH.sub(r"launch(\2, \3, [&] { \1(\4); });", source)
        text = EMULATION + function(header, source, inputs, outputs) + (
            'extern "C" void order(int reverse) { backwards = reverse; }\n')
        key = hashlib.sha1(text.encode()).hexdigest()[:16]
        if key not in made:
            (folder / f"{key}.cc").write_text(text)
            subprocess.run(["g++", "-std=c++17", "-shared", "-fPIC", folder / f"{key}.cc", "-o",
                            folder / f"{key}.so"], check=True)
            made[key] = ctypes.CDLL(str(folder / f"{key}.so"))
        return made[key]
    return build


def emulated(built, header, source, shapes, inputs, kinds=None):
    """The outputs of a source, which must not depend on the order of the threads. kinds: their types."""
    kinds = kinds or ["float32"] * len(shapes)
    library, found = built(header, source, [str(a.dtype) for a in inputs], kinds), []
    inputs = [np.ascontiguousarray(a) for a in inputs]
    for reverse in (0, 1):
        outputs = [np.full(shape, np.nan, kind) for shape, kind in zip(shapes, kinds)]
        arrays = inputs + outputs
        library.order(reverse)
        library.run((ctypes.c_void_p * len(arrays))(*(a.ctypes.data for a in arrays)),
                    (ctypes.c_int64 * sum(1 + a.ndim for a in arrays))(
                        *(n for a in arrays for n in (a.ndim, *a.shape))))
        found.append(outputs)
    for one, other in zip(*found):
        np.testing.assert_array_equal(one, other, "a barrier is missing: the order of the threads counts")
    return found[0]


@pytest.fixture(autouse=True)
def on_a_gpu(built, monkeypatch):
    """In this file the form is "cuda", and jt.code runs the source in the emulation. Returns the sources it has run."""
    ran = []

    def code(shape, dtype, inputs, cuda_header, cuda_src):
        several = isinstance(dtype, list)
        ran.append(cuda_src)
        shapes = [tuple(one) for one in (shape if several else [shape])]
        kinds = [str(kind) for kind in (dtype if several else [dtype])]
        outputs = emulated(built, cuda_header, cuda_src, shapes, [x.numpy() for x in inputs], kinds)
        outputs = [jt.array(a, dtype=str(a.dtype)) for a in outputs]
        return outputs if several else outputs[0]

    monkeypatch.setattr(kernel, "form", lambda: "cuda")
    monkeypatch.setattr(jt, "code", code)
    return ran


LENGTHS = (1, 3, 255, 256, 257, 700)


@pytest.mark.parametrize("length", LENGTHS)
def test_softmax_of_rows(length, on_a_gpu):
    draws = np.random.default_rng(length)
    x, g = draws.standard_normal((2, 3, 5, length)).astype(np.float32) * 4
    mask = draws.standard_normal((3, length)).astype(np.float32)
    z = x.astype(np.float64) * np.float32(0.3) + mask[:, None]
    right = np.exp(z - z.max(-1, keepdims=True))
    right /= right.sum(-1, keepdims=True)
    y = rows.softmax(jt.array(x), 0.3, jt.array(mask.reshape(1, 3, 1, length)), 3)
    np.testing.assert_allclose(y.numpy(), right, rtol=2e-6, atol=1e-9)
    slope = rows.softmax_grad(y, jt.array(g), 0.3).numpy()
    expected = right * (g - (right * g).sum(-1, keepdims=True)) * 0.3
    np.testing.assert_allclose(slope, expected, rtol=2e-5, atol=2e-7)
    assert len(on_a_gpu) == 2


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("count", [1, 9])
def test_layer_norm_of_rows(length, count, on_a_gpu):
    draws = np.random.default_rng(length)
    x, g = draws.standard_normal((2, count, length)).astype(np.float32) * 3 + 5
    w, b = draws.standard_normal((2, length)).astype(np.float32)
    wide = x.astype(np.float64)
    apart = wide - wide.mean(-1, keepdims=True)
    inverse = 1 / np.sqrt((apart ** 2).mean(-1, keepdims=True) + 1e-5)
    normal, t = apart * inverse, g * w.astype(np.float64)
    given = [jt.array(a) for a in (x, w, b)]
    y = ops.layer_norm(*given, 1e-5)
    slopes = jt.grad((y * jt.array(g)).sum(), given)
    expected = (inverse * (t - t.mean(-1, keepdims=True) - normal * (t * normal).mean(-1, keepdims=True)),
                (g * normal).sum(0), g.astype(np.float64).sum(0))
    for found, right in zip([y, *slopes], [normal * w + b, *expected]):
        np.testing.assert_allclose(found.numpy(), right, rtol=1e-4, atol=3e-6 * max(1, np.abs(right).max()))
    assert len(on_a_gpu) == 2


def spread_out(shape, rows: int):
    """Row numbers of pixels: the last row has most of them, all others have few."""
    return np.minimum(np.arange(np.prod(shape)) % (3 * rows), rows - 1).reshape(shape)


# name: (shape of x, rows of the table, the row of each pixel)
MODULATED = {"one row": ((3, 2, 5, 7), 1, np.zeros((3, 5, 7))),
             "one pixel": ((1, 1, 1, 1), 2, np.ones((1, 1, 1))),
             "rows without pixels": ((3, 3, 9, 11), 300, np.array([2, 7, 150])[spread_out((3, 9, 11), 3)]),
             "more channels than threads": ((1, 257, 3, 7), 2, spread_out((1, 3, 7), 2)),
             "two whole pieces": ((2, 1, 16, 16), 1, np.zeros((2, 16, 16))),
             "one whole part": ((1, 1, 32, 64), 5, spread_out((1, 32, 64), 5)),
             "a part and a pixel": ((2, 2, 3, 683), 5, spread_out((2, 3, 683), 5)),
             "more pieces than threads": ((1, 2, 43, 61), 300, spread_out((1, 43, 61), 300))}


def modulation_of(name):
    """x, its cotangent, the two tables and the rows of the pixels. The gain of a row without pixels is infinite; every
    third channel has a variance of about EPS."""
    shape, rows, index = MODULATED[name]
    draws, index = np.random.default_rng(len(name)), index.astype(np.int32)
    x, g = draws.standard_normal((2, *shape)).astype(np.float32)
    gain, shift = draws.standard_normal((2, rows, shape[1])).astype(np.float32)
    gain[np.bincount(index.ravel(), minlength=rows) == 0] = np.inf
    third = np.arange(shape[1])[:, None, None] % 3
    return np.where(third, 2 * x + 30 * third, 3e-3 * x).astype(np.float32), g, gain, shift, index


def modulated_as(expected, y, dx, dgain, dshift, mean, variance):
    """Each channel is compared by its own size."""
    for name, found in (("modulated", y), ("modulated gradient", dx), ("gain", dgain), ("shift", dshift),
                        ("mean", mean), ("variance", variance)):
        right = expected[name]
        others = tuple(axis for axis in range(right.ndim) if axis != min(right.ndim - 1, 1))
        size = np.maximum(1, np.abs(right).max(others, keepdims=True))
        np.testing.assert_allclose(found / size, right / size, rtol=0, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("name", MODULATED)
def test_normalised_modulation(name, on_a_gpu):
    arrays = modulation_of(name)
    x, g, gain, shift, index = map(jt.array, arrays)
    y, *moments = ops.normalize_modulate(x, gain, shift, index, EPS, SLOPE)
    found = [y, *jt.grad((y * g).sum(), [x, gain, shift]), *moments]
    modulated_as(joint_norm.truth(*arrays), *(each.numpy() for each in found))
    assert len(on_a_gpu) == 4


def test_normalised_modulation_of_two_processes(monkeypatch):
    """Both are computed here, twice: in the first round each tells its sums."""
    x, g, gain, shift, index = modulation_of("rows without pixels")
    told, expected = [], joint_norm.truth(x, g, gain, shift, index)

    def statistics(own, count):
        half = x[:2] if count == 2 * 99 else x[2:]
        np.testing.assert_allclose(own.numpy(), [half.mean((0, 2, 3)), half.var((0, 2, 3))], rtol=1e-5)
        return *(jt.array(expected[name].astype(np.float32)) for name in ("mean", "variance")), jt.array([3.0 * 99])

    def all_sum(sums):
        told.append(sums.numpy())
        return jt.array(sum(told[:2]))

    monkeypatch.setattr(processes, "statistics", statistics)
    monkeypatch.setattr(processes, "all_sum", all_sum)
    monkeypatch.setattr(processes, "share", lambda: SimpleNamespace(rows=1))
    for _ in range(2):
        found = []
        for half in (slice(0, 2), slice(2, 3)):
            own, slope, *rest = map(jt.array, (x[half], g[half], gain, shift, index[half]))
            y, *moments = ops.normalize_modulate(own, *rest, EPS, SLOPE, True)
            tensors = [y, *jt.grad((y * slope).sum(), [own, *rest[:2]]), *moments]
            found.append([tensor.numpy() for tensor in tensors])
    first, second = found
    modulated_as(expected, *(np.concatenate(pair) for pair in zip(first[:2], second[:2])),
                 *(sum(pair) for pair in zip(first[2:4], second[2:4])), *second[4:])


@pytest.mark.parametrize("name", MODULATED)
def test_pieces_have_few_pixels_of_one_row_in_their_order(name):
    _, rows, index = MODULATED[name]
    index = index.astype(np.int32)
    order, starts, firsts = pixels.cut(index, rows)
    pieces = np.split(order, starts[1:-1])
    assert starts[0] == 0 and starts[-1] == len(order) == index.size and 0 < max(map(len, pieces)) <= pixels.PIECE
    for row in range(rows):
        of_row = np.concatenate([*pieces[firsts[row]:firsts[row + 1]], np.zeros(0, np.int32)])
        np.testing.assert_array_equal(of_row, np.flatnonzero(index == row))


def test_the_variance_of_a_large_mean():
    x = np.random.default_rng(0).standard_normal((2, 2, 50, 50)).astype(np.float32) + 1e4
    mean, variance = (each.numpy() for each in pixels.moments(jt.array(x)))
    wide = x.astype(np.float64)
    np.testing.assert_allclose(mean, wide.mean((0, 2, 3)), rtol=1e-7)
    np.testing.assert_allclose(variance, wide.var((0, 2, 3)), rtol=1e-6)


def test_every_source_is_run(on_a_gpu):
    q, k = (jt.array(np.random.default_rng(seed).standard_normal((2, 3, 8)).astype(np.float32)) for seed in (1, 2))
    ops.softmax(q).sync()
    for mask in (None, jt.zeros((1, 2, 3, 3))):
        jt.grad(ops.attention(q, k, k, 2, mask).sum(), [q, k])[0].sync()
    jt.grad(ops.layer_norm(q, jt.ones(8), jt.zeros(8)).sum(), [q])[0].sync()
    x, table = q.reshape(1, 2, 3, 8), jt.ones((1, 2))
    y = ops.normalize_modulate(x, table, table, jt.zeros((1, 3, 8), "int32"), 1e-5, 0.2)[0]
    jt.grad(y.sum(), [x])[0].sync()
    assert {LAUNCH.search(source)[0].split("<")[0] for source in on_a_gpu} == {
        "softmax_rows", "softmax_rows_grad", "layer_norm_rows", "layer_norm_rows_grad", "part_moments",
        "modulate_pixels", "piece_sums", "pixels_grad"}


@pytest.mark.parametrize("number", range(3))
def test_a_missing_barrier_is_noticed(built, number):
    """Those of the sum over a block, in a kernel that sums twice."""
    start, end = rows.HEADER.index("double block_sum"), rows.HEADER.index("float block_max")
    parts = rows.HEADER[start:end].split("__syncthreads();")
    header = rows.HEADER[:start] + "__syncthreads();".join(parts[:number + 1]) + ";" + "__syncthreads();".join(
        parts[number + 1:]) + rows.HEADER[end:]
    x = np.random.default_rng(0).standard_normal((2, 300)).astype(np.float32)
    source = rows.with_numbers(rows.LAYER_NORM, eps="1e-5")
    with pytest.raises(AssertionError, match="a barrier is missing"):
        emulated(built, header, source, [x.shape, (2,), (2,)], [x, x[0], x[1]])


# name: (header, source, types of its inputs, of its outputs), with f for float32, d for float64 and i for int32
SOURCES = {"softmax": (rows.HEADER, rows.SOFTMAX, "f", "f"),
           "masked softmax": (rows.HEADER, rows.MASKED_SOFTMAX, "ff", "f"),
           "slope of softmax": (rows.HEADER, rows.SOFTMAX_GRAD, "ff", "f"),
           "layer norm": (rows.HEADER, rows.LAYER_NORM, "fff", "fff"),
           "slopes of layer norm": (rows.HEADER, rows.LAYER_NORM_GRAD, "fffff", "fff"),
           "moments": (pixels.HEADER, pixels.MOMENTS, "f", "ffd"),
           "modulation": (pixels.HEADER, pixels.MODULATE, "fffffi", "f"),
           "slopes of the rows": (pixels.HEADER, pixels.ROW_SUMS, "ffffffiii", "fffd"),
           "slope of the pixels": (pixels.HEADER, pixels.PIXELS_GRAD, "ffffifff", "f")}
NVCC = os.environ.get("nvcc_path") or shutil.which("nvcc")


@pytest.mark.skipif(not NVCC, reason="there is no nvcc: set nvcc_path")
@pytest.mark.parametrize("name", SOURCES)
def test_nvcc_compiles(name, tmp_path):
    """For an H100, as Jittor calls it."""
    header, source, *kinds = SOURCES[name]
    inputs, outputs = ([{"f": "float32", "d": "float64", "i": "int32"}[kind] for kind in each] for each in kinds)
    stubs = EMULATION[EMULATION.index("struct Shape"):]
    source = rows.with_numbers(source, scale="0.3f", heads="2", eps="1e-5", slope="0.2f")
    text = function(header, source, inputs, outputs)
    (tmp_path / "code.cu").write_text("#include <cstdint>\n" + stubs + text)
    done = subprocess.run([NVCC, "-std=c++17", "-Werror", "all-warnings", "-diag-suppress=177,550",
                           "-arch=compute_90", "-code=sm_90", "-c", "code.cu", "-o", "code.o"],
                          cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
