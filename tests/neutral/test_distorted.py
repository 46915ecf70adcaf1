"""Samples of distorted pictures: Pillow's and scipy's own steps, the published probabilities, draws that are injected."""
import colorsys
import io

import numpy as np
import pytest
from PIL import Image, ImageEnhance
from scipy import ndimage

from jittwin import imaging
from jittwin.data.annotation import Region, levels
from jittwin.data.distorted import DistortedDataset
from jittwin.data.evalmuse import Sample
from jittwin.data.loader import Loader
from jittwin.data.picture_augment import (
    JITTER,
    Augmentation,
    cropped,
    grey,
    jittered,
    recompressed,
    resized_heat,
    turned_hue,
)
from jittwin.data.synthetic.distorted import SyntheticEvalMuse
from jittwin.draws import Draws
from jittwin.errors import UserError
from jittwin.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocess

WAY = Preprocess((64, 64), "lanczos", IMAGENET_MEAN, IMAGENET_STD)
MARKS = [[Region(1, ((10, 20), (40, 50)))]] * 3


class Fixed(Draws):
    """Draws whose values at some sites are given."""

    def __init__(self, **values):
        super().__init__(0)
        self.values = {site.replace("_", "."): value for site, value in values.items()}

    def uniform(self, site, shape):
        return np.float32(self.values[site]) if site in self.values else super().uniform(site, shape)

    def integers(self, site, low, high, shape):
        return np.int64(self.values[site]) if site in self.values else super().integers(site, low, high, shape)

    def permutation(self, site, length):
        return np.array(self.values[site]) if site in self.values else super().permutation(site, length)


def picture(height=80, width=100, seed=0):
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.random((height, width, 3)), (5, 5, 0))
    return (255 * (smooth - smooth.min()) / np.ptp(smooth)).astype(np.uint8)


def sample(number=0, score=0.25, draw=lambda shape: levels(MARKS, shape)):
    return Sample(f"{number}.jpg", lambda: picture(seed=number), f"prompt {number // 2}", score, draw)


# ---- samples ------------------------------------------------------------------------

def test_a_sample_is_the_resized_picture_and_its_map():
    data = DistortedDataset([sample(number) for number in range(5)], WAY, 48)
    found = data.get(3)
    resized = np.asarray(Image.fromarray(picture(seed=3)).resize((64, 64), Image.Resampling.LANCZOS), np.float64)
    np.testing.assert_allclose(found["pixels"], ((resized / 255 - IMAGENET_MEAN) / IMAGENET_STD).transpose(2, 0, 1), atol=1e-6)
    assert data.texts == ["prompt 0", "prompt 1", "prompt 2"] and found["text"] == 1 and found["name"] == "3.jpg"
    assert found["pixels"].dtype == found["map"].dtype == np.float32 and found["map"].shape == (1, 48, 48)
    assert found["vote"] == 0.25 and found["map"].max() == np.float32(180 / 255)
    np.testing.assert_array_equal(found["map"][0], imaging.resize_levels(levels(MARKS, (80, 100)), (48, 48)) / np.float32(255))
    # 30 x 30 marked pixels of 80 x 100
    assert found["map"].mean() == pytest.approx(180 / 255 * 900 / 8000, rel=0.04)


def test_maps_go_through_512_pixels_where_asked():
    data = DistortedDataset([sample()], WAY, 48, through=512)
    native = levels(MARKS, (80, 100))
    expected = imaging.resize_levels(imaging.resize_levels(native, (512, 512)), (48, 48))
    np.testing.assert_array_equal(data.get(0)["map"][0], expected / np.float32(255))
    assert data.levels(0).shape == (512, 512) and DistortedDataset([sample()], WAY, 48).levels(0).shape == (80, 100)


def test_pictures_to_be_predicted_have_no_target():
    found = DistortedDataset([sample(score=None, draw=None)], WAY, 48, Augmentation()).get(0)
    assert set(found) == {"pixels", "text", "name"}
    with pytest.raises(UserError, match="no pictures are left"):
        DistortedDataset([], WAY, 48)


def test_a_loader_gives_the_same_batches_whatever_the_threads():
    data = SyntheticEvalMuse.for_side(6, 64)
    dataset = DistortedDataset(data.samples, WAY, 64, Augmentation())
    one, two = ([batch for batch in Loader(dataset, 2, 5, workers, shuffle="philox").epoch(3)] for workers in (1, 3))
    for first, second in zip(one, two, strict=True):
        assert first["name"] == second["name"] and first["map"].shape == (2, 1, 64, 64)
        for key in ("pixels", "map", "vote", "text"):
            np.testing.assert_array_equal(first[key], second[key])


# ---- augmentation -------------------------------------------------------------------

NONE = {"crop": 0.5, "degrade": 0.1, "grey": 0.1, "flip": 0.5}       # each just not


def test_without_luck_nothing_changes():
    image, heat = picture(64, 64), np.random.default_rng(1).random((48, 48))
    found = Augmentation()(image, heat, Fixed(**NONE))
    assert (found[0] == image).all() and (found[1] == heat).all()


def test_picture_and_map_are_mirrored_together():
    image, heat = picture(64, 64), np.random.default_rng(1).random((48, 48))
    found = Augmentation(0.7)(image, heat, Fixed(**{**NONE, "flip": 0.69}))
    assert (found[0] == image[:, ::-1]).all() and (found[1] == heat[:, ::-1]).all()


