"""`jittwin fid`: distances between two sets of pictures."""
import argparse
import json
import sys
from pathlib import Path

from jittwin.atomic import write_file
from jittwin.commands.options import add_fid_network_arguments, add_processes, check_positive, fid_scorer
from jittwin.data.pictures import ImageSet
from jittwin.errors import UserError, choose_from
from jittwin.launching import launched
from jittwin.metrics.fid.features import checked
from jittwin.metrics.fid.inception_score import inception_score
from jittwin.metrics.fid.kernel import kernel_distance
from jittwin.metrics.fid.manifold import precision_recall
from jittwin.metrics.fid.preparation import MODES
from jittwin.metrics.fid.statistics import Statistics, fid, is_statistics, read_statistics, write_statistics

METRICS = ("fid", "kid", "pr", "is")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    for name, what in (("a", "pictures to measure"), ("b", "pictures to compare with")):
        parser.add_argument(name, metavar=name.upper(), help=f"{what}: folder, zip file, or statistics (.npz, *_m.npy)")
    parser.add_argument("--mode", choices=MODES, default="pytorch-fid",
                        help="convention of resizing and pooling (default: pytorch-fid); values of different modes "
                             "cannot be compared")
    add_fid_network_arguments(parser)
    add_processes(parser)
    parser.add_argument("--metrics", default="fid", metavar="LIST",
                        help=f"comma-separated, of {', '.join(METRICS)} (default: fid); kid: kernel distance, pr: "
                             "precision and recall, is: inception score of A")
    parser.add_argument("--save-stats", metavar="FILE", help="write the statistics of A as .npz")
    parser.add_argument("--json", metavar="FILE", help="write the numbers as JSON")


def run(args: argparse.Namespace) -> None:
    """Carry out `jittwin fid`. UserError: a mistake."""
    check_positive(args, "processes")
    wanted = [name.strip() for name in args.metrics.split(",")]
    for name in wanted:
        if name not in METRICS:
            raise UserError(f"unknown metric {name!r}{choose_from(name, METRICS)}")
    if args.save_stats and not args.save_stats.endswith(".npz"):
        raise UserError(f"--save-stats {args.save_stats}: statistics are saved as .npz")
    for name in filter(None, (args.save_stats, args.json)):
        if not Path(name).absolute().parent.is_dir():
            raise UserError(f"{name}: there is no folder to write it to; make it first")
    (a, b), passed_over = both_sides(args)
    if launched()[0]:
        return      # the first of several processes has the same statistics, and tells what follows
    backends = {side.provenance["backend"] for side in (a, b) if "backend" in side.provenance}
    known = {"weights": None, "random_weights": args.random_weights} | a.provenance | b.provenance
    results = {"mode": args.mode, "n_a": a.n or None, "n_b": b.n or None,
               "skipped_a": a.provenance.get("bad", 0), "skipped_b": b.provenance.get("bad", 0),
               "passed_over_a": passed_over[0], "passed_over_b": passed_over[1],
               "backend": " and ".join(sorted(backends)) or args.backend,
               "weights_sha256": None if known["random_weights"] else known["weights"],
               "random_weights": known["random_weights"]} | compare(a, b, wanted)
    for line in report(results):
        print(line)
    warn(a, b, args, wanted)
    if args.save_stats:
        write_statistics(args.save_stats, a)
    if args.json:
        write_file(args.json, json.dumps(results, indent=1) + "\n")


def both_sides(args: argparse.Namespace) -> tuple[list[Statistics], list[dict[str, int]]]:
    """The statistics of A and B, and how many files of each were passed over, by reason.

    Two statistics files need no network; if the command line names one, they must come from it.
    """
    sources = args.a, args.b
    if all(map(is_statistics, sources)) and not (args.fid_weights or args.random_weights):
        return [checked(read_statistics(source), source, args.mode) for source in sources], [{}, {}]
    measure = fid_scorer(args)
    sides = [measure.opened(source) for source in sources]      # checks both sides before the long part
    passed_over = [side.passed_over if isinstance(side, ImageSet) else {} for side in sides]
    return [measure.statistics(side) for side in sides], passed_over


def compare(a: Statistics, b: Statistics, wanted) -> dict:
    """The numbers asked for, by name. UserError: statistics without features where features are needed."""
    results = {}
    try:
        if "fid" in wanted:
            results["fid"] = fid(a, b)
        if "kid" in wanted:
            results["kid"], results["kid_error"] = kernel_distance(*_features(a, b))
        if "pr" in wanted:
            results["precision"], results["recall"] = precision_recall(*reversed(_features(a, b)))
        if "is" in wanted:
            _features(a)
            results["inception_score"], results["inception_score_deviation"] = inception_score(a.logits)
    except ValueError as error:
        raise UserError(f"{error}: leave that metric out of --metrics, or give more pictures") from error
    return results


def _features(*sides: Statistics):
    if any(side.features is None for side in sides):
        raise UserError("statistics of another tool hold no features, which all metrics except fid need: "
                        "give the pictures")
    return [side.features for side in sides]


def report(results: dict) -> list[str]:
    """The lines to print; every number of an untrained network is marked."""
    mark = " (random weights)" if results["random_weights"] else ""
    lines = []
    for name, label in (("fid", "FID"), ("kid", "KID"), ("precision", "precision"), ("recall", "recall"),
                        ("inception_score", "inception score")):
        if name in results:
            spread = {"kid": "kid_error", "inception_score": "inception_score_deviation"}.get(name)
            plus = f" +- {results[spread]:.6f}" if spread else ""
            digits = 4 if name == "fid" else 6      # the digits that both twins agree on; JSON has all digits
            lines.append(f"{label} {results[name]:.{digits}f}{plus}{mark}")
    counts = [f"{results[f'n_{side}'] or 'an unknown number of'}" +
              (f" ({results[f'skipped_{side}']} skipped)" if results[f"skipped_{side}"] else "") for side in "ab"]
    lines.append(f"mode {results['mode']}, {' against '.join(counts)} pictures, {results['backend']}")
    return lines


def warn(a: Statistics, b: Statistics, args, wanted) -> None:
    """Warn on stderr of sets that are too small for FID, and of metrics that see a part of the pictures."""
    width = len(a.mean)
    for name, side in {args.a: a, args.b: b}.items():
        if 0 < side.n < width:
            print(f"{name}: {side.n} pictures are fewer than {width}: FID is biased upwards; compare only with values "
                  "from equally many pictures", file=sys.stderr)
        if side.features is not None and not side.complete and set(wanted) > {"fid"}:
            print(f"{name}: all metrics except fid use {len(side.features)} of its {side.n} pictures, spread evenly",
                  file=sys.stderr)
