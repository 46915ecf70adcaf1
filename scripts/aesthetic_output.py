"""The flags of the two aesthetic inference scripts, and their output, which has the original's form."""
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator

from jittwin.atomic import write_file
from jittwin.cli import Parser
from jittwin.commands.assess import check_output
from jittwin.commands.options import add_pixel_limit, limit_pixels
from jittwin.data.listing import tell
from jittwin.data.pictures import ImageSet
from jittwin.errors import UserError, printable
from jittwin.metrics.aesthetic import AestheticMetric
from jittwin.metrics.assessment import Assessment, assess, gather
from jittwin.metrics.metric import MARK
from jittwin.models.aesthetic import level
from jittwin.predictors.aesthetic import Predictor
from jittwin.report.files import as_csv, as_json

BAR = 40        # characters of a bar for 100 %
RULE = "=" * 50


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
    parser.add_argument("--original-output", action="store_true",
                        help="print the original's lines, in Chinese, for programs that read them")
    add_pixel_limit(parser)
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
    limit_pixels(args)
    images = gather(args.images)
    tell(images.notes)
    metric = AestheticMetric(make(args))
    found = assess(images, [metric], args.batch_size, args.num_workers)
    if args.original_output:
        for line in original_lines(images, found, metric, args.show_distribution):
            print(line)
    else:
        for line in lines(found, metric, args.show_distribution):
            print(line)
        for message in found.failed:
            print(f"skipped: {message}", file=sys.stderr)
    if args.output:
        write_file(args.output, as_csv(found) if args.output.lower().endswith(".csv") else as_json(found))
    return 0


def original_lines(images: ImageSet, found: Assessment, metric: AestheticMetric,
                   show_distribution: bool) -> Iterator[str]:
    """What the original prints: every picture with its path, also those that cannot be read, then counts and a ranking.

    Its lines about the loading of the model are left out.
    """
    rows, mark = {row["image"]: row for row in found.rows}, MARK * metric.random
    paths = dict(zip(images.shown_names, map(printable, map(images.label, range(len(images))))))
    yield from ("", f"总共找到 {len(images)} 个图片文件", "")
    for number, (name, path) in enumerate(paths.items(), 1):
        if name not in rows:
            reason = next((text.removeprefix(f"{path}: ") for text in found.failed if text.startswith(path)), "")
            yield f"[{number}/{len(images)}] {path}: 处理失败 - {reason}"
            continue
        row = rows[name]
        chinese, english = level(row[metric.info.name])
        yield f"[{number}/{len(images)}] {path}"
        yield f"  分数: {row[metric.info.name]:.2f}{mark} - {chinese} ({english})"
        if show_distribution:
            yield "  评分分布:"
            for rating, key in enumerate(metric.profile, 1):
                yield f"  {rating:2d}: {row[key]:5.1%} {'█' * int(BAR * row[key])}"
    yield from ("", RULE, f"处理完成: 成功 {len(rows)}/{len(images)} 张图片", f"总耗时: {found.seconds:.2f} 秒",
                f"平均分数: {found.summary(metric)['mean']:.2f}{mark}", RULE)
    if len(rows) > 1:
        yield from ("", "按美学评分排序:")
        for name, row in sorted(rows.items(), key=lambda each: -each[1][metric.info.name]):
            yield f"  {row[metric.info.name]:.2f}{mark} - {paths[name]}"


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
