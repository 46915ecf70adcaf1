"""The preparation of a picture for a network, as one record that also carries it out.

Metrics with equal records share the prepared array.
"""
from dataclasses import dataclass

import numpy as np
from PIL import Image

RESAMPLES = ("bilinear", "bicubic", "lanczos")
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class Preprocess:
    """Resizing by Pillow with antialiasing, an optional crop, then (x / 255 - mean) / std in float32.

    size: (height, width), without keeping the proportions; or one number, the length of the shorter side, with the
    proportions kept. crop: (height, width) of the part cut from the centre, None for no crop; a crop that would begin
    between two pixels begins at the even one, as in torchvision. resample: one of RESAMPLES. mean, std: of red, green
    and blue. ValueError: another resample.
    """

    size: tuple[int, int] | int
    resample: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    crop: tuple[int, int] | None = None

    def __post_init__(self):
        if self.resample not in RESAMPLES:
            raise ValueError(f"resample is {self.resample!r}; legal: {', '.join(RESAMPLES)}")

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """uint8 (H, W, 3) to float32 (3, h, w), in its own memory."""
        return self.finish(self.resize(image))

    def resize(self, image: np.ndarray) -> np.ndarray:
        """uint8 (H, W, 3) to uint8 (h, w, 3) after resizing, before the crop."""
        height, width = self.resized(*image.shape[:2])
        return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling[self.resample.upper()]))

    def finish(self, resized: np.ndarray, corner: tuple[int, int] | None = None, mirrored: bool = False) -> np.ndarray:
        """The result of `resize` to float32 (3, h, w). corner: (top, left) of the crop, None for the centre."""
        if self.crop:
            top, left = corner or (round((side - part) / 2) for side, part in zip(resized.shape, self.crop))
            resized = resized[top:top + self.crop[0], left:left + self.crop[1]]
        if mirrored:
            resized = resized[:, ::-1]
        scaled = resized.astype(np.float32) / np.float32(255)
        return ((scaled - np.float32(self.mean)) / np.float32(self.std)).transpose(2, 0, 1).copy()

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) after resizing, before the crop; the longer side is rounded down."""
        if not isinstance(self.size, int):
            return self.size
        shorter = min(height, width)
        return self.size * height // shorter, self.size * width // shorter


def as_for_clip(side: int) -> Preprocess:
    """The preparation of a picture by CLIP, and by what compares pictures and texts like it."""
    return Preprocess(side, "bicubic", CLIP_MEAN, CLIP_STD, crop=(side, side))
