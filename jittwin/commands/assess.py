"""`jittwin assess`: how good single pictures are."""
import argparse
import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from jittwin.atomic import write_file
from jittwin.backend import DEVICES, PACKAGES, PRECISIONS, ready_backend
from jittwin.commands.options import add_tower_argument, check_positive
from jittwin.data.pictures import default_workers
from jittwin.errors import UserError, choose_from
from jittwin.metrics.assessment import BATCH, Assessment, assess, gather
from jittwin.metrics.catalog import ASSESSED
from jittwin.metrics.metric import MARK, Metric
from jittwin.report.files import JSON, PAGE, TABLE, as_csv, as_json, write_report

UNREADABLE = 1          # exit status where some pictures have no score


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("images", nargs="+", metavar="DIR|FILE",
                        help="folders (with subfolders), a zip file, pictures")
    parser.add_argument("--metrics", default=",".join(ASSESSED), metavar="LIST",
                        help=f"comma-separated, of {', '.join(ASSESSED)} (default: {','.join(ASSESSED)})")
    parser.add_argument("--output", metavar="FILE", help="write every number as .json or .csv")
    parser.add_argument("--report", metavar="DIR", help=f"write {PAGE} with thumbnails, {TABLE} and {JSON}")
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
    group = parser.add_argument_group("aesthetic")
    group.add_argument("--aesthetic-weights", metavar="ADAPTER",
                       help="best_lora.pth, a peft folder, a checkpoint or a run")
    add_tower_argument(group)


def run(args: argparse.Namespace) -> int:
    """Carries out `jittwin assess`; returns the exit status. UserError: no picture could be read, or a mistake."""
    wanted = list(dict.fromkeys(name.strip() for name in args.metrics.split(",")))
    for name in wanted:
        if name not in ASSESSED:
            raise UserError(f"unknown metric {name!r}{choose_from(name, ASSESSED)}")
    check_positive(args, "batch", "workers", "threads")
    check_output(args.output, args.report)
    images = gather(args.images)
    ready = ready_backend(args.backend, args.device, args.dtype, args.threads)
    metrics = [importlib.import_module(ASSESSED[name].module).load_metric(
        *ready, args.aesthetic_weights, args.tower, args.random_weights, args.batch) for name in wanted]
    found = assess(images, metrics, args.batch, args.workers, thumbnails=bool(args.report))
    for line in lines(found):
        print(line)
    for message in found.failed:
        print(f"left out: {message}", file=sys.stderr)
    if args.output:
        write_file(args.output, as_csv(found) if args.output.lower().endswith(".csv") else as_json(found))
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


def lines(found: Assessment) -> Iterator[str]:
    """What is printed: a line per picture, then one per metric."""
    width = max(len(row["image"]) for row in found.rows)
    for row in found.rows:
        yield f"{row['image']:{width}}" + "".join(f"  {shown(metric, row)}" for metric in found.metrics)
    for metric in found.metrics:
        facts = found.summary(metric)
        yield (f"{metric.info.name}: mean {facts['mean']:.4f}{MARK * metric.random}, std {facts['std']:.4f}, "
               f"{facts['min']:.2f} to {facts['max']:.2f}, {facts['n']} pictures ({metric.info.better} is better, "
               f"{metric.info.range})")
    yield (f"{len(found.rows)} scored, {len(found.failed)} left out, {found.seconds:.1f} s, "
           f"{found.seconds / len(found.rows):.2f} s a picture")


def shown(metric: Metric, row: dict) -> str:
    value = row[metric.info.name]
    return f"{metric.info.name} {value:.2f}{MARK * metric.random} {metric.describe(value)}".rstrip()
