"""Functions that several processes of one framework run together, as a launcher starts them."""
import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from jittwin.launching import launch, leave
from parity.workers.side import Arrays, Side
from parity.workers.worker import WorkerError, resolve

LAST_CHARACTERS = 3000      # of what the processes printed, in an error message


def together(side: Side, arrays: Arrays, processes: int, function: str, arguments: dict) -> Arrays:
    """In a worker: the arrays that `function` returns in the first of several new processes of the same framework.

    function: "module:name" of f(side, arrays, **arguments), which all of them run.
    """
    with tempfile.TemporaryDirectory() as folder:
        given, made, log = (Path(folder, name) for name in ("in", "out", "log"))
        save_file({name: np.asarray(a, order="C") for name, a in arrays.items()}, given)
        request = json.dumps({"side": side.name, "function": function, "arguments": arguments,
                              "files": [os.fspath(given), os.fspath(made)]})
        with open(log, "w") as output:
            status = launch(side.name, processes, [sys.executable, "-P", "-c",
                            "from parity.workers.group import serve; serve()", request], output)
        if status:
            raise WorkerError(f"{processes} processes ended with status {status} in {function}; their last lines:\n"
                              + log.read_text()[-LAST_CHARACTERS:])
        return load_file(made)


def serve() -> None:
    """In one of the processes: run the function; the first process writes what it returns."""
    request = json.loads(sys.argv[1])
    given, made = map(Path, request["files"])
    side = Side(request["side"])
    arrays = resolve(request["function"])(side, load_file(given), **request["arguments"])
    if side.backend.rank == 0:
        save_file({name: np.asarray(a, order="C") for name, a in arrays.items()}, made)
    leave(0)
