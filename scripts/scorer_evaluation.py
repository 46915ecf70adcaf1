"""How well a score of pictures by their prompts agrees with people's votes in PKU-AIGIQA-4K: one line of SRCC and PLCC.

The commands of the original project that do this, one for each score, call `main` here with their score and subset.
"""
import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from jittwin import cli
from jittwin.atomic import write_file
from jittwin.backend import DEVICES, PACKAGES, ready_backend
from jittwin.commands.options import add_pixel_limit, limit_pixels
from jittwin.data.aigiqa4k import SUBSETS, VOTES, Aigiqa4k, Row, of_subset
from jittwin.data.pictures import ImageSet
from jittwin.data.votes import Vote
from jittwin.errors import UserError
from jittwin.metrics.agreement import agreements
from jittwin.metrics.assessment import Assessment, assess
from jittwin.metrics.catalog import ASSESSED
from jittwin.metrics.metric import MARK, Request
from jittwin.metrics.prompted import is_text_image
from jittwin.report.files import as_csv

DATA = "./Dataset/PKU-AIGIQA-4K"
SPLITS = ("all", "test", "train")
SCORES = tuple(name for name, metric in ASSESSED.items() if is_text_image(metric.INFO))


def parser(prog: str, score: str, subset: str) -> cli.Parser:
    made = cli.Parser(prog=f"python scripts/{prog}", description="agreement of a score with people's votes")
    made.add_argument("--true_score", choices=VOTES, default="MOS_q", help="which votes (default: MOS_q)")
    made.add_argument("--log_info", metavar="TEXT", help="a headline (default: none)")
    made.add_argument("--seed", metavar="N", help="accepted and without effect: nothing here is random")
    made.add_argument("--gpu", metavar="N", default="0", help="numbers of GPUs (default: 0)")
    ours = made.add_argument_group("options that the original does not have")
    ours.add_argument("--metric", choices=SCORES, default=score, help=f"default: {score}")
    ours.add_argument("--subset", choices=SUBSETS, default=subset, help=f"default: {subset}, as in the original")
    ours.add_argument("--split", choices=SPLITS, default="all", help="part of TIER's split (default: all pictures)")
    ours.add_argument("--data-root", metavar="DIR", default=DATA, help=f"default: {DATA}")
    ours.add_argument("--weights", *map("--{}-weights".format, SCORES), metavar="FILE",
                      help="those of the score, see `jittwin assess --help`")
    ours.add_argument("--tokenizer", *map("--{}-tokenizer".format, SCORES), metavar="FOLDER",
                      help="its vocabulary (default: the one beside the weights)")
    ours.add_argument("--random-weights", action="store_true", help="an untrained network, to try the command")
    ours.add_argument("--backend", choices=PACKAGES, default="jittor", help="default: jittor")
    ours.add_argument("--device", choices=("auto", *DEVICES), default="auto",
                      help="default: auto, the GPU if there is one")
    ours.add_argument("--csv", metavar="FILE", help="write the score and the vote of every picture")
    add_pixel_limit(ours)
    ours.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return made


def chosen(data: Aigiqa4k, subset: str, split: str) -> list[Row]:
    """The rows of a subset and of a part of the published split."""
    return [row for row in of_subset(data.rows, subset) if split in (SPLITS[0], row.part)]


def scored(data: Aigiqa4k, rows: Sequence[Row], column: str, args: Namespace) -> tuple[Assessment, dict[str, Vote]]:
    """The scores of pictures and their votes, by the names that the assessment gives the pictures."""
    by_path = {os.fspath(data.path(row.name)): row for row in rows}
    images = ImageSet(list(by_path))
    rows = [by_path[name] for name in images.names]
    given = {f"{args.metric}-weights": args.weights, f"{args.metric}-tokenizer": args.tokenizer}
    module = ASSESSED[args.metric]
    options = {option.name: given.get(option.name) for option in module.INFO.options}
    backend, dtype = ready_backend(args.backend, args.device, "float32")
    metric = module.load(Request(backend, dtype, images, options, args.random_weights))
    found = assess(images, [metric], prompts=[row.prompt for row in rows])
    votes = {name: Vote(row.votes[column]) for name, row in zip(images.shown_names, rows)}
    return found, votes


def run(argv: list[str], prog: str, score: str, subset: str) -> int:
    args = parser(prog, score, subset).parse_args(argv)
    limit_pixels(args)
    os.environ["CUDA_VISIBLE_DEVICES"] = args.gpu       # before a framework is imported
    if args.csv and (Path(args.csv).is_dir() or not Path(args.csv).absolute().parent.is_dir()):
        raise UserError(f"--csv {args.csv}: cannot be written; name a file in a folder that exists")
    data = Aigiqa4k(args.data_root)
    for note in data.notes:
        print(note, file=sys.stderr)
    found, votes = scored(data, chosen(data, args.subset, args.split), args.true_score, args)
    for note in found.notes:
        print(note, file=sys.stderr)
    if found.failed:
        raise UserError(f"{found.failed[0]}; {len(found.failed)} pictures cannot be scored: restore them")
    metric, = found.metrics
    measures = agreements(found.rows, [metric], votes)[0].measures[args.metric]
    if args.csv:
        for row in found.rows:
            row[args.true_score] = votes[row["image"]].value
        write_file(args.csv, as_csv(found))
    if args.log_info:
        print(f"{'-' * 30}{args.log_info}{'-' * 30}")
    print(f"{args.metric}{MARK * metric.random}, {args.true_score} of {len(found.rows)} pictures ({args.subset}, "
          f"{args.split}): spearmanr_correlation: {measures['srcc'].value:.6f}, "
          f"pearsonr_correlation: {measures['plcc'].value:.6f}")
    return 0


def main(prog: str, score: str, subset: str) -> int:
    """The exit status of a command named `prog`, whose score and subset are these unless its flags say otherwise."""
    return cli.guarded(lambda: run(sys.argv[1:], prog, score, subset), debug="--debug" in sys.argv)
