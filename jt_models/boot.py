"""Import Jittor on any machine, and leave the rest of the process unchanged.

This project imports Jittor only by `from jt_models.boot import jt, nn`. A plain `import jittor` downloads oneDNN, dies
if it finds an unusable nvcc, rebuilds its core in every container, switches TLS checks off, re-seeds `random` and
`numpy.random` from the time, replaces signal handlers and `sys.exit`, and compiles kernels with -Ofast, which breaks
NaN tests and makes NumPy flush denormals. Here the import sees a home folder, compile flags and host facts of our
own, and everything that it changes in the process is restored afterwards.
"""
import atexit
import contextlib
import ctypes
import ctypes.util
import functools
import hashlib
import importlib.util
import os
import pathlib
import platform
import random
import re
import shutil
import signal
import ssl
import stat
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from importlib.metadata import version

import numpy as np

from jittwin.errors import UserError
from jt_models.compile_progress import WRAPPER, count_kernels, counting_core
from jt_models.compiled_core import drop_unusable, note_libraries


class JittorSetupError(UserError):
    """The machine lacks something that Jittor needs. The message names it and the fix."""


# IEEE semantics at nearly -Ofast speed. An explicit -O stops Jittor from adding
# -Ofast; the define (not the flag) turns on libmvec's vector exp, tanh and erf.
CORE_FLAGS = " -O2 "
KERNEL_FLAGS = (" -O3 -fno-math-errno -fno-trapping-math -fno-signed-zeros"
                " -fassociative-math -freciprocal-math -D__FAST_MATH__ ")

# glibc's struct sigaction is 152 bytes on x86-64 and aarch64.
_SIGACTION_BYTES = 256
# Jittor puts paths into command lines without quotes, and reads and writes them in the system's encoding.
_PLAIN_PATH = re.compile(r"[A-Za-z0-9_./+@%=:,~-]*")
_LINKS = ("/var/tmp", "/tmp")     # folders for links to a cache whose path is not plain
_SIGNALS = ("SIGINT", "SIGSEGV", "SIGFPE", "SIGCHLD", "SIGILL", "SIGBUS", "SIGQUIT", "SIGTERM")


def cache_root() -> pathlib.Path:
    """The folder of compiled Jittor code, in JITTWIN_CACHE or the XDG cache directory.

    Each kind of CPU has its own, because kernels are compiled with -march=native. The CPU's flags tell kinds apart,
    since a model name such as "AMD EPYC" does not tell AVX2 from AVX-512.
    """
    base = os.environ.get("JITTWIN_CACHE")
    if not base:
        xdg = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
        base = pathlib.Path(xdg) / "jittwin"
    facts = platform.machine() + "-".join(platform.libc_ver())
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as info:
        facts += next((line for line in info if line.startswith(("flags", "Features"))), "")
    return pathlib.Path(base).absolute() / ("jittor-" + hashlib.sha1(facts.encode()).hexdigest()[:10])


def compiler_root() -> pathlib.Path:
    """The folder of compiled code by a path that Jittor's compiler can read: cache_root(), or a link to it.

    JittorSetupError: the path of the folder has blanks or characters beyond ASCII, and no link can be made.
    """
    root = cache_root()
    if not _PLAIN_PATH.fullmatch(str(root)):
        root.mkdir(parents=True, exist_ok=True)
    return _plain(root, "set JITTWIN_CACHE to")


def _plain(folder: pathlib.Path, remedy: str) -> pathlib.Path:
    """`folder`, or a link to it whose path is plain. JittorSetupError: no link can be made; remedy: what to do."""
    if _PLAIN_PATH.fullmatch(str(folder)):
        return folder
    for place in _LINKS:
        with contextlib.suppress(OSError):
            return _linked(folder, pathlib.Path(place, f"jittwin-{os.getuid()}"))
    raise JittorSetupError(f"Jittor's compiler cannot read the path {folder}, which holds {_unusual(folder)}, and no "
                           f"link to it can be made in {' or '.join(_LINKS)}: {remedy} a folder whose path holds only "
                           "ASCII letters, digits and . _ -")


