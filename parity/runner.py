"""Runs the levels over the cases: every step is one level of one case at one size in one mode."""
import os
import re
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from jittwin.errors import UserError, choose_from
from parity import cases
from parity.bundle import write as write_bundle
from parity.case import Case
from parity.levels import (
    backward,
    data,
    environment,
    forward,
    metrics,
    operators,
    processes,
    resume,
    structure,
    trajectory,
    update,
)
from parity.pair import resolved
from parity.result import LEVELS, Row, failure
from parity.workers.oracle import Twins
from parity.workers.worker import WorkerError

# Each module has `check`, which is called with (case, size, mode, twins) and returns rows. L0 belongs to no case: it
# is called with (twins). A level whose module says ONCE = True does not depend on the mode.
CHECKS = {"L0": environment, "L1": structure, "L2": operators, "L3": forward, "L4": backward, "L5": update,
          "L6": trajectory, "L7": data, "L8": metrics, "L9": resume, "processes": processes}
TIERS = {"ci": (), "full": ("L1", "L3", "L6", "processes")}      # tier: levels that also run at the published size
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
    """The cases that these names select; all cases if there is no name.

    names: models; families, such as "apf_gan" for every "apf_gan.…"; or "module:NAME" for a Pair of your own.
    UserError: an unknown name.
    """
    known, names = cases.CASES, list(names)
    own, names = [_own(name) for name in names if ":" in name], [name for name in names if ":" not in name]
    if own and not names:
        return own
    for name in names:
        if not any(_within(case, name) for case in known):
            raise UserError(f"no parity case {name!r}{choose_from(name, dict.fromkeys([*_families(known), *known]))}")
    return own + [case for case in known.values() if not names or any(_within(case.name, name) for name in names)]


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
    """UserError for an unknown level."""
    for level in levels:
        if level not in LEVELS:
            raise UserError(f"no level {level!r}{choose_from(level, LEVELS)}")


def check_offered(names: Iterable[str], levels: Iterable[str] | None, tier: str = "ci") -> None:
    """UserError if none of these models has any of these levels, or has a size that this tier runs."""
    check_levels(levels or ())
    chosen = select(names)
    if tier == "ci" and not any("tiny" in case.sizes for case in chosen):
        raise UserError(f"{', '.join(names)}: has its published size alone: use `check` with --tier full")
    offered = {"L0", *(level for case in chosen for level in case.levels)}
    if levels is not None and not offered & set(levels):
        raise UserError(f"level {', '.join(levels)}: {', '.join(names)} has only {', '.join(sorted(offered))}")


def plan(names: Iterable[str] = (), tier: str = "ci", levels: Iterable[str] | None = None) -> list[Step]:
    """The steps of a run, in order. levels: only these; None for all. UserError: an unknown name, tier or level."""
    if tier not in TIERS:
        raise UserError(f"no tier {tier!r}{choose_from(tier, TIERS)}")
    wanted = list(LEVELS if levels is None else levels)
    check_levels(wanted)
    steps = [Step("L0")] if "L0" in wanted else []
    for case in select(names):
        for level in (level for level in LEVELS if level in wanted and level in case.levels and level != "L0"):
            for size in (size for size in case.sizes if size == "tiny" or level in TIERS[tier]):
                more = case.more_modes if tier == "full" and size == "tiny" else ()
                steps += [Step(level, case, size, mode) for mode in modes_of(level, case.modes + more)]
    return steps


def modes_of(level: str, modes: tuple[str, ...]) -> tuple[str, ...]:
    """The modes in which a level runs: only the first if the level does not depend on the mode."""
    return modes[:1] if getattr(CHECKS[level], "ONCE", False) else modes


def perform(step: Step, twins: Twins, bundle=None) -> list[Row]:
    """The rows of one step. An exception becomes a failing row, and a worker that it ended is replaced.

    bundle: a folder for what reproduces a failing module (parity.bundle); None to write nothing.
    """
    begun, check = time.monotonic(), CHECKS[step.level].check
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
    """Write what reproduces the first module at fault, and note its folder in the row."""
    path = row.detail["culprits"][0]
    name = "-".join(re.findall(r"[\w.]+", f"{step.model} {step.size} {step.mode} {path}"))
    try:
        written = write_bundle(Path(folder, name), step.case, step.size, step.mode, path, twins)
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
    copy of the Jittor twin. progress: called after every step. bundle: as in `perform`.
    """
    steps = plan(names, tier, levels)
    if twins is None:
        with Twins(twin) as twins:
            return list(performed(steps, twins, progress, bundle))
    return list(performed(steps, twins, progress, bundle, keep=True))


def performed(steps: Iterable[Step], twins: Twins, progress=None, bundle=None, keep: bool = False) -> Iterator[Row]:
    """The rows of all steps as they come; progress and bundle as in `run`.

    keep: keep PyTorch's results, which may take several GB of memory, for another run of the same steps.
    """
    for step in steps:
        rows = perform(step, twins, bundle)
        if progress:
            progress(step, rows)
        if not keep:
            twins.known.clear()
        yield from rows
