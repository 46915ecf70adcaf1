"""Augmentation of a picture together with its heat map, as the winners of the structure track train (arXiv 2505.16314).

Every random number comes from injected draws. The changes of colour are those of torchvision's ColorJitter on Pillow
images. Maps are resized as by skimage.transform.resize with order 1 and anti_aliasing.
"""
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance
from scipy import ndimage

from jittwin import imaging
from jittwin.draws import Draws

CROPPED, DEGRADED, GREYED = 0.5, 0.1, 0.1       # how often
SHORTEST = 0.8                                  # side of a crop, as a part of the picture's
QUALITY = 70, 100                               # of JPEG
# The least and the largest factor of each change of colour; hue is added, as a part of the colour circle.
JITTER = {"brightness": (0.95, 1.05), "contrast": (0.8, 1.0), "saturation": (0.8, 1.0), "hue": (-0.025, 0.025)}


@dataclass(frozen=True)
class Augmentation:
    """Crop, changed colours with JPEG, grey and mirroring, each drawn. flip: probability of mirroring."""

    flip: float = 0.5

    def __call__(self, image: np.ndarray, heat: np.ndarray, draws: Draws) -> tuple[np.ndarray, np.ndarray]:
        """A picture uint8 (S, S, 3) and its map float (h, w) to a picture and a map of the same sizes."""
        if draws.uniform("crop", ()) < CROPPED:
            image, heat = cropped(image, heat, draws)
        if draws.uniform("degrade", ()) < DEGRADED:
            image = recompressed(jittered(image, draws), int(draws.integers("quality", *QUALITY, ())))
        if draws.uniform("grey", ()) < GREYED:
            image = grey(image)
        if draws.uniform("flip", ()) < self.flip:
            image, heat = image[:, ::-1], heat[:, ::-1]
        return np.ascontiguousarray(image), np.ascontiguousarray(heat)


def cropped(image: np.ndarray, heat: np.ndarray, draws: Draws) -> tuple[np.ndarray, np.ndarray]:
    """A window of the picture, and the same of its map, enlarged to the sizes that they had."""
    (height, width), size = image.shape[:2], heat.shape
    rows, columns = (int(side * (SHORTEST + (1 - SHORTEST) * float(share)))
                     for side, share in zip((height, width), draws.uniform("crop.size", (2,))))
    top = int(draws.integers("crop.top", 0, height - rows, ()))
    left = int(draws.integers("crop.left", 0, width - columns, ()))
    window = slice(top, top + rows), slice(left, left + columns)
    enlarged = Image.fromarray(np.ascontiguousarray(image[window])).resize((width, height), Image.Resampling.LANCZOS)
    return np.asarray(enlarged), resized_heat(resized_heat(heat, (height, width))[window], size)


def resized_heat(heat: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A map float (h, w) to float `size`: blurred against aliasing where it shrinks, then linear."""
    if heat.shape == tuple(size):
        return heat
    factors = np.divide(heat.shape, size)
    smooth = ndimage.gaussian_filter(heat, np.maximum(0, (factors - 1) / 2), mode="mirror")
    found = ndimage.zoom(smooth, 1 / factors, order=1, mode="mirror", grid_mode=True)
    return np.clip(found, heat.min(), heat.max())


def jittered(image: np.ndarray, draws: Draws) -> np.ndarray:
    """uint8 (H, W, 3) with changed brightness, contrast, saturation and hue, in an order that is drawn."""
    picture, shares = Image.fromarray(image), draws.uniform("jitter", (len(JITTER),))
    kinds = list(JITTER)
    for number in draws.permutation("jitter.order", len(kinds)):
        kind = kinds[number]
        least, most = JITTER[kind]
        picture = CHANGES[kind](picture, least + (most - least) * float(shares[number]))
    return np.asarray(picture)


def turned_hue(picture: Image.Image, shift: float) -> Image.Image:
    """shift: part of the colour circle, cut to whole 1/255."""
    hue, saturation, value = picture.convert("HSV").split()
    turned = (np.asarray(hue).astype(np.int32) + int(shift * 255)) % 256
    return Image.merge("HSV", (Image.fromarray(turned.astype(np.uint8)), saturation, value)).convert("RGB")


CHANGES = {"brightness": lambda picture, factor: ImageEnhance.Brightness(picture).enhance(factor),
           "contrast": lambda picture, factor: ImageEnhance.Contrast(picture).enhance(factor),
           "saturation": lambda picture, factor: ImageEnhance.Color(picture).enhance(factor), "hue": turned_hue}


def recompressed(image: np.ndarray, quality: int) -> np.ndarray:
    """What is left of uint8 (H, W, 3) in a JPEG file of this quality."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=quality)
    return imaging.decode_image(stream, "JPEG")


def grey(image: np.ndarray) -> np.ndarray:
    """uint8 (H, W, 3) with Pillow's luminance in all three channels."""
    return np.repeat(np.asarray(Image.fromarray(image).convert("L"))[..., None], 3, 2)
