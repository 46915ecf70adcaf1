"""L5: the optimizers' rules, and that a wrong one is caught."""
import numpy as np
import pytest

from jittwin.draws import Draws
from parity.cases import find
from parity.cases.optimizers import Optimizers
from parity.levels import update
from parity.runner import Step, plan

START = {name: Draws(1).normal(name, shape) for name, shape in Optimizers.parameters.items()}


@pytest.fixture(scope="module")
def rows(rows_of):
    return {row.mode: row for step in plan(["optimizers"], levels=["L5"]) for row in rows_of(step)}


@pytest.mark.parametrize("rule", Optimizers.rules)
def test_both_frameworks_follow_the_reference(rows, rule):
    assert rows[rule].passed, rows[rule].detail["reason"]


def test_the_optimizer_of_a_model_on_its_own_parameters(rows_of):
    row, = rows_of(Step("L5", find("apf_gan.encoder"), "tiny", "train"))
    assert row.passed, row.detail["reason"]


@pytest.mark.parametrize("done, meant", [
    ("jittor", "adam"), ("adam", "jittor"), ("adamw", "adam decay"), ("sgd momentum", "sgd nesterov decay"),
    ("adam", "adam accumulated clipped")])
def test_another_rule_is_told_apart(twins, done, meant):
    """Negative control: Jittor follows one rule and is held against another."""
    arguments = {"split": True}
    states, _ = twins.torch.call(update.record, START, rule=Optimizers.rules[meant], **arguments)
    wanted, _ = twins.torch.call(update.reference, states, rule=Optimizers.rules[meant], **arguments)
    found, _ = twins.jittor.call(update.again, states, rule=Optimizers.rules[done], **arguments)
    failed = [name for name, verdict in update.judged(states, found, wanted).items() if not verdict.passed]
    assert any("values/" in name for name in failed)


def test_state_that_comes_back_changed_is_found():
    states = {f"{step}/values/a": np.ones(3, np.float32) for step in range(update.STEPS)}
    back = {f"{step}/back/values/a": np.ones(3, np.float32) for step in range(update.STEPS)}
    assert all(verdict.passed for verdict in update.judged(states, back, {}).values())
    back["1/back/values/a"] = np.nextafter(back["1/back/values/a"], np.float32(2))
    del back["2/back/values/a"]
    failed = [name for name, verdict in update.judged(states, back, {}).items() if not verdict.passed]
    assert failed == ["step 1 back values/a", "step 2 back values/a"]


def test_errors_are_counted_in_units_of_the_largest_value_on_the_way():
    before, truth = np.array([1.0, 4.0]), np.array([1.0, 0.0])
    step = float(np.spacing(np.float32(4)))
    assert update.ulps(np.array([1.0, 3 * step]), truth, before) == 3
    assert update.ulps(np.array([1.0, np.nan]), truth, before) == np.inf
    assert update.in_ulps(2.0, 0.0).passed and not update.in_ulps(2.1, 0.0).passed
    assert update.in_ulps(3.9, 1.0).passed and not update.in_ulps(4.1, 1.0).passed
