"""The parity helpers themselves: what counts as agreement, and that arrays survive the trip to a twin."""
import numpy as np
import pytest

from noise import agree, error, perturb
from twins import run_probes, run_twin

RNG = np.random.default_rng(0)
TRUTH = RNG.standard_normal(1000)
SINGLE = TRUTH.astype(np.float32)
NOISY = [perturb({"x": SINGLE}, draw)["x"] for draw in (1, 2)]


def test_what_lies_within_the_noise_agrees_and_ten_times_the_noise_does_not():
    assert agree(NOISY[0], SINGLE, TRUTH, NOISY).passed
    noise = max(error(n, TRUTH) for n in NOISY)
    off = SINGLE.copy()
    off[7] += 20 * noise
    assert not agree(off, SINGLE, TRUTH, NOISY).passed


def test_a_gradient_may_be_off_in_single_elements_but_not_in_many():
    one, many = SINGLE.copy(), SINGLE.copy()
    one[7] += 1
    many[:200] += 1e-3
    assert agree(one, SINGLE, TRUTH, NOISY, gradient=True).passed
    assert not agree(one, SINGLE, TRUTH, NOISY).passed
    assert not agree(many, SINGLE, TRUTH, NOISY, gradient=True).passed


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_non_finite_values_must_stand_in_the_same_places(value):
    bad, truth = SINGLE.copy(), TRUTH.copy()
    bad[3] = value
    assert not agree(bad, SINGLE, TRUTH, NOISY).passed
    truth[3] = value
    assert error(bad, truth) < 1e-6
    assert not agree(bad, SINGLE, -truth if value == np.inf else TRUTH, NOISY).passed


def test_where_everything_is_noise_nothing_passes():
    assert not agree(SINGLE, SINGLE, TRUTH, [SINGLE * 1.1]).passed


def test_another_shape_does_not_pass():
    assert not agree(SINGLE[:, None], SINGLE, TRUTH, NOISY).passed


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_perturbation_is_one_ulp_both_ways_and_leaves_zeros_integers_and_draw_0_alone(dtype):
    arrays = {"x": np.array([1.5, -2.0, 3.0, -4.0, 5.0, -6.0, 7.0, 8.0, 0.0], dtype), "n": np.arange(3)}
    moved = perturb(arrays, 1)
    steps = (moved["x"] - arrays["x"])[:-1] / np.spacing(np.abs(arrays["x"][:-1]))
    assert set(np.round(np.abs(steps), 1)) <= {0.5, 1.0} and {-1, 1} <= set(np.sign(steps))
    assert moved["x"][-1] == 0 and (moved["n"] == arrays["n"]).all()
    assert (perturb(arrays, 0)["x"] == arrays["x"]).all() and (perturb(arrays, 1)["x"] == moved["x"]).all()


def cube(backend, arrays):
    """A probe: x^3 and its gradient."""
    from twins import gradients

    def loss(tensors):
        y = tensors["x"] * tensors["x"] * tensors["x"]
        return y.sum(), y

    y, slopes = gradients(backend, loss, {"x": arrays["x"]})
    return {"y": backend.numpy(y), "slope/x": slopes["x"], "label": arrays["label"]}


@pytest.mark.parametrize("backend", ["jittor", "torch", "torch64"])
def test_a_probe_gets_its_arrays_and_returns_its_own(backend):
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    label = np.array([[1, 255]], np.uint8)
    both = run_probes(backend, [("test_noise:cube", {"x": x, "label": label}),
                                ("test_noise:cube", {"x": x.T, "label": label.T})])
    for given, result in zip((x, x.T), both, strict=True):
        assert result["y"].dtype == (np.float64 if backend == "torch64" else np.float32)
        np.testing.assert_allclose(result["y"], given ** 3, rtol=1e-6)
        np.testing.assert_allclose(result["slope/x"], 3 * given ** 2, rtol=1e-6)
    assert both[1]["label"].shape == (2, 1) and both[1]["label"].dtype == np.uint8


def test_a_probe_that_fails_says_why():
    with pytest.raises(AssertionError, match="no attribute 'absent'"):
        run_twin("torch", "test_noise:absent", {})
