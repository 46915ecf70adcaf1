"""What a person sees while Jittor compiles."""
import os
import subprocess
import time

import pytest

from jt_models import compile_progress
from jt_models.compile_progress import COMPILE_LOG, TERMINAL, WRAPPER, counting_core


@pytest.fixture
def wrapper(tmp_path):
    """Runs the script that Jittor calls in place of a compiler."""
    script, log = tmp_path / "cc.sh", tmp_path / "log"
    script.write_text(WRAPPER)

    def call(*arguments, **environment):
        clean = {key: value for key, value in os.environ.items() if key not in (COMPILE_LOG, TERMINAL)}
        return subprocess.run(["sh", script, "asm_tuner.py", "--cc_path=echo", *arguments], env=clean | environment,
                              capture_output=True, text=True)

    call.log = log
    return call


def test_kernels_are_counted(wrapper):
    for name in ("a b.cc", "c.cc"):
        done = wrapper(name, "-O3", **{COMPILE_LOG: str(wrapper.log)})
        assert (done.stdout, done.stderr, done.returncode) == (f"{name} -O3\n", "", 0)
    assert wrapper.log.read_text() == "kernel\n" * 2


def test_without_a_log_nothing_but_the_compiler_runs(wrapper):
    assert wrapper("a.cc").stdout == "a.cc\n" and not wrapper.log.exists()


def test_a_log_that_cannot_be_written_stops_nothing(wrapper):
    done = wrapper("a.cc", **{COMPILE_LOG: "/nowhere/log", TERMINAL: "1"})
    assert (done.stdout, done.stderr, done.returncode) == ("a.cc\n", "", 0)


def test_files_of_the_core_are_counted(tmp_path, monkeypatch):
    log = tmp_path / "log"
    monkeypatch.setenv(COMPILE_LOG, str(log))
    monkeypatch.setattr(compile_progress, "POLL", 0.01)
    (tmp_path / "obj").mkdir()
    with counting_core(tmp_path):
        for count in (1, 2):
            (tmp_path / f"obj/{count}.o").touch()
            deadline = time.monotonic() + 10
            while not (log.exists() and f"core {count}\n" in log.read_text()) and time.monotonic() < deadline:
                time.sleep(0.01)
    assert log.read_text() == "core 1\ncore 2\n"