def _linked(target: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    """A link to `target` in a folder to which nobody else can write. OSError: there is no such folder."""
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    facts = folder.lstat()
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid() or facts.st_mode & 0o022:
        raise PermissionError(f"{folder} is not this user's alone")
    link = folder / hashlib.sha1(os.fsencode(target)).hexdigest()[:10]
    if not (link.is_symlink() and os.readlink(link) == str(target)):
        temporary = link.with_name(f"{link.name}.{os.getpid()}")
        temporary.symlink_to(target)
        temporary.replace(link)
    return link


def _unusual(path) -> str:
    """The characters that make a path unfit for command lines, for a message."""
    found = dict.fromkeys(each for each in str(path) if not _PLAIN_PATH.fullmatch(each))
    return ", ".join("a blank" if each == " " else f"'{each}'" if each.isprintable() else ascii(each)
                     for each in found)


@contextlib.contextmanager
def _imported_by_a_plain_path() -> Iterator[None]:
    """Within this context Jittor is imported from its folder, or from a link to it whose path is plain."""
    found = importlib.util.find_spec("jittor")
    packages = pathlib.Path(found.origin).parents[1] if found and found.origin else None
    link = packages and _plain(packages, "make the virtual environment in")
    if link == packages:
        yield
        return
    sys.path.insert(0, str(link))
    try:
        yield
    finally:
        sys.path.remove(str(link))


def check_headers() -> None:
    """Raise JittorSetupError if Jittor's compiler cannot read the path of Python's headers."""
    include = sysconfig.get_paths()["include"]
    if not _PLAIN_PATH.fullmatch(include):
        raise JittorSetupError(f"Jittor's compiler cannot read the path of Python's headers, {include}, which holds "
                               f"{_unusual(include)}: use a Python that is installed in a folder whose path holds only "
                               "ASCII letters, digits and . _ -")


def check_toolchain() -> None:
    """Raise JittorSetupError if g++, Python.h or a NumPy below 2 is missing; it names the first and its package."""
    if not (os.environ.get("cc_path") or shutil.which("g++")):
        raise JittorSetupError("Jittor compiles C++ at run time and g++ was not found: "
                               "install it (Debian/Ubuntu: apt-get install g++)")
    include = sysconfig.get_paths()["include"]
    if not os.path.isfile(os.path.join(include, "Python.h")):
        raise JittorSetupError(f"Python.h was not found in {include}: install the Python headers "
                               "(Debian/Ubuntu: apt-get install python3-dev)")
    if int(version("numpy").split(".")[0]) >= 2:
        raise JittorSetupError(f"NumPy {version('numpy')} is installed and jittor 1.3.11 reads wrong "
                               "memory under NumPy 2: pip install 'numpy<2'")


def nvcc_path() -> str | None:
    """The CUDA compiler: the environment variable nvcc_path, else the first on PATH."""
    return os.environ.get("nvcc_path") or shutil.which("nvcc")


def cuda_missing() -> str:
    """What this machine lacks for Jittor on a GPU, in one line; "" if nothing does."""
    try:
        driver, count = ctypes.CDLL("libcuda.so.1"), ctypes.c_int(0)
    except OSError:
        return "there is no NVIDIA driver (libcuda.so.1): install it"
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)) or not count.value:
        return "the NVIDIA driver finds no device: see nvidia-smi and CUDA_VISIBLE_DEVICES"
    nvcc = nvcc_path()
    if not nvcc or not os.path.isfile(nvcc):
        return "there is no nvcc, with which Jittor compiles: put CUDA's bin folder into PATH, or set nvcc_path"
    home = pathlib.Path(os.path.realpath(nvcc)).parents[1]
    folder = pathlib.Path("/usr/lib/x86_64-linux-gnu") if nvcc == "/usr/bin/nvcc" else home / "lib64"
    for name in ("cudart", "cublas", "curand"):
        if not any((place / f"lib{name}.so").exists() for place in (folder, *home.glob("targets/*/lib"))):
            return f"lib{name}.so is not in {folder}: install it beside {nvcc}"
    told = subprocess.run([nvcc, "--version"], capture_output=True, text=True).stdout
    found = re.search(r"release (\d+)", told)
    release = int(found.group(1)) if found else 0
    if release < 11:
        return f"{nvcc} tells no version from CUDA 11 on, which Jittor needs: install CUDA 12"
    packages = importlib.util.find_spec("jittor")
    header = pathlib.Path(packages.origin).parent / "extern/cuda/inc/helper_cuda.h"
    if release >= 13 and "deviceProp.computeMode" in header.read_text():
        return (f"{nvcc} is of CUDA {release}, which does not compile this Jittor: use CUDA 12, or edit Jittor with "
                "scripts/cuda_jittor.py")
    return ""


