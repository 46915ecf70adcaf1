"""The losses of the detector of distortion against their formulas in NumPy, slopes included, and closed forms."""
import numpy as np
import pytest
import torch

from jittwin.errors import UserError
from jittwin.models.distortion_losses import MASK_TERMS, SCORE_TERMS, DistortionLosses, parse_terms
from torch_models.assess.distortion_losses import Objective, binary_cross_entropy


def logistic(z):
    return 1 / (1 + np.exp(-z))


# ---- the formulas, picture by picture and pair by pair ------------------------------

def mask_mse(z, t):
    return np.mean([(logistic(value) - goal) ** 2 for value, goal in zip(z.ravel(), t.ravel())])


def mask_dice(z, t, power=1):
    p = logistic(z)
    return np.mean([1 - (2 * np.sum(one * goal) + 1) / (np.sum(one ** power) + np.sum(goal ** power) + 1)
                    for one, goal in zip(p, t)])


def mask_bce(z, t):
    p = logistic(z)
    return -np.mean(t * np.log(p) + (1 - t) * np.log(1 - p))


def score_mse(q, y):
    return np.mean((q - y) ** 2)


def score_broadcast(q, y):
    return np.mean([(a - b) ** 2 for a in q for b in y])


def score_plcc(q, y):
    a, b = ((x - x.mean()) / (x.std() + 1e-5) for x in (q, y))
    rho = np.mean(a * b)
    return 0.5 * (0.25 * np.mean((a - b) ** 2) + 0.25 * np.mean((rho * a - b) ** 2))


def score_srcc(q, y):
    count = len(q)
    pairs = [max(0.0, (q[i] - q[j]) * np.sign(y[j] - y[i])) for i in range(count) for j in range(count)]
    return 0.3 * sum(pairs) / (count * (count - 1)) / (1 + max(pairs))


MASKS = {"mse": mask_mse, "dice": mask_dice, "soft_dice": lambda z, t: mask_dice(z, t, 2), "bce": mask_bce}
SCORES = {"mse": score_mse, "plcc": score_plcc, "srcc": score_srcc}
RNG = np.random.default_rng(5)
Z, T = RNG.normal(size=(4, 1, 6, 5)), RNG.integers(0, 4, (4, 1, 6, 5)) * 0.235
Q, Y = RNG.random(4), np.array([0.75, 0.25, 0.25, 1.0])     # two equal votes


def slope(function, x, *rest):
    """Central differences."""
    found, step = np.zeros(x.size), 1e-6
    for number in range(x.size):
        ends = []
        for sign in (1, -1):
            moved = x.copy().ravel()
            moved[number] += sign * step
            ends.append(function(moved.reshape(x.shape), *rest))
        found[number] = (ends[0] - ends[1]) / (2 * step)
    return found.reshape(x.shape)


def ours(config, z=Z, t=T, q=Q, y=Y):
    """{term: (value, its slopes with respect to logits and scores)}, in float64."""
    logits, scores = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (z, q))
    torch.set_default_dtype(torch.float64)
    try:
        terms = Objective(config).losses(torch.sigmoid(logits), torch.tensor(t), scores, torch.tensor(y), logits)
    finally:
        torch.set_default_dtype(torch.float32)
    return {name: (loss.item(), [None if g is None else g.numpy() for g in torch.autograd.grad(
        loss, (logits, scores), allow_unused=True, retain_graph=True)]) for name, loss in terms.items()}


