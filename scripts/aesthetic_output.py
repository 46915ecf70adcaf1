"""The flags of the two aesthetic inference scripts, and their output, which has the original's form."""
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator

from jittwin.atomic import write_file
from jittwin.cli import Parser
from jittwin.commands.assess import check_output
from jittwin.data.listing import tell
from jittwin.errors import UserError
from jittwin.metrics.aesthetic import AestheticMetric
from jittwin.metrics.assessment import Assessment, assess, gather
from jittwin.metrics.metric import MARK
from jittwin.predictors.aesthetic import Predictor
from jittwin.report.files import as_csv, as_json

BAR = 40        # characters of a bar for 100 %


def add_arguments(parser: Parser) -> None:
    parser.add_argument("images", nargs="*", help="pictures, or folders with pictures")
    parser.add_argument("--threads", type=int, default=4, metavar="N", help="CPU threads (default: 4)")
    parser.add_argument("--batch_size", type=int, default=1, metavar="N", help="pictures at a time (default: 1)")
    parser.add_argument("--num_workers", type=int, default=2, metavar="N", help="decoding threads (default: 2)")
    parser.add_argument("--show_distribution", action="store_true", default=True,
                        help="print the predicted fraction of every rating (default)")
    parser.add_argument("--no-show-distribution", dest="show_distribution", action="store_false",
                        help="do not print them")
    parser.add_argument("--output", metavar="FILE", help="also write every number as .json or .csv")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")


def run(parser: Parser, argv: list[str], make: Callable[[Namespace], Predictor]) -> int:
    """Score the pictures with the predictor that `make` returns. The exit status is 2 if no picture is named."""
    args = parser.parse_args(argv)
    if not args.images:
        parser.print_help()
        return 2
    for name in ("threads", "batch_size", "num_workers"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name} {getattr(args, name)}: must be at least 1")
    check_output(args.output)
    images = gather(args.images)
    tell(images.notes)
    metric = AestheticMetric(make(args))
    found = assess(images, [metric], args.batch_size, args.num_workers)
    for line in lines(found, metric, args.show_distribution):
        print(line)
    for message in found.failed:
        print(f"skipped: {message}", file=sys.stderr)
    if args.output:
        write_file(args.output, as_csv(found) if args.output.lower().endswith(".csv") else as_json(found))
    return 0


def lines(found: Assessment, metric: AestheticMetric, show_distribution: bool) -> Iterator[str]:
    """Every picture with its score, level and rating fractions; then the mean; then several pictures by score."""
    total, mark = len(found.rows), MARK * metric.random
    for number, row in enumerate(found.rows, 1):
        yield f"[{number}/{total}] {row['image']}"
        yield f"  score: {row['aesthetic']:.2f}{mark}  {metric.describe(row['aesthetic'])}"
        if show_distribution:
            for rating, name in enumerate(metric.profile, 1):
                yield f"  {rating:2}: {row[name]:6.1%} {'█' * int(BAR * row[name])}".rstrip()
    yield (f"{total} of {total + len(found.failed)} pictures scored in {found.seconds:.1f} s, mean score "
           f"{found.summary(metric)['mean']:.2f}{mark}")
    if total > 1:
        for row in sorted(found.rows, key=lambda row: -row["aesthetic"]):
            yield f"  {row['aesthetic']:.2f}{mark}  {row['image']}"
