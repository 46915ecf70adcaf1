"""Pairs of the frameworks' own layers without parameters: their state is empty, and what they compute is told apart."""
import pytest

from parity import Pair
from parity.explain.finding import explain_failures
from parity.levels.structure import EMPTY
from parity.runner import Step, perform

MEAN = Pair("tests.parity.pair_modules:torch_mean", "tests.parity.pair_modules:jittor_mean",
            inputs={"x": (1, 3, 321, 481)}, name="mean")
LAYERS = {case.name: case for case in (MEAN, *(
    Pair(f"torch.nn:{kind}", f"jittor.nn:{kind}", inputs={"x": (1, 2, 9, 8)}, arguments=arguments, name=name)
    for name, kind, arguments in (
        ("relu", "ReLU", {}),
        ("pool", "AvgPool2d", {"kernel_size": 3, "stride": 2, "padding": 1}),
        ("ceil", "AvgPool2d", {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True}),
        ("uncounted", "AvgPool2d", {"kernel_size": 3, "stride": 2, "padding": 1, "count_include_pad": False}),
        ("upsampled", "UpsamplingBilinear2d", {"scale_factor": 2.0}))))}
KNOWN = {"mean": "N2", "ceil": "F4", "uncounted": "F4", "upsampled": "F7"}


def rows(twins, name, level):
    return perform(Step(level, LAYERS[name], "tiny", "train"), twins)


@pytest.mark.parametrize("name", LAYERS)
def test_an_empty_state_is_a_state(name, twins):
    (row,) = rows(twins, name, "L1")
    assert row.passed, row.detail["reason"]
    assert (row.worst, row.detail["elements"], row.detail["parameters"]) == (EMPTY, 0, 0)


def test_a_state_on_one_side_only_is_no_empty_one(twins):
    """PReLU has a slope, ReLU none; neither order of the twins may pass."""
    for torch, jittor in (("PReLU", "ReLU"), ("ReLU", "PReLU")):
        pair = Pair(f"torch.nn:{torch}", f"jittor.nn:{jittor}", inputs={"x": (2, 3)})
        (row,) = perform(Step("L1", pair, "tiny", "train"), twins)
        assert not row.passed and "weight" in row.detail["reason"]


@pytest.mark.parametrize("level", ["L3", "L4"])
@pytest.mark.parametrize("name", [name for name in LAYERS if name not in KNOWN])
def test_equal_layers_pass(name, level, twins):
    (row,) = rows(twins, name, level)
    assert row.passed, row.detail["reason"]


@pytest.mark.parametrize("name", KNOWN)
def test_a_known_difference_of_a_layer_is_named(name, twins):
    step = Step("L3", LAYERS[name], "tiny", "train")
    [found] = explain_failures(perform(step, twins), [step], twins)
    assert found["named"] == KNOWN[name]


def test_a_layer_that_jittor_refuses_is_named(twins):
    pair = Pair("torch.nn:PReLU", "jittor.nn:PReLU", inputs={"x": (2, 3, 4)}, arguments={"num_parameters": 3})
    step = Step("L3", pair, "tiny", "train")
    [found] = explain_failures(perform(step, twins), [step], twins)
    assert found["named"] == "F19" and "F19 explains it: Jittor computes nothing here" in found["text"]