@pytest.mark.parametrize("term", MASK_TERMS)
def test_the_losses_of_maps(term):
    (value, (slopes, _)), = ours(DistortionLosses((term,), (), mask_weight=0.5)).values()
    assert value == pytest.approx(0.5 * MASKS[term](Z, T), rel=1e-12)
    np.testing.assert_allclose(slopes, 0.5 * slope(MASKS[term], Z, T), rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize("term", SCORE_TERMS)
def test_the_losses_of_scores(term):
    (value, (_, slopes)), = ours(DistortionLosses((), (term,), score_weight=3)).values()
    assert value == pytest.approx(3 * SCORES[term](Q, Y), rel=1e-9)
    np.testing.assert_allclose(slopes, 3 * slope(SCORES[term], Q, Y), rtol=1e-5, atol=1e-9)


def test_the_terms_in_the_original_semantics():
    found = ours(DistortionLosses((), SCORE_TERMS, semantics="reference"))
    value, (_, slopes) = found["score_mse"]
    assert value == pytest.approx(score_broadcast(Q, Y), rel=1e-12)
    np.testing.assert_allclose(slopes, slope(score_broadcast, Q, Y), rtol=1e-6)
    assert found["score_srcc"][0] == 0 and not found["score_srcc"][1][1].any()
    assert found["score_plcc"][0] == pytest.approx(score_plcc(Q, Y), rel=1e-9)
    # Its best prediction is the mean of the batch's votes for every picture.
    assert not np.allclose(value, score_mse(Q, Y)) and np.allclose(slope(score_broadcast, np.full(4, Y.mean()), Y), 0)


def test_closed_forms():
    same = ours(DistortionLosses(MASK_TERMS, SCORE_TERMS), np.where(T > 0, 50.0, -50.0), (T > 0) * 1.0, Y.copy(), Y)
    for name in ("mask_mse", "mask_dice", "mask_soft_dice", "score_mse", "score_srcc"):
        assert same[name][0] == pytest.approx(0, abs=1e-9), name
    assert same["mask_bce"][0] == pytest.approx(0, abs=1e-9) and same["score_plcc"][0] == pytest.approx(0, abs=1e-9)
    turned = ours(DistortionLosses((), SCORE_TERMS), q=1 - Y)
    assert turned["score_plcc"][0] == pytest.approx(0.5 * (1 - -1) / 2 + 0, abs=1e-3)
    half = ours(DistortionLosses(("bce",), ()), np.zeros_like(Z))
    assert half["mask_bce"][0] == pytest.approx(np.log(2)) and np.allclose(half["mask_bce"][1][0], (0.5 - T) / T.size)
    far = ours(DistortionLosses(("bce",), ()), np.full_like(Z, -1e4), np.ones_like(T))
    assert far["mask_bce"][0] == pytest.approx(1e4)


@pytest.mark.parametrize("q, y", [(Q[:1], Y[:1]), (np.full(4, 0.4), Y), (Q, np.full(4, 0.4))])
def test_a_single_picture_and_equal_scores_have_finite_slopes(q, y):
    for name, (value, slopes) in ours(DistortionLosses((), SCORE_TERMS), q=q, y=y).items():
        assert np.isfinite(value) and np.isfinite(slopes[1]).all(), name
        if len(q) == 1 and name != "score_mse":
            assert value == 0 and not slopes[1].any()


def test_bce_needs_logits_of_pixels():
    with pytest.raises(ValueError, match="bce needs one logit for each pixel"):
        binary_cross_entropy(None, torch.tensor(T))
    with pytest.raises(ValueError, match="does not have"):
        binary_cross_entropy(torch.zeros(4, 5, 6, 5), torch.tensor(T))


@pytest.mark.parametrize("text, kind, terms", [
    ("dice-mse", "mask_loss", ("mse", "dice")), ("mse-plcc-srcc", "score_loss", ("mse", "plcc", "srcc")),
    ("soft_dice", "mask_loss", ("soft_dice",)), ("bce,dice", "mask_loss", ("dice", "bce")), ("ce", "score_loss", ("mse",)),
    ("mse-ce", "score_loss", ("mse",)), ("soft_dice-dice", "mask_loss", ("dice", "soft_dice"))])
def test_settings_are_parsed(text, kind, terms):
    assert parse_terms(text, kind) == terms


@pytest.mark.parametrize("text, kind, words", [
    ("dice-mze", "mask_loss", "mask_loss=dice-mze: 'mze' is no term (did you mean 'mse'?)"), ("", "score_loss", "'' is no"),
    ("bce", "score_loss", "score_loss=bce: 'bce' is no term"), ("mse_plcc", "score_loss", "join several with -")])
def test_unknown_terms_are_errors(text, kind, words):
    with pytest.raises(UserError) as told:
        parse_terms(text, kind)
    assert words in str(told.value)


@pytest.mark.parametrize("given, words", [
    ({"mask": ("mze",)}, "did you mean 'mse'"), ({"score": ("bce",)}, "score is 'bce'"),
    ({"semantics": "new"}, "semantics is 'new'"), ({"mask_weight": -1.0}, "mask_weight is -1.0; legal: 0 and more")])
def test_configs_that_cannot_be(given, words):
    with pytest.raises(ValueError, match=words):
        DistortionLosses(**given)
