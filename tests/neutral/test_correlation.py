"""Quality metrics against closed forms, SciPy's own distances, and definitions written out."""
import numpy as np
import pytest
from scipy import stats

from jittwin.metrics.ratings import METRICS, quality_metrics

RATINGS = np.arange(1, 11)
FIRST_ROW = np.array([0, 1, 5, 17, 38, 36, 15, 6, 5, 1]) / 124  # of AVA.txt


def distributions(count, seed):
    return np.random.default_rng(seed).dirichlet(np.full(10, 0.7), count)


def spikes(*ratings):
    """Everyone gives one rating."""
    return np.eye(10)[np.array(ratings) - 1]


def test_the_uniform_guess_of_avas_first_row():
    measured = quality_metrics(np.full((1, 10), 0.1), FIRST_ROW[None])
    assert measured["emd"] == pytest.approx(0.16192215, abs=5e-9)
    assert measured["emd_r1"] == pytest.approx(0.13951613, abs=5e-9)
    assert measured["mae"] == pytest.approx(5.637097 - 5.5, abs=5e-7)


def test_distances_are_those_of_scipy():
    predicted, target = distributions(6, 0), distributions(6, 1)
    measured = quality_metrics(predicted, target)
    pairs = list(zip(predicted, target))
    wasserstein = [stats.wasserstein_distance(RATINGS, RATINGS, p, t) for p, t in pairs]
    energy = [stats.energy_distance(RATINGS, RATINGS, p, t) for p, t in pairs]  # sqrt(2 * sum of squared differences)
    assert measured["emd_r1"] == pytest.approx(np.mean(wasserstein) / 10, rel=1e-12)
    assert measured["emd"] == pytest.approx(np.mean(energy) / np.sqrt(20), rel=1e-12)


def test_spikes_have_closed_forms():
    measured = quality_metrics(spikes(2, 9, 4, 7), spikes(4, 9, 3, 3))
    moves = np.array([2, 0, 1, 4])
    assert measured["emd_r1"] == pytest.approx(moves.mean() / 10) and measured["mae"] == pytest.approx(moves.mean())
    assert measured["emd"] == pytest.approx(np.sqrt(moves / 10).mean())
    assert measured["mse"] == pytest.approx((moves ** 2).mean())
    assert measured["accuracy"] == 0.75  # 7 against 3 lies on the other side of 5


def test_correlations_are_those_of_ranks_and_of_values():
    truth = np.array([3, 5, 6, 8, 9])
    measured = quality_metrics(spikes(1, 2, 4, 3, 10), spikes(*truth))
    ranks = np.array([1, 2, 4, 3, 5])
    assert measured["srcc"] == pytest.approx(1 - 6 * ((ranks - np.arange(1, 6)) ** 2).sum() / (5 * 24))
    assert measured["plcc"] == pytest.approx(np.corrcoef([1, 2, 4, 3, 10], truth)[0, 1])
    tied = quality_metrics(spikes(2, 2, 3), spikes(1, 2, 3))
    assert tied["srcc"] == pytest.approx(np.corrcoef([1.5, 1.5, 3], [1, 2, 3])[0, 1])  # ties share their mean rank


def test_every_sample_weighs_the_same_and_order_does_not_matter():
    predicted, target = distributions(7, 2), distributions(7, 3)
    whole = quality_metrics(predicted, target)
    parts = [quality_metrics(predicted[part], target[part]) for part in (slice(0, 4), slice(4, 7))]
    for key in ("emd", "emd_r1", "mse", "mae", "accuracy"):
        assert whole[key] == pytest.approx((4 * parts[0][key] + 3 * parts[1][key]) / 7, rel=1e-12)
    turned = quality_metrics(predicted[::-1], target[::-1])
    assert turned == pytest.approx(whole, rel=1e-12) and tuple(whole) == METRICS


def test_small_differences_survive_float32_input():
    target = distributions(500, 4).astype(np.float32)
    shifted = target.astype(np.float64) + 1e-9 * np.linspace(-1, 1, 10)
    assert quality_metrics(shifted, target)["mae"] == pytest.approx(1e-9 * (RATINGS @ np.linspace(-1, 1, 10)), rel=1e-6)


def test_a_mean_of_exactly_five_is_low_whatever_its_rounding():
    even = np.array([[0, 0, 0, .1, .8, .1, 0, 0, 0, 0], [0, 0, .3, .1, .2, .1, .3, 0, 0, 0]])
    assert quality_metrics(even.astype(np.float32), spikes(1, 1))["accuracy"] == 1
    assert quality_metrics(even.astype(np.float32), spikes(6, 6))["accuracy"] == 0


@pytest.mark.parametrize("predicted, target", [
    (spikes(5, 5, 5), spikes(1, 2, 3)), (spikes(1, 2, 3), spikes(5, 5, 5)), (spikes(3), spikes(4))])
def test_what_has_no_order_has_no_correlation(predicted, target):
    measured = quality_metrics(predicted, target)
    assert np.isnan(measured["srcc"]) and np.isnan(measured["plcc"])
    assert all(np.isfinite(measured[key]) for key in METRICS if key not in ("srcc", "plcc"))


def test_a_diverged_model_shows_in_every_number():
    predicted = distributions(4, 5)
    predicted[2] = np.nan
    assert all(np.isnan(value) for value in quality_metrics(predicted, distributions(4, 6)).values())


@pytest.mark.parametrize("predicted, target", [
    (np.zeros((2, 10)), np.zeros((3, 10))), (np.zeros(10), np.zeros(10)), (np.zeros((0, 10)), np.zeros((0, 10)))])
def test_shapes_that_do_not_compare_are_refused(predicted, target):
    with pytest.raises(ValueError, match=r"must be \(N, K\)"):
        quality_metrics(predicted, target)
