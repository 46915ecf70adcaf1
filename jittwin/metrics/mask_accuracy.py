"""Mask accuracy: the fraction of pixels that a SegFormer recognises as the class in the label map.

The challenge's organisers did not publish their weights, so values can be compared only if they were measured with the
same file of weights. Two anchors help to read a value: the mask accuracy of photographs with the same label maps, and
that of pictures compared with the label maps of other pictures.
"""
import os
from pathlib import Path

import numpy as np
from tqdm import tqdm

from jittwin import imaging
from jittwin.backend import Backend, Module
from jittwin.classes import CLASSES, IGNORE, colour_label, ignoring
from jittwin.data.landscape import label_folder, list_pictures, without_suffix
from jittwin.data.pictures import ImageSet, prepared
from jittwin.errors import UserError
from jittwin.metrics.metric import Batch, Info, Option, Request, Scores
from jittwin.models.catalog import find
from jittwin.models.segformer import ADE_CLASSES, landscape_classes, preset, variant_of
from jittwin.predictors.towers import Tower, Towers
from jittwin.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from jittwin.weights import content_hash
from jittwin.weights.initial import initial_weights
from jittwin.weights.lazy import LazyArrays

# The network's input: resized to 640x640 without keeping proportions, normalised by ImageNet's mean and deviation.
PREPROCESS = Preprocess((640, 640), "bilinear", IMAGENET_MEAN, IMAGENET_STD)
BAND = 64       # rows of enlarged logits in memory at a time
FILES = "the hub's nvidia/segformer-b5-finetuned-ade-640-640, or a SegFormer trained on the 29 classes"


LABELS = Option("labels", "DIR", "label maps with the pictures' names, or the data set that has them", required=True)
SEGMENTER = Option("segmenter", "FILE", "weights of a SegFormer B0 to B5 with the 150 classes of ADE20K or the "
                   "challenge's 29", weights=True)
IGNORED = Option("ignore", IGNORE, "what values of the label maps that are no class are, such as 255=other")
INFO = Info("mask_accuracy", "assess", "fraction of pixels that show their label", "higher", (0, 1), "segformer",
            "NVIDIA source code, non-commercial (nvidia/segformer-*)", "map", options=(LABELS, SEGMENTER,
                                                                                         IGNORED))


