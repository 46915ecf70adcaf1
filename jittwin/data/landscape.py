"""The landscape challenge's data: photographs and 29-class label maps of the same name.

    <folder>/imgs/*.jpg        <folder>/labels/*.png  (or lables/, as published)

The transform is SPADE's "scale_width_and_crop" as APF-GAN uses it (doi 10.1007/s41095-023-0357-1).
Every file is checked before a run starts.
"""
import os
import re
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from tqdm import tqdm

from jittwin import imaging
from jittwin.classes import CLASSES
from jittwin.draws import Draws
from jittwin.errors import UserError

AHEAD = 64                  # results of `each` that wait for the consumer
LABEL_FOLDERS = ("labels", "lables")
_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm")


def natural_key(path) -> tuple[list, str]:
    """Sort key that compares runs of digits as numbers: img2 before img10."""
    parts = re.split(r"([0-9]+)", Path(path).name)  # text and digits by turns
    return [int(part) if i % 2 else part.lower() for i, part in enumerate(parts)], Path(path).name


def list_pictures(folder) -> list[Path]:
    """The picture files of a folder in natural order; its `files.list`, if present, replaces the listing."""
    folder = Path(folder)
    listing = folder / "files.list"
    if listing.is_file():
        files = [_listed(listing, line.strip()) for line in listing.read_text().splitlines() if line.strip()]
    else:
        files = [entry for entry in folder.iterdir()
                 if entry.suffix.lower() in _SUFFIXES and not entry.name.startswith(".")]
    if not files:
        raise UserError(f"{folder}: holds no pictures; expected {', '.join(_SUFFIXES)} files")
    return sorted(files, key=natural_key)


def _listed(listing: Path, name: str) -> Path:
    for candidate in (listing.parent / name, Path(name)):
        if candidate.is_file():
            return candidate
    raise UserError(f"{listing}: names '{name}', which does not exist; correct the list or delete it")


def label_folder(folder) -> Path:
    """The label folder of a data set, or `folder` itself when it has no such subfolder."""
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    return next((folder / name for name in LABEL_FOLDERS if (folder / name).is_dir()), folder)


def find_pairs(folder, removed: Iterable[str] = ()) -> list[tuple[Path, Path]]:
    """(picture, label) paths of a data set in natural order, without the stems in `removed`.

    UserError: a file without a partner, or two files of one stem.
    """
    labels_at = label_folder(folder)
    images_at = Path(folder) / "imgs"
    if labels_at == Path(folder) or not images_at.is_dir():
        raise UserError(f"{folder}: not a landscape data set; it needs imgs/ with photographs and "
                        "labels/ (or lables/) with PNGs of the same names")
    images, labels = _by_stem(list_pictures(images_at)), _by_stem(list_pictures(labels_at))
    for have, lack, place in ((images, labels, labels_at), (labels, images, images_at)):
        lonely = [have[stem] for stem in have if stem not in lack]
        if lonely:
            more = f" (and {len(lonely) - 1} more)" if len(lonely) > 1 else ""
            raise UserError(f"{lonely[0]}: no file of that name in {place}{more}; add it or remove this one")
    removed = set(removed)
    pairs = [(path, labels[stem]) for stem, path in images.items() if stem not in removed]
    if not pairs:
        raise UserError(f"{folder}: the removal list leaves none of the {len(images)} pairs; shorten it")
    return pairs


def _by_stem(files):
    stems = {}
    for path in files:
        if path.stem in stems:
            raise UserError(f"{path}: same name as {stems[path.stem].name}; rename or remove one of them")
        stems[path.stem] = path
    return stems


def read_removal_list(path) -> set[str]:
    """Stems to exclude, one per line, with or without .jpg or .png. UserError: unreadable."""
    try:
        lines = Path(path).read_text().split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as a removal list; "
                        "give a text file with one name per line") from error
    return {line.removesuffix(".jpg").removesuffix(".png") for line in map(str.strip, lines) if line}


@dataclass(frozen=True)
class Transform:
    """Scaling, random crop and random flip from a decoded pair to a training sample.

    load_size, crop_size: widths in pixels after scaling and after the crop. aspect_ratio: width over height of the
    crop. multiple: the networks need sides that are multiples of this number. UserError: sizes that do not fit.
    """
    load_size: int = 572
    crop_size: int = 512
    aspect_ratio: float = 4 / 3
    vertical_crop: str = "top"  # the reference compares the height with the crop's width, so its y is always 0
    flip: bool = True
    multiple: int = 1

    def __post_init__(self):
        if self.vertical_crop not in ("top", "random"):
            raise UserError(f"vertical_crop={self.vertical_crop}: must be 'top' (reference) or 'random'")
        if self.load_size < self.crop_size:
            raise UserError(f"load_size={self.load_size}: must be at least crop_size={self.crop_size}")
        imaging.check_sides("crop", self.crop_shape, self.multiple,
                            f"crop_size={self.crop_size}, aspect_ratio={self.aspect_ratio:g}")

    @property
    def crop_shape(self) -> tuple[int, int]:
        """(height, width) of every training sample."""
        return round(self.crop_size / self.aspect_ratio), self.crop_size

    def check(self, path, shape: tuple[int, int]) -> None:
        """UserError when a picture of `shape` (H, W) is too low for the crop after scaling."""
        height = scale_width(shape, self.load_size)[0]
        if height < self.crop_shape[0]:
            raise UserError(f"{path}: {shape[1]}x{shape[0]} pixels scale to {self.load_size}x{height}, too "
                            f"low for a crop {self.crop_shape[0]} high; raise load_size or aspect_ratio")

    def __call__(self, image: np.ndarray, label: np.ndarray, draws: Draws) -> tuple[np.ndarray, np.ndarray]:
        """uint8 (H, W, 3) and (H, W) to float32 (3, h, w) in [-1, 1] and uint8 (h, w) of crop_shape."""
        size = scale_width(label.shape, self.load_size)
        image, label = imaging.resize_image(image, size), imaging.resize_label(label, size)
        height, width = self.crop_shape
        x = int(draws.integers("crop.x", 0, size[1] - width, ()))
        lowest = size[0] - height if self.vertical_crop == "random" else 0
        y = int(draws.integers("crop.y", 0, lowest, ()))
        image, label = image[y:y + height, x:x + width], label[y:y + height, x:x + width]
        if self.flip and draws.uniform("flip", ()) < 0.5:
            image, label = image[:, ::-1], label[:, ::-1]
        return imaging.to_unit_range(image), np.ascontiguousarray(label)


