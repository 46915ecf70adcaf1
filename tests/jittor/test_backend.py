"""The Jittor twin's backend: which devices it takes."""
import re

import pytest
from shapes import (  # noqa: F401  (tests)
    test_every_model_is_looked_at,
    test_options_reach_the_module,
    test_shapes_are_those_of_the_built_module,
    test_shapes_of_a_large_network_take_no_memory,
)

from jittwin import cli
from jittwin.errors import UserError
from jt_models import boot, self_check
from jt_models.backend import Backend
from jt_models.boot import jt
from jt_models.nn import ops


def test_what_a_gpu_lacks_is_told(monkeypatch):
    backend = Backend()
    assert backend.usable("cpu") == ""
    for missing, reason in (("there is no nvcc: install it", "there is no nvcc: install it"),
                            ("", "Jittor was imported without CUDA: start the program with JITTWIN_CUDA=1")):
        monkeypatch.setattr(boot, "cuda_missing", lambda: missing)
        assert backend.usable("cuda") == f"device cuda: {reason}, or use --device cpu"
        with pytest.raises(UserError, match="^device cuda: "):
            backend.setup(device="cuda")


def test_the_self_check_passes():
    assert self_check.failure() == ""


@pytest.mark.parametrize("name, what, operator", [
    ("layer norm", "result", lambda x, gain, shift: ops.layer_norm(x, gain, shift, 1e-2)),
    ("attention", "gradient 2", lambda q, k, v: ops.attention(q, k, v.detach() + 0 * v, 2)),
    ("mean", "result", lambda x: ops.mean(x) + 1e-5),
])
def test_the_self_check_finds(monkeypatch, name, what, operator):
    monkeypatch.setitem(self_check.CHECKS, name, (operator, *self_check.CHECKS[name][1:]))
    assert re.fullmatch(rf"the {what} of {name} is off by .* of its size", self_check.failure())


def test_a_full_gpu_is_told_in_one_line(capsys):
    """With the error that Jittor's allocator logs on a GPU, raised where Jittor executes an operator."""
    def work():
        jt.code((1,), "float32", [], cpu_src="""
            LOGf << "Unable to alloc cuda device memory for size" << out->size;
        """).sync()

    assert cli.guarded(work, debug=False) == 2
    said = capsys.readouterr().err.splitlines()
    assert said[-1] == f"jittwin: {cli.GPU_FULL}" and not any("Traceback" in line for line in said)
    with pytest.raises(RuntimeError, match="Unable to alloc cuda device memory for size"):
        cli.guarded(work, debug=True)