def _write(path: pathlib.Path, text: str, mode: int = 0o644) -> None:
    """Write atomically, and only if the content differs, because two processes may start at once."""
    if path.exists() and path.read_text() == text:
        return
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    temporary.write_text(text)
    temporary.chmod(mode)
    temporary.replace(path)


def _python_config(root: pathlib.Path) -> str:
    """The path of a python-config script for this interpreter. Jittor alone would search /usr/bin for one, even under
    pyenv, uv or conda."""
    paths = sysconfig.get_paths()
    script = root / "python-config"
    _write(script, '#!/bin/sh\ncase "$1" in\n'
           f"--includes) echo '-I{paths['include']} -I{paths['platinclude']}';;\n"
           f"--extension-suffix) echo '{sysconfig.get_config_var('EXT_SUFFIX')}';;\nesac\n", 0o755)
    return str(script)


def _onednn_dir() -> pathlib.Path:
    return compiler_root() / ".cache/jittor/mkl/dnnl_lnx_2.2.0_cpu_gomp"


def _provide_onednn() -> bool:
    """Link the oneDNN wheel to the place to which Jittor would download an archive. Returns whether oneDNN is there."""
    prefix = pathlib.Path(sys.prefix)
    if not (prefix / "lib/libmkldnn.so").exists():
        return (_onednn_dir() / "lib/libmkldnn.so").exists()
    for folder, patterns in (("include", ("dnnl*", "mkldnn*", "oneapi")),
                             ("lib", ("libdnnl.so*", "libmkldnn.so*"))):
        (_onednn_dir() / folder).mkdir(parents=True, exist_ok=True)
        for source in (s for p in patterns for s in (prefix / folder).glob(p)):
            link = _onednn_dir() / folder / source.name
            if not (link.is_symlink() and os.readlink(link) == str(source)):
                temporary = link.with_name(f"{link.name}.{os.getpid()}")
                temporary.symlink_to(source)
                temporary.replace(link)
    return True


@functools.cache
def onednn_flags() -> str:
    """The compiler flags for our kernels that call oneDNN. JittorSetupError if oneDNN is not installed."""
    folder = _onednn_dir()
    if not (folder / "lib/libmkldnn.so").exists():
        raise JittorSetupError("convolution and attention need oneDNN: pip install onednn-devel-cpu-gomp==2021.2.0, "
                               "or set JITTWIN_KERNELS=portable")
    return f'FLAGS: -I"{folder}/include" -L"{folder}/lib" -lmkldnn -Wl,-rpath,"{folder}/lib" '


def _import_environment(root: pathlib.Path) -> dict:
    """The environment variables that Jittor reads while it is imported."""
    env = {
        "HOME": str(root),                 # not JITTOR_HOME, which Jittor would write to the user's config
        "python_config_path": _python_config(root),
        "cache_name": "default",           # else the git branch around site-packages names the cache
        "log_silent": "1",
        "gdb_path": "",
        "FIX_TORCH_ERROR": "0",            # else Jittor imports torch
        "use_mpi": "1" if "OMPI_COMM_WORLD_SIZE" in os.environ else "0",
        "cc_flags": CORE_FLAGS,
        "kernel_flags": KERNEL_FLAGS,
    }
    # Jittor can be given a GPU only while it is imported. It would download cutt, cutlass and nccl, and die without
    # cuDNN 8 unless conv_opt is set.
    on_gpu = os.environ.get("JITTWIN_CUDA") == "1" and not cuda_missing()
    env |= {"nvcc_path": nvcc_path() if on_gpu else "", "conv_opt": "1",
            "use_cutt": "0", "use_cutlass": "0", "use_nccl": "0"}
    mpicc = os.path.join(sys.prefix, "bin/mpicc")
    if env["use_mpi"] == "1" and os.path.exists(mpicc):
        env["mpicc_path"] = mpicc
    if not _provide_onednn():
        env["use_mkl"] = "0"
    return env


