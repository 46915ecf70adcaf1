"""L3 on sound and on broken twins: the modules at fault are named, exactly."""
import numpy as np
import pytest

from parity.cases import find
from parity.levels.forward import check, error_map
from parity.runner import Step
from parity.workers.compare import judge_discrete
from tests.parity.traced import Small

pytestmark = pytest.mark.parity
ENCODER = "apf_gan.encoder"
NORMS = [f"layer{n}.1" for n in range(1, 7)]
CONVS = [f"layer{n}.0" for n in range(1, 7)]


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_sound_twins_pass(twins, rows_of, mode):
    for [row] in (rows_of(Step("L3", find(ENCODER), "tiny", mode)), check(Small(), "tiny", mode, twins)):
        assert row.passed, row.detail["reason"]
        assert not row.detail["culprits"] and not row.detail["first_divergence"]
        assert row.detail["unmatched"] == {"PyTorch": [], "Jittor": []}
        assert [path for path, *_ in row.detail["curve"]][-1] == "(model)"
        assert 0 < len(row.detail["map"]["error"]) <= 64 and 0 < row.error <= row.detail["limit"]
    assert set(row.detail["flips"].values()) == {0}


@pytest.mark.parametrize("file, old, new, culprits, first", [
    ("nn/layers.py", "    def __init__(self, eps: float = 1e-5):", "    def __init__(self, eps: float = 1e-3):",
     NORMS, "layer1.1"),
    ("nn/ops.py", "        y = Conv(*settings)(x, weight, bias)",
     "        y = Conv(*settings)(x, weight, bias) * (1.001 if x.shape[1] == 16 else 1)",
     ["layer4.0"], "layer4.0"),
    ("apf_gan/encoder.py", '(getattr(self, f"layer{number}")(x), 0.2)',
     '(getattr(self, f"layer{number}")(x), 0.2 if number < 3 else 0.21)', ["(model)"], "layer4.0"),
])
def test_the_broken_layers_are_named_and_no_other(broken, file, old, new, culprits, first):
    [row] = check(find(ENCODER), "tiny", "train", broken(file, old, new))
    assert not row.passed and row.error > row.detail["limit"]
    assert row.detail["culprits"] == culprits and row.detail["first_divergence"] == first


def test_a_statistic_that_is_off_belongs_to_its_layer(broken):
    others = broken("nn/layers.py", "variance = variance * (count / (count - 1))", "pass")
    [row] = check(Small(), "tiny", "train", others)
    assert not row.passed and row.detail["culprits"] == ["block.norm"]
    assert "state block.norm.running_var" in row.detail["reason"]


@pytest.mark.parametrize("fault, culprits", [("glue", ["block"]), ("argmax", ["choice"]), ("extra", ["(model)"])])
def test_faults_outside_of_layers(twins, fault, culprits):
    [row] = check(Small(fault), "tiny", "eval", twins)
    assert not row.passed and row.detail["culprits"] == culprits
    assert row.detail["unmatched"]["Jittor"] == (["extra"] if fault == "extra" else [])
    assert (row.detail["flips"]["choice (alone)"] > 0) == (fault == "argmax")


def test_a_flip_is_excused_only_where_pytorch_flips_too():
    truth, unsure = np.array([0, 1, 2, 3]), np.array([False, False, True, False])
    assert judge_discrete(np.array([0, 1, 5, 3]), truth, unsure).passed
    assert "1 of 4" in judge_discrete(np.array([0, 2, 5, 3]), truth, unsure).reason
    assert "sure of no element" in judge_discrete(truth, truth, unsure | True).reason
    assert "shape" in judge_discrete(truth[:2], truth, unsure).reason


def test_an_error_map_keeps_the_largest_error_of_each_block():
    truth, candidate = np.ones((2, 3, 130, 65)), np.ones((2, 3, 130, 65))
    candidate[1, 2, 129, 64] = 1.5
    found = np.array(error_map(candidate, truth))
    assert found.shape == (44, 33) and found[43, 32] == 0.5 and np.count_nonzero(found) == 1
    assert error_map(np.ones(3), np.ones(3)) == [] and error_map(np.ones((2, 2)), np.ones((3, 2))) == []
