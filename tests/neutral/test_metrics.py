"""Distances between sets of features, against closed forms and independent formulas."""
import numpy as np
import pytest
from scipy import linalg
from scipy.spatial.distance import cdist

from jittwin.metrics.fid import kernel
from jittwin.metrics.competition import a_board, b_board
from jittwin.metrics.fid.frechet import frechet_distance, frechet_distance_from_features
from jittwin.metrics.fid.inception_score import inception_score
from jittwin.metrics.fid.kernel import kernel_distance
from jittwin.metrics.fid.manifold import precision_recall
from jittwin.metrics.fid.moments import Moments

RNG = np.random.default_rng(0)


def features(n, d, seed=0, offset=0.0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, d)) @ rng.standard_normal((d, d)) + offset


def nuclear(a, b):
    """tr((A B)^(1/2)) as the nuclear norm of X Y^T, for A = X^T X and B = Y^T Y: no square root is taken."""
    a, b = ((x - x.mean(0)) / np.sqrt(len(x) - 1) for x in (a, b))
    return np.linalg.svd(a @ b.T, compute_uv=False).sum()


# Moments

@pytest.mark.parametrize("sizes", [[100], [1, 99], [33, 33, 34]])
def test_moments_do_not_depend_on_the_batches(sizes):
    rows, moments = features(100, 6, offset=1000.0), Moments()
    for part in np.split(rows, np.cumsum(sizes)[:-1]):
        moments.add(part.astype(np.float32))
    single = rows.astype(np.float32).astype(np.float64)
    np.testing.assert_allclose(moments.mean, single.mean(0), rtol=1e-14)
    np.testing.assert_allclose(moments.covariance, np.cov(single, rowvar=False), rtol=1e-9)
    assert moments.n == 100


def test_moments_refuse_what_would_spoil_them():
    moments = Moments()
    moments.add(np.zeros((1, 3)))
    with pytest.raises(ValueError, match="at least two images, got 1"):
        moments.covariance
    with pytest.raises(ValueError, match="1 of 2 feature vectors are not finite"):
        moments.add(np.array([[0, 0, np.nan], [0, 0, 0]]))
    with pytest.raises(ValueError, match="4 values after vectors of 3"):
        moments.add(np.zeros((2, 4)))
    assert moments.n == 1


# Fréchet distance

def test_distance_of_diagonal_normals_has_a_closed_form():
    a, b = RNG.uniform(0.1, 2, 8), RNG.uniform(0.1, 2, 8)
    expected = 4.0 * 8 + np.square(np.sqrt(a) - np.sqrt(b)).sum()
    assert frechet_distance(np.zeros(8), np.diag(a), np.full(8, 2.0), np.diag(b)) == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("n, m", [(30, 200), (30, 20), (200, 300)])
def test_both_forms_agree_with_the_singular_values(n, m):
    a, b = features(n, 40, 1), features(m, 40, 2, offset=0.3)
    mean, covariance = b.mean(0), np.cov(b, rowvar=False)
    exact = (np.square(a.mean(0) - mean).sum() + np.trace(np.cov(a, rowvar=False)) + np.trace(covariance)
             - 2 * nuclear(a, b))
    rank = min(n, m) - 1
    assert frechet_distance_from_features(a, mean, covariance, rank) == pytest.approx(exact, rel=1e-9)
    own = frechet_distance(a.mean(0), np.cov(a, rowvar=False), mean, covariance, rank)
    assert own == pytest.approx(exact, rel=1e-9)


def test_distance_to_itself_is_zero_and_to_a_shifted_self_the_shift():
    a = features(100, 10)
    mean, covariance = a.mean(0), np.cov(a, rowvar=False)
    assert 0 <= frechet_distance(mean, covariance, mean, covariance) < 1e-9
    assert 0 <= frechet_distance_from_features(a, mean, covariance) < 1e-9
    assert frechet_distance_from_features(a + 1, mean, covariance) == pytest.approx(10, rel=1e-9)


def test_distance_agrees_with_the_matrix_square_root():
    a, b = features(200, 12, 3), features(300, 12, 4)
    ca, cb = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = getattr(linalg, "sqrt" + "m")(ca @ cb).real
    expected = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(ca + cb - 2 * root)
    assert frechet_distance(a.mean(0), ca, b.mean(0), cb) == pytest.approx(expected, rel=1e-8)


# Kernel distance

