"""Runs the levels over the cases: every step is one level of one case at one size in one mode.

`python -m parity check` is at the end.
"""
import importlib
import os
import re
import shlex
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from jittwin.errors import UserError, choose_from
from parity.case import Case
from parity.levels.environment import attested
from parity.pair import resolved
from parity.report.report import of_rows, output_arguments, outputs, write
from parity.result import LEVELS, Row, failure
from parity.workers.oracle import Twins
from parity.workers.worker import WorkerError, resolve

# A check is called with (case, size, mode, twins) and returns rows. A level whose module says ONCE = True
# does not depend on the mode and runs in the first one. L0 belongs to no case: it is called with (twins).
CHECKS = {
    "L0": "parity.levels.environment:check",
    "L1": "parity.levels.structure:check",
    "L2": "parity.levels.operators:check",
    "L3": "parity.levels.forward:check",
    "L4": "parity.levels.backward:check",
    "L5": "parity.levels.update:check",
    "L6": "parity.levels.trajectory:check",
    "L7": "parity.levels.data:check",
    "L8": "parity.levels.metrics:check",
    "L9": "parity.levels.resume:check",
}
TIERS = {"ci": (), "full": ("L1", "L3", "L6")}      # tier: levels that also run at the published size
ENVIRONMENT = "environment"                   # the model column of the L0 row


@dataclass(frozen=True)
class Step:
    """One call of one check; case is None for the environment."""
    level: str
    case: Case | None = None
    size: str = ""
    mode: str = ""

    @property
    def model(self) -> str:
        return self.case.name if self.case else ENVIRONMENT


def select(names: Iterable[str]) -> list[Case]:
    """The cases of these models; "apf_gan" stands for every "apf_gan.…", no name for all, "module:NAME" for a Pair
    of one's own."""
    from parity.cases import CASES
    names = list(names)
    own, names = [_own(name) for name in names if ":" in name], [name for name in names if ":" not in name]
    if own and not names:
        return own
    for name in names:
        if not any(_within(case, name) for case in CASES):
            raise UserError(f"no parity case {name!r}{choose_from(name, dict.fromkeys([*_families(CASES), *CASES]))}")
    return own + [case for case in CASES.values() if not names or any(_within(case.name, name) for name in names)]


def _own(name: str) -> Case:
    found = resolved(name)
    if not isinstance(found, Case):
        raise UserError(f"{name!r} is no Pair: name one, such as test_port:LAYER for LAYER = Pair(...) in test_port.py")
    return found


def _within(case: str, name: str) -> bool:
    return case == name or case.startswith(f"{name}.")


def _families(cases: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(case.split(".")[0] for case in cases if "." in case))


def check_levels(levels: Iterable[str]) -> None:
    """UserError for a level there is not."""
    for level in levels:
        if level not in LEVELS:
            raise UserError(f"no level {level!r}{choose_from(level, LEVELS)}")


def check_offered(names: Iterable[str], levels: Iterable[str] | None) -> None:
    """UserError where none of these models has any of these levels."""
    check_levels(levels or ())
    offered = {"L0", *(level for case in select(names) for level in case.levels)}
    if levels is not None and not offered & set(levels):
        raise UserError(f"level {', '.join(levels)}: {', '.join(names)} has only {', '.join(sorted(offered))}")


def plan(names: Iterable[str] = (), tier: str = "ci", levels: Iterable[str] | None = None) -> list[Step]:
    """What a run will do, in order. levels: those alone; None for all."""
    if tier not in TIERS:
        raise UserError(f"no tier {tier!r}{choose_from(tier, TIERS)}")
    wanted = list(LEVELS if levels is None else levels)
    check_levels(wanted)
    steps = [Step("L0")] if "L0" in wanted else []
    for case in select(names):
        for level in (level for level in LEVELS if level in wanted and level in case.levels and level != "L0"):
            once = getattr(importlib.import_module(CHECKS[level].split(":")[0]), "ONCE", False)
            for size in (size for size in case.sizes if size == "tiny" or level in TIERS[tier]):
                more = case.more_modes if tier == "full" and size == "tiny" else ()
                steps += [Step(level, case, size, mode) for mode in (case.modes[:1] if once else case.modes + more)]
    return steps


def perform(step: Step, twins: Twins, bundle=None) -> list[Row]:
    """The rows of one step. What goes wrong inside becomes a failing row; the next step gets live workers."""
    begun, check = time.monotonic(), resolve(CHECKS[step.level])
    try:
        rows = check(step.case, step.size, step.mode, twins) if step.case else check(twins)
    except Exception as error:
        expected = isinstance(error, (WorkerError, UserError))
        reason = str(error) if expected else f"the check itself failed: {traceback.format_exc(limit=-3).strip()}"
        rows = [failure(step.model, step.level, step.mode, reason)]
        twins.renew()
    for row in rows:
        if bundle and step.level == "L3" and row.detail.get("culprits"):
            reproduce(step, row, twins, bundle)
        row.detail.setdefault("seconds", round((time.monotonic() - begun) / len(rows), 2))
        if step.size:
            row.detail.setdefault("size", step.size)
    return rows


