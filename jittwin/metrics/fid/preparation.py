"""Preparation of pictures in each convention of FID. Values of different conventions cannot be compared.

pytorch-fid: pictures as decoded; the network resizes them to 299x299 without antialiasing.
clean: antialiased bicubic to 299x299 (Parmar, Zhang and Zhu 2022, arXiv 2104.11222), and TensorFlow's scale of pixels.
apf-gan: antialiased bilinear to 256x256, as in the published tool with scikit-image 0.19.
"""
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage

from jittwin.errors import UserError, choose_from

SIDE = 299              # side of the network's input, pixels
PUBLISHED_SIDE = 256    # side that APF-GAN's tool resizes to first, pixels


class Kept(NamedTuple):
    """The pixels of a large picture that the network's resizing reads.

    shape: (H, W) of the picture. rows, columns: positions of the pixels. pixels: uint8 (rows, columns, 3).
    """

    shape: tuple[int, int]
    rows: np.ndarray
    columns: np.ndarray
    pixels: np.ndarray


@dataclass(frozen=True)
class Mode:
    """A convention of FID.

    prepare: uint8 (H, W, 3) to float32 (3, h, w), which the network maps to 2x - 1. pool_padding: see FidInception.
    keep: the same, but of a large picture only what the network's resizing reads, so that it is small.
    """

    prepare: Callable[[np.ndarray], np.ndarray]
    pool_padding: str
    keep: Callable[[np.ndarray], Kept | np.ndarray]


def as_decoded(image: np.ndarray) -> np.ndarray:
    return _unit(image.transpose(2, 0, 1))


def read_pixels(image: np.ndarray) -> Kept | np.ndarray:
    rows, columns = (_read(old, SIDE) for old in image.shape[:2])
    if (len(rows), len(columns)) == image.shape[:2]:
        return as_decoded(image)
    return Kept(image.shape[:2], rows, columns, image.take(rows, 0).take(columns, 1))


def _read(old: int, new: int) -> np.ndarray:
    """The positions, of `old`, that bilinear resizing to `new` positions reads; all where it reads most of them."""
    if old <= 2 * new:
        return np.arange(old)
    at = np.maximum((np.arange(new) + 0.5) * (old / new) - 0.5, 0)
    margin = 1e-3 + 1e-6 * old          # a framework computes `at` in float32
    lower = np.concatenate([np.floor(at - margin), np.floor(at + margin)])
    return np.unique(np.clip(np.concatenate([lower, lower + 1]), 0, old - 1).astype(int))


def antialiased_bicubic(image: np.ndarray) -> np.ndarray:
    """Antialiased bicubic resizing of each channel in floating point, without rounding; clipped to 0..255.

    The network's input is then (v - 128) / 128 as in clean-fid; in the other modes it is (v - 127.5) / 127.5.
    """
    channels = [Image.fromarray(channel.astype(np.float32), mode="F").resize((SIDE, SIDE), Image.Resampling.BICUBIC)
                for channel in image.transpose(2, 0, 1)]
    return np.clip(np.stack([np.asarray(channel) for channel in channels]), 0, 255) / np.float32(256)


def blurred_bilinear(image: np.ndarray) -> np.ndarray:
    """Gaussian blur with standard deviation (factor - 1) / 2 per axis, then bilinear resizing with half-pixel centres.

    Borders are mirrored; values are clipped to the picture's own range.
    """
    planes, size = image.transpose(2, 0, 1), (PUBLISHED_SIDE, PUBLISHED_SIDE)
    if planes.shape[1:] == size:
        return _unit(planes)
    factors = np.array(planes.shape[1:]) / size
    low, high = np.float32(planes.min()), np.float32(planes.max())
    down, across = np.maximum(0, (factors - 1) / 2)
    rows, resized = _read(planes.shape[1], PUBLISHED_SIDE), []
    for plane in planes:
        # The first blur takes columns as rows, which lie together in memory; the second one, only rows that are read.
        blurred = np.zeros(plane.shape, np.float32)
        blurred[rows] = _blur(_blur(plane.T.astype(np.float32, order="C"), down)[:, rows].T, across)
        resized.append(ndimage.zoom(blurred, 1 / factors, order=1, mode="mirror", grid_mode=True))
    return _unit(np.clip(np.stack(resized), low, high))


def _blur(plane: np.ndarray, deviation: float) -> np.ndarray:
    """Gaussian blur of each row."""
    return ndimage.gaussian_filter1d(plane, deviation, mode="mirror") if deviation else plane


def _unit(planes: np.ndarray) -> np.ndarray:
    return np.divide(planes, np.float32(255), out=np.empty(planes.shape, np.float32))


MODES = {
    "pytorch-fid": Mode(as_decoded, "excluded", read_pixels),
    "clean": Mode(antialiased_bicubic, "excluded", antialiased_bicubic),
    "apf-gan": Mode(blurred_bilinear, "included", blurred_bilinear),
}


def find_mode(name: str) -> Mode:
    """The mode of this name. UserError: unknown name."""
    if name not in MODES:
        raise UserError(f"unknown mode {name!r}{choose_from(name, MODES)}")
    return MODES[name]
