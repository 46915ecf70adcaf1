"""`jittwin assess`: how good single pictures are.

A metric is a record of jittwin.metrics.catalog; its module makes the Judge. Every picture is decoded once for all
metrics, and only a few batches of pictures are held at a time.
"""
import argparse
import csv
import importlib
import io
import itertools
import json
import os
import sys
import time
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image
from tqdm import tqdm

from jittwin.atomic import atomic_write, write_file
from jittwin.backend import DEVICES, PACKAGES, PRECISIONS, ready_backend
from jittwin.data.pictures import SUFFIXES as PICTURES
from jittwin.data.pictures import ImageSet, default_workers, prepared
from jittwin.errors import UserError, choose_from
from jittwin.metrics.catalog import ASSESSED, Metric
from jittwin.report.page import page

SUFFIXES = (*PICTURES, ".gif")
BATCH = 8
THUMBNAIL = 200         # pixels of a thumbnail's longer side
PAGE, TABLE, RECORD = "index.html", "scores.csv", "scores.json"
UNREADABLE = 1          # exit status where some pictures have no score
MARK = " (random weights)"


class Judge(Protocol):
    """A metric that is ready. profile: names of further numbers that a chart per picture shows as bars."""

    record: Metric
    profile: tuple[str, ...]
    random: bool
    provenance: dict

    def prepare(self, image: np.ndarray) -> np.ndarray:
        """uint8 (H, W, 3) to what its network takes, of one shape for all pictures; runs in several threads."""

    def score(self, inputs: Sequence[np.ndarray], names: Sequence[str]) -> list[dict[str, float]]:
        """Per picture {record.name: value, further name: value}; `names` tells which pictures they are."""

    def describe(self, value: float) -> str:
        """A value in words, "" where there are none."""


