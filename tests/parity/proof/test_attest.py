"""L0: what this machine's workers compute with is in order, and each promise can be broken."""
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from parity.levels import environment as attest
from parity.runner import Step
from parity.workers.oracle import Twins
from parity.workers.worker import ROOT

# What a careless port of the boot module would do, all at once: seed the generators, import the other
# framework, and let Jittor narrow 64-bit arrays.
CARELESS = """
import random, sys, types
random.seed(0)
sys.modules["torch"] = types.ModuleType("torch")


def narrow(self, array, dtype=None):
    return jt.array(np.ascontiguousarray(array))


Backend.asarray = narrow
"""


def flush_denormals(side, arrays):
    """In the PyTorch worker: what a kernel built with -Ofast does to the process that loads it."""
    import torch
    assert torch.set_flush_denormal(True)
    return {}


def keep_denormals(side, arrays):
    import torch
    torch.set_flush_denormal(False)
    return {}


def broken(found: dict) -> set[tuple[str, str]]:
    """(framework, promise) of all that does not hold."""
    return {(name, entry["promise"]) for entry in found["owed"] for name in found["facts"] if entry[name]}


def test_this_machine_is_in_order(twins):
    found = attest.attestation(twins)
    assert found["verdict"] == "pass" and not broken(found)
    assert {entry["id"] for entry in found["owed"]} == {"P1", "P2", "P3", "P4", "P5", "P6"}
    facts = found["facts"]
    assert facts["torch"]["framework"].startswith("torch 2") and facts["jittor"]["framework"].startswith("jittor 1.3")
    assert facts["torch"].keys() == facts["jittor"].keys() and "-O" in facts["jittor"]["flags"]
    assert "/" not in " ".join(str(value) for side in facts.values() for value in side.values())    # no path of ours


def test_the_row_holds_the_attestation(rows_of):
    [row] = rows_of(Step("L0"))
    assert row.passed and row.model == "environment"
    assert row.detail["count"] == 2 * (1 + len(attest.OWED)) and row.detail["attestation"]["verdict"] == "pass"


def test_flushed_denormals_are_noticed():
    here = __file__.rsplit("/", 1)[0]
    with Twins(paths=[here]) as twins:
        twins.torch.call("test_attest:flush_denormals")
        found = attest.attestation(twins)
        twins.torch.call("test_attest:keep_denormals")
        again = attest.attestation(twins)
    assert ("torch", "denormals are kept") in broken(found) and found["verdict"] == "fail"
    assert not broken(again)


def test_a_careless_port_is_noticed(others, tmp_path):
    shutil.copytree(ROOT / "jt_models", tmp_path / "jt_models", ignore=shutil.ignore_patterns("__pycache__"))
    with open(tmp_path / "jt_models" / "backend.py", "a") as file:
        file.write(CARELESS)
    others.replace_jittor(tmp_path)
    [row] = attest.check(others)
    found = row.detail["attestation"]
    assert broken(found) == {("jittor", promise) for promise in (
        attest.BYTES, "the other framework is not imported", "global generators are left alone",
        "64-bit numbers stay 64 bits wide")}
    assert not row.passed and "float32" in row.detail["reason"]
    assert found["facts"]["jittor"]["source"] != f"jt_models {attest.source_hash('jt_models')}"


# ---- promises that no machine at hand breaks -------------------------------------------

class Sticky(np.ndarray):
    """NaN equals itself, as in a kernel built with -Ofast."""

    def __eq__(self, other):
        return np.ones(self.shape, bool)


def side(tensor=np.asarray, name="jittor", **more):
    """NumPy in place of a framework."""
    return SimpleNamespace(name=name, tensor=tensor, host=np.asarray, **more)


def test_a_nan_that_equals_itself_is_noticed():
    assert attest.nan_unequal(side()) == ""
    assert attest.nan_unequal(side(lambda a: a.view(Sticky))) == "NaN equals itself"


@pytest.mark.parametrize("half, reason", [(0.5, ""), (0.49999997, "sigmoid(0) is 0.49999997")])
def test_an_inexact_sigmoid_is_noticed(monkeypatch, half, reason):
    monkeypatch.setattr(attest, "framework", lambda side: SimpleNamespace(sigmoid=lambda x: x + np.float32(half)))
    assert attest.sigmoid_exact(side()) == reason


def test_the_wrong_numpy_is_noticed(monkeypatch):
    assert attest.numpy_fits(side()) == ""
    monkeypatch.setattr(attest.np, "__version__", "2.2.6")
    assert attest.numpy_fits(side()) == "NumPy 2.2.6" and attest.numpy_fits(side(name="torch")) == ""


def test_flags_that_change_results_are_kept_and_paths_are_not():
    flags = '-Wall -fPIC -march=native -O2 -I"/a b/include" -lm -Ofast -ffast-math -D__FAST_MATH__ -fno-signed-zeros'
    assert attest.arithmetic(flags) == "-march=native -O2 -Ofast -ffast-math -D__FAST_MATH__ -fno-signed-zeros"


def test_a_worker_that_cannot_start_fails_the_attestation(others, tmp_path):
    (tmp_path / "jt_models").mkdir()
    (tmp_path / "jt_models" / "__init__.py").write_text("raise RuntimeError('no such machine')")
    others.replace_jittor(tmp_path)
    found = attest.attested(others)
    assert found["verdict"] == "fail" and "no such machine" in found["reason"]
