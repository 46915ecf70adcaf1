"""Report what Jittor compiles while it compiles: its core once per machine, then the kernels of a program.

A person at a terminal sees a line that counts. A program that starts another one may set COMPILE_LOG to the name of
a file. The file then gets a line "kernel" per compiled kernel, and a line such as "core 57" whenever more files of
the core are compiled.
"""
import atexit
import contextlib
import os
import pathlib
import sys
import tempfile
import threading
from collections.abc import Iterator

COMPILE_LOG = "JITTWIN_COMPILE_LOG"
TERMINAL = "JITTWIN_COMPILE_TERMINAL"       # set if the compiler wrapper should write to the terminal
POLL = 1.0                                  # seconds between two looks at the files of the core
LINE = "\\r\\033[Kjittwin: compiling Jittor's"   # begins the terminal's line anew

# Jittor calls `python asm_tuner.py --cc_path=CC ARGUMENT...` for every kernel. This script runs in place of python. It
# counts the kernel and skips the pass over the assembler code, which costs more time than it saves.
WRAPPER = f"""#!/bin/sh
cc="${{2#--cc_path=}}"; shift 2
if [ -n "${COMPILE_LOG}" ]; then
    echo kernel >> "${COMPILE_LOG}"
    [ -z "${TERMINAL}" ] || printf "{LINE} kernels, %d so far " "$(grep -c kernel "${COMPILE_LOG}")" > /dev/tty
fi 2> /dev/null
exec "$cc" "$@"
"""


def _terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()


def count_kernels() -> None:
    """From now on, show on the terminal how many kernels this process and the processes it starts have compiled."""
    if not _terminal():
        return
    os.environ[TERMINAL] = "1"
    if COMPILE_LOG not in os.environ:
        handle, path = tempfile.mkstemp(prefix="jittwin-kernels-")
        os.close(handle)
        os.environ[COMPILE_LOG] = path
        atexit.register(lambda: pathlib.Path(path).unlink(missing_ok=True))


@contextlib.contextmanager
def counting_core(folder: pathlib.Path) -> Iterator[None]:
    """While this context lasts, report how many files of Jittor's core have been compiled. They go to `folder`."""
    log, terminal, ended = os.environ.get(COMPILE_LOG), _terminal(), threading.Event()

    def watch() -> None:
        told = 0
        while not ended.wait(POLL):
            if (count := sum(1 for _ in folder.rglob("*.o"))) == told:
                continue
            told = count
            # Python's own buffers are not used, because Jittor forks its compile workers while this thread runs.
            if terminal:
                os.write(2, f"\r\033[Kjittwin: compiling Jittor's core, {count} files so far ".encode())
            if log:
                with open(log, "ab", buffering=0) as stream:
                    stream.write(f"core {count}\n".encode())
        if terminal and told:
            os.write(2, b"\n")

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
