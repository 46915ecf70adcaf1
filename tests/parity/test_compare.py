"""The rules of comparison: what counts as agreement."""
from dataclasses import replace

import numpy as np
import pytest

from parity.workers.compare import VACUOUS, Comparison, equal, error, judge, near, perturb

RNG = np.random.default_rng(0)
TRUTH = RNG.standard_normal(1000)
SINGLE = TRUTH.astype(np.float32)
NOISE = max(error(perturb({"x": SINGLE}, draw)["x"], TRUTH) for draw in (1, 2))


def passed(candidate, truth=TRUTH, name="x", noise=NOISE, own=None):
    return judge(name, candidate, truth, error(SINGLE, TRUTH) if own is None else own, noise).passed


def test_what_lies_within_the_noise_agrees_and_twenty_times_the_noise_does_not():
    assert passed(perturb({"x": SINGLE}, 1)["x"])
    off = SINGLE.copy()
    off[7] += 20 * NOISE
    assert not passed(off)


def test_a_gradient_may_be_off_in_single_elements_but_not_in_many():
    one, many = SINGLE.copy(), SINGLE.copy()
    one[7] += 1
    many[:200] += 1e-3
    assert passed(one, name="gradient x") and not passed(one)
    assert not passed(many, name="gradient x")


def test_an_update_counts_as_a_whole():
    one, all_ = SINGLE.copy(), SINGLE * np.float32(1.001)
    one[7] += 10 * NOISE
    assert passed(one, name="update x") and not passed(all_, name="update x")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_non_finite_values_must_stand_in_the_same_places(value):
    bad, truth = SINGLE.copy(), TRUTH.copy()
    bad[3] = value
    assert not passed(bad) and "unexpected" in judge("x", bad, TRUTH, 0, NOISE).reason
    truth[3] = value
    assert passed(bad, truth)
    assert not passed(SINGLE, truth) and "missing" in judge("x", SINGLE, truth, 0, NOISE).reason
    if value == np.inf:
        assert not passed(bad, np.where(np.isinf(truth), -np.inf, truth))


def test_where_everything_is_noise_nothing_passes():
    assert passed(SINGLE, noise=VACUOUS / 2) and not passed(SINGLE, noise=VACUOUS)


def test_another_shape_does_not_pass():
    assert not passed(SINGLE[:, None])


def test_four_units_in_the_last_place_are_granted_where_there_is_no_noise():
    def moved(ulps):
        return (SINGLE + ulps * np.spacing(np.abs(SINGLE))).astype(np.float32)

    assert passed(moved(3), SINGLE, own=0.0, noise=0.0) and not passed(moved(9), SINGLE, own=0.0, noise=0.0)


def test_a_truth_of_zeros_allows_nothing_else():
    zeros = np.zeros(5)
    assert passed(zeros, zeros, own=0.0, noise=0.0)
    assert not passed(zeros + 1e-30, zeros, own=0.0, noise=0.0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_perturbation_is_one_ulp_both_ways_and_leaves_zeros_integers_and_draw_0_alone(dtype):
    arrays = {"x": np.array([1.5, -2.0, 3.0, -4.0, 5.0, -6.0, 7.0, 8.0, 0.0], dtype), "n": np.arange(3)}
    moved = perturb(arrays, 1)
    steps = (moved["x"] - arrays["x"])[:-1] / np.spacing(np.abs(arrays["x"][:-1]))
    assert set(np.round(np.abs(steps), 1)) <= {0.5, 1.0} and {-1, 1} <= set(np.sign(steps))
    assert moved["x"][-1] == 0 and (moved["n"] == arrays["n"]).all()
    assert (perturb(arrays, 0)["x"] == arrays["x"]).all() and (perturb(arrays, 1)["x"] == moved["x"]).all()
    assert (perturb(arrays, 2)["x"] != moved["x"]).any()


def test_perturbation_leaves_the_largest_numbers_and_what_is_no_number_alone():
    x = np.array([np.finfo(np.float32).min, np.finfo(np.float32).max, np.inf, -np.inf, np.nan], np.float32)
    assert all(np.array_equal(perturb({"x": x}, draw)["x"], x, equal_nan=True) for draw in (1, 2, 3))


def test_equality_is_of_bytes_type_and_shape():
    zero, nan = np.float32([0.0, 1.0]), np.float32([np.nan])
    assert equal(zero, zero.copy()).passed and equal(nan, nan.copy()).passed
    assert not equal(np.float32([-0.0, 1.0]), zero).passed
    assert not equal(zero.astype(np.float64), zero).passed and not equal(zero[None], zero).passed
    assert "1 of 2 differ" in equal(np.float32([0, 2]), zero).reason


@pytest.mark.parametrize("ulps, agrees", [(0, True), (2, True), (3, False)])
def test_nearness_counts_units_of_the_element(ulps, agrees):
    truth = np.float32([1e-3, 1.0, 1e5, 0.0])
    seen = truth.copy()
    for _ in range(ulps):
        seen[0] = np.nextafter(seen[0], np.float32(1))
    assert near(seen, truth.astype(np.float64), 2).passed == agrees
    assert not near(np.float32([np.nan, 1.0, 1e5, 0.0]), truth, 2).passed


FOUND = Comparison({"gradient a": SINGLE, "gradient b": SINGLE * 0}, {"gradient a": TRUTH, "gradient b": TRUTH * 1e-14},
                   {"gradient a": 0.0, "gradient b": 1.0}, {"gradient a": NOISE, "gradient b": 1.0}, {})


def test_a_gradient_that_is_truly_zero_is_held_against_the_largest():
    assert all(verdict.passed for verdict in FOUND.verdicts().values())
    for size, agrees in ((1e-6, True), (1e-4, False)):
        seen = {**FOUND.candidate, "gradient b": SINGLE * np.float32(size)}
        assert replace(FOUND, candidate=seen).verdicts()["gradient b"].passed == agrees


@pytest.mark.parametrize("side, missing", [("PyTorch", "candidate"), ("Jittor", "truth")])
def test_a_tensor_that_one_twin_lacks_fails(side, missing):
    found = replace(FOUND, **{missing: {"gradient a": getattr(FOUND, missing)["gradient a"]}})
    assert found.verdicts()["gradient b"].reason == f"only {side} returns it"