def reproduce(step: Step, row: Row, twins: Twins, folder: str | os.PathLike) -> None:
    """Write what reproduces the first module at fault; the row says where."""
    from parity import bundle
    path = row.detail["culprits"][0]
    name = "-".join(re.findall(r"[\w.]+", f"{step.model} {step.size} {step.mode} {path}"))
    try:
        written = bundle.write(Path(folder, name), step.case, step.size, step.mode, path, twins)
        row.detail["bundle"] = os.fspath(written)
    except (WorkerError, UserError) as error:
        row.detail["bundle_missing"] = str(error)
        twins.renew()


def run(names: Iterable[str] = (), tier: str = "ci", levels: Iterable[str] | None = None,
        twins: Twins | None = None, twin=None, progress: Callable[[Step, list[Row]], None] | None = None,
        bundle=None) -> list[Row]:
    """Check models against each other.

    names: models, or families such as "apf_gan"; none for all. tier: "ci", or "full" with the published sizes.
    twins: the workers to use, left running; otherwise they are started, with `twin` as the folder of another
    copy of the Jittor twin. progress: called after every step. bundle: a folder for what reproduces a failure.
    """
    steps = plan(names, tier, levels)
    if twins is None:
        with Twins(twin) as twins:
            return list(_rows(steps, twins, progress, bundle))
    return list(_rows(steps, twins, progress, bundle, keep=True))


def _rows(steps: list[Step], twins: Twins, progress, bundle, keep: bool = False) -> Iterator[Row]:
    """keep: what is known of PyTorch, which may be several GB, for another run of the same steps."""
    for step in steps:
        rows = perform(step, twins, bundle)
        if progress:
            progress(step, rows)
        if not keep:
            twins.known.clear()
        yield from rows


# ---- python -m parity check ------------------------------------------------------------

def add_arguments(parser) -> None:
    model_arguments(parser)
    parser.add_argument("--tier", choices=tuple(TIERS), default="ci",
                        help="ci: small models, every level; full: the published sizes too, where they are owed")
    parser.add_argument("--level", action="append", metavar="L", help="this level alone, L0 to L9; may be repeated")
    parser.add_argument("--up-to", metavar="L", help="the levels up to this one")
    parser.add_argument("--bundle", metavar="DIR", help="write what reproduces each failing layer into this folder")
    parser.add_argument("--explain", action="store_true",
                        help="name the known difference between the frameworks behind each failure")
    output_arguments(parser)


def model_arguments(parser) -> None:
    """What every command takes that runs cases."""
    parser.add_argument("models", nargs="*", metavar="MODEL",
                        help="a model, a family such as apf_gan, or module:NAME of a Pair; without one every model")
    parser.add_argument("--twin", metavar="FOLDER", help="a folder with another copy of jt_models, to check instead")


def command(args) -> int:
    """Check, show and write the report. 0: the twins agree, 1: they do not."""
    from parity.report.terminal import Live, show
    begun, twin, files, levels = time.monotonic(), twin_folder(args.twin), outputs(args), levels_of(args)
    if args.bundle and Path(args.bundle).exists() and not Path(args.bundle).is_dir():
        raise UserError(f"--bundle {args.bundle} is a file: name a folder")
    check_offered(args.models, levels)
    steps = plan(args.models, args.tier, levels)
    with Twins(twin) as twins:
        with Live(steps) as live:
            rows = list(_rows(steps, twins, live, args.bundle))
        attestation = None if steps[0].level == "L0" else attested(twins)
        explanations = explain_failures(rows, steps, twins) if args.explain else []
    report = of_rows(rows, attestation, command=asked(args),
                     seconds=round(time.monotonic() - begun, 1))
    if explanations:
        report.extras["explanations"] = explanations
    write(report, files)
    show(report)
    return 0 if report.passed else 1


def explain_failures(rows: list[Row], steps: list[Step], twins: Twins) -> list[dict]:
    """{"model", "level", "mode", "named": ids of the catalogue, "text"} of what failed and can be explained."""
    from parity.explain import finding as explain
    failed = {(r.model, r.level, r.mode, r.detail.get("size")) for r in rows if not r.passed}
    # At full size each known difference would take as long as the check did.
    found = explain.explained([s for s in steps if (s.model, s.level, s.mode, s.size) in failed
                               and s.level in explain.LEVELS and s.size != "full"], twins)
    return [{"model": f.model, "level": f.level, "mode": f.mode, "named": f.named, "text": "\n".join(f.lines())}
            for f in found.findings]


def asked(args) -> str:
    """The command without where its output goes."""
    levels = [word for level in args.level or () for word in ("--level", level)]
    options = [word for name in ("up_to", "twin") if (value := getattr(args, name))
               for word in (f"--{name.replace('_', '-')}", value)]
    options += ["--explain"] if args.explain else []
    return shlex.join(["python", "-m", "parity", "check", *args.models, "--tier", args.tier, *levels, *options])


def levels_of(args) -> list[str] | None:
    """The levels asked for, None for all."""
    if args.level and args.up_to:
        raise UserError("--level and --up-to exclude each other: --level names levels, --up-to the last one")
    check_levels([*(args.level or ()), *filter(None, [args.up_to])])
    return list(LEVELS)[:list(LEVELS).index(args.up_to) + 1] if args.up_to else args.level


def twin_folder(folder: str | None) -> str | None:
    """UserError where the folder holds no copy of the Jittor twin."""
    if folder and not Path(folder, "jt_models", "__init__.py").is_file():
        raise UserError(f"--twin {folder}: there is no jt_models package in it: name the folder that contains one")
    return folder