def test_the_crop_is_the_same_window_of_both():
    image, heat = picture(64, 64), ndimage.gaussian_filter(np.random.default_rng(1).random((64, 64)), 3)
    draws = Fixed(**NONE | {"crop": 0.49}, crop_size=(0.25, 0.75), crop_top=5, crop_left=2)
    found, warm = Augmentation()(image, heat, draws)
    rows, columns = int(64 * 0.85), int(64 * 0.95)
    window = Image.fromarray(image[5:5 + rows, 2:2 + columns])
    assert (found == np.asarray(window.resize((64, 64), Image.Resampling.LANCZOS))).all()
    expected = ndimage.zoom(heat[5:5 + rows, 2:2 + columns], (64 / rows, 64 / columns), order=1, mode="mirror", grid_mode=True)
    np.testing.assert_allclose(warm, expected, atol=1e-12)
    # A window of a map is where it was: a linear ramp stays one.
    ramp = np.tile(np.arange(64.0), (64, 1))
    _, moved = cropped(image, ramp, draws)
    np.testing.assert_allclose(moved[:, 8:-8], np.tile((np.arange(64) + 0.5) * columns / 64 - 0.5 + 2, (64, 1))[:, 8:-8])


# Of skimage.transform.resize 0.25.2 with order=1 and anti_aliasing=True.
SKIMAGE_SMALL = [[0.4991813, 0.199815, 0.4279155],
           [0.4266714, 0.6405343, 0.5327703]]
SKIMAGE_WIDE = [[0.1626984, 0.234127, 0.2976191, 0.2777778, 0.3968254, 0.515873, 0.5873016],
           [0.6904762, 0.7619048, 0.7142857, 0.4166667, 0.5357143, 0.4047619, 0.2261905],
           [0.2460318, 0.3174603, 0.4365079, 0.5555556, 0.6746032, 0.7103175, 0.6984127]]


def test_maps_are_resized_as_by_skimage():
    heat = (np.arange(20).reshape(4, 5) % 7) / 6.0
    np.testing.assert_allclose(resized_heat(heat, (2, 3)), SKIMAGE_SMALL, atol=1e-6)
    np.testing.assert_allclose(resized_heat(heat, (3, 7)), SKIMAGE_WIDE, atol=1e-6)
    assert resized_heat(heat, (4, 5)) is heat


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 1, 0, 2)])
def test_colours_change_as_by_pillows_enhancers(order):
    image, shares = picture(), (0.1, 0.9, 0.3, 0.8)
    factors = {kind: low + (high - low) * share for (kind, (low, high)), share in zip(JITTER.items(), shares)}
    assert all(abs(factors[kind] - value) < 1e-6 for kind, value in (
        ("brightness", 0.96), ("contrast", 0.98), ("saturation", 0.86), ("hue", 0.015)))
    expected, steps = Image.fromarray(image), [
        lambda x: ImageEnhance.Brightness(x).enhance(factors["brightness"]),
        lambda x: ImageEnhance.Contrast(x).enhance(factors["contrast"]),
        lambda x: ImageEnhance.Color(x).enhance(factors["saturation"]), lambda x: turned_hue(x, factors["hue"])]
    for number in order:
        expected = steps[number](expected)
    found = jittered(image, Fixed(jitter=shares, jitter_order=order))
    assert np.abs(found.astype(int) - np.asarray(expected)).max() <= 1


@pytest.mark.parametrize("shift", [0.025, -0.025, 0.3, -0.9])
def test_the_hue_turns_by_whole_steps(shift):
    image = np.array([[[200, 30, 40], [20, 220, 60], [10, 60, 240]]], np.uint8)
    turned = np.asarray(turned_hue(Image.fromarray(image), shift))
    for before, after in zip(image[0], turned[0]):
        hue, saturation, value = colorsys.rgb_to_hsv(*(before / 255))
        expected = np.array(colorsys.hsv_to_rgb((hue + int(shift * 255) / 255) % 1, saturation, value)) * 255
        assert np.abs(after - expected).max() < 8
    assert (np.asarray(turned_hue(Image.fromarray(image), 0.003)) == np.asarray(
        Image.fromarray(image).convert("HSV").convert("RGB"))).all()


def test_jpeg_and_grey():
    image = picture()
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=70)
    assert (recompressed(image, 70) == np.asarray(Image.open(stream))).all()
    found = grey(image)
    assert (found == found[..., :1]).all() and np.abs(found[..., 0] - image @ (0.299, 0.587, 0.114)).max() < 1


def test_each_change_is_as_frequent_as_published():
    image, heat = picture(32, 32), np.tile(np.linspace(0, 1, 32), (32, 1))
    seen = []
    for number in range(600):
        changed, warm = Augmentation()(image, heat, Draws(0, 0, number))
        grey_now = (changed == changed[..., :1]).all()
        mirrored = warm[0, 0] > warm[0, -1]
        was_cropped = warm.min() > 0 or warm.max() < 1
        plain = (changed == (image[:, ::-1] if mirrored else image)).all()
        seen.append((was_cropped, grey_now, mirrored, not was_cropped and not grey_now and not plain))
    crops, greys, flips, degraded = np.mean(seen, 0)
    assert 0.4 < crops < 0.58 and 0.07 < greys < 0.14 and 0.43 < flips < 0.57
    assert 0.45 * 0.9 * 0.1 * 0.6 < degraded < 0.55 * 0.9 * 0.1 * 1.5


def test_draws_decide_everything():
    image, heat = picture(64, 64), np.random.default_rng(1).random((64, 64))
    runs = [Augmentation()(image, heat, Draws(1, 2, step)) for step in (3, 3, 4, 5, 6, 7)]
    assert all((first == again).all() for first, again in zip(runs[0], runs[1]))
    assert len({run[1].tobytes() for run in runs}) > 2
