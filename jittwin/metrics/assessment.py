"""Scores of many pictures by several metrics. Each picture is decoded once, and few are in memory at a time."""
import base64
import io
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from jittwin.backend import Backend
from jittwin.data.pictures import ImageSet, grouped, prepared
from jittwin.errors import UserError, printable
from jittwin.launching import own_work
from jittwin.metrics.agreement import Agreement
from jittwin.metrics.metric import Batch, Metric
from jittwin.metrics.ranking import Ranked
from jittwin.processes import gathered_values, part_of

BATCH = 8
THUMBNAIL = 200         # pixels of a thumbnail's longer side
OnMap = Callable[[str, str, np.ndarray], None]


@dataclass(frozen=True)
class Assessment:
    """The results of `assess`.

    rows: {"image", "width", "height", "prompt", scores by name} of each picture that could be read, in natural order.
    failed: messages about the other pictures. thumbnails: JPEG bytes by the picture's name. seconds: time taken,
    without the building of networks. notes: of the metrics.
    agreement: with people's votes, if they were given. ranking: of the pictures of each prompt, if it was asked for.
    """

    metrics: list[Metric]
    rows: list[dict]
    failed: list[str]
    thumbnails: dict[str, bytes]
    seconds: float
    notes: Sequence[str] = ()
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
        return ImageSet(sources[0])
    files, notes = [], ()
    for source in map(Path, sources):
        if zipfile.is_zipfile(source):
            raise UserError(f"{source}: a zip file must be the only argument")
        if not source.exists():
            raise UserError(f"{source}: no such file or folder")
        inside = ImageSet(source) if source.is_dir() else None
        files += inside.paths if inside else [source]
        notes += inside.notes if inside else ()
    found = ImageSet(files)
    found.notes = notes + found.notes
    return found


def assess(images: ImageSet, metrics: Sequence[Metric], batch: int = BATCH, workers: int | None = None,
           prompts: Sequence[str] | None = None, thumbnails: bool = False, on_map: OnMap | None = None,
           quiet: bool = False, passes: Sequence[Sequence[Metric]] | None = None,
           between: Callable[[], None] = lambda: None, backend: Backend | None = None) -> Assessment:
    """Score the pictures by all metrics.

    prompts: one per picture, in the order of images.names. thumbnails: make them. on_map: called with the metric's
    name, the picture's name and the map, for every map that a metric draws. passes: the metrics in groups, for each of
    which the pictures are read once; None for one group. between: called between two passes. backend: its processes
    share the pictures, and each has all results in the end; None: this process scores all of them. UserError: none of
    the pictures can be read, or a metric gives no finite value.
    """
    own = range(len(images))
    if backend:
        first, end = part_of(backend, -(-len(images) // batch))
        own = own[first * batch:end * batch]
    seconds, heads, values, failed, small = 0, {}, {}, {}, {}
    for number, group in enumerate(passes or [metrics]):
        if number:
            between()
        for tower in (tower for metric in group for tower in metric.towers):
            tower.build()
        start = time.perf_counter()
        prepare = preparation(group, thumbnails and not number)
        items = prepared(images, prepare, workers, lambda error: failed.setdefault(printable(str(error))), own)
        with own_work(), tqdm(total=len(own), unit="image", desc=f"{images}"[-40:], disable=quiet or None) as bar:
            for some in grouped(items, batch):
                indices, (sizes, jpegs, inputs) = [index for index, _ in some], zip(*(item for _, item in some))
                names = [images.shown_names[index] for index in indices]
                texts = prompts and [prompts[index] for index in indices]
                heads |= zip(indices, map(head, names, sizes, texts or [None] * len(some)))
                small |= zip(names, jpegs) if not number else ()
                for metric, given in zip(group, zip(*inputs)):
                    scores = metric.score(Batch(given, names, sizes, texts, on_map is not None))
                    values |= zip([(index, id(metric)) for index in indices], scores.values, strict=True)
                    for name, drawn in zip(names, scores.maps or ()):
                        on_map(metric.info.name, name, drawn)
                bar.update(len(some))
        seconds += time.perf_counter() - start
    # A picture that was removed between two passes lacks some of the scores.
    complete = [index for index in sorted(heads) if all((index, id(metric)) in values for metric in metrics)]
    rows = [reduce(or_, (values[index, id(metric)] for metric in metrics), heads[index]) for index in complete]
    notes = [note for metric in metrics for note in metric.notes]
    if backend and backend.world_size > 1:
        drawn = {name: base64.b64encode(data).decode() for name, data in small.items()} if thumbnails else {}
        found = gathered_values(backend, [rows, list(failed), drawn, notes])
        rows, failed, notes = ([one for each in found for one in each[part]] for part in (0, 1, 3))
        small = {name: base64.b64decode(text) for each in found for name, text in each[2].items()}
    if not rows:
        raise UserError(f"{next(iter(failed))}; none of {len(images)} pictures could be scored")
    return Assessment(list(metrics), rows, list(failed), small if thumbnails else {}, seconds, notes)


def head(name: str, size: tuple[int, int], prompt: str | None) -> dict:
    """The beginning of a picture's row. size: (height, width)."""
    return {"image": name, "width": size[1], "height": size[0], **({} if prompt is None else {"prompt": prompt})}


def preparation(metrics: Sequence[Metric], thumbnails: bool) -> Callable[[np.ndarray], tuple]:
    """A function from a picture uint8 (H, W, 3) to (size, thumbnail or None, what each metric's `preprocess` returns).

    Metrics with equal `preprocess` share its result, so each picture is prepared once in every way.
    """
    ways = dict.fromkeys(metric.preprocess for metric in metrics)

    def prepare(image: np.ndarray) -> tuple:
        small, found = thumbnail(image) if thumbnails else None, {way: way(image) for way in ways}
        return image.shape[:2], small, [found[metric.preprocess] for metric in metrics]

    return prepare


def thumbnail(image: np.ndarray) -> bytes:
    """A small JPEG of a picture uint8 (H, W, 3)."""
    stream, small = io.BytesIO(), Image.fromarray(image)
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    small.save(stream, "JPEG", quality=80)
    return stream.getvalue()
