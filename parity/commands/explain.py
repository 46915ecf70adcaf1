"""`python -m parity explain`: which known difference between the frameworks is behind a failure."""
from parity.commands.options import model_arguments, twin_folder
from parity.explain.finding import LEVELS, Finding, run
from parity.runner import check_offered


def add_arguments(parser) -> None:
    model_arguments(parser)
    parser.add_argument("--level", action="append", metavar="L", help="a level, repeatable; default "
                        + ", ".join(LEVELS))


def command(args) -> int:
    """Check, and explain what fails. Returns 0 if all agrees, 1 if something fails, explained or not."""
    def show(finding: Finding) -> None:
        print("\n".join(finding.lines()), flush=True)

    check_offered(args.models, args.level)
    found = run(args.models, twin_folder(args.twin), args.level, progress=show)
    print(found.text().splitlines()[-1])
    return 0 if found.passed else 1
