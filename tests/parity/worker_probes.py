"""Functions that run in a worker, for its tests: good ones, and every way to fail."""
import os
import signal
import sys
import time

from jittwin.errors import UserError


def cube(side, arrays):
    """x^3 and its gradient, and an array that only passes through."""
    x = side.differentiable(side.tensor(arrays["x"]))
    y = x * x * x
    slopes = side.gradients(y.sum(), {"slope/x": x})
    return {"y": side.host(y), **slopes, "label": arrays["label"]}, {"framework": side.name, "shape": list(x.shape)}


def wrong(side, arrays):
    raise ValueError("these numbers do not add up")


def mistaken(side, arrays, value):
    raise UserError(f"value={value}: must be even")


def killed(side, arrays):
    print("about to die on stdout")
    print("about to die on stderr", file=sys.stderr, flush=True)
    sys.stdout.flush()
    os.kill(os.getpid(), signal.SIGKILL)


def leaving(side, arrays):
    os._exit(3)


def sleeping(side, arrays):
    print("sleeping", flush=True)
    time.sleep(600)
