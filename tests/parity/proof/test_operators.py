"""Level L2 passes for every function of nn.ops, forgets none, and finds faults on the inputs made for them."""
import re

import numpy as np
import pytest

from parity.cases import find
from parity.cases.operators import Functions
from parity.levels import ops
from parity.levels.calls import decode, distinct, encode, title
from parity.levels.operators import check, decided, products, verdicts
from parity.levels.ops import OPS
from parity.levels.probes import inputs
from parity.pair import Pair
from parity.runner import Step
from parity.workers.compare import Comparison, Verdict

NETWORK = Pair("tests.parity.operator_modules:torch_network", "tests.parity.operator_modules:jittor_network",
               inputs={"x": (2, 3, 6, 8)}, modes=("train",))

# float32 PyTorch has NaN for the GELU of infinity, and no digit of what a saturated tanh or softmax passes back. Ties
# put modulated pixels on the corner of leaky ReLU.
UNDECIDED = {"tanh [large mean] slope", "gelu [inf] output", "attention [extremes] slope", "l1_mean [many] slope",
             "modulate [ties] slope"}


def functions(side, arrays):
    """In a worker: the names of nn.ops."""
    from parity.levels.calls import public
    return {}, {"names": public(side.ops)}


def found(twins, case):
    (row,) = check(case, "tiny", case.modes[0], twins)
    return row


def test_every_function_of_either_twin_has_a_probe(twins):
    names = twins.both("tests.parity.proof.test_operators:functions")
    for _, values in names.values():
        assert set(values["names"]) == set(OPS)


def test_every_function_passes(rows_of):
    row, = rows_of(Step("L2", find("operators"), "tiny", "eval"))
    assert row.passed, row.detail["reason"]
    assert {re.sub(r"\d+ (\w+).*", r"\1", call) for call in row.detail["calls"]} == set(OPS)
    assert row.detail["count"] > 400
    # What float32 PyTorch does not know itself is left open: it is little.
    assert {re.sub(r"\d+ (\w+)\(.*(\[.*\] \w+).*", r"\1 \2", name) for name in row.detail["undecided"]} <= UNDECIDED


def test_a_users_network_passes(twins):
    row = found(twins, NETWORK)
    assert row.passed, row.detail["reason"]
    assert [call.split("(")[0].split(" ", 1)[1] for call in row.detail["calls"]] == [
        "conv Conv2d", "norm BatchNorm2d", "relu", "interpolate", "avg_pool2d", "max_pool2d"]


def test_a_module_without_parts_is_probed_whole(twins):
    row = found(twins, Pair("torch.nn:Tanh", "jittor.nn:Tanh", inputs={"x": (2, 3)}, modes=("eval",)))
    assert row.passed, row.detail["reason"]
    assert row.detail["calls"] == ["0 Tanh(2x3)"]


def test_a_function_without_a_probe_fails(twins, monkeypatch):
    monkeypatch.delitem(ops.OPS, "relu")
    row = found(twins, NETWORK)
    assert not row.passed
    assert row.detail["reason"] == "no probe knows how to drive nn.ops.relu: add a row to OPS in parity/levels/ops.py"