def scale_width(shape: tuple[int, int], width: int) -> tuple[int, int]:
    """(H, W) scaled to `width`; the height is truncated as in the reference."""
    return (shape[0] if shape[1] == width else int(width * shape[0] / shape[1])), width


class LandscapeDataset:
    """Samples of a challenge folder. Every file is checked at construction.

    train=True: `get` returns picture and label, scaled, cropped and flipped by the draws.
    train=False: `folder` holds label maps, directly or in labels/; `get` returns the label scaled to a
    width of crop_size, without a crop and without a picture.
    multiple: the sides of every sample must be multiples of this number. `shapes`: (H, W) of each sample.
    UserError: a file that is missing, damaged, of another size, or has labels that are not classes.
    """

    def __init__(self, folder, train: bool = True, load_size: int = 572, crop_size: int = 512,
                 aspect_ratio: float = 4 / 3, vertical_crop: str = "top", flip: bool = True,
                 removal_list=None, multiple: int = 1):
        self.train, self.crop_size, self.multiple = train, crop_size, multiple
        if train:
            removed = read_removal_list(removal_list) if removal_list else ()
            self.pairs = find_pairs(folder, removed)
            self.transform = Transform(load_size, crop_size, aspect_ratio, vertical_crop, flip, multiple)
        else:
            labels = _by_stem(list_pictures(label_folder(folder)))
            self.pairs = [(None, path) for path in labels.values()]
        self.names = [label.stem for _, label in self.pairs]
        self.shapes = self._check()

    def __len__(self) -> int:
        return len(self.pairs)

    def get(self, index: int, draws: Draws | None = None) -> dict:
        """dict(image float32 (3, H, W) in [-1, 1] when training, label uint8 (H, W), name)."""
        image_path, label_path = self.pairs[index]
        label = imaging.decode_label(label_path)
        if not self.train:
            return {"label": imaging.resize_label(label, self.shapes[index]), "name": self.names[index]}
        image, label = self.transform(imaging.decode_image(image_path), label, draws)
        return {"image": image, "label": label, "name": self.names[index]}

    def _check(self) -> list[tuple[int, int]]:
        """Read every label and every picture's header once; returns the (H, W) of each sample."""
        shapes, highest = zip(*each(self._inspect, self.pairs, "checking labels"))
        illegal = [(label, value) for (_, label), value in zip(self.pairs, highest) if value >= CLASSES]
        if illegal:
            label, value = illegal[0]
            raise UserError(f"{label}: holds label {value}; {len(illegal)} of {len(self)} files have labels "
                            f"outside 0..{CLASSES - 1}; relabel those pixels ({CLASSES - 1} = other) or drop "
                            "the files")
        return list(shapes)

    def _inspect(self, pair):
        """((H, W) of the sample, highest label) of one pair of files."""
        image, path = pair
        label = imaging.decode_label(path)
        if not self.train:
            shape = scale_width(label.shape, self.crop_size)
            imaging.check_sides(path, shape, self.multiple, f"a width of {self.crop_size}")
            return shape, int(label.max())
        size = imaging.image_size(image)
        if size != label.shape:
            raise UserError(f"{path}: {label.shape[1]}x{label.shape[0]} pixels, but {image} has "
                            f"{size[1]}x{size[0]}; a label map must have its picture's size")
        self.transform.check(image, size)
        return self.transform.crop_shape, int(label.max())


def each(function: Callable, items: list, title: str):
    """Yield the results of `function` over `items` in order, computed by a few threads.

    They work at most AHEAD items ahead of the consumer. A progress bar appears after two seconds. Work that has not
    begun is dropped when the generator is closed or `function` raises.
    """
    waiting, rest = deque(), iter(items)
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        try:
            waiting.extend(pool.submit(function, item) for item in islice(rest, AHEAD))
            for _ in tqdm(range(len(items)), title, delay=2, disable=None, leave=False):
                result = waiting.popleft().result()
                waiting.extend(pool.submit(function, item) for item in islice(rest, 1))
                yield result
        finally:
            pool.shutdown(cancel_futures=True)
