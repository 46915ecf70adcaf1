"""L0: what each worker computes with, and what must hold in both before any comparison means something.

The names in brackets are entries of the catalogue of Jittor's differences.
"""
import ctypes
import hashlib
import importlib
import math
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from jittwin.errors import UserError
from parity.result import Row, row
from parity.workers.compare import Verdict, equal
from parity.workers.oracle import Twins
from parity.workers.side import Arrays, Side, global_generators
from parity.workers.worker import WorkerError

EXCLUDED = {"jittor": ("torch", "transformers"), "torch": ("jittor",)}       # packages that a side must not import
DTYPES = ("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64",
          "float16", "float32", "float64")
BYTES = "every element type keeps its bytes"
DENORMAL = np.float32(1e-40)


def samples() -> Arrays:
    """Per element type the values that are lost most easily: extremes, -0, infinities, NaN, the smallest denormal."""
    arrays = {}
    for name in DTYPES:
        dtype = np.dtype(name)
        if dtype.kind == "f":
            limits = np.finfo(dtype)
            values = [0.0, -0.0, 1 / 3, limits.max, limits.min, limits.tiny, limits.smallest_subnormal,
                      math.inf, -math.inf, math.nan]
        else:
            values = [0, 1] if dtype.kind == "b" else [0, 1, np.iinfo(dtype).min, np.iinfo(dtype).max]
        arrays[name] = np.array(values, dtype)
    return arrays


def framework(side: Side):
    if side.name == "torch":
        return importlib.import_module("torch")
    return importlib.import_module("jt_models.boot").jt


# ---- what must hold: each function returns what is wrong, or "" ------------------------

def alone(side: Side) -> str:
    return ", ".join(f"{name} is imported" for name in EXCLUDED[side.name] if name in sys.modules)


def generators_kept(side: Side) -> str:
    """Importing and using the framework leaves the generators of Python and NumPy where they were."""
    before = global_generators()
    side.host(side.backend.randn((4,)))
    if global_generators() != before:
        return "drawing on the device moves them"
    return "" if side.generators_kept else "importing the framework moves them"


def numpy_fits(side: Side) -> str:
    return f"NumPy {np.__version__}" if side.name == "jittor" and int(np.__version__.split(".")[0]) >= 2 else ""


def wide_numbers(side: Side) -> str:
    """Arithmetic on int64 and float64 tensors stays 64 bits wide."""
    for number, one in ((np.int64(2 ** 40), np.int64(1)), (np.float64(1.0), np.float64(2.0 ** -40))):
        found = side.host(side.tensor(np.array([number])) + side.tensor(np.array([one])))
        if found.dtype != number.dtype or found[0] != number + one:
            return f"{number} + {one} gives {found.dtype} {found[0]}"
    return ""


def nan_unequal(side: Side) -> str:
    nan = side.tensor(np.array([np.nan], np.float32))
    if side.host(nan == nan).any() or not side.host(nan != nan).all():
        return "NaN equals itself"
    return ""


def sigmoid_exact(side: Side) -> str:
    found = side.host(framework(side).sigmoid(side.tensor(np.zeros(8, np.float32))))
    return "" if (found == 0.5).all() else f"sigmoid(0) is {found[0]!r}"


def denormals_kept(side: Side) -> str:
    """Checked after kernels have run: a kernel built with -Ofast turns denormals off for its whole thread."""
    one = np.ones(8, np.float32)
    if not (DENORMAL * one).all():
        return "NumPy in this process takes denormals for zero"
    if not (side.host(side.tensor(DENORMAL * one) * side.tensor(one))).all():
        return "the framework takes denormals for zero"
    return ""


OWED: dict[str, tuple[str, Callable[[Side], str]]] = {
    "the other framework is not imported": ("P1", alone),
    "global generators are left alone": ("P5", generators_kept),
    "NumPy is one the framework was built for": ("P4", numpy_fits),
    "64-bit numbers stay 64 bits wide": ("P6", wide_numbers),
    "NaN differs from itself": ("P2", nan_unequal),
    "sigmoid(0) is exactly 1/2": ("P3", sigmoid_exact),
    "denormals are kept": ("P1", denormals_kept),
}


# ---- what is recorded ------------------------------------------------------------------

def processor() -> str:
    """The CPU's name and its vector instruction sets, for which kernels are compiled."""
    name, flags = platform.processor() or platform.machine(), ""
    if os.path.exists("/proc/cpuinfo"):
        lines = dict(re.split(r"\s*:\s*", line, maxsplit=1) for line in Path("/proc/cpuinfo").read_text().splitlines()
                     if ":" in line)
        name, flags = lines.get("model name", name), lines.get("flags", "").split()
    return " ".join([name, *(kind for kind in ("avx2", "avx512f") if kind in flags)])


