"""`jittwin select`: find the checkpoint of a run that generates the best pictures.

FID varies by several points from epoch to epoch, so the last checkpoint is seldom the best.
"""
import argparse
import csv
import io
import itertools
import json
import os
import sys
from collections.abc import Container, Iterable
from pathlib import Path

from jittwin.atomic import write_file
from jittwin.checkpoints.find import find_checkpoints, find_network
from jittwin.commands.options import add_evaluation_arguments, add_option, add_processes, check_positive, evaluation_of
from jittwin.data.table import read_table
from jittwin.errors import UserError, choose_from
from jittwin.generate import NETWORKS, read_generator
from jittwin.launching import own_work
from jittwin.metrics.aesthetic import TOWER
from jittwin.metrics.competition import a_board
from jittwin.metrics.metric import MARK
from jittwin.processes import gathered_values
from jittwin.report.charts import line_chart
from jittwin.selection.evaluation import Evaluation
from jittwin.weights import content_hash

RECORD, TABLE, CHART = "select.json", "select.csv", "select.svg"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="run folder, or folder of files EPOCH_net_G.pkl")
    parser.add_argument("--epochs", metavar="A-B", help="epochs, such as 270-310 or 273,299 (default: all)")
    parser.add_argument("--out", required=True, metavar="DIR", help=f"folder for {TABLE}, {CHART} and {RECORD}, from "
                        "which an interrupted selection continues")
    parser.add_argument("--ema", action="store_true", help="use the averaged weights of a run with ema > 0")
    parser.add_argument("--segmenter", metavar="FILE", help="weights of a SegFormer B0 to B5 with the 150 classes of "
                        "ADE20K or the challenge's 29: adds mask accuracy, also against the label maps of other "
                        "pictures")
    parser.add_argument("--real", metavar="DIR", help="photographs with the label maps' names: adds their mask "
                        "accuracy (default: imgs/ of the data set, if --labels is a data set)")
    parser.add_argument("--aesthetic", metavar="NUMBER|CSV|ADAPTER", help="mean aesthetic score, 1..10: one number for "
                        "all checkpoints, a CSV file with the columns epoch and aesthetic, or the scorer's adapters, "
                        "with which it is measured; with --segmenter, checkpoints are ranked by the competition's "
                        "score")
    add_option(parser, TOWER)
    add_evaluation_arguments(parser, required=True)
    add_processes(parser)


def run(args: argparse.Namespace) -> None:
    """Carry out `jittwin select`. UserError: a mistake."""
    check_positive(args, "processes")
    checkpoints = find_checkpoints(args.run, args.epochs)
    adapter = args.aesthetic if args.aesthetic and is_adapter(args.aesthetic) else None
    for option in ("real", *(() if adapter else ("aesthetic",))):
        if getattr(args, option) and not args.segmenter:
            raise UserError(f"--{option} is used with mask accuracy: give --segmenter FILE too")
    if args.aesthetic_tower and not adapter:
        raise UserError(f"--aesthetic-tower {args.aesthetic_tower}: needs adapters: give --aesthetic ADAPTER too")
    aesthetic = read_aesthetic(args.aesthetic, checkpoints) if args.aesthetic and not adapter else {}
    for where, net in itertools.product(checkpoints.values(), NETWORKS):      # reports a missing file at once
        find_network(where, net + ".ema" * args.ema)
    config = read_generator(next(iter(checkpoints.values())), args.ema)[1]
    evaluation = evaluation_of(args, config, args.segmenter, args.real, adapter, args.aesthetic_tower)
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    settings, mark = evaluation.settings() | {"ema": args.ema}, evaluation.mark
    rows = known_rows(out / RECORD, settings)
    backend, listed = evaluation.scorer.backend, list(checkpoints.items())
    for first in range(0, len(listed), backend.world_size):
        some = listed[first:first + backend.world_size]             # one for each process
        own = some[backend.rank:backend.rank + 1]
        made = {name: measured(where, args.ema, evaluation, rows.get(name, {})) for name, where in own}
        rows |= {name: row for each in gathered_values(backend, made) for name, row in each.items()}
        if backend.rank == 0:
            write_file(out / RECORD, json.dumps({"settings": settings, "rows": rows}, indent=1) + "\n")
        for name, _ in some:
            print(f"{name}: FID {rows[name]['fid']:.6f}{mark}", file=sys.stderr, flush=True)
    if backend.rank:
        return
    chosen = {name: dict(rows[name]) for name in checkpoints}
    for name, row in chosen.items():
        if name in aesthetic:
            row["aesthetic"] = aesthetic[name]
        if args.segmenter and args.aesthetic:
            row["score"] = a_board(row["mask_accuracy"], row["aesthetic"], row["fid"])
    ranked = sorted(chosen, key=lambda name: -chosen[name].get("score", -chosen[name]["fid"]))
    write_file(out / TABLE, table(ranked, chosen, evaluation.scorer.inception.weights))
    write_file(out / CHART, line_chart(f"FID of each checkpoint{mark}", "epoch", "FID",
                                       [(name, chosen[name]["fid"]) for name in checkpoints]))
    for name in ranked:
        print(f"{name:>8}{described(chosen[name], evaluation.untrained)}")
    if args.segmenter and not evaluation.real:
        print("mask accuracy of photographs: not known (give --real DIR)")
    print(f"best: {checkpoints[ranked[0]]}")


