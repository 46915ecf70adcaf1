"""Mask accuracy: whether pictures show the label maps they were made from, as a SegFormer sees them.

The challenge's organisers never published their weights, so values compare only among measurements with one file. Two
anchors say what a value is worth: what photographs of the same labels reach, and what pictures of other labels do.
"""
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from jittwin import imaging
from jittwin.backend import Backend
from jittwin.classes import CLASSES, colour_label
from jittwin.data.landscape import label_folder, list_pictures
from jittwin.data.pictures import ImageSet, prepared
from jittwin.errors import UserError
from jittwin.metrics.metric import Batch, Info, Option, Request, Scores
from jittwin.models.catalog import find
from jittwin.models.segformer import ADE_CLASSES, landscape_classes, preset, variant_of
from jittwin.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from jittwin.weights import content_hash
from jittwin.weights.initial import initial_weights

# What the network sees: squashed to 640x640, by ImageNet's mean and deviation.
PREPROCESS = Preprocess((640, 640), "bilinear", IMAGENET_MEAN, IMAGENET_STD)
BAND = 64       # rows of logits enlarged at a time
FILES = "the hub's nvidia/segformer-b5-finetuned-ade-640-640, or a SegFormer trained on the 29 classes"


LABELS = Option("labels", "DIR", "label maps with the pictures' names, or the data set that has them", required=True)
SEGMENTER = Option("segmenter", "FILE", "weights of a SegFormer B0 to B5 with the 150 classes of ADE20K or the "
                   "challenge's 29", weights=True)
INFO = Info("mask_accuracy", "assess", "fraction of pixels that show their label", "higher", (0, 1), "segformer",
            "NVIDIA source code, non-commercial (nvidia/segformer-*)", "map", options=(LABELS, SEGMENTER))


