"""The landscape challenge's data: photographs and 29-class label maps of the same name.

    <folder>/imgs/*.jpg        <folder>/labels/*.png  (or lables/, as published)

The transform is SPADE's "scale_width_and_crop" as APF-GAN uses it (doi 10.1007/s41095-023-0357-1).
Every file is checked before a run starts.
"""
import os
import re
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from jittwin import imaging
from jittwin.classes import CLASSES, ignoring
from jittwin.data.listing import list_folder
from jittwin.data.matching import meant, plain_name, strangers
from jittwin.draws import Draws
from jittwin.errors import UserError, did_you_mean
from jittwin.text_files import read_lines

AHEAD = 64                  # results of `each` that wait for the consumer
LABEL_FOLDERS = ("labels", "lables")
LIST = "files.list"         # names the pictures of a folder in place of its listing


def natural_key(path) -> tuple[list, str]:
    """Sort key that compares runs of digits as numbers: img2 before img10."""
    parts = re.split(r"([0-9]+)", Path(path).name)  # text and digits by turns
    return [int(part) if i % 2 else part.lower() for i, part in enumerate(parts)], Path(path).name


class Pictures(NamedTuple):
    """The pictures of a folder and its subfolders in natural order.

    files: (name, path); the name is the path inside the folder. notes: lines about files that were passed over.
    """
    files: list[tuple[str, Path]]
    notes: tuple[str, ...] = ()

    @property
    def paths(self) -> list[Path]:
        return [path for _, path in self.files]

    def by_stem(self) -> dict[str, Path]:
        """The paths by the name without its suffix. UserError: two have the same."""
        stems = {}
        for name, path in self.files:
            stem = without_suffix(name)
            if stem in stems:
                raise UserError(f"{path}: same name as {stems[stem].name}; rename or remove one of them")
            stems[stem] = path
        return stems


def list_pictures(folder) -> Pictures:
    """The pictures of a folder, see jittwin.data.listing; its `files.list`, if present, replaces the listing.

    UserError: no pictures.
    """
    folder = Path(folder)
    listing = folder / LIST
    if listing.is_file():
        lines = read_lines(listing, "a text file with one picture per line")
        found, rest, notes = [(path.name, path) for path in (_listed(listing, line) for line in lines)], "", ()
    else:
        inside = list_folder(folder)
        found, rest, notes = inside.files.items(), inside.rest, inside.notes
    if not found:
        raise UserError(f"{folder}: holds no pictures{rest and '; ' + rest}")
    return Pictures(sorted(found, key=lambda each: [natural_key(part) for part in each[0].split("/")]), notes)


def without_suffix(name: str) -> str:
    """A path inside a folder without the suffix of the file."""
    return str(PurePosixPath(name).with_suffix(""))


def _listed(listing: Path, name: str) -> Path:
    for candidate in (listing.parent / name, listing.parent / plain_name(name), Path(name)):
        if candidate.is_file():
            return candidate
    there = [entry.name for entry in listing.parent.iterdir() if entry != listing]
    raise UserError(f"{listing}: names '{name}', which does not exist{did_you_mean(name, there)}; correct the list or "
                    "delete it")


def label_folder(folder) -> Path:
    """The label folder of a data set, or `folder` itself when it has no such subfolder."""
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    return next((folder / name for name in LABEL_FOLDERS if (folder / name).is_dir()), folder)


