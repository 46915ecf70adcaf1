"""Scores of many pictures by several metrics. Each picture is decoded once, and few are in memory at a time."""
import io
import itertools
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from jittwin.data.pictures import SUFFIXES as PICTURES
from jittwin.data.pictures import ImageSet, prepared, printable
from jittwin.errors import UserError
from jittwin.metrics.agreement import Agreement
from jittwin.metrics.metric import Batch, Metric
from jittwin.metrics.ranking import Ranked

SUFFIXES = (*PICTURES, ".gif")
BATCH = 8
THUMBNAIL = 200         # pixels of a thumbnail's longer side
OnMap = Callable[[str, str, np.ndarray], None]


@dataclass(frozen=True)
class Assessment:
    """The results of `assess`.

    rows: {"image", "width", "height", "prompt", scores by name} of each picture that could be read, in natural order.
    failed: messages about the other pictures. thumbnails: JPEG bytes by the picture's name. seconds: time taken.
    agreement: with people's votes, if they were given. ranking: of the pictures of each prompt, if it was asked for.
    """

    metrics: list[Metric]
    rows: list[dict]
    failed: list[str]
    thumbnails: dict[str, bytes]
    seconds: float
    agreement: Agreement | None = None
    ranking: Sequence[Ranked] = ()

    def summary(self, metric: Metric) -> dict:
        """Mean, standard deviation, minimum and maximum of a metric over all pictures, and its provenance."""
        values = np.array([row[metric.info.name] for row in self.rows])
        return {"mean": float(values.mean()), "std": float(values.std()), "min": float(values.min()),
                "max": float(values.max()), "n": len(values), "better": metric.info.better,
                "range": metric.info.range, **metric.provenance}


def gather(sources: Sequence[str]) -> ImageSet:
    """The pictures of folders and files, or of one zip file. A file given by name may have any suffix."""
    if len(sources) == 1 and (Path(sources[0]).is_dir() or zipfile.is_zipfile(sources[0])):
        return ImageSet(sources[0], SUFFIXES)
    files = []
    for source in map(Path, sources):
        if zipfile.is_zipfile(source):
            raise UserError(f"{source}: a zip file must be the only argument")
        if not source.exists():
            raise UserError(f"{source}: no such file or folder")
        files += ImageSet(source, SUFFIXES).paths if source.is_dir() else [source]
    return ImageSet(files)


def assess(images: ImageSet, metrics: Sequence[Metric], batch: int = BATCH, workers: int | None = None,
           prompts: Sequence[str] | None = None, thumbnails: bool = False, on_map: OnMap | None = None,
           quiet: bool = False) -> Assessment:
    """Score the pictures by all metrics.

    prompts: one per picture, in the order of images.names. thumbnails: make them. on_map: called with the metric's
    name, the picture's name and the map, for every map that a metric draws. UserError: none of the pictures can be
    read, or a metric gives no finite value.
    """
    start, rows, failed, small = time.perf_counter(), [], [], {}
    # Metrics with equal `preprocess` share its result, so each picture is prepared once in every way.
    ways = list(dict.fromkeys(metric.preprocess for metric in metrics))
    way_of = [ways.index(metric.preprocess) for metric in metrics]

    def prepare(image: np.ndarray):
        return image.shape[:2], thumbnail(image) if thumbnails else None, [way(image) for way in ways]

    items = prepared(images, prepare, workers, lambda error: failed.append(printable(str(error))))
    with tqdm(total=len(images), unit="image", desc=f"{images}"[-40:], disable=quiet or None) as bar:
        for group in grouped(items, batch):
            indices, (sizes, jpegs, inputs) = [index for index, _ in group], zip(*(item for _, item in group))
            names = [images.shown_names[index] for index in indices]
            texts = prompts and [prompts[index] for index in indices]
            found = [{"image": name, "width": width, "height": height} for name, (height, width) in zip(names, sizes)]
            for row, text in zip(found, texts or ()):
                row["prompt"] = text
            if thumbnails:
                small.update(zip(names, jpegs))
            for metric, way in zip(metrics, way_of):
                scores = metric.score(Batch([each[way] for each in inputs], names, sizes, texts, on_map is not None))
                for row, values in zip(found, scores.values, strict=True):
                    row.update(values)
                for name, drawn in zip(names, scores.maps or ()):
                    on_map(metric.info.name, name, drawn)
            rows += found
            bar.update(len(group))
    if not rows:
        raise UserError(f"{failed[0]}; none of {len(images)} pictures could be scored")
    return Assessment(list(metrics), rows, failed, small, time.perf_counter() - start)


def grouped(items: Iterator, size: int) -> Iterator[list]:
    """Yield lists of at most `size` successive items."""
    while group := list(itertools.islice(items, size)):
        yield group


def thumbnail(image: np.ndarray) -> bytes:
    """A small JPEG of a picture uint8 (H, W, 3)."""
    stream, small = io.BytesIO(), Image.fromarray(image)
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    small.save(stream, "JPEG", quality=80)
    return stream.getvalue()