class MaskAccuracy:
    """A SegFormer that reads landscapes.

    weights: a file with the hub's key names, or a hub folder, of 150 ADE20K classes or the challenge's 29. random:
    without a file, go on with untrained weights of `variant`, equal in both twins. UserError: neither, another network,
    other classes.
    """

    def __init__(self, backend: Backend, weights: str | os.PathLike | None = None, random: bool = False,
                 variant: str = "B0", num_labels: int = ADE_CLASSES, workers: int | None = None):
        if weights is None and not random:
            raise UserError(f"mask accuracy needs the weights of a SegFormer: give a file ({FILES}), or ask for random "
                            "ones")
        self.backend, self.workers = backend, workers
        conversion, config = find("segformer").conversion, preset(variant, num_labels)
        if weights is None:
            arrays = initial_weights("segformer", backend.state_shapes("segformer", config))
        else:
            source = conversion.open(weights)
            arrays = source.arrays
            try:
                config = conversion.infer(arrays.shapes, source)
            except UserError as error:
                raise UserError(f"{os.fspath(weights)}: {error}; mask accuracy takes {FILES}") from error
        if config.num_labels not in (CLASSES, ADE_CLASSES):
            raise UserError(f"{weights or variant}: {config.num_labels} classes, where mask accuracy needs the "
                            f"challenge's {CLASSES} or ADE20K's {ADE_CLASSES}")
        self.variant, self.network = variant_of(config), backend.build("segformer", config)
        self.table = landscape_classes() if config.num_labels == ADE_CLASSES else np.arange(CLASSES, dtype=np.uint8)
        try:
            backend.load_numpy(self.network, arrays, allow_unexpected=conversion.beside)
        except UserError as error:
            raise UserError(f"{error}; mask accuracy takes {FILES}") from error
        backend.train_mode(self.network, False)
        self.weights = "random" if weights is None else content_hash(backend.state_numpy(self.network))

    @property
    def random(self) -> bool:
        return self.weights == "random"

    def logits(self, image: np.ndarray) -> np.ndarray:
        """Float32 (K, 160, 160) of an image as PREPROCESS makes it."""
        with self.backend.no_grad():
            return self.backend.numpy(self.network(self.backend.asarray(image[None])))[0]

    def labels(self, image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """uint8 (*size) with the challenge's classes, as seen in the picture uint8 (H, W, 3)."""
        return self.table[enlarged_argmax(self.logits(PREPROCESS(image)), size)]

    def measure(self, pictures, labels, quiet: bool = False) -> dict[str, float]:
        """{"mask_accuracy", "mask_accuracy_shuffled"}: the mean, over pictures, of the fraction of right pixels.

        pictures: see ImageSet. labels: a folder of label maps, or of a data set, with the pictures' names. shuffled:
        every picture against the label map half the set away, NaN for one picture. UserError: names without a partner.
        """
        pictures = ImageSet(pictures)
        maps = paired_labels(pictures, labels)
        right, shuffled = [], []
        for index, image in tqdm(prepared(pictures, PREPROCESS, self.workers), f"{pictures}"[-40:], len(pictures),
                                 disable=quiet or None):
            logits, seen = self.logits(image), {}
            for at, found in ((index, right), ((index + max(1, len(maps) // 2)) % len(maps), shuffled)):
                truth = checked_label(maps[at])
                if truth.shape not in seen:
                    seen[truth.shape] = self.table[enlarged_argmax(logits, truth.shape)]
                found.append(np.mean(seen[truth.shape] == truth))
        return {"mask_accuracy": float(np.mean(right)),
                "mask_accuracy_shuffled": float(np.mean(shuffled)) if len(maps) > 1 else float("nan")}


class MaskAccuracyMetric:
    """A jittwin.metrics.metric.Metric. maps: the label map of each picture, by its name."""

    info, profile, preprocess = INFO, (), PREPROCESS

    def __init__(self, network: MaskAccuracy, maps: dict[str, Path]):
        self.network, self.maps, self.random = network, maps, network.random
        self.provenance = {"network": f"SegFormer {network.variant}", "weights_sha256": network.weights,
                           "random_weights": network.random, "backend": network.backend.name,
                           "device": network.backend.device}

    def score(self, batch: Batch) -> Scores:
        """Per picture the fraction of right pixels; the maps show the classes that the network sees."""
        values, drawn = [], []
        for pixels, name in zip(batch.pixels, batch.names, strict=True):
            truth = checked_label(self.maps[name])
            seen = self.network.table[enlarged_argmax(self.network.logits(pixels), truth.shape)]
            values.append({INFO.name: float(np.mean(seen == truth))})
            if batch.draw:
                drawn.append(colour_label(seen))
        return Scores(values, drawn if batch.draw else None)

    def describe(self, value: float) -> str:
        return ""


def load(request: Request) -> MaskAccuracyMetric:
    """UserError: pictures without a label map, no weights and not random, weights of another network."""
    labels = paired_labels(request.images, request.needed(LABELS))
    network = MaskAccuracy(request.backend, request.options[SEGMENTER.name], request.random)
    return MaskAccuracyMetric(network, dict(zip(request.images.shown_names, labels)))


def enlarged_argmax(logits: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(K, h, w) to integers (*size): the best class after bilinear enlargement, half-pixel centres, no antialiasing."""
    top, below, down = _taps(logits.shape[1], size[0])
    left, right, across = _taps(logits.shape[2], size[1])
    found = np.empty(size, np.intp)
    for start in range(0, size[0], BAND):
        rows = slice(start, start + BAND)
        t = down[rows, None]
        band = logits[:, top[rows]] * (1 - t) + logits[:, below[rows]] * t
        found[rows] = (band[:, :, left] * (1 - across) + band[:, :, right] * across).argmax(0)
    return found


def _taps(old: int, new: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The two positions that each new one lies between, and how far along."""
    at = np.maximum((np.arange(new) + 0.5) * (old / new) - 0.5, 0)
    first = np.minimum(at.astype(np.intp), old - 1)
    return first, np.minimum(first + 1, old - 1), (at - first).astype(np.float32)


def paired_labels(pictures: ImageSet, labels: str | os.PathLike) -> list[Path]:
    """The label map of each picture, by name. UserError: a picture without one."""
    folder = label_folder(labels)
    maps = {path.stem: path for path in list_pictures(folder)}
    stems: Sequence[str] = [Path(name).stem for name in pictures.names]
    for stem, name in zip(stems, pictures.names, strict=True):
        if stem not in maps:
            raise UserError(f"{pictures}: {name} has no label map of its name in {folder}; add it or remove "
                            "the picture")
    return [maps[stem] for stem in stems]


def checked_label(path: Path) -> np.ndarray:
    """uint8 (H, W). UserError: classes that there are not."""
    label = imaging.decode_label(path)
    if label.max() >= CLASSES:
        raise UserError(f"{path}: holds label {label.max()}; the classes are 0..{CLASSES - 1}")
    return label