def test_kernel_distance_of_two_and_two_by_hand():
    a, b = np.array([[1.0], [2.0]]), np.array([[0.0], [3.0]])
    # k(x, y) = (x y + 1)^3
    within_a, within_b = 27, 1
    across = (1 + 64 + 1 + 343) / 4
    value, error = kernel_distance(a, b)
    assert value == pytest.approx(within_a + within_b - 2 * across, rel=1e-14)
    # 2 (27 - (1 + 64) / 2) and 2 (27 - (1 + 343) / 2) of 1 and 2; 2 (1 - 1) and 2 (1 - (64 + 343) / 2) of 0 and 3
    expected = np.var([-11, -290], ddof=1) / 2 + np.var([0, -405], ddof=1) / 2
    assert error == pytest.approx(np.sqrt(expected), rel=1e-12)


@pytest.mark.parametrize("n, m", [(60, 60), (25, 200)])
@pytest.mark.parametrize("shift", [0, 0.4])
def test_kernel_distance_is_unbiased_and_knows_its_error(n, m, shift):
    """Over independent draws the estimates scatter about the truth by the error that each of them tells."""
    rng = np.random.default_rng(0)
    values, errors = np.transpose([kernel_distance(rng.standard_normal((n, 4)), rng.standard_normal((m, 4)) + shift)
                                   for _ in range(200)])
    truth, _ = kernel_distance(rng.standard_normal((4000, 4)), rng.standard_normal((4000, 4)) + shift)
    spread = values.std(ddof=1)
    assert abs(values.mean() - truth) < 4 * spread / np.sqrt(200) + 0.01
    # Of equal distributions the first-order error is too careful, by a root of 2.
    assert 0.85 < np.sqrt(np.square(errors).mean()) / spread < (1.2 if shift else 1.8)


def test_kernel_distance_in_blocks(monkeypatch):
    a, b = features(50, 8), features(30, 8, 1)
    whole = kernel_distance(a, b)
    monkeypatch.setattr(kernel, "ROWS", 7)
    assert kernel_distance(a, b) == pytest.approx(whole, rel=1e-12)
    with pytest.raises(ValueError, match="at least two"):
        kernel_distance(a[:1], b)


# Precision and recall

def test_precision_and_recall_against_the_definition():
    real, fake, k = RNG.standard_normal((60, 3)), RNG.standard_normal((50, 3)) * 1.5 + 0.5, 3

    def share(manifold, points):
        reach = np.sort(cdist(manifold, manifold), axis=1)[:, k]
        return np.mean([(np.linalg.norm(manifold - p, axis=1) <= reach).any() for p in points])

    precision, recall = precision_recall(real, fake, k)
    assert (precision, recall) == (share(real, fake), share(fake, real))
    assert 0.2 < precision < 1 and 0.2 < recall < 1


def test_precision_and_recall_of_equal_and_of_distant_sets():
    real = RNG.standard_normal((2000, 4))
    assert precision_recall(real, real) == (1.0, 1.0)
    assert precision_recall(real, real + 100) == (0.0, 0.0)
    assert precision_recall(real, real[:4] * 1e-3) == (1.0, pytest.approx(0, abs=0.01))
    with pytest.raises(ValueError, match="more than 3 images"):
        precision_recall(real, real[:3])


# Inception score

def test_inception_score_between_one_and_the_number_of_classes():
    sure = np.log(np.eye(5) * 0.999999 + 1e-9).repeat(8, 0)[RNG.permutation(40)]
    assert inception_score(np.zeros((20, 5)), 2) == (pytest.approx(1), pytest.approx(0, abs=1e-12))
    assert inception_score(sure, 1)[0] == pytest.approx(5, rel=1e-4)
    p = np.array([[0.8, 0.2], [0.4, 0.6]])
    q = p.mean(0)
    expected = np.exp(np.mean([(row * np.log(row / q)).sum() for row in p]))
    assert inception_score(np.log(p) + 7, 1)[0] == pytest.approx(expected, rel=1e-12)
    with pytest.raises(ValueError, match="10 splits"):
        inception_score(p)


# The competition's score

@pytest.mark.parametrize("mask, aesthetic, fid, total", [
    (.7847, 4.5244, 107.4902, .1775), (.8334, 5.0361, 37.9765, .4683), (.8479, 5.0436, 43.8223, .4520),
    (.9028, 4.9005, 44.6153, .4712), (.9037, 4.9004, 42.7708, .4800), (.90, 5.4, 26.76, .5726)])
def test_a_board_published_rows(mask, aesthetic, fid, total):
    assert a_board(mask, aesthetic, fid) == pytest.approx(total, abs=5e-5)


def test_b_board_adds_votes_to_half_of_a_board():
    assert b_board(.9, 5, 30, 0, 0, 0) == pytest.approx(a_board(.9, 5, 30) / 2)
    assert b_board(.9, 5, 30, 1, 1, 1) - b_board(.9, 5, 30, 0, 0, 0) == pytest.approx(0.5)
