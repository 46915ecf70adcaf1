"""The folder a failing layer leaves reproduces the failure, and passes where the twins are sound."""
import json
import os
import runpy
import subprocess
import sys
from contextlib import nullcontext

import pytest
from safetensors.numpy import load_file

from jittwin.errors import UserError
from parity import Pair
from parity.bundle import write
from parity.cases import find
from parity.faults.fault import Fault, broken_copy
from parity.workers import oracle
from parity.workers.worker import ROOT
from tests.parity.test_pair import HARD
from tests.parity.traced import Small

pytestmark = pytest.mark.parity


@pytest.fixture
def reproduce(twins, monkeypatch, capsys):
    """reproduce(folder): the exit status of the folder's script with the workers of the other tests, and what it
    prints."""
    def run(folder) -> tuple[int, str]:
        with monkeypatch.context() as patch:
            patch.setattr(oracle, "Twins", lambda twin, paths: nullcontext(twins))
            patch.setattr(sys, "argv", [os.fspath(folder / "repro.py")])
            with pytest.raises(SystemExit) as ended:
                runpy.run_path(sys.argv[0], run_name="__main__")
        return int(ended.value.code), capsys.readouterr().out
    return run


def test_one_layer_is_reproduced_in_a_broken_copy_and_passes_in_ours(twins, tmp_path, reproduce):
    """The broken copy by the command that a person gives, in a process of its own."""
    edit = Fault("edit", "", "nn/layers.py", "    def __init__(self, eps: float = 1e-5):",
                 "    def __init__(self, eps: float = 1e-3):", "", ())
    folder = write(tmp_path / "bundle", find("apf_gan.encoder"), "tiny", "train", "layer2.1", twins)
    failed = subprocess.run([sys.executable, folder / "repro.py", "--twin", broken_copy(edit, tmp_path)], cwd=folder,
                            env={**os.environ, "PYTHONPATH": os.fspath(ROOT)}, capture_output=True, text=True)
    assert failed.returncode == 1, failed.stderr
    assert "output 0: error" in failed.stdout and "over its limit" in failed.stdout
    status, printed = reproduce(folder)
    assert status == 0 and printed.startswith("output 0: error") and "pass" in printed
    assert len((folder / "repro.py").read_text().splitlines()) <= 30


def test_a_bundle_holds_one_layer(twins, tmp_path):
    folder = write(tmp_path, find("apf_gan.encoder"), "tiny", "train", "layer2.0", twins)
    assert sorted(load_file(folder / "weights.safetensors")) == [
        f"layer2.0.{name}" for name in ("weight_orig", "weight_u", "weight_v")]
    assert sorted(load_file(folder / "inputs.safetensors")) == ["layer/0", "model/seg"]
    assert json.loads((folder / "case.json").read_text())["path"] == "layer2.0"


@pytest.mark.parametrize("path, call", [("block", 1), ("(model)", 0)])
def test_a_fault_outside_of_layers_is_reproduced(twins, tmp_path, reproduce, path, call):
    """The second call of a block, which takes an argument that is no tensor; and a whole model."""
    fault = Small("glue")
    status, printed = reproduce(write(tmp_path, fault, "tiny", "train", path, twins, call))
    assert status == 1 and "over its limit" in printed


def test_a_layer_of_a_pair(twins, tmp_path, reproduce):
    status, printed = reproduce(write(tmp_path, Pair(**HARD), "tiny", "train", "norm", twins))
    assert status == 0 and "output 0" in printed


def test_an_unknown_layer_is_a_mistake(twins, tmp_path):
    with pytest.raises(UserError, match="no call 0 of 'layer7.0'.*layer"):
        write(tmp_path, find("apf_gan.encoder"), "tiny", "train", "layer7.0", twins)
