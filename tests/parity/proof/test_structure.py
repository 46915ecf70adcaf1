"""Level L1 passes for the twins of this project, and finds every kind of state that is not the same."""
from dataclasses import replace

import pytest

from jittwin.models.catalog import BY_NAME
from parity.cases import CASES
from parity.levels.structure import HOPS, SUFFIXES, _aliases, _suffix, check, compare_states, conversions
from parity.pair import Pair
from parity.runner import Step

ENCODER = CASES["apf_gan.encoder"]


def pair(trap: str = "", tied: bool = False, torch_tied: bool | None = None) -> Pair:
    return Pair("tests.parity.structured_modules:torch_network", "tests.parity.structured_modules:jittor_network",
                inputs={"x": (2, 3)}, arguments={"tied": tied if torch_tied is None else torch_tied},
                jittor_arguments={"trap": trap, "tied": tied})


def found(twins, case, mode="train"):
    (row,) = check(case, "tiny", mode, twins)
    return row


def test_the_encoder_passes(rows_of):
    row, = rows_of(Step("L1", ENCODER, "tiny", "train"))
    assert row.passed and row.error == 0
    assert row.detail["count"] == 22 and row.detail["parameters"] == 10


def test_every_format_crosses_in_every_direction():
    hops = [(HOPS[hop], HOPS[hop + 1], _suffix(route, hop)) for route in range(3) for hop in range(3)]
    assert {(a, b, s) for a, b in (("torch", "jittor"), ("jittor", "torch")) for s in SUFFIXES} <= set(hops)


def test_a_conversion_record_that_mixes_up_names_is_noticed(twins):
    case, record = CASES["resnet"], BY_NAME["resnet"]
    swap = (("^layer1[.]0[.]bn1[.]", "kept."), ("^layer1[.]0[.]bn2[.]", "layer1.0.bn1."), ("^kept[.]", "layer1.0.bn2."))
    mixed = replace(record, conversion=replace(record.conversion, back=swap))
    arguments = {"case": case.reference(), "size": "tiny", "mode": case.modes[0]}
    found = conversions(twins, arguments, {}, routes=1, record=mixed)
    wrong = {name.rpartition(".")[0] for name, verdict in found.items() if not verdict.passed}
    assert wrong == {"layer1.0.bn1", "layer1.0.bn2"}


@pytest.mark.parametrize("tied", [False, True])
def test_a_users_module_passes(twins, tied):
    row = found(twins, pair(tied=tied))
    assert row.passed, row.detail["reason"]
    assert row.detail["count"] == 5 if tied else 6


@pytest.mark.parametrize("trap, reason", [
    ("underscore", "1 missing: gain; _gain: a Var whose name begins with an underscore is neither saved nor trained"),
    ("list", "parts[0]: a module in a plain list is neither saved nor trained [S16]"),
    ("listed Var", "more['table'][0]: a Var in a plain list is neither saved nor trained [S16]"),
    ("buffer", "1 of another role: scale parameter instead of constant"),
    ("buffer", "scale: a buffer that Jittor would train [S1]"),
    ("frozen", "1 of another role: gain constant instead of parameter"),
    ("shape", "1 of another shape: gain (3, 1) instead of (3,)"),
    ("type", "1 of another type: gain float16 instead of float32")])
def test_a_trap_is_found(twins, trap, reason):
    row = found(twins, pair(trap))
    assert not row.passed
    assert reason in row.detail["reason"].replace("\n", "; ")


def test_a_tensor_tied_on_one_side_only_is_found(twins):
    row = found(twins, pair(tied=False, torch_tied=True))
    assert "first.weight and last.weight are one tensor, but not in Jittor [S5]" in row.detail["reason"]


def test_aliases_go_by_the_name_that_jittor_saves():
    assert _aliases([["a", "b", "c"]], {"b": 0}) == {"a": "b", "c": "b"}


def test_five_of_each_kind_are_listed_with_the_nearest_names():
    def described(names, role="parameter"):
        return {"state": {name: [[2], "float32", role] for name in names}, "ties": [], "traps": []}

    torch = described([f"layer{n}.weight" for n in range(7)] + ["norm"])
    (text, roles) = compare_states(torch, described([f"layers{n}.weight" for n in range(7)] + ["norm"], "constant"), {})
    assert "7 missing: layer0.weight, layer1.weight, layer2.weight, layer3.weight, layer4.weight and 2 more" in text
    assert "layers3.weight (did you mean 'layer3.weight'?)" in text and "layers6" not in text.split("\n")[0]
    assert roles == "1 of another role: norm constant instead of parameter"


@pytest.mark.parametrize("file, old, new, reason", [
    ("backend.py", "check_state(shapes, arrays, allow_missing, allow_unexpected)", "shapes.keys() & arrays.keys()",
     "jittor loads a state without layer1.0.weight_orig without an error [S3]"),
    ("backend.py", "state[name].update(jt.array(np.atleast_1d(value).astype(str(state[name].dtype))))", "pass",
     "tensors, worst"),
    ("backend.py", "np.atleast_1d(value).astype(str(state[name].dtype))",
     "np.atleast_1d(value).astype('float16').astype('float32')", "other bytes after torch -> .safetensors -> jittor"),
    ("backend.py", "np.atleast_1d(value).astype(str(state[name].dtype))", "np.atleast_1d(value)",
     "of another type: layer1.0.weight_orig float16 instead of float32"),
    ("nn/layers.py", "setattr(self, name, value.stop_grad())", "setattr(self, name, value)",
     "of another role: layer1.0.weight_u parameter instead of constant"),
    ("backend.py", "if name not in buffers and", "if True or",
     "jittor: 12 names, such as layer1.0.weight_u, which is given to the optimizer"),
    ("backend.py", "        state, shapes = module.state_dict(), _shapes(module)\n",
     "        state, shapes = module.state_dict(), _shapes(module)\n        fits = [n for n in arrays if n in state and "
     "tuple(state[n].shape) == arrays[n].shape]\n        "
     "[state[n].update(jt.array(arrays[n].astype('float32'))) for n in fits]\n",
     "jittor refuses a state without layer1.0.weight_orig after it has loaded 21 tensors of it"),
])
def test_a_fault_of_the_jittor_twin_is_found(broken, file, old, new, reason):
    row = found(broken(file, old, new), ENCODER)
    assert not row.passed
    assert reason in row.detail["reason"]


def test_a_load_that_makes_new_tensors_is_found(broken):
    old = "state[name].update(jt.array(np.atleast_1d(value).astype(str(state[name].dtype))))"
    new = f"(setattr(module, name, jt.array(arrays[name].copy())) if name == 'gain' else {old})"
    row = found(broken("backend.py", old, new), pair())
    assert "jittor: loading makes new tensors of 1 names, such as gain" in row.detail["reason"]
