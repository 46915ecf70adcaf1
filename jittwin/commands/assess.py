"""`jittwin assess`: how good single pictures are."""
import argparse
import math
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from jittwin.atomic import write_file
from jittwin.backend import DEVICES, PACKAGES, PRECISIONS, ready_backend
from jittwin.commands.options import add_option, add_pixel_limit, add_processes, check_positive, limit_pixels
from jittwin.data.listing import tell
from jittwin.data.matching import few, strangers
from jittwin.data.pictures import ImageSet, default_workers
from jittwin.data.prompts import read_prompts
from jittwin.data.votes import Vote, read_votes
from jittwin.errors import UserError, choose_from
from jittwin.metrics.agreement import LEVEL, RESAMPLES, Agreement, agreements
from jittwin.metrics.assessment import BATCH, Assessment, assess, gather
from jittwin.metrics.catalog import ASSESSED
from jittwin.metrics.metric import MARK, Info, Metric, Request
from jittwin.metrics.passes import passes, weights_of
from jittwin.metrics.ranking import ranking
from jittwin.metrics.ratings import AGREEMENT
from jittwin.predictors.towers import Towers
from jittwin.report.files import JSON, PAGE, TABLE, Report, as_csv, as_json
from jittwin.report.page import with_interval

GB = 1e9
WORK = 100_000_000      # bytes for a picture of a batch and what networks make of it
UNREADABLE = 1          # exit status where some pictures have no score


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("images", nargs="+", metavar="DIR|FILE",
                        help="folders (with subfolders), a zip file, pictures")
    parser.add_argument("--metrics", metavar="LIST", help=f"comma-separated, of {', '.join(ASSESSED)} (default: those "
                        "whose weights are given)")
    parser.add_argument("--prompts", metavar="FILE", help="the texts that the pictures were made from: .csv, .tsv, "
                        ".xlsx, .json or .jsonl with the columns picture and prompt")
    parser.add_argument("--rank", action="store_true", help="rank the pictures of each prompt by each metric")
    parser.add_argument("--against", metavar="FILE", help="people's votes: .csv, .tsv or .xlsx with a column picture; "
                        "measures how well the metrics agree with them, also per subset and part of a split if there "
                        "are columns subset and split")
    parser.add_argument("--column", metavar="NAME", help="which column of --against holds the votes")
    parser.add_argument("--skip-unrated", action="store_true", help="go on without the votes of pictures that "
                        "--against does not name")
    parser.add_argument("--skip-unused", action="store_true", help="go on without the prompts and votes of pictures "
                        "that are not among these, such as those of a larger set")
    parser.add_argument("--output", metavar="FILE", help="write every number as .json or .csv")
    parser.add_argument("--report", metavar="DIR", help=f"write {PAGE} with thumbnails, {TABLE}, {JSON}, and the maps "
                        "of metrics that draw them")
    parser.add_argument("--random-weights", action="store_true",
                        help="use untrained networks where no weights are given")
    parser.add_argument("--backend", choices=PACKAGES, default="jittor", help="default: jittor")
    parser.add_argument("--device", choices=(*DEVICES, "auto"), default="auto",
                        help="default: auto, a GPU if there is one that the backend can use")
    parser.add_argument("--dtype", choices=("auto", *PRECISIONS), default="auto",
                        help="arithmetic of the networks (default: auto, bfloat16 on a GPU, float32 on the CPU)")
    parser.add_argument("--compile", action="store_true", help="have PyTorch compile the networks (torch.compile): a "
                        "minute that pays for many pictures; Jittor always compiles")
    parser.add_argument("--batch", type=int, default=BATCH, metavar="N", help=f"pictures at a time (default: {BATCH})")
    parser.add_argument("--workers", type=int, metavar="N", help=f"decoding threads (default: {default_workers()})")
    parser.add_argument("--memory-limit", type=float, metavar="GB", help="most memory to take (on a GPU, of the "
                        "device); metrics whose networks do not fit together are measured one after the other")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: all)")
    parser.add_argument("--skip-bad", action="store_true", help="exit with status 0 even if some pictures cannot be "
                        f"read (default: {UNREADABLE}); they are skipped and counted in either case")
    add_pixel_limit(parser)
    add_processes(parser)
    for name, metric in ASSESSED.items():
        group = parser.add_argument_group(name)
        for option in metric.INFO.options:
            add_option(group, option)


