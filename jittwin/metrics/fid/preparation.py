"""How a picture becomes the network's input in each of FID's conventions. Values differ: never mix them.

pytorch-fid: as decoded; the network resizes to 299x299 without antialiasing.
clean: antialiased bicubic to 299x299 (Parmar, Zhang and Zhu 2022, arXiv 2104.11222), and TensorFlow's scale of samples.
apf-gan: antialiased bilinear to 256x256, as the published tool does with scikit-image 0.19.
"""
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import ndimage

from jittwin.errors import UserError, choose_from

SIDE = 299              # of what the network sees
PUBLISHED_SIDE = 256    # of what APF-GAN's tool resizes to first


@dataclass(frozen=True)
class Mode:
    """prepare: uint8 (H, W, 3) to float32 (3, h, w), of which the network sees 2x - 1. pool_padding: FidInception's."""

    prepare: callable
    pool_padding: str


def as_decoded(image: np.ndarray) -> np.ndarray:
    return _unit(image.transpose(2, 0, 1))


def antialiased_bicubic(image: np.ndarray) -> np.ndarray:
    """Each channel in floating point, so that nothing is rounded on the way; cut off at 0 and 255.

    The network sees (v - 128) / 128, as clean-fid's does; in the other modes, as pytorch-fid's, (v - 127.5) / 127.5.
    """
    channels = [Image.fromarray(channel.astype(np.float32), mode="F").resize((SIDE, SIDE), Image.Resampling.BICUBIC)
                for channel in image.transpose(2, 0, 1)]
    return np.clip(np.stack([np.asarray(channel) for channel in channels]), 0, 255) / np.float32(256)


def blurred_bilinear(image: np.ndarray) -> np.ndarray:
    """Gaussian of deviation (factor - 1) / 2 per axis, borders mirrored, then half-pixel bilinear; cut off at the
    picture's own range."""
    planes, size = image.transpose(2, 0, 1).astype(np.float32), (PUBLISHED_SIDE, PUBLISHED_SIDE)
    if planes.shape[1:] == size:
        return _unit(planes)
    factors = np.array(planes.shape[1:]) / size
    low, high = planes.min(), planes.max()
    resized = [ndimage.zoom(ndimage.gaussian_filter(plane, np.maximum(0, (factors - 1) / 2), mode="mirror"),
                            1 / factors, order=1, mode="mirror", grid_mode=True) for plane in planes]
    return _unit(np.clip(np.stack(resized), low, high))


def _unit(planes: np.ndarray) -> np.ndarray:
    return np.divide(planes, np.float32(255), out=np.empty(planes.shape, np.float32))


MODES = {
    "pytorch-fid": Mode(as_decoded, "excluded"),
    "clean": Mode(antialiased_bicubic, "excluded"),
    "apf-gan": Mode(blurred_bilinear, "included"),
}


def find_mode(name: str) -> Mode:
    """UserError: unknown name."""
    if name not in MODES:
        raise UserError(f"unknown mode {name!r}{choose_from(name, MODES)}")
    return MODES[name]