def measured(where, ema: bool, evaluation: Evaluation, known: dict) -> dict:
    """The values of a checkpoint, and the hash of its networks; those that are known, if they are of these networks."""
    weights, config = read_generator(where, ema)
    digest = content_hash({f"{net}.{key}": a for net, arrays in weights.items() for key, a in arrays.items()})
    if known.get("networks") == digest:
        return known
    with own_work():
        return {"networks": digest, **evaluation(weights, config)}


def described(row: dict, untrained: Container[str]) -> str:
    """FID, mask accuracy with its anchors, aesthetic score and the competition's score, as far as they are known.

    untrained: keys of the values that come from untrained networks.
    """
    shown = (("FID", "fid"), ("mask accuracy", "mask_accuracy"), ("with other labels", "mask_accuracy_shuffled"),
             ("of photographs", "mask_accuracy_real"), ("aesthetic", "aesthetic"), ("score", "score"))
    return "".join(f"  {title} {row[key]:.{6 if key == 'fid' else 4}f}{MARK * (key in untrained)}"
                   for title, key in shown if key in row)


def is_adapter(text: str) -> bool:
    """Whether --aesthetic names adapters: a file or folder that is not a CSV, or RUN/best."""
    return Path(text).suffix.lower() != ".csv" and (Path(text).exists() or os.sep in text)


def read_aesthetic(text: str, names: Iterable[str]) -> dict[str, float]:
    """The aesthetic score of each of these checkpoints. UserError: a score is missing or not a number."""
    if Path(text).suffix.lower() == ".csv":
        found = read_table(text)
        given = dict(zip(found.texts("epoch"), found.texts("aesthetic")))
        if missing := [name for name in names if name not in given]:
            raise UserError(f"{text}: has no line for epoch {missing[0]}{choose_from(missing[0], given)}")
    else:
        given = dict.fromkeys(names, text)
    return {name: _aesthetic(given[name], name) for name in names}


def _aesthetic(text: str, name: str) -> float:
    try:
        if 0 <= (value := float(text)) <= 10:
            return value
    except (TypeError, ValueError):
        pass
    raise UserError(f"--aesthetic: {text!r} of epoch {name} is not a number from 0 to 10, and there is no file "
                    "(.csv, or adapters) of that name")


def known_rows(path: Path, settings: dict) -> dict[str, dict]:
    """The values that an earlier selection into this folder measured. UserError: its settings were others."""
    if not path.exists():
        return {}
    try:
        record = json.loads(path.read_text())
        before, rows = record["settings"], record["rows"]
        changed = [key for key in settings if before.get(key) != settings[key]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: damaged ({error}): remove it to begin again") from error
    if changed:
        raise UserError(f"{path}: was made with another {', '.join(changed)}, so its values cannot be compared: give "
                        "another --out, or remove it")
    return rows


def table(ranked: list[str], rows: dict[str, dict], weights: str) -> str:
    """CSV, best checkpoint first. weights: see Inception in jittwin.metrics.fid.inception."""
    columns = [key for key in next(iter(rows.values())) if key != "networks"]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["epoch", *columns, "weights"])
    writer.writerows([name, *(f"{rows[name][column]:.6f}" for column in columns), weights] for name in ranked)
    return stream.getvalue()
