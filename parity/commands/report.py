"""`python -m parity report`: render a report again from its JSON."""
from parity.commands.options import output_arguments, outputs
from parity.report import terminal
from parity.report.report import merged, read
from parity.report.write import write


def add_arguments(parser) -> None:
    parser.add_argument("reports", nargs="+", metavar="REPORT",
                        help="a JSON file that check or mutate wrote; of a comparison in several, the first counts")
    output_arguments(parser)


def command(args) -> int:
    """Render a report again, or show it if no output file is named. Returns 0 if it says pass, 1 if fail."""
    files, report = outputs(args), merged([read(path) for path in args.reports])
    write(report, files)
    if not files:
        terminal.show(report)
    return 0 if report.passed else 1
