"""The pass over a set of pictures, with a network that tells pictures by their colour."""
import contextlib

import numpy as np
import pytest

from jittwin import imaging
from jittwin.metrics.fid.inception import WIDTH, Inception
from jittwin.metrics.fid import features as scorer
from jittwin.metrics.fid.features import FidScorer


class Backend:
    name, rank, world_size = "none", 0, 1
    no_grad = contextlib.nullcontext

    def asarray(self, array):
        return array

    numpy = asarray


class Red:
    """Makes a feature of a picture: its red, 0..255, WIDTH times."""

    def resized(self, images):
        return images[..., :4, :4]

    def __call__(self, images):
        assert images.shape[1:] == (3, 4, 4) and len(images) <= 3
        return np.repeat(np.float32(np.rint(images[:, :1, 0, 0] * 255)), WIDTH, axis=1)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Twenty pictures, every second one smaller, whose red is their number."""
    monkeypatch.setattr(scorer, "load_inception", lambda *_: Inception(Red(), np.ones((3, WIDTH), np.float32), "random"))
    for number in range(20):
        side = 4 + number % 2
        imaging.save_image(tmp_path / f"{number}.png", np.full((side, side, 3), (number, 0, 0), np.uint8))
    return tmp_path


def seen(folder, **options):
    return FidScorer(Backend(), random=True, batch=3, cache=False, **options).statistics(folder, quiet=True)


def test_every_picture_counts_whatever_the_batches_were(folder):
    found = seen(folder)
    assert (found.n, found.mean[0], found.complete) == (20, 9.5, True)
    assert found.covariance[0, 1] == pytest.approx(np.var(np.arange(20), ddof=1), rel=1e-12)
    np.testing.assert_array_equal(found.features[:, 0], np.arange(20))
    np.testing.assert_allclose(found.logits[:, 0], WIDTH * np.arange(20))


def test_the_features_kept_of_a_large_set_are_spread_over_it(folder, monkeypatch):
    monkeypatch.setattr(scorer, "KEPT", 6)
    found = seen(folder)
    assert (found.n, found.mean[0], found.complete) == (20, 9.5, False)
    np.testing.assert_array_equal(found.features[:, 0], [0, 3, 6, 10, 13, 16])


def test_a_picture_left_out_leaves_no_gap(folder):
    (folder / "7.png").write_bytes(b"nothing")
    found = seen(folder, skip_bad=True)
    assert (found.n, found.complete, found.provenance["bad"]) == (19, True, 1)
    np.testing.assert_array_equal(found.features[:, 0], np.delete(np.arange(20), 7))
