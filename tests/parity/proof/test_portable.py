"""The Jittor twin agrees with PyTorch with the portable form of its kernels too, and a fault in that form is found."""
import re

import pytest

from parity.cases import find
from parity.faults.fault import Fault, broken_copy
from parity.levels import environment, operators
from parity.pair import Pair
from parity.runner import Step, perform

NETWORK = Pair("tests.parity.operator_modules:torch_network", "tests.parity.operator_modules:jittor_network",
               inputs={"x": (2, 3, 6, 8)}, modes=("train",))
STEPS = (Step("L2", find("operators"), "tiny", "eval"), Step("L4", find("siglip"), "tiny", "eval"),
         Step("L5", find("apf_gan.generator"), "tiny", "train 40"))
FAULTS = {
    "max-pool loses NaN": ("pool.py", "jt.logical_or(seen > best, seen != seen)", "seen > best",
                           r"max_pool2d\(.*\[nan\] output"),
    "the average counts its padding": ("pool.py", 'if self.sizes["PADDED"] else inside)', ")",
                                       r"avg_pool2d\(.*\[random\] output"),
    "a pixel's gradient comes from the window before": ("conv.py", 'f"{rows}/{down}"', 'f"{rows}/{down}-1"',
                                                        r"conv Conv2d\(.*\[random\] slope 0"),
    "the variance takes one pass": ("norm.py", "total((x - mean) * (x - mean), dims, keepdims=True) / count",
                                    "total(x * x, dims, keepdims=True) / count - mean * mean",
                                    r"norm BatchNorm2d\(.*\[large mean\]"),
}


@pytest.fixture
def portable(others, monkeypatch):
    """Both workers; that of Jittor starts when first needed, with the portable form."""
    monkeypatch.setenv("JITTWIN_KERNELS", "portable")
    return others


def test_the_twins_agree(portable):
    (found,) = environment.check(portable)
    assert found.passed and found.detail["attestation"]["facts"]["jittor"]["kernels"] == "portable"
    for step in STEPS:
        rows = perform(step, portable)
        assert rows and not [f"{step.model}: {row.detail['reason']}" for row in rows if not row.passed]


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found_where_it_shows(portable, tmp_path, name):
    file, old, new, where = FAULTS[name]
    portable.replace_jittor(broken_copy(Fault("edit", "", f"nn/kernels/{file}", old, new, "", ()), tmp_path))
    (row,) = operators.check(NETWORK, "tiny", "train", portable)
    failed = [tensor for tensor, *_, reason in row.detail["tensors"] if reason]
    assert any(re.search(where, tensor) for tensor in failed), failed