@dataclass(frozen=True)
class Assessment:
    """rows: per picture that could be read, in natural order. failed: what the others' errors said.

    thumbnails: JPEG by name. seconds: of reading and scoring.
    """

    judges: list[Judge]
    rows: list[dict]
    failed: list[str]
    thumbnails: dict[str, bytes]
    seconds: float

    def summary(self, judge: Judge) -> dict:
        """A metric over all pictures, with what its values depend on."""
        values = np.array([row[judge.record.name] for row in self.rows])
        return {"mean": float(values.mean()), "std": float(values.std()), "min": float(values.min()),
                "max": float(values.max()), "n": len(values), "better": judge.record.better,
                "range": judge.record.range, **judge.provenance}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("images", nargs="+", metavar="DIR|FILE",
                        help="folders (with subfolders), a zip file, pictures")
    parser.add_argument("--metrics", default=",".join(ASSESSED), metavar="LIST",
                        help=f"comma-separated, of {', '.join(ASSESSED)} (default: {','.join(ASSESSED)})")
    parser.add_argument("--output", metavar="FILE", help="write every number as .json or .csv")
    parser.add_argument("--report", metavar="DIR", help=f"write {PAGE} with thumbnails, {TABLE} and {RECORD}")
    parser.add_argument("--random-weights", action="store_true", help="go on with untrained networks")
    parser.add_argument("--backend", choices=PACKAGES, default="jittor", help="default: jittor")
    parser.add_argument("--device", choices=(*DEVICES, "auto"), default="auto",
                        help="default: auto, a GPU if there is one that the backend can use")
    parser.add_argument("--dtype", choices=("auto", *PRECISIONS), default="auto",
                        help="arithmetic of the networks (default: auto, bfloat16 on a GPU, float32 on the CPU)")
    parser.add_argument("--batch", type=int, default=BATCH, metavar="N", help=f"pictures at a time (default: {BATCH})")
    parser.add_argument("--workers", type=int, metavar="N", help=f"decoding threads (default: {default_workers()})")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: all)")
    parser.add_argument("--skip-bad", action="store_true", help="exit status 0 even if some pictures cannot be read; "
                        f"they are left out and counted either way (else: {UNREADABLE})")
    for metric in ASSESSED.values():
        importlib.import_module(metric.module).add_metric_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Carries out `jittwin assess`; returns the exit status. UserError: no picture could be read, or a mistake."""
    wanted = list(dict.fromkeys(name.strip() for name in args.metrics.split(",")))
    for name in wanted:
        if name not in ASSESSED:
            raise UserError(f"unknown metric {name!r}{choose_from(name, ASSESSED)}")
    for name in ("batch", "workers", "threads"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise UserError(f"--{name} {getattr(args, name)}: must be at least 1")
    check_output(args.output, args.report)
    images = gather(args.images)
    ready = ready_backend(args.backend, args.device, args.dtype, args.threads)
    judges = [importlib.import_module(ASSESSED[name].module).load_metric(args, *ready) for name in wanted]
    found = assess(images, judges, args.batch, args.workers, thumbnails=bool(args.report))
    for line in lines(found):
        print(line)
    for message in found.failed:
        print(f"left out: {message}", file=sys.stderr)
    if args.output:
        write_file(args.output, table(found) if args.output.lower().endswith(".csv") else record(found))
    if args.report:
        write_report(Path(args.report), found)
    return UNREADABLE if found.failed and not args.skip_bad else 0


def check_output(path: str | None, report: str | None = None) -> None:
    """UserError: neither .json nor .csv, or no place to write to, which is better told before pictures are scored."""
    if path and Path(path).suffix.lower() not in (".json", ".csv"):
        raise UserError(f"--output {path}: the name must end in .json or .csv")
    if path and (Path(path).is_dir() or not os.access(Path(path).absolute().parent, os.W_OK)):
        raise UserError(f"--output {path}: cannot be written; name a file in a folder that is there and writable")
    if report and Path(report).exists() and not Path(report).is_dir():
        raise UserError(f"--report {report}: is no folder; choose another name")


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


def assess(images: ImageSet, judges: Sequence[Judge], batch: int = BATCH, workers: int | None = None,
           thumbnails: bool = False, quiet: bool = False) -> Assessment:
    """Scores of the pictures. UserError: none of them can be read."""
    start, rows, failed, small = time.perf_counter(), [], [], {}

    def prepare(image: np.ndarray):
        return image.shape[:2], thumbnail(image) if thumbnails else None, [judge.prepare(image) for judge in judges]

    items = prepared(images, prepare, workers, lambda error: failed.append(printable(str(error))))
    with tqdm(total=len(images), unit="image", desc=f"{images}"[-40:], disable=quiet or None) as bar:
        for group in grouped(items, batch):
            names, found = [printable(images.names[index]) for index, _ in group], []
            for name, (_, ((height, width), jpeg, _)) in zip(names, group):
                found.append({"image": name, "width": width, "height": height})
                if thumbnails:
                    small[name] = jpeg
            for judge, inputs in zip(judges, zip(*(inputs for _, (_, _, inputs) in group))):
                for row, values in zip(found, judge.score(inputs, names), strict=True):
                    row.update(values)
            rows += found
            bar.update(len(group))
    if not rows:
        raise UserError(f"{failed[0]}; none of {len(images)} pictures could be scored")
    return Assessment(list(judges), rows, failed, small, time.perf_counter() - start)


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


def lines(found: Assessment) -> Iterator[str]:
    """What is printed: a line per picture, then one per metric."""
    width = max(len(row["image"]) for row in found.rows)
    for row in found.rows:
        yield f"{row['image']:{width}}" + "".join(f"  {shown(judge, row)}" for judge in found.judges)
    for judge in found.judges:
        facts = found.summary(judge)
        yield (f"{judge.record.name}: mean {facts['mean']:.4f}{MARK * judge.random}, std {facts['std']:.4f}, "
               f"{facts['min']:.2f} to {facts['max']:.2f}, {facts['n']} pictures ({judge.record.better} is better, "
               f"{judge.record.range})")
    yield (f"{len(found.rows)} scored, {len(found.failed)} left out, {found.seconds:.1f} s, "
           f"{found.seconds / len(found.rows):.2f} s a picture")


def shown(judge: Judge, row: dict) -> str:
    value = row[judge.record.name]
    return f"{judge.record.name} {value:.2f}{MARK * judge.random} {judge.describe(value)}".rstrip()


def table(found: Assessment) -> str:
    """CSV; the names of untrained metrics' columns say so."""
    untrained = {judge.record.name for judge in found.judges if judge.random}
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(name + MARK * (name in untrained) for name in found.rows[0])
    writer.writerows([f"{value:.6f}" if isinstance(value, float) else value for value in row.values()]
                     for row in found.rows)
    return stream.getvalue()


def record(found: Assessment) -> str:
    """JSON of everything."""
    metrics = {judge.record.name: found.summary(judge) for judge in found.judges}
    return json.dumps({"metrics": metrics, "seconds": round(found.seconds, 3), "images": found.rows,
                       "failed": found.failed}, indent=1, ensure_ascii=False) + "\n"


def write_report(folder: Path, found: Assessment) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_file(folder / TABLE, table(found))
    write_file(folder / RECORD, record(found))
    with atomic_write(folder / PAGE) as stream:     # thumbnails take megabytes, which need not be there at once
        for part in page(found):
            stream.write(part.encode())
