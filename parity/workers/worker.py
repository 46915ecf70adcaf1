"""One process per framework. Both in one process would change how the other computes.

A worker runs functions `f(side, arrays, **arguments)` that return arrays, or (arrays, values) with values fit for
JSON. Arrays are passed as safetensors files, the rest as JSON lines; functions and classes are passed by name.
"""
import contextlib
import faulthandler
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from operator import attrgetter
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from jittwin.errors import UserError
from parity.workers.side import Arrays, Side

ROOT = Path(__file__).resolve().parents[2]
LAST_LINES = 60         # of a worker's log in an error message; the trace of a crash may take half of them
TIMEOUT = 1800          # seconds


class WorkerError(Exception):
    """A function failed, or the process died; the message holds its last lines and the exit signal."""


class Worker:
    """A process with one framework in it.

    twin: a folder that holds another copy of the twin's package, which is imported instead of ours. paths: more
    folders to import from. They are searched before installed packages, because a user's module may have the name of
    an installed one. device: where it computes.
    """

    def __init__(self, name: str, twin: str | os.PathLike | None = None, paths: Sequence[str] = (),
                 device: str = "cpu"):
        self.name = name
        self.folder = tempfile.TemporaryDirectory(prefix=f"parity-{name}-")
        self.log = open(Path(self.folder.name, "log"), "w+")
        search = [os.fspath(Path(p).resolve()) for p in (*([twin] if twin else []), *paths, ROOT, ".")]
        # Threads that spin while they wait take minutes for seconds of work on a busy machine.
        environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ, "PYTHONPATH": os.pathsep.join(
            [*search, *filter(None, [os.environ.get("PYTHONPATH")])])}
        # Without -P the current folder, which may hold a twin too, would be searched before all of these.
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", "from parity.workers.worker import serve; serve()", name, device],
            env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log)
        self.number, self.pending = 0, None

    def start(self, function: Callable | str, arrays: Arrays | None = None, /, **arguments) -> None:
        """Begin a call, for which `finish` waits. Only one runs at a time. function: itself, or "module:name".

        An answer that nobody took, because its caller failed first, is read and dropped.
        """
        function = reference(function)
        if self.pending:
            with contextlib.suppress(UserError, WorkerError):
                self.finish()
        self.number += 1
        files = [Path(self.folder.name, f"{self.number}.{kind}") for kind in ("in", "out")]
        save_file({name: np.asarray(a, order="C") for name, a in (arrays or {}).items()}, files[0])
        request = {"function": function, "arguments": arguments, "files": [os.fspath(file) for file in files]}
        self.pending = function, files
        try:
            self.process.stdin.write(json.dumps(request, default=reference).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass                            # the process has died; finish() says how

    def finish(self, timeout: float = TIMEOUT) -> tuple[Arrays, dict]:
        """The arrays and the values of the call. Raises WorkerError, or the function's UserError."""
        function, files = self.pending
        ready, _, _ = select.select([self.process.stdout], [], [], timeout)
        line = self.process.stdout.readline() if ready else b""
        if not line:
            raise WorkerError(self.obituary(function, None if ready else timeout))
        reply, self.pending = json.loads(line), None
        if "error" in reply:
            raise (UserError if reply["mistake"] else WorkerError)(
                reply["error"] if reply["mistake"] else f"{self.name}: {function}: {reply['error']}")
        arrays = load_file(files[1])
        for file in files:
            file.unlink()
        return arrays, reply["values"]

    def call(self, function: Callable | str, arrays: Arrays | None = None, /, timeout: float = TIMEOUT, **arguments):
        self.start(function, arrays, **arguments)
        return self.finish(timeout)

    def obituary(self, function: str, timeout: float | None) -> str:
        """How the process ended, and its last lines. timeout: the seconds without an answer; None if it died."""
        if timeout is None:
            status = self.process.wait()
            how = f"ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        else:
            self.process.kill()
            how = f"gave no answer in {timeout:.0f} s"
        self.log.seek(0)
        last = self.log.read().splitlines()[-LAST_LINES:]
        return "\n".join([f"the {self.name} worker {how} in {function}; its last lines:", *last])

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.log):
            try:
                stream.close()
            except BrokenPipeError:
                pass
        self.folder.cleanup()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def resolve(reference: str):
    """The object that "package.module:name" names."""
    module, _, name = reference.partition(":")
    return attrgetter(name)(importlib.import_module(module))


def reference(thing) -> str:
    """The inverse of `resolve`, for a function or a class; a string is returned as it is.

    TypeError for anything that a worker cannot import because it does not stand at the top of a module.
    """
    if isinstance(thing, str):
        return thing
    name, module = getattr(thing, "__qualname__", "<no name>"), getattr(thing, "__module__", "__main__")
    if "<" in name or module == "__main__":
        raise TypeError(f"{thing!r} does not cross to a worker: besides JSON's types only functions and classes do "
                        "that stand at the top of a module")
    return f"{module}:{name}"


def serve() -> None:
    """Answer requests on stdin until it closes. What the frameworks print goes to stderr."""
    replies = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    faulthandler.enable()
    side = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            side = side or Side(*sys.argv[1:])
            result = resolve(request["function"])(side, load_file(request["files"][0]), **request["arguments"])
            arrays, values = result if isinstance(result, tuple) else (result, {})
            save_file({name: np.asarray(a, order="C") for name, a in arrays.items()}, request["files"][1])
            reply = {"values": values}
        except UserError as error:
            reply = {"error": str(error), "mistake": True}
        except Exception:
            reply = {"error": traceback.format_exc(limit=-6).strip(), "mistake": False}
        replies.write(json.dumps(reply).encode() + b"\n")
