"""Importing Jittor through jt_models.boot leaves the process, the environment and the user's files alone.

State that must be seen before and after the import is observed in a subprocess. Every subprocess uses the
cache that is there already: another cache folder would compile the core again.
"""
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import textwrap
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from jt_models import boot, compiled_core
from jt_models.boot import jt
from jittwin.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
CACHE = str(boot.cache_root().parent)

# Prints one JSON object: the process state before the import, after it, and after kernels have run.
PROBE = """
import ctypes, json, locale, os, platform, random, resource, signal, ssl, struct
import hashlib, logging, multiprocessing, subprocess, sys, threading, time, warnings
import numpy as np
libc = ctypes.CDLL(None)
libc.getenv.restype = ctypes.c_char_p

def handler(number):
    buffer = ctypes.create_string_buffer(256)
    libc.sigaction(number, None, buffer)
    function, mask = struct.unpack_from("2Q", buffer)
    flags = struct.unpack_from("I", buffer, 136)[0] & ~0x04000000     # glibc's own SA_RESTORER
    return [function, mask, flags]

def digest(value):
    return hashlib.sha1(repr(value).encode()).hexdigest()

def state():
    return {
        "signal handlers": {n: handler(n) for n in range(1, 32) if n not in (signal.SIGKILL, signal.SIGSTOP)},
        "Python signal handlers": {n: repr(signal.getsignal(n)) for n in range(1, 32)},
        "TLS context": ssl._create_default_https_context.__name__,
        "random state": digest(random.getstate()),
        "numpy random state": digest([np.asarray(x).tolist() for x in np.random.get_state()]),
        "recursion limit": sys.getrecursionlimit(),
        "environment": dict(os.environ),
        "C environment": [str(libc.getenv(k)) for k in (b"HOME", b"cc_flags", b"JITTOR_HOME", b"nvcc_path")],
        "sys.exit": digest(sys.exit),
        "sys.excepthook": digest(sys.excepthook),
        "threading.excepthook": digest(threading.excepthook),
        "dlopen flags": sys.getdlopenflags(),
        "warning filters": digest(warnings.filters),
        "log handlers": len(logging.getLogger().handlers),
        "working directory": os.getcwd(),
        "locale": locale.setlocale(locale.LC_ALL),
        "platform": [platform.platform(), platform.node()],
        "open file limit": resource.getrlimit(resource.RLIMIT_NOFILE),
        "child processes": len(multiprocessing.active_children()),
        "numpy errors": np.geterr(),
    }

connections, writes = [], []
def audit(event, arguments):
    if event in ("socket.connect", "urllib.Request"):
        connections.append(str(arguments))
    if event == "open" and isinstance(arguments[0], str) and not arguments[0].endswith(".pyc"):
        path, mode, flags = arguments
        if (isinstance(mode, str) and set(mode) & set("wax+")) or flags & (os.O_WRONLY | os.O_RDWR):
            writes.append(path)

random.seed(7), np.random.seed(7)
platform.platform(), platform.node()
before = state()
sys.addaudithook(audit)
from jt_models.boot import jt
after = state()

x = jt.array(np.array([[1.0, 2.0], [3.0, np.nan]], dtype="float32"))
y = jt.nn.softmax(x @ x.transpose(), dim=1).exp() + jt.randn((2, 2))
y.sync()
tiny = jt.array(np.full(8, 1e-40, dtype="float32"))
threads = []
thread = threading.Thread(target=lambda: threads.append(float(np.float32(1e-40) * np.float32(1))))
thread.start(), thread.join()
killed = subprocess.Popen(["sleep", "60"])
killed.kill()
ended = killed.wait()
try:
    subprocess.run(["sleep", "60"], timeout=0.05)
except subprocess.TimeoutExpired:
    ended = [ended, "timeout"]
time.sleep(0.1)
print(json.dumps({
    "before": before, "after": after, "late handlers": state()["signal handlers"],
    "connections": connections, "writes": writes,
    "numpy denormal": float((np.full(8, 1e-40, dtype="float32") * np.float32(1))[3]),
    "thread denormal": threads[0], "kernel denormal": float((tiny * 2).numpy()[3]), "killed": ended,
    "flags": jt.flags.cc_flags, "nvcc": jt.flags.nvcc_path, "cache": jt.flags.cache_path,
}))
"""