def source_hash(package: str) -> str:
    """The hash of the Python files of the package in use, 16 hexadecimal digits."""
    digest, folder = hashlib.sha256(), Path(importlib.import_module(package).__path__[0])
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def built_with(side: Side) -> tuple[str, str]:
    """The compiler, and its flags that change results."""
    if side.name == "torch":
        shown = framework(side).__config__.show()
        compiler, flags = re.search(r"GCC \S+|[Cc]lang \S+|MSVC \S+", shown), re.search(r"CXX_FLAGS=([^,]*)", shown)
        return compiler.group() if compiler else "unknown", arithmetic(flags.group(1) if flags else "")
    flags = framework(side).flags
    version = subprocess.run([flags.cc_path, "--version"], capture_output=True, text=True).stdout.splitlines()
    return version[0] if version else flags.cc_type, arithmetic(flags.cc_flags)


def arithmetic(flags: str) -> str:
    """The compiler flags that change results: optimisation, machine, floating-point rules."""
    kept = re.compile(r"-O|-m|-D__FAST_MATH__|-ffast-math|-fno-(math|trapping|signed)|-f(associative|reciprocal)")
    return " ".join(dict.fromkeys(flag for flag in shlex.split(flags) if kept.match(flag)))


def kernels(side: Side) -> str:
    """Whose code computes what Jittor itself computes slowly or wrongly: in C++, or in Jittor's own operators."""
    return "PyTorch's own" if side.name == "torch" else side.twin("nn.kernels.kernel").form()


def threads(side: Side) -> int:
    if side.name == "torch":
        return framework(side).get_num_threads()
    return ctypes.CDLL("libgomp.so.1").omp_get_max_threads()


def sigmoid_error(side: Side) -> float:
    """The largest error of float32 sigmoid on [-8, 8], in units in the last place."""
    x = np.linspace(-8, 8, 4097, dtype=np.float32)
    right = 1 / (1 + np.exp(-x.astype(np.float64)))
    found = side.host(framework(side).sigmoid(side.tensor(x)))
    return round(float(np.max(np.abs(found - right) / np.spacing(right.astype(np.float32)))), 2)


def facts(side: Side) -> dict:
    """Facts for the report; no check depends on them."""
    compiler, flags = built_with(side)
    maximum = framework(side).maximum(*(side.tensor(np.array([v], np.float32)) for v in (np.nan, 0)))
    tenth = side.host(side.tensor(np.array([1.0])) * 0.1)[0] - 0.1
    return {
        "framework": f"{framework(side).__name__} {framework(side).__version__}", "device": side.backend.device,
        "python": platform.python_version(), "numpy": np.__version__,
        "system": f"{platform.system()} {platform.machine()}, {' '.join(platform.libc_ver())}",
        "processor": processor(), "threads": threads(side), "compiler": compiler, "flags": flags,
        "kernels": kernels(side),
        "source": f"{side.package} {source_hash(side.package)}",
        "sigmoid, worst error in ULP [P3]": sigmoid_error(side),
        "maximum(NaN, 0) [P2]": str(side.host(maximum)[0]),
        "float64 times 0.1, error [P7]": f"{tenth:.1e}",
        "shape of a scalar [P10]": str(side.host(side.tensor(np.ones(2, np.float32)).sum()).shape),
    }


def observe(side: Side, arrays: Arrays) -> tuple[Arrays, dict]:
    """In a worker: the arrays after a way through the framework, the facts, and what is wrong with each promise."""
    numpy_before = bool(DENORMAL * np.float32(1))
    copies = {name: side.host(side.tensor(a)) for name, a in arrays.items()}
    recorded = facts(side) | {"NumPy kept denormals before [P1]": "yes" if numpy_before else "no"}
    return copies, {"facts": recorded, "broken": {name: probe(side) for name, (_, probe) in OWED.items()}}


def attestation(twins: Twins) -> dict:
    """{"verdict", "made", "facts": {framework: {name: value}}, "owed": [{"promise", "id", framework: reason}, …]}."""
    sent = samples()
    results = twins.both(observe, sent)
    broken = {name: values["broken"] for name, (_, values) in results.items()}
    owed = [{"promise": promise, "id": identity, **{name: broken[name][promise] for name in results}}
            for promise, (identity, _) in OWED.items()]
    owed.insert(0, {"promise": BYTES, "id": "P6", **{
        name: "; ".join(f"{dtype}: {reason}" for dtype in sent if (reason := equal(copies[dtype], sent[dtype]).reason))
        for name, (copies, _) in results.items()}})
    failed = any(entry[name] for entry in owed for name in results)
    return {"verdict": "fail" if failed else "pass", "made": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
            "facts": {name: values["facts"] for name, (_, values) in results.items()}, "owed": owed}


def check(twins: Twins) -> list[Row]:
    """The row of this level."""
    found = attestation(twins)
    verdicts = {f"{name}: {entry['promise']}": Verdict(np.inf if entry[name] else 0.0, 0.0, 0.0, 0.0, entry[name])
                for entry in found["owed"] for name in found["facts"]}
    result = row("environment", "L0", "", verdicts, "", attestation=found)
    if result.passed:
        result.worst = ""                       # all hold alike, so none is the worst
    return [result]


def attested(twins: Twins) -> dict:
    """The attestation; if it cannot be made, {"verdict": "fail", "reason": why}."""
    try:
        return attestation(twins)
    except (WorkerError, UserError) as error:
        return {"verdict": "fail", "reason": str(error)}
