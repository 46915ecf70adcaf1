"""Mutation testing of the checks: what kills what, and that the bookkeeping cannot flatter."""
import argparse
import json

import numpy as np
import pytest

from jittwin.errors import UserError
from parity import runner as check
from parity.cases import CASES, find
from parity.commands import mutate as command_line
from parity.faults import FAULTS, Fault, mutate
from parity.result import Row, failure
from parity.workers.oracle import Twins

ENCODER, MODES = "apf_gan.encoder", ("train", "eval")


def fault(name="f", **options):
    return Fault(name, "", "nn/ops.py", "a", "b", "something is wrong", (ENCODER,), **options)


def mutant(name, shown=("L1", "L4"), killed=(), **options):
    return mutate.Mutant(fault(name, **options), [(ENCODER, level) for level in shown],
                         {level: "seen" for level in killed}, [(ENCODER, level) for level in killed])


def passing(level="L4", mode="eval"):
    return Row(ENCODER, level, mode, "float32", "pass", 1e-6, 1e-6, 1.0, "x")


# ---- bookkeeping -----------------------------------------------------------------------

MUTANTS = [mutant("a", killed=["L1", "L4"]), mutant("b", killed=["L4"]), mutant("c"),
           mutant("d", equivalent="proof"), mutant("e", shown=())]


def test_equivalent_faults_and_those_no_check_was_shown_do_not_count():
    assert mutate.kill_rate(MUTANTS) == 2 / 3
    assert [m.verdict for m in MUTANTS] == ["killed", "killed", "survived", "equivalent", "not shown"]


def test_a_level_counts_what_it_was_shown_what_it_killed_and_what_only_it_killed():
    assert mutate.by_level(MUTANTS) == {"L1": {"mutants": 3, "killed": 1, "kill_rate": 1 / 3, "alone": 0},
                                        "L4": {"mutants": 3, "killed": 2, "kill_rate": 2 / 3, "alone": 1}}


def test_a_check_that_kills_nothing_is_rejected():
    assert mutate.idle(MUTANTS) == []
    assert mutate.idle(MUTANTS[1:]) == [(ENCODER, "L1")]


def test_a_whole_run_objects_to_idle_checks_and_to_models_without_a_fault(monkeypatch):
    monkeypatch.setattr(check, "perform", lambda step, _: [
        (failure if killing and step.level == "L4" else row)(ENCODER, step.level, step.mode, "bad")])
    monkeypatch.setattr(mutate, "FAULTS", {"gain": FAULTS["encoder_slope"]})
    killing = False

    def row(model, level, mode, _):
        return passing(level, mode)

    class Twins:
        twin = None

        def replace_jittor(self, folder):
            nonlocal killing
            killing = folder is not None

    found = mutate.run([ENCODER, "vgg19"], twins=Twins())["objections"]
    assert found == [*(f"rejected: L{n} of {ENCODER} kills nothing" for n in (1, 2, 3, 5)),
                     "no fault concerns environment", "no fault concerns vgg19"]
    assert not mutate.run([ENCODER], only=["encoder_slope"], twins=Twins())["objections"]


def test_the_first_kill_is_the_lowest_level():
    assert mutant("a", killed=["L4", "L1"]).first == "L1"
    assert mutant("a").first is None


@pytest.mark.parametrize("one, objection", [
    (mutant("a"), "a survives unexplained: something is wrong"),
    (mutant("a", survives="known"), "kill rate 0.0% is below 95%"),
    (mutant("a", killed=["L4"], equivalent="proof"), "a is said to change nothing, yet L4 noticed"),
    (mutant("a", shown=()), "a: no check that passes with the unbroken twin was run on it")])
def test_what_makes_a_result_bad(one, objection):
    assert objection in mutate.objections([], [one])


def test_a_good_result_has_no_objection():
    killed = [mutant(str(i), killed=["L4"]) for i in range(19)]
    assert not mutate.objections([passing()], [*killed, mutant("x", survives="known"), mutant("e", equivalent="p")])


