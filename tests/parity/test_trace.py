"""What a trace records and forces, and the dropout masks both frameworks share."""
import numpy as np
import pytest

from parity.case import arrays_for
from parity.levels.trace import forced, record
from parity.workers.side import group, grouped
from tests.parity.traced import Small

pytestmark = pytest.mark.parity
ARGUMENTS = {"case": Small().reference(), "size": "tiny", "mode": "train"}


@pytest.fixture(scope="module")
def arrays(twins):
    return arrays_for(Small(), twins, "tiny", "train")


@pytest.fixture(scope="module")
def recorded(twins, arrays):
    return twins.both(record, arrays, **ARGUMENTS)


@pytest.mark.parametrize("framework", ["torch", "jittor"])
def test_every_call_is_recorded_in_the_order_it_ended(recorded, framework):
    arrays, values = recorded[framework]
    block = [["block.conv", "Conv2d"], ["block.norm", "BatchNorm2d"], ["block.drop", "Dropout"], ["block", "Block"]]
    assert values["order"] == [[path, call, kind] for call in range(2) for path, kind in block] + [
        ["choice", 0, "Choice"], ["", 0, "Net"]]
    assert values["callers"]["block.conv#1"] == "block#1" and values["callers"]["block#1"] == "#0"
    assert values["callers"]["#0"] == ""
    assert [name for name in arrays if name.startswith("out/block#1")] == [f"out/block#1/{i}" for i in range(3)]
    assert np.array_equal(arrays["in/block#1/0"], arrays["out/block#0/0"])       # x, then skip by name
    assert np.array_equal(arrays["in/block#1/1"], arrays["out/block#0/1"])
    assert sorted(group(arrays, "state")) == ["block.norm.running_mean", "block.norm.running_var"]


def test_depth_and_inputs_limit_the_record(twins, arrays):
    found, values = twins.torch.call(record, arrays, **ARGUMENTS, depth=1, inputs=False)
    assert {path for path, _, _ in values["order"]} == {"", "block", "choice"}
    assert not group(found, "in") and "block#1/2" in group(found, "out")


@pytest.mark.parametrize("framework", ["torch", "jittor"])
def test_forced_calls_are_given_and_give_back_what_was_recorded(twins, arrays, recorded, framework):
    known = {name: a.copy() for name, a in recorded["torch"][0].items() if name.startswith(("in/", "out/"))}
    known["in/block.norm#0/0"] += 1          # normalised away by the layer itself, seen by no one else
    known["out/block.conv#0/0"] += 2
    known["out/block.drop#1/0"] *= 3
    worker = {"torch": twins.torch, "jittor": twins.jittor}[framework]
    found, _ = worker.call(forced, {**arrays, **grouped("record", known)}, **ARGUMENTS)

    def close(name, expected):
        np.testing.assert_allclose(found[name], expected, rtol=0, atol=2e-5)

    close("out/block.conv#0/0", known["out/block.conv#0/0"] - 2)                     # its own
    close("in/block.norm#0/0", known["out/block.conv#0/0"])                          # before it was replaced
    close("out/block.norm#0/0", known["out/block.norm#0/0"])                         # of the replaced one
    close("out/block#1/0", known["out/block.drop#1/0"] * 0.5 + known["in/block#1/1"])
    close("result/y", known["out/#0/0"])


def test_dropout_masks_are_equal_on_both_sides_and_differ_between_calls(twins):
    x = {"x": np.ones((4, 3, 5, 6), np.float32)}
    both = twins.both("tests.parity.traced:masks", x, training=True)
    (torch, values), (jittor, others) = both["torch"], both["jittor"]
    assert values["restored"] and others["restored"]
    for name, mask in torch.items():
        assert np.array_equal(mask, jittor[name]) and set(np.unique(mask)) == {0, 2}
    for kind in ("elements", "channels"):
        assert not np.array_equal(torch[f"{kind} 0"], torch[f"{kind} 1"])
    assert np.array_equal(torch["channels 0"], torch["channels 0"][:, :, :1, :1] + np.zeros_like(x["x"]))
    calm = twins.both("tests.parity.traced:masks", x, training=False)
    assert all(np.array_equal(a, x["x"]) for found, _ in calm.values() for a in found.values())
