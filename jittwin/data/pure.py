"""The pure-colour dictionary of APF-GAN: photographs for label maps of one class.

For a label map of one class, such as all sky, the published system returns a training
photograph of that class (doi 10.1007/s41095-023-0357-1, pure_img.npy).
"""
import io
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from jittwin import imaging
from jittwin.classes import CLASSES, ignoring
from jittwin.data.landscape import each, find_pairs
from jittwin.errors import UserError, reason
from jittwin.weights import Array, Refused, StandIn, restricted_load, write_weights

PURE_FRACTION = 0.98  # a label map is pure if its most frequent class covers more than this fraction


class PureDictionary:
    """Photographs by class, uint8 (H, W, 3) each; every photograph is used once."""

    def __init__(self, images: dict[int, list[np.ndarray]]):
        self.images = images
        self._left = {label: list(pictures) for label, pictures in images.items()}

    @classmethod
    def build(cls, source, size: tuple[int, int] = (384, 512), ignore: str | None = None) -> "PureDictionary":
        """Collect the photographs of `source` whose label maps have one class, resized to `size` (H, W).

        source: a challenge folder, or a dataset with `pair(index) -> (image, label)`. All pairs of a folder
        are used, also those of a removal list, in lexicographic order of the label paths. ignore: see
        jittwin.classes.ignoring.
        """
        images = {}
        for label, image in _one_class_pairs(source, ignore):
            images.setdefault(label, []).append(imaging.resize_image(image, size))
        return cls(images)

    def apply(self, label: np.ndarray, image: np.ndarray,
              warn: Callable[[str], None] | None = None) -> np.ndarray:
        """`image` (H, W, 3), or a copy with the pure class replaced by its last unused photograph.

        label: uint8 of any size, resized to the image. If no photograph of the class is left, the image
        is returned as it is and `warn` is called with the reason.
        """
        label = imaging.resize_label(label, image.shape[:2])
        counts = np.bincount(label.ravel())
        winner = int(counts.argmax())
        if counts[winner] <= PURE_FRACTION * label.size:
            return image
        if not self._left.get(winner):
            if warn:
                reason = "are used up" if winner in self.images else "do not exist"
                warn(f"photographs of class {winner} {reason} in the pure dictionary; "
                     "keeping the generated image")
            return image
        photograph = imaging.resize_image(self._left[winner].pop(), image.shape[:2])
        return np.where((label == winner)[..., None], photograph, image)

    def save(self, path) -> None:
        """Write an .npz of plain uint8 arrays, one (N, H, W, 3) per class."""
        write_weights(path, {str(label): np.stack(found) for label, found in self.images.items()}, format="npz")

    @classmethod
    def load(cls, path) -> "PureDictionary":
        """Read our .npz, or the original pure_img.npy without executing its pickle. UserError: neither."""
        try:
            content = Path(path).read_bytes()
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror}); "
                            "give the .npz of a training run or the original pure_img.npy") from error
        try:
            images = _read_original(content) if content.startswith(b"\x93NUMPY") else _read_npz(content)
        except Exception as error:  # a damaged or hostile file can fail anywhere on the way
            raise UserError(f"{path}: not a pure-colour dictionary ({reason(error)}); "
                            "give the .npz of a training run or the original pure_img.npy") from error
        for label in images:
            _check_class(path, label)
        return cls(images)


def _one_class_pairs(source, ignore):
    if hasattr(source, "pair"):
        for image, label in map(source.pair, range(len(source))):
            if (label == label.flat[0]).all():
                yield int(label.flat[0]), image
        return
    pairs = sorted(find_pairs(source)[0].values(), key=lambda pair: str(pair[1]))
    with closing(each(partial(_only_class, classes=ignoring(ignore)), pairs, "looking for one-class maps")) as found:
        for (photograph, _), label in zip(pairs, found):
            if label is not None:
                yield label, imaging.decode_image(photograph)


def _only_class(pair, classes):
    label = imaging.decode_label(pair[1], classes)
    if (label != label.flat[0]).any():
        return None
    _check_class(pair[1], int(label.flat[0]))
    return int(label.flat[0])


def _check_class(path, label):
    if not 0 <= label < CLASSES:
        raise UserError(f"{path}: holds class {label}; legal are 0..{CLASSES - 1}; "
                        "correct the label maps it comes from")


def _read_npz(content):
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        images = {int(name): list(file[name]) for name in file.files}
    for picture in (picture for found in images.values() for picture in found):
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            raise ValueError(f"pictures are {picture.dtype} {picture.shape}, not uint8 (H, W, 3)")
    return images


def _read_original(content):
    """np.save's header, then a pickle of an object array holding one {uint8: [PIL image, ...]}."""
    file = io.BytesIO(content)
    read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    read_header[np.lib.format.read_magic(file)](file)
    array = restricted_load(file, "object array", PICTURES)
    if not isinstance(array, Array) or len(array.value) != 1:
        raise ValueError("not an array of one dictionary")
    return {int(label.value): [picture.pixels for picture in found] for label, found in array.value[0].items()}


class Picture(StandIn):
    """Stands for a Pillow image: [info, mode, size, palette, bytes, ...] becomes pixels."""
    __slots__ = ("pixels",)

    def __setstate__(self, state) -> None:
        mode, size, data = state[1], state[2], state[4]
        if mode not in ("L", "RGB"):
            raise Refused(f"a picture of mode {mode!r:.60}")
        self.pixels = np.array(Image.frombytes(mode, size, data).convert("RGB"))


PICTURES = {("PIL.Image", "Image"): Picture, ("PIL.JpegImagePlugin", "JpegImageFile"): Picture}