def test_a_check_that_fails_with_the_unbroken_twin_kills_nothing(monkeypatch):
    monkeypatch.setattr(mutate, "steps", lambda *_: [check.Step("L4", find(ENCODER), "tiny", mode) for mode in MODES])
    monkeypatch.setattr(check, "perform", lambda step, _: [
        failure(ENCODER, "L4", "eval", "bad") if step.mode == "eval" else passing(mode="train")])
    found = mutate.judged(fault(), mutate.steps([ENCODER], ["L4"]), None, {(ENCODER, "L4", "train")})
    assert found.verdict == "survived" and found.checks == [(ENCODER, "L4")]
    assert mutate.judged(fault(), mutate.steps([ENCODER], ["L4"]), None, {(ENCODER, "L4", "eval")}).verdict == "killed"
    assert "fails with the unbroken twin" in mutate.objections([failure(ENCODER, "L4", "eval", "bad")], [])[0]


def test_a_check_that_has_noticed_is_spared_its_other_modes(monkeypatch):
    asked = []
    monkeypatch.setattr(mutate, "steps", lambda *_: [check.Step(level, find(ENCODER), "tiny", mode)
                                                     for level in ("L3", "L4") for mode in MODES])
    monkeypatch.setattr(check, "perform", lambda step, _: asked.append((step.level, step.mode)) or [
        failure(ENCODER, step.level, step.mode, "bad") if step.level == "L3" else passing(mode=step.mode)])
    sound = {(ENCODER, level, mode) for level in ("L3", "L4") for mode in MODES}
    assert list(mutate.judged(fault(), mutate.steps([ENCODER], None), None, sound).killed) == ["L3"]
    assert asked == [("L3", "train"), ("L4", "train"), ("L4", "eval")]


def test_every_fault_is_shown_to_the_levels_of_its_cases_alone():
    shown = {(step.model, step.level) for step in mutate.steps([ENCODER], ["L0", "L4"])}
    assert shown == {(ENCODER, "L4")}
    assert [step.level for step in mutate.steps([check.ENVIRONMENT], None)] == ["L0"]
    assert {step.level for step in mutate.steps([ENCODER], None)} == set(find(ENCODER).levels)
    assert {step.model for step in mutate.steps(["inception_fid"], None)} == {"inception_fid"}


def test_a_general_fault_is_shown_to_every_other_case_at_its_levels_alone():
    general = fault(everywhere=("L5", "L9"))
    shown = {(step.model, step.level) for step in mutate.shown(general, {ENCODER, "vit", check.ENVIRONMENT}, None)}
    assert shown == {(ENCODER, level) for level in find(ENCODER).levels} | {("vit", "L5")}
    assert not [step for step in mutate.shown(general, {"vit"}, ["L1"])]


def test_every_check_is_shown_a_fault():
    cases = {*CASES, check.ENVIRONMENT}
    shown = {(step.model, step.level) for fault in FAULTS.values() for step in mutate.shown(fault, cases, None)}
    assert {(step.model, step.level) for step in check.plan() if not (step.case and step.case.shared)} <= shown


def test_faults_are_chosen_by_model_and_by_name():
    own = {name for name, f in FAULTS.items() if {ENCODER, check.ENVIRONMENT} & set(f.cases)}
    general = {name for name, f in FAULTS.items() if {"L1", "L2", "L3", "L4", "L5"} & set(f.everywhere)}
    assert {f.name for f in mutate.chosen([ENCODER])} == own | general
    assert [f.name for f in mutate.chosen([], ["encoder_slope"])] == ["encoder_slope"]
    with pytest.raises(UserError, match="no fault of tanh_missing concerns apf_gan.encoder: choose from"):
        mutate.chosen([ENCODER], ["tanh_missing"])
    with pytest.raises(UserError, match="did you mean 'encoder_slope'.*mutate --list shows all"):
        mutate.chosen([], ["encoder_slop"])
    with pytest.raises(UserError, match="ports:LAYER: faults are put into this project's Jittor twin alone"):
        mutate.chosen(["ports:LAYER"])


def test_ctrl_c_keeps_what_is_known(monkeypatch):
    def judged(fault, *_):
        if fault.name != "encoder_slope":
            raise KeyboardInterrupt
        return mutate.Mutant(fault, [(ENCODER, "L3")], {"L3": "seen"}, [(ENCODER, "L3")])

    monkeypatch.setattr(mutate, "judged", judged)
    monkeypatch.setattr(mutate, "broken_copy", lambda *_: None)
    monkeypatch.setattr(check, "perform", lambda step, _: [passing(step.level, step.mode)])
    found = mutate.run([ENCODER], only=["encoder_slope", "encoder_bias"], twins=Twins())
    assert [m["name"] for m in found["mutants"]] == ["encoder_slope"]
    assert found["objections"] == ["stopped after 1 of 2 faults"]


