"""Runs the levels over the cases: every step is one level of one case at one size in one mode."""
import importlib
import importlib.util
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from jittwin.errors import UserError, choose_from
from parity.case import Case
from parity.oracle import Twins
from parity.result import LEVELS, Row, failure
from parity.worker import WorkerError, resolve

# A check is called with (case, size, mode, twins) and returns rows. A level whose module says ONCE = True
# does not depend on the mode and runs in the first one. L0 belongs to no case: it is called with (twins).
CHECKS = {
    "L0": "parity.attest:check",
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
TIERS = {"ci": (), "full": ("L1", "L3")}      # tier: levels that also run at the published size
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
    """The cases of these models; "apf_gan" stands for every "apf_gan.…", no name for all."""
    from parity.cases import CASES
    names = list(names)
    for name in names:
        if not any(_within(case, name) for case in CASES):
            raise UserError(f"no parity case {name!r}{choose_from(name, [*_families(CASES), *CASES])}")
    return [case for case in CASES.values() if not names or any(_within(case.name, name) for name in names)]


def _within(case: str, name: str) -> bool:
    return case == name or case.startswith(f"{name}.")


def _families(cases: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(case.split(".")[0] for case in cases if "." in case))


def check_levels(levels: Iterable[str]) -> None:
    """UserError for a level there is not."""
    for level in levels:
        if level not in LEVELS:
            raise UserError(f"no level {level!r}{choose_from(level, LEVELS)}")


def plan(names: Iterable[str] = (), tier: str = "ci", levels: Iterable[str] | None = None) -> list[Step]:
    """What a run will do, in order. levels: those alone; None for all."""
    if tier not in TIERS:
        raise UserError(f"no tier {tier!r}{choose_from(tier, TIERS)}")
    wanted = list(LEVELS if levels is None else levels)
    check_levels(wanted)
    steps = [Step("L0")] if "L0" in wanted else []
    for case in select(names):
        for level in (level for level in LEVELS if level in wanted and level in case.levels and level != "L0"):
            if not importlib.util.find_spec(CHECKS[level].split(":")[0]):
                continue
            once = getattr(importlib.import_module(CHECKS[level].split(":")[0]), "ONCE", False)
            modes = case.modes[:1] if once else case.modes
            sizes = [size for size in case.sizes if size == "tiny" or level in TIERS[tier]]
            steps += [Step(level, case, size, mode) for size in sizes for mode in modes]
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
        row.detail.setdefault("seconds", round((time.monotonic() - begun) / len(rows), 2))
        if step.size:
            row.detail.setdefault("size", step.size)
    return rows


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
    return list(_rows(steps, twins, progress, bundle))


def _rows(steps: list[Step], twins: Twins, progress, bundle) -> Iterator[Row]:
    for step in steps:
        rows = perform(step, twins, bundle)
        if progress:
            progress(step, rows)
        yield from rows
