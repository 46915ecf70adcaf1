"""The losses of the detector of distortion where a root has no slope: the Jittor twin's gradients stay finite."""
import numpy as np
import pytest

from jittwin.models.distortion_losses import SCORE_TERMS, DistortionLosses


@pytest.mark.parametrize("scores, votes", [
    ([0.4] * 4, [0.1, 0.5, 0.5, 1.0]), ([0.1, 0.5, 0.2, 1.0], [0.4] * 4), ([0.3], [0.6])])
def test_equal_scores_and_a_single_picture_have_finite_gradients(backend, scores, votes):
    from jt_models.boot import jt

    scores, votes = (backend.asarray(np.array(x, np.float32)) for x in (scores, votes))
    terms = backend.build("distortion.objective", DistortionLosses((), SCORE_TERMS)).losses(None, None, scores, votes)
    assert set(terms) == {f"score_{term}" for term in SCORE_TERMS}
    for loss in terms.values():
        assert np.isfinite(backend.scalar(loss)) and np.isfinite(backend.numpy(jt.grad(loss, scores))).all()