def find_pairs(folder, removal_list=None) -> tuple[dict[str, tuple[Path, Path]], tuple[str, ...]]:
    """(picture, label) paths of a data set by stem, in natural order; notes of Pictures.

    removal_list: a file that names pairs to exclude. UserError: a file without a partner, two files of one stem, or
    what read_removal_list says.
    """
    labels_at = label_folder(folder)
    images_at = Path(folder) / "imgs"
    if labels_at == Path(folder) or not images_at.is_dir():
        raise UserError(f"{folder}: not a landscape data set; it needs imgs/ with photographs and "
                        "labels/ (or lables/) with PNGs of the same names")
    found = list_pictures(images_at), list_pictures(labels_at)
    images, labels = (pictures.by_stem() for pictures in found)
    for have, lack, place in ((images, labels, labels_at), (labels, images, images_at)):
        lonely = [have[stem] for stem in have if stem not in lack]
        if lonely:
            more = f" (and {len(lonely) - 1} more)" if len(lonely) > 1 else ""
            if (place / LIST).is_file():
                raise UserError(f"{lonely[0]}: not named in {place / LIST}{more}; name it there, delete that list or "
                                "remove this one")
            raise UserError(f"{lonely[0]}: no file of that name in {place}{more}; add it or remove this one")
    removed = read_removal_list(removal_list, [name for name, _ in found[0].files]) if removal_list else set()
    pairs = {stem: (path, labels[stem]) for stem, path in images.items() if stem not in removed}
    if not pairs:
        raise UserError(f"{folder}: the removal list leaves none of the {len(images)} pairs; shorten it")
    return pairs, found[0].notes + found[1].notes


def read_removal_list(path, pictures: Sequence[str]) -> set[str]:
    """The stems of the pictures that a list names, one per line: by path or by file name, with or without suffix.

    UserError: unreadable, a name of no picture, or a name that could mean several.
    """
    names = read_lines(path, "a removal list, a text file with one name per line")
    found, unknown = meant(path, names, pictures)
    if unknown:
        raise UserError(f"{path}: {len(unknown)} of its {len(names)} names are of no picture: "
                        f"{strangers(unknown, pictures)}; correct or remove them")
    return {without_suffix(name) for name in found}


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
    multiple: the sides of every sample must be multiples of this number. ignore: see jittwin.classes.ignoring.
    `shapes`: (H, W) of each sample. notes: lines about files that were passed over. UserError: a file that is missing,
    damaged, of another size, or has labels that are not classes.
    """

    def __init__(self, folder, train: bool = True, load_size: int = 572, crop_size: int = 512,
                 aspect_ratio: float = 4 / 3, vertical_crop: str = "top", flip: bool = True,
                 removal_list=None, multiple: int = 1, ignore: str | None = None):
        self.classes = ignoring(ignore)
        self.train, self.crop_size, self.multiple = train, crop_size, multiple
        if train:
            pairs, self.notes = find_pairs(folder, removal_list)
            self.transform = Transform(load_size, crop_size, aspect_ratio, vertical_crop, flip, multiple)
        else:
            found = list_pictures(label_folder(folder))
            pairs, self.notes = {stem: (None, path) for stem, path in found.by_stem().items()}, found.notes
        self.names, self.pairs = list(pairs), list(pairs.values())
        self.shapes = self._check()

    def __len__(self) -> int:
        return len(self.pairs)

    def get(self, index: int, draws: Draws | None = None) -> dict:
        """dict(image float32 (3, H, W) in [-1, 1] when training, label uint8 (H, W), name)."""
        image_path, label_path = self.pairs[index]
        label = imaging.decode_label(label_path, self.classes)
        if not self.train:
            return {"label": imaging.resize_label(label, self.shapes[index]), "name": self.names[index]}
        image, label = self.transform(imaging.decode_image(image_path), label, draws)
        return {"image": image, "label": label, "name": self.names[index]}

    def decode_pictures(self) -> None:
        """Decode every picture, of which only the header was read before. UserError: the first that is damaged."""
        for _ in each(lambda pair: imaging.decode_image(pair[0]).shape, self.pairs, "decoding pictures"):
            pass

    def _check(self) -> list[tuple[int, int]]:
        """Read every label and every picture's header once; returns the (H, W) of each sample."""
        shapes, highest = zip(*each(self._inspect, self.pairs, "checking labels"))
        illegal = [(label, value) for (_, label), value in zip(self.pairs, highest) if value >= CLASSES]
        if illegal:
            label, value = illegal[0]
            raise UserError(f"{label}: holds label {value}; {len(illegal)} of {len(self)} files have labels "
                            f"outside 0..{CLASSES - 1}; say what they are, as in --ignore {value}=other, "
                            "or relabel those pixels or drop the files")
        return list(shapes)

    def _inspect(self, pair):
        """((H, W) of the sample, highest label) of one pair of files."""
        image, path = pair
        label = imaging.decode_label(path, self.classes)
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
