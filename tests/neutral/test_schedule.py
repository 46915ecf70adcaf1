"""Schedules against numbers worked out by hand."""
import math

import pytest

from jittwin.engine import schedule


def values(multiplier, steps):
    return [multiplier(step) for step in steps]


def test_constant():
    assert values(schedule.constant(), (0, 7, 10**9)) == [1.0, 1.0, 1.0]


def test_linear_waits_falls_and_stays():
    assert values(schedule.linear(10, 20), (0, 10, 15, 20, 99)) == [1.0, 1.0, 0.5, 0.0, 0.0]
    assert values(schedule.linear(0, 4, floor=0.2), (0, 2, 4, 5)) == pytest.approx([1.0, 0.6, 0.2, 0.2])


def test_step_and_multistep():
    assert values(schedule.step(3, 0.5), (0, 2, 3, 5, 6)) == [1.0, 1.0, 0.5, 0.5, 0.25]
    assert values(schedule.multistep([2, 5], 0.1), (1, 2, 4, 5)) == pytest.approx([1.0, 0.1, 0.1, 0.01])


def test_cosine():
    expected = [1.0, (1 + math.sqrt(0.5)) / 2, 0.5, 0.0, 0.0]
    assert values(schedule.cosine(8), (0, 2, 4, 8, 9)) == pytest.approx(expected, abs=1e-15)
    assert schedule.cosine(8, floor=0.1)(4) == pytest.approx(0.55)


def test_exponential():
    assert values(schedule.exponential(0.9), (0, 1, 2)) == pytest.approx([1.0, 0.9, 0.81])


def test_warmup_hands_over_at_its_own_zero():
    multiplier = schedule.warmup(4, schedule.step(2, 0.5), start=0.2)
    assert values(multiplier, (0, 1, 2, 4, 5, 6)) == pytest.approx([0.2, 0.4, 0.6, 1.0, 1.0, 0.5])
    assert schedule.warmup(0, schedule.exponential(0.5))(1) == 0.5


@pytest.mark.parametrize("build, lengths", [(schedule.linear, (5, 5)), (schedule.step, (0,)), (schedule.cosine, (0,))])
def test_lengths_that_make_no_sense(build, lengths):
    with pytest.raises(ValueError, match="must be"):
        build(*lengths)