FAULTS = {
    "relu loses NaN": ("nn/kernels/activation.py", "in0_p[i] <= 0 ? 0 : in0_p[i];", "in0_p[i] > 0 ? in0_p[i] : 0;",
                       r"relu\(.*\[nan\] output"),
    "relu has slope 1 at 0": ("nn/kernels/activation.py", "in0_p[i] <= 0 ? 0 : in1_p[i];",
                              "in0_p[i] < 0 ? 0 : in1_p[i];", r"relu\(.*\[ties\] slope 0"),
    "the pool counts its padding": ("nn/ops.py", "stride, padding, count_include_pad)(x)", "stride, padding, True)(x)",
                                    r"avg_pool2d\(.*\[random\] output"),
    "nearest for bilinear": ("nn/ops.py", "_taps(old, new, mode, align_corners) for",
                             "_taps(old, new, 'nearest', align_corners) for",
                             r"interpolate\(.*\[random\] output"),
    "the running variance is biased": ("nn/layers.py", "variance = variance * (count / (count - 1))", "pass",
                                       r"norm BatchNorm2d\(.*\[random\] state norm.running_var"),
    "the variance takes one pass": ("nn/layers.py", "return *normalize(x), normalize.count if share else count",
                                    "mean, square = [ops.mean_dims(v, (0, 2)) for v in (x, x * x)]; "
                                    "variance = square - mean * mean; "
                                    "return ((x - mean) / (variance + norm.eps).sqrt(), mean.reshape(-1), "
                                    "variance.reshape(-1), count)",
                                    r"norm BatchNorm2d\(.*\[large mean\]"),
    "max-pool loses NaN": ("nn/kernels/pool.py", " || std::isnan(seen)", "",
                            r"max_pool2d\(.*\[nan\] output"),
    "max-pool takes the last of equals": ("nn/kernels/pool.py", "seen > best[q]", "seen >= best[q]",
                                          r"max_pool2d\(.*\[ties\] slope 0"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found_where_it_shows(broken, name):
    file, old, new, where = FAULTS[name]
    row = found(broken(file, old, new), NETWORK)
    failed = [tensor for tensor, *_, reason in row.detail["tensors"] if reason]
    assert not row.passed
    assert any(re.search(where, tensor) for tensor in failed), failed


@pytest.mark.parametrize("old, new, where", [
    ("ops.py", ("labels.unsqueeze(1)", "labels.int32().unsqueeze(1)"), r"one_hot\(.*\[range\] output"),
    ("ops.py", ("jt.array(array, dtype=str(array.dtype))", "jt.array(array)"), r"from_host\(.*\[range\] output"),
    ("ops.py", ("sign = (difference > 0).float32()", "sign = (difference >= 0).float32()"),
     r"l1_mean\(.*\[ties\] slope 0"),
    ("ops.py", ("    return _total(x, range(len(x.shape))) / x.numel()",
                "    return x.mean()"),
     r" mean\(.*\[many\] output")])
def test_faults_of_other_functions(broken, old, new, where):
    row = found(broken(f"nn/{old}", *new), Functions())
    assert any(re.search(where, tensor) for tensor, *_, reason in row.detail["tensors"] if reason)


def test_a_call_that_only_one_twin_refuses_fails(broken):
    body = "    return MaxPool(kernel, stride, padding)(x)"
    row = found(broken("nn/ops.py", body, f"    assert x.shape[2] % 2 == 0\n{body}"), NETWORK)
    failed = {tensor: reason for tensor, *_, reason in row.detail["tensors"] if reason}
    assert failed["5 max_pool2d(2x4x4x4, 2, 2) [odd] raised"] == "only Jittor returns it"
    assert row.detail["raised"]["5|odd"].startswith("AssertionError")


# ---- without workers ----------------------------------------------------------------

def call(name, *arguments, path=None, attributes=(), mode="eval"):
    values: dict = {}
    return {"name": name, "path": path, "mode": mode, "attributes": dict(attributes),
            "arguments": encode(list(arguments), values, name), "keywords": {}}, {}


def image(*shape):
    return np.zeros(shape, np.float32)


def test_arguments_come_back():
    values: dict = {}
    given = [image(2, 3), (image(1), 4), {"mode": "nearest", "size": (2, 3)}, None, 0.5]
    encoded = encode(given, values, "f")
    back = decode(encoded, {0: "a", 1: "b"})
    assert back == ["a", ["b", 4], {"mode": "nearest", "size": [2, 3]}, None, 0.5]
    assert [a.shape for a in values.values()] == [(2, 3), (1,)]


@pytest.mark.parametrize("first, second, kinds", [
    (call("relu", image(2, 3, 8, 8)), call("relu", image(2, 9, 4, 4)), 1),
    (call("relu", image(2, 3, 8, 8)), call("relu", image(2, 3)), 2),
    (call("leaky_relu", image(2, 3), 0.1), call("leaky_relu", image(2, 3), 0.2), 2),
    (call("interpolate", image(2, 3, 8, 8), (4, 4), "nearest"),
     call("interpolate", image(2, 3, 8, 8), (2, 2), "nearest"), 1),
    (call("interpolate", image(2, 3, 8, 8), (4, 4), "nearest"),
     call("interpolate", image(2, 3, 8, 8), (3, 3), "nearest"), 2),
    (call("where", image(2, 1), image(2, 3)), call("where", image(2, 3), image(2, 3)), 2),
    (call("Norm", image(2, 3), path="a", attributes={"eps": 1}),
     call("Norm", image(2, 3), path="b", attributes={"eps": 1}), 1),
    (call("Norm", image(2, 3), path="a", attributes={"eps": 1}),
     call("Norm", image(2, 3), path="a", attributes={"eps": 2}), 2)])
def test_what_is_one_kind_of_call(first, second, kinds):
    assert len(distinct([first, second])) == kinds


def test_the_smallest_even_call_of_a_kind_is_kept():
    calls = [call("relu", image(2, 3, side, side)) for side in (8, 5, 4, 6)]
    assert title(distinct(calls)[0][0]) == "relu(2x3x4x4)"


def test_probes_hold_what_they_are_named_after():
    given = dict(inputs(call("l1_mean", image(2, 3, 6, 8), image(2, 3, 6, 8))[0], {}, "seed"))
    assert list(given) == ["random", "ties", "zeros", "extremes", "large mean", "many", "nan", "inf", "odd"]
    assert given["many"]["0"].size > 2 ** 17 and "many" not in dict(inputs(call("relu", image(2, 3))[0], {}, "seed"))
    assert given["odd"]["0"].shape == given["odd"]["1"].shape == (2, 3, 5, 7)
    assert np.isnan(given["nan"]["0"]).any() and np.isposinf(given["inf"]["0"]).any()
    assert np.isneginf(given["inf"]["0"]).any() and given["large mean"]["0"].mean() > 9
    first, second = (given["ties"]["palette"][given["ties"][f"{n} codes"]] for n in range(2))
    assert set(first.ravel()) == {-1, 0, 1} and (first == second).mean() > 0.2
    labels = call("one_hot", np.zeros((2, 2, 4), np.int64), 5)[0]
    ranged = dict(inputs(labels, {"0": np.zeros((2, 2, 4), np.int64)}, "seed"))["range"]["0"]
    assert {-1, 5, 2 ** 32 + 1} <= set(ranged.ravel())


def test_a_copy_owes_equality():
    truth = np.array([1, 2], np.float64)
    near = Comparison({"0|random|output": np.nextafter(truth.astype(np.float32), np.float32(9))},
                      {"0|random|output": truth}, {"0|random|output": 0.0}, {"0|random|output": 0.0}, {})
    assert verdicts(near, [call("relu", image(2))[0]], ["0 relu(2)"], [0])["0 relu(2) [random] output"].passed
    assert not verdicts(near, [call("detach", image(2))[0]], ["0 detach(2)"], [0])["0 detach(2) [random] output"].passed


def test_a_sum_of_many_products_may_be_off_by_their_roundings():
    def passed(error: float, terms: int, result: str = "output") -> bool:
        name, truth = f"0|random|{result}", np.ones(4)
        found = Comparison({name: np.float32(truth + error)}, {name: truth}, {name: 1e-7}, {name: 1e-7}, {})
        return next(iter(verdicts(found, [call("relu", image(2))[0]], ["0"], [terms]).values())).passed

    assert passed(1e-5, 4032) and not passed(1e-5, 0) and not passed(1e-5, 900)
    assert not passed(2e-5, 4032) and not passed(1e-5, 4032, "slope 0") and not passed(np.nan, 4032)


def test_the_products_of_a_convolution_and_of_a_linear_layer_are_counted():
    weights = {"weights eval/a.weight": np.zeros((5, 7, 3, 3)), "weights eval/b.weight": np.zeros((5, 7))}
    for name, path, expected in (("Conv2d", "a", 63), ("Linear", "b", 7), ("BatchNorm2d", "b", 0)):
        assert products({"name": name, "path": path, "mode": "eval"}, weights) == expected
    given = [{"tensor": number, "shape": shape, "type": "float32"} for number, shape in enumerate(([2, 7], [5, 7]))]
    assert products({"name": "linear", "path": None, "arguments": given, "keywords": {}}, {}) == 7


def test_what_pytorch_does_not_know_is_not_decided():
    assert decided(Verdict(1e-6, 1e-7, 1e-7, 1e-6))
    assert not decided(Verdict(0.1, 0.5, 0.5, 4.0))
    assert decided(Verdict(9.0, 0.5, 0.5, 4.0))
