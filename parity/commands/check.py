"""`python -m parity check`: compare the twins, model by model and level by level."""
import shlex
import time
from pathlib import Path

from jittwin.backend import DEVICES, PACKAGES
from jittwin.errors import UserError
from parity.commands.options import model_arguments, output_arguments, outputs, twin_folder
from parity.explain.finding import explain_failures
from parity.levels.environment import attested
from parity.report.report import of_rows
from parity.report.terminal import Live, show
from parity.report.write import write
from parity.result import LEVELS
from parity.runner import TIERS, Step, check_levels, check_offered, performed, plan
from parity.workers.oracle import Twins


def add_arguments(parser) -> None:
    model_arguments(parser)
    parser.add_argument("--tier", choices=tuple(TIERS), default="ci",
                        help="ci: small models, every level; full: also the published sizes at L1, L3 and L6")
    parser.add_argument("--level", action="append", metavar="L",
                        help="only this level: L0 to L9, processes; repeatable")
    parser.add_argument("--up-to", metavar="L", help="the levels up to this one")
    parser.add_argument("--device", choices=DEVICES, default="cpu",
                        help="where the twin computes that is checked (default: cpu)")
    parser.add_argument("--backend", choices=PACKAGES, default="jittor", help="the twin that is checked (default: "
                        "jittor) against PyTorch on the CPU; torch: PyTorch on --device against itself")
    parser.add_argument("--bundle", metavar="DIR", help="write what reproduces each failing layer into this folder")
    parser.add_argument("--explain", action="store_true",
                        help="name the known difference between the frameworks behind each failure")
    output_arguments(parser)


def command(args) -> int:
    """Check, show and write the report. Returns 0 if the twins agree, else 1."""
    begun, twin, files, levels = time.monotonic(), twin_folder(args.twin), outputs(args), levels_of(args)
    if args.bundle and Path(args.bundle).exists() and not Path(args.bundle).is_dir():
        raise UserError(f"--bundle {args.bundle} is a file: name a folder")
    check_offered(args.models, levels, args.tier)
    steps = plan(args.models, args.tier, levels)
    if args.backend == "torch" and (twin or args.explain):
        raise UserError(f"--{'twin' if twin else 'explain'}: is about the Jittor twin; leave out --backend torch")
    if args.device != "cpu":
        steps = on_one_device(steps)
    with Twins(twin, device=args.device, backend=args.backend) as twins:
        if args.device != "cpu":
            twins.ready()
        with Live(steps) as live:
            rows = list(performed(steps, twins, live, args.bundle))
        attestation = None if steps[0].level == "L0" else attested(twins)
        explanations = explain_failures(rows, steps, twins) if args.explain else []
    report = of_rows(rows, attestation, command=asked(args),
                     seconds=round(time.monotonic() - begun, 1))
    if explanations:
        report.extras["explanations"] = explanations
    write(report, files)
    show(report)
    return 0 if report.passed else 1


def on_one_device(steps: list[Step]) -> list[Step]:
    """The steps without the level of several processes, which compute on the CPU. UserError: there are no others."""
    found = [step for step in steps if step.level != "processes"]
    if not found:
        raise UserError("--level processes: its processes compute on the CPU; leave out --device")
    return found


def asked(args) -> str:
    """The command line without its output files."""
    levels = [word for level in args.level or () for word in ("--level", level)]
    options = [word for name in ("up_to", "twin") if (value := getattr(args, name))
               for word in (f"--{name.replace('_', '-')}", value)]
    options += ["--backend", args.backend] if args.backend != "jittor" else []
    options += ["--device", args.device] if args.device != "cpu" else []
    options += ["--explain"] if args.explain else []
    return shlex.join(["python", "-m", "parity", "check", *args.models, "--tier", args.tier, *levels, *options])


def levels_of(args) -> list[str] | None:
    """The levels asked for; None for all."""
    if args.level and args.up_to:
        raise UserError("--level and --up-to exclude each other: --level names levels, --up-to the last one")
    check_levels([*(args.level or ()), *filter(None, [args.up_to])])
    return list(LEVELS)[:list(LEVELS).index(args.up_to) + 1] if args.up_to else args.level
