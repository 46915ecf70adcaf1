"""How pictures are prepared, against Pillow's own steps and closed forms."""
import numpy as np
import pytest
from PIL import Image

from jittwin.preprocessing import Preprocess

HALF = (0.5, 0.5, 0.5)


def noise(height, width):
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)


def test_a_squashed_picture():
    image = noise(30, 50)
    expected = np.asarray(Image.fromarray(image).resize((20, 10), Image.Resampling.BICUBIC), np.float64) / 255
    found = Preprocess((10, 20), "bicubic", (0.1, 0.2, 0.3), (0.5, 0.25, 2.0))(image)
    assert found.dtype == np.float32 and found.flags["C_CONTIGUOUS"] and found.flags["OWNDATA"]
    np.testing.assert_allclose(found, ((expected - [0.1, 0.2, 0.3]) / [0.5, 0.25, 2.0]).transpose(2, 0, 1), atol=1e-6)


@pytest.mark.parametrize("shape, resized, box", [
    ((30, 50), (12, 20), (6, 2, 14, 10)), ((51, 30), (20, 12), (2, 6, 10, 14)), ((40, 40), (12, 12), (2, 2, 10, 10))])
def test_the_shorter_side_and_a_crop_from_the_centre(shape, resized, box):
    way, image = Preprocess(12, "bilinear", HALF, HALF, crop=(8, 8)), noise(*shape)
    assert way.resized(*shape) == resized
    pixels = Image.fromarray(image).resize(resized[::-1], Image.Resampling.BILINEAR).crop(box)
    np.testing.assert_allclose(way(image), (np.asarray(pixels, np.float64) / 127.5 - 1).transpose(2, 0, 1), atol=1e-6)


@pytest.mark.parametrize("length, offset", [(224, 0), (225, 0), (226, 1), (227, 2), (229, 2), (341, 58), (407, 92)])
def test_a_crop_between_two_pixels_starts_at_the_even_one(length, offset):
    image = np.zeros((length, 224, 3), np.uint8)
    image[offset] = 255
    found = Preprocess(224, "bilinear", (0, 0, 0), (1, 1, 1), crop=(224, 224))(image)
    assert found[:, 0].min() == 1 and not found[:, 1:].any()


def test_equal_records_are_one():
    assert len({Preprocess(12, "bilinear", HALF, HALF), Preprocess(12, "bilinear", HALF, HALF)}) == 1
    assert Preprocess(12, "bilinear", HALF, HALF) != Preprocess(12, "bicubic", HALF, HALF)


def test_another_resample_is_refused():
    with pytest.raises(ValueError, match="resample is 'box'; legal: bilinear, bicubic, lanczos"):
        Preprocess(12, "box", HALF, HALF)