def run_python(code: str, **environment) -> subprocess.CompletedProcess:
    env = {**os.environ, "JITTWIN_CACHE": CACHE, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run([sys.executable, "-c", textwrap.dedent(code)], env=env, cwd=ROOT, text=True,
                          capture_output=True, timeout=120)


@pytest.fixture(scope="module")
def probe(tmp_path_factory):
    """The probe's report from a process in a hostile environment; "home" lists what appeared there."""
    home, tools = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("tools")
    nvcc = tools / "nvcc"
    nvcc.write_text("#!/bin/sh\necho 'Cuda compilation tools, release 13.0, V13.0.88'\n")
    nvcc.chmod(0o755)
    done = run_python(PROBE, HOME=str(home), JITTOR_HOME=str(home / "elsewhere"),
                      XDG_CACHE_HOME=str(home / "xdg"), cc_flags="-DSET_BY_THE_USER", debug="1",
                      PATH=f"{tools}:{os.environ['PATH']}")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    report["stderr"] = done.stderr
    report["home"] = [str(p.relative_to(home)) for p in home.rglob("*")]
    return report


def test_nothing_in_the_process_is_left_changed(probe):
    changed = {name for name, value in probe["before"].items() if probe["after"][name] != value}
    assert not changed
    assert probe["late handlers"] == probe["before"]["signal handlers"]


def test_denormals_survive(probe):
    assert probe["numpy denormal"] == pytest.approx(1e-40, rel=1e-4)
    assert probe["thread denormal"] == pytest.approx(1e-40, rel=1e-4)
    assert probe["kernel denormal"] == pytest.approx(2e-40, rel=1e-4)


def test_the_users_home_is_not_touched(probe):
    assert probe["home"] == []


def test_every_file_written_lies_in_the_cache(probe):
    outside = [p for p in probe["writes"] if not p.startswith((CACHE, "/dev/", "/proc/"))]
    assert not outside


def test_no_connection_is_opened(probe):
    assert probe["connections"] == []


def test_the_users_jittor_settings_are_ignored(probe):
    assert probe["before"]["environment"]["cc_flags"] == "-DSET_BY_THE_USER"
    assert "SET_BY_THE_USER" not in probe["flags"]
    assert probe["cache"] == jt.flags.cache_path


def test_a_stray_nvcc_is_tolerated(probe):
    assert probe["nvcc"] == ""


def test_a_killed_child_does_not_end_the_process(probe):
    assert probe["killed"] == [-signal.SIGKILL, "timeout"]


def test_a_warm_import_is_silent(probe):
    assert probe["stderr"] == ""


def test_kernels_are_compiled_in_one_thread():
    """With several, 36 convolutions of one tensor ended 4 of 180 processes on a busy machine; with one, none of 400."""
    assert jt.flags.use_parallel_op_compiler == 0


def test_ctrl_c_raises_keyboard_interrupt():
    code = ("import time\nfrom jt_models.boot import jt\njt.ones((2, 2)).sync()\n"
            "try:\n    print('ready', flush=True)\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    print('interrupted')\n")
    child = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT,
                             env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "ready\n"
    child.send_signal(signal.SIGINT)
    output, _ = child.communicate(timeout=60)
    assert (output, child.returncode) == ("interrupted\n", 0)


def test_exit_status_is_kept():
    assert run_python("import sys; from jt_models.boot import jt; jt.ones(3); sys.exit(3)").returncode == 3


def test_nan_differs_from_itself_inside_kernels():
    x = jt.array(np.array([1.0, np.nan, np.inf], dtype="float32"))
    assert (x != x).numpy().tolist() == [False, True, False]
    assert (x * 1 == x * 1).numpy().tolist() == [True, False, True]
    assert jt.isnan(x).numpy().tolist() == [False, True, False]
    assert jt.isinf(x).numpy().tolist() == [False, False, True]


def test_fast_kernel_compile_is_in_use():
    assert jt.flags.python_path.endswith("cc.sh") and "jtpch.h" in jt.flags.cc_flags
    assert "-Ofast" not in jt.flags.cc_flags and "-ffast-math" not in jt.flags.cc_flags
    assert not list(Path(jt.flags.cache_path, "jit").glob("*.s"))


def test_jittor_before_boot_is_refused():
    done = run_python("import sys, types\nsys.modules['jittor'] = types.ModuleType('jittor')\n"
                      "import jt_models.boot")
    assert done.returncode == 1
    assert "import jt_models.boot first" in done.stderr.splitlines()[-1]


def test_a_cache_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    done = run_python("import jt_models.boot", JITTWIN_CACHE=str(tmp_path / "file" / "cache"))
    last = done.stderr.splitlines()[-1]
    assert str(tmp_path / "file") in last and "set JITTWIN_CACHE" in last


@pytest.mark.parametrize("break_it, words", [
    (lambda m: m.setattr(shutil, "which", lambda name: None), ["g++", "apt-get install g++"]),
    (lambda m: m.setattr(sysconfig, "get_paths", lambda: {"include": "none"}), ["Python.h", "python3-dev"]),
    (lambda m: m.setattr(boot, "version", lambda name: "2.1.0"), ["2.1.0", "numpy<2"]),
])
def test_a_missing_tool_gives_one_line_with_the_fix(monkeypatch, break_it, words):
    monkeypatch.delenv("cc_path", raising=False)
    boot.check_toolchain()
    break_it(monkeypatch)
    with pytest.raises(UserError) as caught:
        boot.check_toolchain()
    message = str(caught.value)
    assert "\n" not in message and all(word in message for word in words)


class Driver:
    """NVIDIA's driver library with this many devices."""

    def __init__(self, devices: int):
        self.devices = devices

    def cuInit(self, flags):
        return 0 if self.devices else 100

    def cuDeviceGetCount(self, count):
        count._obj.value = self.devices
        return 0


@pytest.fixture
def gpu(monkeypatch, tmp_path):
    """Pretends that this machine has a GPU and CUDA 12 in tmp_path / "cuda"; tests take parts away."""
    binaries = tmp_path / "cuda/bin"
    binaries.mkdir(parents=True)
    (tmp_path / "cuda/lib64").mkdir()
    for name in ("cudart", "cublas", "curand"):
        (tmp_path / f"cuda/lib64/lib{name}.so").touch()
    (binaries / "nvcc").write_text("#!/bin/sh\necho 'Cuda compilation tools, release 12.6, V12.6.20'\n")
    (binaries / "nvcc").chmod(0o755)
    monkeypatch.setattr(boot.ctypes, "CDLL", lambda name: Driver(1))
    monkeypatch.setenv("nvcc_path", str(binaries / "nvcc"))
    return tmp_path / "cuda"


def test_a_gpu_is_used_on_request_only(gpu, monkeypatch):
    monkeypatch.delenv("JITTWIN_CUDA", raising=False)
    assert boot.cuda_missing() == "" and boot._import_environment(boot.cache_root())["nvcc_path"] == ""
    monkeypatch.setenv("JITTWIN_CUDA", "1")
    found = boot._import_environment(boot.cache_root())
    assert found["nvcc_path"] == str(gpu / "bin/nvcc")
    assert [found[name] for name in ("conv_opt", "use_cutt", "use_cutlass", "use_nccl")] == ["1", "0", "0", "0"]


def no_driver(monkeypatch, gpu):
    def missing(name):
        raise OSError("cannot open shared object file")
    monkeypatch.setattr(boot.ctypes, "CDLL", missing)


def no_nvcc(monkeypatch, gpu):
    monkeypatch.delenv("nvcc_path")
    monkeypatch.setattr(shutil, "which", lambda name: None)


def release(number: str):
    return lambda monkeypatch, gpu: (gpu / "bin/nvcc").write_text(f"#!/bin/sh\necho 'release {number}, V{number}'\n")


@pytest.mark.parametrize("take_away, words", [
    (no_driver, "no NVIDIA driver"),
    (lambda monkeypatch, gpu: monkeypatch.setattr(boot.ctypes, "CDLL", lambda name: Driver(0)), "finds no device"),
    (no_nvcc, "no nvcc.*PATH"),
    (lambda monkeypatch, gpu: (gpu / "lib64/libcurand.so").unlink(), r"libcurand\.so is not in .*/cuda/lib64"),
    (release("10.2"), "no version from CUDA 11 on"), (release("none"), "no version from CUDA 11 on"),
    (release("13.0"), r"CUDA 13, which does not compile this Jittor.*scripts/cuda_jittor\.py"),
])
def test_what_a_gpu_lacks_is_told_in_one_line(gpu, monkeypatch, take_away, words):
    take_away(monkeypatch, gpu)
    reason = boot.cuda_missing()
    assert re.search(words, reason) and "\n" not in reason
    monkeypatch.setenv("JITTWIN_CUDA", "1")
    assert boot._import_environment(boot.cache_root())["nvcc_path"] == ""


def test_python_config_names_this_interpreter():
    script = boot.cache_root() / "python-config"
    includes = subprocess.run([script, "--includes"], capture_output=True, text=True).stdout
    suffix = subprocess.run([script, "--extension-suffix"], capture_output=True, text=True).stdout.strip()
    assert sysconfig.get_paths()["include"] in includes
    assert suffix == sysconfig.get_config_var("EXT_SUFFIX")


@pytest.fixture
def core(tmp_path):
    """A folder with two libraries that have worked."""
    for name in ("jittor_core.so", "jit_utils_core.so"):
        (tmp_path / name).write_bytes(b"0" * 100)
        (tmp_path / f"{name}.key").write_text("key")
    compiled_core.note_libraries(tmp_path)
    return tmp_path


def test_a_damaged_library_is_dropped_and_sound_ones_are_kept(core, capsys):
    compiled_core.drop_unusable(core)
    assert (core / "jittor_core.so").exists() and capsys.readouterr().err == ""
    (core / "jittor_core.so").write_bytes(b"0" * 60)
    compiled_core.drop_unusable(core)
    assert not (core / "jittor_core.so").exists() and not (core / "jittor_core.so.key").exists()
    assert (core / "jit_utils_core.so").exists()
    assert "is damaged (jittor_core.so)" in capsys.readouterr().err


def test_a_library_that_another_process_has_just_built_is_kept(core, capsys):
    (core / "jittor_core.so").write_bytes(b"0" * 60)
    (core / "jittor_core.so.key").write_text("another key")
    compiled_core.drop_unusable(core)
    assert (core / "jittor_core.so").exists() and capsys.readouterr().err == ""


def test_nothing_is_kept_of_a_core_that_was_moved(core, capsys):
    """Jittor would build a part of it again and end the process with status 0."""
    moved = core.rename(core.with_name("elsewhere"))
    compiled_core.drop_unusable(moved)
    assert [path.name for path in moved.iterdir()] == [compiled_core.LIBRARIES]
    assert capsys.readouterr().err.startswith(f"jittwin: {moved} was at {core} before: ")


# ---- paths that Jittor's compiler cannot read ---------------------------------------

@pytest.fixture
def links(tmp_path, monkeypatch):
    """Links are made in a folder of the test."""
    monkeypatch.setattr(boot, "_LINKS", (str(tmp_path / "none"), str(tmp_path)))
    return tmp_path / f"jittwin-{os.getuid()}"


@pytest.mark.parametrize("name", ["my cache", "张三", "José", "a'b", "$HOME", "tab\there", "(1)", "a;b", "a&b", "x*"])
def test_an_unusual_cache_is_reached_by_a_link_with_a_plain_path(tmp_path, monkeypatch, links, name):
    monkeypatch.setenv("JITTWIN_CACHE", str(tmp_path / name))
    root = boot.compiler_root()
    assert root.parent == links and boot._PLAIN_PATH.fullmatch(root.name) and root.is_symlink()
    assert root.resolve() == boot.cache_root().resolve() and root == boot.compiler_root()
    assert links.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("seed", range(30))
def test_every_drawn_path_is_plain_or_linked(tmp_path, monkeypatch, links, seed):
    """Of any characters; two folders never share a link, and a link that leads elsewhere is made again."""
    rng = random.Random(seed)
    roots = set()
    for _ in range(4):
        name = "".join(rng.choices("abcXYZ019._- éñ山🙂\"'`$&;|<>()[]{}*?!#\\", k=rng.randint(1, 12))).strip(". ") or "x"
        monkeypatch.setenv("JITTWIN_CACHE", str(tmp_path / name))
        root = boot.compiler_root()
        assert boot._PLAIN_PATH.fullmatch(str(root))
        assert root.resolve() == boot.cache_root().resolve()
        roots.add((boot.cache_root(), root))
        if root.is_symlink():
            root.unlink()
            root.symlink_to(tmp_path)
            assert boot.compiler_root().resolve() == boot.cache_root().resolve()
    assert len({root for _, root in roots}) == len(roots) == len({cache for cache, _ in roots})


def test_a_plain_cache_needs_no_link(tmp_path, monkeypatch, links):
    monkeypatch.setenv("JITTWIN_CACHE", str(tmp_path / "plain_1.2-x"))
    assert boot.compiler_root() == boot.cache_root() and not links.exists()


@pytest.mark.parametrize("spoil", [
    lambda links: links.symlink_to(links.parent), lambda links: links.write_text(""),
    lambda links: (links.mkdir(), links.chmod(0o777)), lambda links: (links.mkdir(), links.chmod(0o720))])
def test_links_that_others_could_change_are_not_used(tmp_path, monkeypatch, links, spoil):
    """The message names the folder, what is unusual about it and what to set; nothing was compiled."""
    spoil(links)
    monkeypatch.setenv("JITTWIN_CACHE", str(tmp_path / "my cache é"))
    with pytest.raises(UserError) as error:
        boot.compiler_root()
    message = str(error.value)
    assert f"{tmp_path}/my cache é/jittor-" in message and "holds a blank, 'é'" in message and "\n" not in message
    assert "set JITTWIN_CACHE to a folder whose path holds only ASCII letters, digits and . _ -" in message


def test_headers_in_an_unusual_place_are_told_before_anything_is_compiled(monkeypatch):
    boot.check_headers()
    monkeypatch.setattr(sysconfig, "get_paths", lambda: {"include": "/opt/my python/include"})
    with pytest.raises(UserError, match="Python's headers, /opt/my python/include, which holds a blank: use a Python"):
        boot.check_headers()


def test_jittor_in_an_unusual_place_is_imported_through_a_link(tmp_path, monkeypatch, links):
    package = tmp_path / "John Doe" / "site-packages" / "jittor" / "__init__.py"
    package.parent.mkdir(parents=True)
    package.write_text("")
    monkeypatch.setattr(boot.importlib.util, "find_spec", lambda name: SimpleNamespace(origin=str(package)))
    before = list(sys.path)
    with boot._imported_by_a_plain_path():
        link = Path(sys.path[0])
        assert sys.path[1:] == before and link.parent == links and (link / "jittor" / "__init__.py").samefile(package)
    assert sys.path == before
    package.parent.rename(tmp_path / "jittor")
    monkeypatch.setattr(boot.importlib.util, "find_spec",
                        lambda name: SimpleNamespace(origin=str(tmp_path / "jittor" / "__init__.py")))
    with boot._imported_by_a_plain_path():
        assert sys.path == before


def test_the_messages_of_a_whole_start(tmp_path):
    """A process whose cache cannot be linked ends before it compiles anything."""
    cache = tmp_path / "my cache"
    done = run_python("""
        import jittwin.backend
        import importlib.util, pathlib, os
        os.getuid = lambda: 4321987
        from jittwin.errors import UserError
        try:
            jittwin.backend.load_backend("jittor")
        except UserError as error:
            print(error)
    """, JITTWIN_CACHE=str(cache))
    assert done.stdout.count("\n") == 1 and "no link to it can be made in /var/tmp or /tmp" in done.stdout, done.stderr
    assert [path.name[:7] for path in cache.iterdir()] == ["jittor-"] and not any(next(cache.iterdir()).iterdir())
    for place in ("/var/tmp", "/tmp"):
        Path(place, "jittwin-4321987").rmdir()