def run(args: argparse.Namespace) -> int:
    """Carry out `jittwin assess`; returns the exit status. UserError: no picture could be read, or a mistake."""
    limit_pixels(args)
    wanted = chosen(args)
    check_positive(args, "batch", "workers", "threads", "processes")
    if args.memory_limit is not None and not args.memory_limit > 0:
        raise UserError(f"--memory-limit {args.memory_limit:g}: must be greater than 0")
    if args.rank and not args.prompts:
        raise UserError("--rank: ranks pictures of the same prompt: give --prompts FILE")
    if args.skip_unused and not (args.prompts or args.against):
        raise UserError("--skip-unused: goes with --prompts FILE or --against FILE, whose names it is about")
    if not args.against and (args.column or args.skip_unrated):
        raise UserError(f"{'--column' if args.column else '--skip-unrated'}: goes with --against FILE, people's votes")
    check_output(args.output, args.report)
    images = gather(args.images)
    tell(images.notes)
    table = read_prompts(args.prompts) if args.prompts else None
    prompts = table and table.of(images, args.skip_unused)
    image_prompts = {name: image for name, image in zip(images.shown_names, table.image_prompts_of(images))
                     if image} if table else {}
    votes, unrated, unused = read_against(args, images) if args.against else ({}, [], [])
    for name in wanted:
        ASSESSED[name].INFO.check(options_of(args, ASSESSED[name].INFO))
    backend, dtype = ready_backend(args.backend, args.device, args.dtype, args.threads, args.compile)
    if args.compile and args.backend == "torch":
        print("--compile: PyTorch compiles the networks when they see the first pictures", file=sys.stderr)
    towers = Towers()
    metrics = [ASSESSED[name].load(Request(backend, dtype, images, options_of(args, ASSESSED[name].INFO),
                                           args.random_weights, args.batch, towers, image_prompts))
               for name in wanted]
    groups = [metrics] if args.memory_limit is None else groups_within(args, metrics, backend.memory())
    report = Report(Path(args.report)) if args.report else None
    found = assess(images, metrics, args.batch, args.workers, prompts, thumbnails=report is not None,
                   on_map=report and report.write_map, passes=groups, between=towers.release, backend=backend)
    if backend.rank:
        return 0
    if args.rank:
        found = replace(found, ranking=ranking(found.rows, metrics))
    if args.against:
        for row in found.rows:
            row["vote"] = votes[row["image"]].value if row["image"] in votes else None
        found = replace(found, agreement=Agreement(args.against, args.column, agreements(found.rows, metrics, votes),
                                                   unrated, unused))
    for line in lines(found):
        print(line)
    for note in found.notes:
        print(note, file=sys.stderr)
    for message in found.failed:
        print(f"skipped: {message}", file=sys.stderr)
    if args.output:
        write_file(args.output, as_csv(found) if args.output.lower().endswith(".csv") else as_json(found))
    if report:
        report.write(found)
    return UNREADABLE if found.failed and not args.skip_bad else 0


def groups_within(args: argparse.Namespace, metrics: list[Metric], taken: int) -> list[list[Metric]]:
    """The metrics in groups that --memory-limit allows; what is done is told on stderr.

    taken: bytes in use before a network is built. UserError: a network alone exceeds the limit.
    """
    taken += args.batch * WORK
    room = round(args.memory_limit * GB) - taken
    largest = max(metrics, key=lambda metric: weights_of([metric]))
    if weights_of([largest]) > room:
        least = math.ceil((weights_of([largest]) + taken) / GB * 10) / 10
        raise UserError(f"--memory-limit {args.memory_limit:g}: {largest.info.name} needs {gigabytes(largest)} GB for "
                        f"its weights, beside {taken / GB:.2f} GB for the program and --batch {args.batch} pictures; "
                        f"give at least {least:g}, or a smaller --batch")
    groups = passes(metrics, room)
    if len(groups) > 1:
        listed = ", then ".join(f"{' and '.join(metric.info.name for metric in group)} ({gigabytes(*group)} GB)"
                                for group in groups)
        print(f"--memory-limit {args.memory_limit:g}: the weights of all metrics need {gigabytes(*metrics)} GB, so the "
              f"pictures are read {len(groups)} times: for {listed}", file=sys.stderr)
    return groups


def gigabytes(*metrics: Metric) -> str:
    """What the weights of these metrics need together."""
    return f"{weights_of(metrics) / GB:.2f}"


def read_against(args: argparse.Namespace, images: ImageSet) -> tuple[dict[str, Vote], list[str], list[str]]:
    """What Votes.of gives; pictures and votes without the other are told on stderr.

    UserError: a picture without a vote or a vote without a picture, unless those are skipped.
    """
    table = read_votes(args.against, args.column)
    votes, unrated, unused = table.of(images)
    without = (f"{args.against}: no vote for {len(unrated)} of the {len(images)} pictures in {images}: "
               f"{few(unrated)}") if unrated else ""
    of_others = (f"{args.against}: {len(unused)} of its {len(table.by_name)} votes are of no picture in {images}: "
                 f"{strangers(unused, images.names)}") if unused else ""
    if without and not args.skip_unrated:
        raise UserError(f"{without}; add their votes, or exclude them with --skip-unrated")
    if of_others and not args.skip_unused:
        raise UserError(f"{of_others}; correct or remove them, or exclude them with --skip-unused")
    for message in filter(None, (without, of_others)):
        print(f"{message}; they are excluded from the agreement", file=sys.stderr)
    return votes, unrated, unused