@contextlib.contextmanager
def _process_state_kept():
    """Restore whatever `import jittor` changes in the process.

    Only the stack limit stays at Jittor's 512 MB, because deep lazy graphs recurse on the stack.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    actions = {int(getattr(signal, name)): ctypes.create_string_buffer(_SIGACTION_BYTES) for name in _SIGNALS}
    for number, buffer in actions.items():
        libc.sigaction(number, None, buffer)
    kept = (dict(os.environ), ssl._create_default_https_context, sys.getrecursionlimit(), sys.exit,
            sys.excepthook, random.getstate(), np.random.get_state(), platform.platform, platform.node)
    try:
        yield
    finally:
        environment, ssl._create_default_https_context, limit, sys.exit, sys.excepthook, *rest = kept
        os.environ.clear()
        os.environ.update(environment)
        sys.setrecursionlimit(limit)
        random.setstate(rest[0])
        np.random.set_state(rest[1])
        platform.platform, platform.node = rest[2:]
        for number, buffer in actions.items():
            libc.sigaction(number, buffer, None)


def _fast_kernel_compile(jt) -> None:
    """Make kernels compile three times as fast, with precompiled headers and without the assembler pass in Python."""
    folder = pathlib.Path(jt.flags.cache_path) / "fastcc"
    folder.mkdir(exist_ok=True)
    header, wrapper, key = folder / "jtpch.h", folder / "cc.sh", folder / "key"
    flags = " ".join(f for f in jt.flags.cc_flags.split()
                     if not re.match(r'"?(-l|-L|-Wl|-shared)', f) and ".so" not in f)
    if not key.exists() or key.read_text() != flags:
        _write(header, "#define JIT 1\n#define JIT_cpu 1\n#include <cmath>\n#include <algorithm>\n"
                       '#include <cassert>\n#include "var.h"\n#include "op.h"\n')
        compiled, temporary = f"{header}.gch", f"{header}.gch.{os.getpid()}"
        subprocess.check_call(f'"{jt.flags.cc_path}" {flags} -x c++-header "{header}" -o "{temporary}"',
                              shell=True)
        os.replace(temporary, compiled)
        _write(key, flags)
    _write(wrapper, WRAPPER, 0o755)
    jt.flags.python_path = str(wrapper)
    jt.flags.cc_flags += f' -include "{header}" '


def _end_compile_pool(jittor_utils) -> None:
    """End the up to 16 forked compile workers that Jittor would keep for the rest of the process."""
    if jittor_utils.pool_size:
        atexit.unregister(jittor_utils.pool_cleanup)
        jittor_utils.pool_cleanup()
        jittor_utils.pool_size = 0


def _import_jittor(root: pathlib.Path):
    """Import jittor in the prepared environment. A message comes first if Jittor's core has to be compiled."""
    for name in ("JITTOR_HOME", "debug"):      # Jittor would store the first, and use another cache for the second
        os.environ.pop(name, None)
    os.environ.update(_import_environment(root))
    # Jittor's cache key includes kernel release and host name, so every new container would compile everything.
    platform.platform, platform.node = lambda *args, **kwargs: "jittwin", lambda: ""
    import jittor_utils
    cache = pathlib.Path(jittor_utils.cache_path)
    with jittor_utils.lock.lock_scope():
        drop_unusable(cache)
    cold = not any(cache.glob("jittor_core*.so.key"))
    if cold:
        print(f"jittwin: compiling Jittor's core, once for this machine and virtual environment, "
              f"in 2 to 5 minutes ({cache})", file=sys.stderr, flush=True)
    try:
        with counting_core(cache) if cold else contextlib.nullcontext():
            import jittor
        if jittor.flags.nvcc_path:
            # With fast arithmetic, exp and division lose digits and denormals count as zero.
            jittor.flags.nvcc_flags = jittor.flags.nvcc_flags.replace("--use_fast_math", "")
        else:
            # Jittor's compile threads add oneDNN's operators to one graph without a lock, which may kill the process.
            jittor.flags.use_parallel_op_compiler = 0
            _fast_kernel_compile(jittor)
        _end_compile_pool(jittor_utils)
        note_libraries(cache)
    except SystemExit as error:
        raise JittorSetupError(f"Jittor has built a part of its core in {cache} again, because it was made in another "
                               "folder: run the command again") from error
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise JittorSetupError(f"Jittor did not build or load ({type(error).__name__}: {reason}): if its "
                               f"compiled files are damaged, delete {cache} and try again") from error
    return jittor


def _load():
    if "jittor" in sys.modules:
        raise JittorSetupError("jittor was imported before jt_models: import jt_models.boot first, "
                               "because the compile flags cannot be changed afterwards")
    check_toolchain()
    check_headers()
    root = cache_root()
    try:
        root = compiler_root()
        root.mkdir(parents=True, exist_ok=True)
        with _process_state_kept(), _imported_by_a_plain_path():
            jittor = _import_jittor(root)
    except OSError as error:
        raise JittorSetupError(f"the folder for compiled Jittor code, {root}, cannot be written "
                               f"({error.strerror}): set JITTWIN_CACHE to one that can") from error
    count_kernels()
    return jittor


jt = _load()
nn = jt.nn
