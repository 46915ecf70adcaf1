"""Pictures that are resized one by one give FID the same numbers as whole ones in a batch, in either twin.

tests/torch/test_fid_resizing.py and tests/jittor/test_fid_resizing.py import these tests.
"""
import random

import numpy as np
import pytest
from PIL import Image

from jittwin.data.pictures import ImageSet
from jittwin.metrics.fid.features import FidScorer
from jittwin.metrics.fid.preparation import MODES, SIDE

FIXED = [(72, 96), (299, 299), (1, 2000), (1196, 597), (1001, 800)]
DRAWN = [(random.Random(seed).randrange(1, 900), random.Random(seed + 100).randrange(1, 900)) for seed in range(4)]
_scorers = {}


def scorer(backend):
    """One network for all tests."""
    return _scorers.setdefault(backend.name, FidScorer(backend, random=True, batch=4, cache=False))


def picture(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("size", FIXED + DRAWN)
def test_resizing_one_by_one_is_the_networks_own_bit_for_bit(backend, size):
    images = [picture(*size, seed) for seed in range(2)]
    mode, network = MODES["pytorch-fid"], scorer(backend).inception.network
    with backend.no_grad():
        whole = backend.numpy(network.resized(backend.asarray(np.stack([mode.prepare(image) for image in images]))))
        single = np.stack([scorer(backend).resized(mode.keep(image)) for image in images])
        assert single.shape == (2, 3, SIDE, SIDE)
        np.testing.assert_array_equal(single, whole)
        np.testing.assert_array_equal(backend.numpy(network.resized(backend.asarray(single))), single)


def test_features_are_those_of_whole_pictures_bit_for_bit(backend, tmp_path):
    images = [picture(330, 650, seed) for seed in range(2)]
    for number, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    with backend.no_grad():
        batch = np.stack([MODES["pytorch-fid"].prepare(image) for image in images])
        expected = backend.numpy(scorer(backend).inception.network(backend.asarray(batch)))
    found = scorer(backend).compute(ImageSet(tmp_path), quiet=True)
    np.testing.assert_array_equal(found.features, expected)
    assert np.abs(expected[0] - expected[1]).max() > 1e-3       # they tell the pictures apart
