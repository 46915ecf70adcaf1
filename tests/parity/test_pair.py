"""Pairs of modules that are not ours: what makes them hard passes, and every kind of mistake is told."""
import json
import sys

import pytest

from jittwin.errors import UserError
from parity import Pair, parity_case
from parity.case import load
from parity.explain.finding import explain_failures
from parity.runner import Step, perform, select
from parity.testing import import_paths, misfit, prove
from parity.workers.worker import Worker

HERE = "tests.parity.pair_modules"
HARD = {"torch": f"{HERE}:torch_module", "jittor": f"{HERE}:jittor_module",
        "inputs": {"words": ("int", 0, 11, (2, 5)), "lengths": "pair_modules:lengths", "bias": (2, 5, 8)},
        "keywords": ["bias"], "names": {"blocks": "layers", "ln": "norm"}, "ignore": ["table"]}
NORM = {"torch": f"{HERE}:torch_norm", "jittor": f"{HERE}:jittor_norm", "inputs": {"x": (5, 4)}}

HARD_PAIR = Pair(**HARD)


def rows(twins, pair, level, mode="train"):
    return perform(Step(level, pair, "tiny", mode), twins)


@pytest.fixture
def failing(twins):
    """The message with which one level of a pair fails."""
    def run(pair, level, mode="train", accepted="") -> str:
        with pytest.raises(pytest.fail.Exception) as caught:
            prove(Step(level, pair, "tiny", mode), twins, accepted)
        return str(caught.value)
    return run


@pytest.mark.parametrize("level", ["L1", "L3", "L4", "L5"])
@pytest.mark.parametrize("mode", ["eval", "train"])
def test_a_hard_pair_passes(twins, level, mode):
    for row in rows(twins, Pair(**HARD), level, mode):
        assert row.passed, row.detail


def test_dropout_is_on_in_training(twins):
    """With one probability of dropout on one side only, the twins part; so masks are drawn, and drawn alike."""
    pair = Pair(**HARD, jittor_arguments={"p": 0.0})
    assert all(row.passed for row in rows(twins, pair, "L3", "eval"))
    (row,) = rows(twins, pair, "L3", "train")
    assert not row.passed and row.detail["first_divergence"].startswith("drop")


def test_paths_and_names_follow_the_map(twins):
    (row,) = rows(twins, Pair(**HARD), "L3")
    assert {"layers.0", "layers.1", "norm"} <= {path.split("#")[0] for path, *_ in row.detail["curve"]}


def test_a_wrong_gradient_alone_is_found(twins):
    pair = Pair(**HARD, jittor_arguments={"detached": True})
    assert all(row.passed for row in rows(twins, pair, "L3", "eval"))
    (row,) = rows(twins, pair, "L4", "eval")
    assert not row.passed and row.worst.startswith("gradient scale")


def test_names_that_differ_come_with_a_map_to_paste(twins, failing):
    pair = Pair(**{**HARD, "names": {}})
    found = failing(pair, "L3")
    assert found.startswith("the Jittor state is not the PyTorch state: 6 missing: layers.0.weight")
    assert "names={\n    'blocks': 'layers',\n    'ln': 'norm',\n}" in found
    assert misfit(Pair(**HARD), twins) == ""


def test_a_table_that_only_one_side_stores_is_named(twins):
    assert "1 missing: table" in misfit(Pair(**{**HARD, "ignore": []}), twins)


def test_raw_batchnorm_fails_where_it_differs_and_is_explained(twins, failing):
    """Jittor's BatchNorm stores the biased variance: only training shows it."""
    pair = Pair(**NORM)
    assert all(row.passed for row in rows(twins, pair, "L3", "eval"))
    found = failing(pair, "L3")
    assert "state 1.running_var" in found and "N4 explains it" in found


def test_the_command_explains_a_pair(twins):
    """Whose name in reports is that of the port, which the process of the command must not import."""
    step = Step("L3", Pair(**NORM), "tiny", "train")
    [found] = explain_failures(perform(step, twins), [step], twins)
    assert found["named"] == "N4" and "jittor" not in sys.modules