def test_a_machine_that_fails_meanwhile_is_not_taken_for_noticed_faults(monkeypatch):
    lost = []

    def judged(*_):
        lost.append("the temporary folder")
        return mutate.Mutant(fault(), [(ENCODER, "L3")], {"L3": "seen"}, [(ENCODER, "L3")])

    monkeypatch.setattr(mutate, "judged", judged)
    monkeypatch.setattr(mutate, "broken_copy", lambda *_: None)
    monkeypatch.setattr(check, "perform", lambda step, _: [
        failure(step.model, step.level, step.mode, "no such folder") if lost else passing(step.level, step.mode)])
    found = mutate.run([ENCODER], only=["encoder_slope"], levels=["L3"], twins=Twins())
    assert found["objections"] == [f"the unbroken twin passed {ENCODER} L3 before and fails it now, so faults may not be "
                                   "why checks failed: no such folder"]


class Counting:
    """A worker that doubles x, and counts how often it is asked."""
    calls = 0

    def start(self, function, arrays, /, **arguments):
        self.arrays, self.calls = arrays, self.calls + 1

    def finish(self):
        return {"y": self.arrays["x"] * 2}, {}


def test_pytorch_is_asked_the_same_question_once():
    worker, twins = Counting(), mutate.Remembering()
    for value in (1, 1, 2):
        arrays, _ = mutate.Remembered(worker, twins).call("m:f", {"x": np.array([value])}, size="tiny")
        assert arrays["y"] == 2 * value
    assert worker.calls == 2
    mutate.Remembered(worker, twins).call("m:f", {"x": np.array([2])}, size="full")
    assert worker.calls == 3


# ---- with workers ----------------------------------------------------------------------

# One fault for each of the quick levels; the whole table is for `python -m parity mutate`.
SUBSET = {"file_decides_type": "L1", "epsilon_outside_root": "L2", "encoder_slope": "L3",
          "norm_gradient_without_mean": "L4", "adam_without_correction": "L5", "translation_sign": "L7"}


HARMLESS = Fault("harmless", "", "apf_gan/encoder.py", '"""The mask encoder', '"""A mask encoder', "a word", (ENCODER,))


@pytest.fixture(scope="module")
def result():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(FAULTS, HARMLESS.name, HARMLESS)
        return mutate.run([ENCODER, "apf_gan.augment"], only=[*SUBSET, HARMLESS.name])


@pytest.mark.parametrize("name, level", SUBSET.items())
def test_a_fault_is_found_where_it_should_be(result, name, level):
    found = next(m for m in result["mutants"] if m["name"] == name)
    assert level in found["killed_by"], found


def test_a_change_that_breaks_nothing_survives(result):
    assert result["mutants"][-1]["verdict"] == "survived"
    assert result["kill_rate"] == len(SUBSET) / (len(SUBSET) + 1)
    assert result["objections"] == ["kill rate 85.7% is below 95%", "harmless survives unexplained: a word"]


def test_the_unbroken_twin_passes_and_the_report_is_plain_json(result):
    assert result["rows"] and all(row.passed for row in result["rows"])
    json.dumps([result["mutants"], result["by_level"]])


def command(words):
    parser = argparse.ArgumentParser()
    command_line.add_arguments(parser)
    return command_line.command(parser.parse_args(words))


def test_the_command_lists_faults_without_a_worker(capsys):
    assert command([ENCODER, "--list"]) == 0
    assert "encoder_slope" in capsys.readouterr().out


def test_the_command_writes_a_report_and_fails_where_faults_survive(tmp_path, monkeypatch, capsys):
    found = {"kill_rate": 0.5, "by_level": mutate.by_level(MUTANTS), "mutants": [m.to_json() for m in MUTANTS],
             "rows": [passing()], "objections": ["kill rate 50.0% is below 95%"]}
    monkeypatch.setattr(command_line, "run", lambda *_: dict(found))
    monkeypatch.setattr(command_line, "attested", lambda _: {"verdict": "pass"})
    file = tmp_path / "r.json"
    assert command([ENCODER, "--json", str(file)]) == 1
    written = json.loads(file.read_text())
    assert written["verdict"] == "fail" and written["kill_rate"] == 0.5 and len(written["mutants"]) == 5
    assert "survived: c, something is wrong: unexplained" in capsys.readouterr().out
    found["objections"] = []
    assert command([ENCODER]) == 0
