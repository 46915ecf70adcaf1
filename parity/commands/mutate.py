"""`python -m parity mutate`: put faults into the Jittor twin and see which of them are noticed."""
import itertools
import shlex
import sys
import time
from collections.abc import Callable

from parity.commands.options import output_arguments, outputs
from parity.faults.mutate import Mutant, Remembering, chosen, run
from parity.levels.environment import attested
from parity.report import terminal
from parity.report.report import Report, of_rows
from parity.report.write import write
from parity.runner import check_offered


def add_arguments(parser) -> None:
    parser.add_argument("models", nargs="*", metavar="MODEL",
                        help="a model, or a family such as apf_gan; without one every model")
    parser.add_argument("--only", action="append", metavar="FAULT", help="this fault alone; may be repeated")
    parser.add_argument("--level", action="append", metavar="L",
                        help="only this level: L0 to L9, processes; repeatable")
    parser.add_argument("--list", action="store_true", help="list the faults and stop")
    output_arguments(parser)


def command(args) -> int:
    """Run, show and write. Returns 0 if enough faults are killed and every survivor is explained, else 1."""
    files, faults, begun = outputs(args), chosen(args.models, args.only), time.monotonic()
    check_offered(args.models, args.level)
    if args.list:
        for fault in faults:
            print(f"{fault.name:32} {fault.id:4} {fault.file:28} {fault.why}")
        return 0
    with Remembering() as twins:
        found = run(args.models, args.only, args.level, told(len(faults)), twins)
        attestation = attested(twins)
    report = of_rows(found.pop("rows"), attestation, seconds=round(time.monotonic() - begun, 1), command=asked(args))
    report.extras.update(found)
    write(report, files)
    show(report)
    return 0 if report.passed else 1


def asked(args) -> str:
    """The command line without its output files."""
    options = [word for name in ("only", "level") for value in getattr(args, name) or ()
               for word in (f"--{name}", value)]
    return shlex.join(["python", "-m", "parity", "mutate", *args.models, *options])


def told(total: int) -> Callable[[Mutant], None]:
    """A callback that writes one line per fault to stderr."""
    numbers = itertools.count(1)

    def tell(mutant: Mutant) -> None:
        levels = f" by {', '.join(mutant.killed)}" if mutant.killed else ""
        print(f"[{next(numbers)}/{total}] {mutant.fault.name}: {mutant.verdict}{levels}, {mutant.seconds:.1f} s",
              file=sys.stderr, flush=True)

    return tell


def show(report: Report) -> None:
    """Print what the faults showed, and the verdict."""
    screen, extras = terminal.console(), report.extras
    terminal.put_faults(screen, extras)
    screen.print(f"[{terminal.COLOURS[report.verdict]}]{report.verdict}[/]: kill rate {extras['kill_rate']:.1%} "
                 f"of {len(extras['mutants'])} faults", soft_wrap=True)