def options_of(args: argparse.Namespace, info: Info) -> dict[str, str | None]:
    """The values of a metric's options, by name; None where not given."""
    return {option.name: getattr(args, option.name.replace("-", "_")) for option in info.options}


def chosen(args: argparse.Namespace) -> list[str]:
    """The names of the metrics to measure.

    These are the metrics of --metrics; without it those whose weights are given; if there are none, with
    --random-weights, all whose required options are given. UserError: none, an unknown one, missing prompts.
    """
    if args.metrics is not None:
        wanted = list(dict.fromkeys(name.strip() for name in args.metrics.split(",")))
    else:
        given = {name: options_of(args, metric.INFO) for name, metric in ASSESSED.items()}
        wanted = [name for name, metric in ASSESSED.items()
                  if any(option.weights and given[name][option.name] for option in metric.INFO.options)]
        if not wanted and args.random_weights:
            wanted = [name for name, metric in ASSESSED.items() if (args.prompts or not metric.INFO.needs_prompt)
                      and all(given[name][option.name] for option in metric.INFO.options if option.required)]
        if not wanted:
            raise UserError(f"no metric's weights are given: give {', or '.join(map(needs, ASSESSED))}; "
                            "--random-weights uses untrained networks")
    for name in wanted:
        if name not in ASSESSED:
            raise UserError(f"unknown metric {name!r}{choose_from(name, ASSESSED)}")
        if ASSESSED[name].INFO.needs_prompt and not args.prompts:
            raise UserError(f"{name} reads the prompts of the pictures: give --prompts FILE")
    return wanted


def needs(name: str) -> str:
    """The flags that make `jittwin assess` measure a metric."""
    info = ASSESSED[name].INFO
    flags = [f"{option.flag} {option.metavar}" for option in info.options if option.weights or option.required]
    return f"{' and '.join(flags)} for {name}"


def check_output(path: str | None, report: str | None = None) -> None:
    """UserError, before pictures are scored: the name is neither .json nor .csv, or the place is not writable."""
    if path and Path(path).suffix.lower() not in (".json", ".csv"):
        raise UserError(f"--output {path}: the name must end in .json or .csv")
    if path and (Path(path).is_dir() or not os.access(Path(path).absolute().parent, os.W_OK)):
        raise UserError(f"--output {path}: cannot be written; name a file in a folder that exists and is writable")
    if report and Path(report).exists() and not Path(report).is_dir():
        raise UserError(f"--report {report}: is not a folder; choose another name")


def lines(found: Assessment) -> Iterator[str]:
    """The lines to print: one per picture, one per metric, and the counts."""
    width = max(len(row["image"]) for row in found.rows)
    for row in found.rows:
        yield f"{row['image']:{width}}" + "".join(f"  {shown(metric, row)}" for metric in found.metrics)
    for metric in found.metrics:
        info, facts = metric.info, found.summary(metric)
        least, greatest = (f"{facts[name]:.{info.digits}f}" for name in ("min", "max"))
        yield (f"{info.name}: mean {facts['mean']:.4f}{MARK * metric.random}, std {facts['std']:.4f}, {least} to "
               f"{greatest}, {facts['n']} pictures ({info.better} is better, {info.range})")
    yield from ranking_lines(found)
    yield from agreement_lines(found)
    yield (f"{len(found.rows)} scored, {len(found.failed)} skipped, {found.seconds:.1f} s, "
           f"{found.seconds / len(found.rows):.2f} s a picture")


def ranking_lines(found: Assessment) -> Iterator[str]:
    """Per prompt, its pictures by each metric, the best first."""
    for ranked in found.ranking:
        yield f"prompt: {' '.join(ranked.prompt.split())}"
        for metric in found.metrics:
            info = metric.info
            places = sorted(zip(ranked.ranks[info.name], ranked.rows), key=lambda each: each[0])
            listed = ", ".join(f"{place}. {row['image']} {row[info.name]:.{info.digits}f}" for place, row in places)
            yield f"  {info.name}{MARK * metric.random}: {listed}"


def agreement_lines(found: Assessment) -> Iterator[str]:
    """Per metric and group of pictures, what it has in common with people's votes."""
    if not found.agreement:
        return
    yield (f"against {found.agreement.column} of {found.agreement.file}, with {LEVEL:.0%} intervals of {RESAMPLES} "
           "resamples:")
    for metric in found.metrics:
        name = metric.info.name
        for group in found.agreement.groups:
            measures = "  ".join(f"{key.upper()} {with_interval(group.measures[name][key])}" for key in AGREEMENT)
            yield f"  {name}{MARK * metric.random}  {group.name}, {group.count} pictures:  {measures}"


def shown(metric: Metric, row: dict) -> str:
    value = row[metric.info.name]
    return f"{metric.info.name} {value:.{metric.info.digits}f}{MARK * metric.random} {metric.describe(value)}".rstrip()
