"""Scores of many pictures by several metrics: each picture is decoded once, and few are held at a time."""
import io
import itertools
import time
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from jittwin.data.pictures import SUFFIXES as PICTURES
from jittwin.data.pictures import ImageSet, prepared
from jittwin.errors import UserError
from jittwin.metrics.metric import Metric

SUFFIXES = (*PICTURES, ".gif")
BATCH = 8
THUMBNAIL = 200         # pixels of a thumbnail's longer side


@dataclass(frozen=True)
class Assessment:
    """rows: per picture that could be read, in natural order. failed: what the others' errors said.

    thumbnails: JPEG by name. seconds: of reading and scoring.
    """

    metrics: list[Metric]
    rows: list[dict]
    failed: list[str]
    thumbnails: dict[str, bytes]
    seconds: float

    def summary(self, metric: Metric) -> dict:
        """A metric over all pictures, with what its values depend on."""
        values = np.array([row[metric.info.name] for row in self.rows])
        return {"mean": float(values.mean()), "std": float(values.std()), "min": float(values.min()),
                "max": float(values.max()), "n": len(values), "better": metric.info.better,
                "range": metric.info.range, **metric.provenance}


def gather(sources: Sequence[str]) -> ImageSet:
    """The pictures of folders, of one zip file, and files given by name, whatever their suffix."""
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
           thumbnails: bool = False, quiet: bool = False) -> Assessment:
    """Scores of the pictures. UserError: none of them can be read."""
    start, rows, failed, small = time.perf_counter(), [], [], {}

    def prepare(image: np.ndarray):
        return image.shape[:2], thumbnail(image) if thumbnails else None, [metric.prepare(image) for metric in metrics]

    items = prepared(images, prepare, workers, lambda error: failed.append(printable(str(error))))
    with tqdm(total=len(images), unit="image", desc=f"{images}"[-40:], disable=quiet or None) as bar:
        for group in grouped(items, batch):
            names, found = [printable(images.names[index]) for index, _ in group], []
            for name, (_, ((height, width), jpeg, _)) in zip(names, group):
                found.append({"image": name, "width": width, "height": height})
                if thumbnails:
                    small[name] = jpeg
            for metric, inputs in zip(metrics, zip(*(inputs for _, (_, _, inputs) in group))):
                for row, values in zip(found, metric.score(inputs, names), strict=True):
                    row.update(values)
            rows += found
            bar.update(len(group))
    if not rows:
        raise UserError(f"{failed[0]}; none of {len(images)} pictures could be scored")
    return Assessment(list(metrics), rows, failed, small, time.perf_counter() - start)


def printable(name: str) -> str:
    """File names may hold bytes that are no text."""
    return name.encode(errors="backslashreplace").decode()


def grouped(items: Iterator, size: int) -> Iterator[list]:
    """Runs of at most `size` items."""
    while group := list(itertools.islice(items, size)):
        yield group


def thumbnail(image: np.ndarray) -> bytes:
    """JPEG of a picture uint8 (H, W, 3)."""
    stream, small = io.BytesIO(), Image.fromarray(image)
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    small.save(stream, "JPEG", quality=80)
    return stream.getvalue()