class MaskAccuracy:
    """A SegFormer that recognises the challenge's classes.

    weights: a file with the hub's key names, or a hub folder, for the 150 classes of ADE20K or the challenge's 29.
    random: without weights, use an untrained network of size `variant`, which is the same in both twins. workers:
    decoding threads. towers: where the network is taken from, None builds one of its own. ignore: of the
    label maps, see jittwin.classes.ignoring. UserError: neither weights nor random, another network, other classes.
    """

    def __init__(self, backend: Backend, weights: str | os.PathLike | None = None, random: bool = False,
                 variant: str = "B0", num_labels: int = ADE_CLASSES, workers: int | None = None,
                 towers: Towers | None = None, ignore: str | None = None):
        self.ignore, self.classes = ignore, ignoring(ignore)
        if weights is None and not random:
            raise UserError(f"mask accuracy needs the weights of a SegFormer: give a file ({FILES}), or ask for random "
                            "weights")
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
            raise UserError(f"{weights or variant}: has {config.num_labels} classes; mask accuracy needs the "
                            f"challenge's {CLASSES} or ADE20K's {ADE_CLASSES}")
        self.variant = variant_of(config)
        self.table = landscape_classes() if config.num_labels == ADE_CLASSES else np.arange(CLASSES, dtype=np.uint8)
        try:
            self.tower = Tower(backend, "segformer", config, arrays, towers, allow_unexpected=conversion.beside)
        except UserError as error:
            raise UserError(f"{error}; mask accuracy takes {FILES}") from error
        state = LazyArrays(backend.state_shapes("segformer", config), lambda key: arrays[key].astype(np.float32))
        self.weights = "random" if weights is None else content_hash(state)

    @property
    def network(self) -> Module:
        return self.tower.network

    @property
    def random(self) -> bool:
        return self.weights == "random"

    def logits(self, image: np.ndarray) -> np.ndarray:
        """float32 (K, 160, 160) of an image that PREPROCESS made, float32 (3, 640, 640)."""
        with self.backend.no_grad():
            return self.backend.numpy(self.network(self.backend.asarray(image[None])))[0]

    def labels(self, image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """The challenge's classes seen in a picture uint8 (H, W, 3), as a label map uint8 of `size` (h, w)."""
        return self.table[enlarged_argmax(self.logits(PREPROCESS(image)), size)]

    def measure(self, pictures, labels, quiet: bool = False) -> dict[str, float]:
        """Mean, over the pictures, of the fraction of right pixels: {"mask_accuracy", "mask_accuracy_shuffled"}.

        pictures: see ImageSet. labels: a folder of label maps with the pictures' names, or a data set that has them.
        mask_accuracy_shuffled compares every picture with the label map half the set away; NaN for a single picture.
        UserError: a picture without a label map.
        """
        pictures = ImageSet(pictures)
        maps = paired_labels(pictures, labels)
        right, shuffled = [], []
        for index, image in tqdm(prepared(pictures, PREPROCESS, self.workers), f"{pictures}"[-40:], len(pictures),
                                 disable=quiet or None):
            logits, seen = self.logits(image), {}
            for at, found in ((index, right), ((index + max(1, len(maps) // 2)) % len(maps), shuffled)):
                truth = checked_label(maps[at], self.classes)
                if truth.shape not in seen:
                    seen[truth.shape] = self.table[enlarged_argmax(logits, truth.shape)]
                found.append(np.mean(seen[truth.shape] == truth))
        return {"mask_accuracy": float(np.mean(right)),
                "mask_accuracy_shuffled": float(np.mean(shuffled)) if len(maps) > 1 else float("nan")}


class MaskAccuracyMetric:
    """Mask accuracy as a jittwin.metrics.metric.Metric. maps: file of the label map, by the picture's name."""

    info, profile, notes, preprocess = INFO, (), (), PREPROCESS

    def __init__(self, network: MaskAccuracy, maps: dict[str, Path]):
        self.network, self.maps, self.random, self.towers = network, maps, network.random, (network.tower,)
        self.provenance = {"network": f"SegFormer {network.variant}", "weights_sha256": network.weights,
                           "random_weights": network.random, "backend": network.backend.name,
                           "device": network.backend.device,
                           **({"ignore": network.ignore} if network.ignore else {})}

    def score(self, batch: Batch) -> Scores:
        """For each picture the fraction of right pixels, and a coloured map of the classes that the network sees."""
        values, drawn = [], []
        for pixels, name in zip(batch.pixels, batch.names, strict=True):
            truth = checked_label(self.maps[name], self.network.classes)
            seen = self.network.table[enlarged_argmax(self.network.logits(pixels), truth.shape)]
            values.append({INFO.name: float(np.mean(seen == truth))})
            if batch.draw:
                drawn.append(colour_label(seen))
        return Scores(values, drawn if batch.draw else None)

    def describe(self, value: float) -> str:
        return ""


def load(request: Request) -> MaskAccuracyMetric:
    """The metric. UserError: pictures without a label map, neither weights nor random, weights of another network."""
    labels = paired_labels(request.images, request.options[LABELS.name])
    network = MaskAccuracy(request.backend, request.options[SEGMENTER.name], request.random,
                           towers=request.towers, ignore=request.options.get(IGNORED.name))
    return MaskAccuracyMetric(network, dict(zip(request.images.shown_names, labels)))


def enlarged_argmax(logits: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Logits (K, h, w) to the best class, integers of `size`, after bilinear resizing with half-pixel centres."""
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
    """For each of `new` positions (lower neighbour, upper neighbour, weight of the upper one) among `old`."""
    at = np.maximum((np.arange(new) + 0.5) * (old / new) - 0.5, 0)
    first = np.minimum(at.astype(np.intp), old - 1)
    return first, np.minimum(first + 1, old - 1), (at - first).astype(np.float32)


def paired_labels(pictures: ImageSet, labels: str | os.PathLike) -> list[Path]:
    """The label map of each picture: of the same path but for the suffix, else the only one of that file name.

    UserError: a picture without a label map.
    """
    folder, found, bare = label_folder(labels), [], {}
    maps = list_pictures(folder).by_stem()
    for path in maps.values():
        bare.setdefault(path.stem, []).append(path)
    for name in pictures.names:
        fitting = bare.get(Path(name).stem, [])
        path = maps.get(without_suffix(name)) or (fitting[0] if len(fitting) == 1 else None)
        if path is None:
            raise UserError(f"{pictures}: {name} has {'several label maps' if fitting else 'no label map'} of that "
                            f"name in {folder}; add it or remove the picture")
        found.append(path)
    return found


def checked_label(path: Path, classes: np.ndarray | None = None) -> np.ndarray:
    """The label map, uint8 (H, W). classes: what each value becomes. UserError: a label that is no class."""
    label = imaging.decode_label(path, classes)
    if label.max() >= CLASSES:
        raise UserError(f"{path}: holds label {label.max()}; the classes are 0..{CLASSES - 1}; say what it is, as in "
                        f"--ignore {label.max()}=other")
    return label
