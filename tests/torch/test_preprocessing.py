"""Pictures cut to a square, against transformers' processor."""
import numpy as np
import pytest
import transformers

from jittwin.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocess


# Sizes of which the processor, which rounds half a pixel down, and torchvision cut out the same square.
@pytest.mark.parametrize("size, short, crop, resample", [
    ((256, 256), 256, 224, "bilinear"), ((300, 400), 256, 224, "bilinear"), ((512, 384), 224, 224, "bicubic"),
    ((97, 61), 320, 299, "bilinear"), ((224, 228), 224, 224, "bicubic")])
def test_pictures_are_prepared_as_transformers_does(size, short, crop, resample):
    image = np.random.default_rng(1).integers(0, 256, (*size, 3)).astype(np.uint8)
    processor = transformers.models.clip.image_processing_pil_clip.CLIPImageProcessorPil(
        size={"shortest_edge": short}, crop_size={"height": crop, "width": crop},
        resample={"bilinear": 2, "bicubic": 3}[resample], image_mean=IMAGENET_MEAN, image_std=IMAGENET_STD)
    expected = processor(image, return_tensors="np")["pixel_values"][0]
    found = Preprocess(short, resample, IMAGENET_MEAN, IMAGENET_STD, crop=(crop, crop))(image)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)