def test_only_the_known_difference_is_accepted(twins, failing):
    step = Step("L3", Pair(**NORM), "tiny", "train")
    with pytest.raises(pytest.xfail.Exception, match="N4: "):
        prove(step, twins, "N4")
    assert "running_var" in failing(Pair(**NORM), "L3", accepted="N8")
    assert failing(Pair(**NORM), "L3", "eval", accepted="N4").endswith("passes: take N4 out of xfail")


@pytest.mark.parametrize("wrong, message", [
    ({"jittor": "no_such_port:Net"}, "'no_such_port:Net': there is no module 'no_such_port'"),
    ({"jittor": f"{HERE}:Nothing"}, "has no attribute 'Nothing'"),
    ({"jittor": "Net"}, 'write "module:Class"'),
    ({"jittor_arguments": {"widht": 3}}, "unexpected keyword argument 'widht'")])
def test_mistakes_are_told_once(failing, wrong, message):
    for level in ("L1", "L3"):
        assert message in failing(Pair(**{**HARD, **wrong}), level)


def test_a_pair_crosses_as_json():
    pair = Pair(**HARD)
    reference = json.loads(json.dumps(pair.reference()))
    other = load(reference)
    assert json.loads(json.dumps(other.reference())) == reference
    assert (other.differentiable, other.names, other.keywords) == (pair.differentiable, pair.names, pair.keywords)
    assert (pair.inputs("tiny", "eval")["words"] == other.inputs("tiny", "eval")["words"]).all()


def test_inputs_are_what_was_declared():
    words = Pair(**{**HARD, "inputs": {"words": ("int", 3, 5, (50,))}, "keywords": []}).inputs("tiny", "eval")["words"]
    assert words.dtype == "int64" and set(words) == {3, 4}
    assert Pair(**HARD).differentiable == ("bias",)


@pytest.mark.parametrize("arguments, message", [
    ({"levels": ["L7"]}, "no level 'L7'.*choose from L1, L3, L4"),
    ({"modes": ["trian"]}, "no mode 'trian'.*did you mean 'train'"),
    ({"xfail": {"L3": "N4"}}, "no test 'L3'.*choose from L1-eval"),
    ({"xfail": {"L3-train": "N99"}}, "no catalogue entry 'N99'")])
def test_a_decorator_that_asks_for_nothing_there_is_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        parity_case(Pair(**HARD), **arguments)


@pytest.mark.parametrize("arguments, message", [
    ({"levels": ["L6"]}, "no level 'L6'.*choose from L1, L2, L3, L4, L5"),
    ({"keywords": ["bais"]}, "no keyword 'bais'.*did you mean 'bias'")])
def test_a_pair_that_asks_for_nothing_there_is_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        Pair(**{**HARD, **arguments})


def test_workers_import_from_where_the_tests_do(monkeypatch, tmp_path):
    """In the same order, before what is installed: a user's `models.py` may be somebody's package too."""
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    found = import_paths()
    assert found[0] == str(tmp_path.resolve()) and not any("site-packages" in folder for folder in found)
    (tmp_path / "yaml.py").write_text("def where(side, arrays):\n    return {}, {'file': __file__}\n")
    with Worker("torch", paths=found) as worker:
        assert worker.call("yaml:where")[1] == {"file": str(tmp_path.resolve() / "yaml.py")}


def test_the_command_checks_a_pair_by_its_name():
    assert select([f"{__name__}:HARD_PAIR"]) == [HARD_PAIR]
    assert [case.name for case in select([f"{__name__}:HARD_PAIR", "vgg19"])] == [HARD_PAIR.name, "vgg19"]
    assert HARD_PAIR not in select([])
    with pytest.raises(UserError, match="'json:JSONDecoder' is no Pair"):
        select(["json:JSONDecoder"])
    with pytest.raises(UserError, match="there is no module 'nowhere'"):
        select(["nowhere:PAIR"])
