"""`@parity_case(pair)`: a pytest test, or rather one per level and mode, that proves a port."""
import atexit
import functools
import importlib
import inspect
import os
import sys
import sysconfig
from collections.abc import Callable, Iterable

import pytest

from jittwin.errors import UserError, choose_from
from parity.case import Case
from parity.check import CHECKS, Step, perform
from parity.oracle import Twins
from parity.report import explained, short, title
from parity.result import Row

SHOWN = 5      # tensors in a message


def parity_case(case: Case, levels: Iterable[str] | None = None, modes: Iterable[str] | None = None) -> Callable:
    """Makes a test of the decorated function: "test_name[L3-train]" for every level and mode of the case.

    It fails with the numbers where the twins are apart, and with the modules at fault. The body runs after that,
    for whatever else should hold; with a parameter `report` it gets the rows (parity.result.Row). Other parameters are
    fixtures as usual. levels, modes: fewer than the case has.
    """
    levels, modes = _within("level", levels, case.levels), _within("mode", modes, case.modes)
    steps = [Step(level, case, case.sizes[0], mode) for level in levels for mode in _modes(level, modes)]

    def decorate(test: Callable) -> Callable:
        parameters = list(inspect.signature(test).parameters.values())

        @functools.wraps(test)
        def proof(parity_step, **fixtures):
            rows = prove(parity_step, workers())
            return test(**fixtures, **({"report": rows} if "report" in inspect.signature(test).parameters else {}))

        proof.__signature__ = inspect.Signature(
            [inspect.Parameter("parity_step", inspect.Parameter.KEYWORD_ONLY),
             *(p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters if p.name != "report")])
        return pytest.mark.parametrize("parity_step", steps, ids=lambda step: f"{step.level}-{step.mode}")(proof)

    return decorate


def prove(step: Step, twins: Twins) -> list[Row]:
    """The rows of one level in one mode; a failing one fails the test that runs."""
    rows = perform(step, twins)
    failing = [row for row in rows if not row.passed]
    if failing:
        pytest.fail(describe(step.case, failing, twins), pytrace=False)
    return rows


def describe(case: Case, failing: list[Row], twins: Twins) -> str:
    """What a person needs to find the fault: first whether the weights fit at all, then where the numbers part."""
    reason = case.misfit(twins) if hasattr(case, "misfit") else ""
    return reason or "\n".join(line for row in failing for line in _lines(row))


def _lines(row: Row) -> list[str]:
    lines = [f"{title(row)}: {explained(row)}"]
    tensors = [entry for entry in row.detail.get("tensors", ()) if entry[-1]][:SHOWN]
    if tensors:
        width = max(len(entry[0]) for entry in tensors)
        lines.append(f"  {'tensor':{width}}  {'error':>8}  {'limit':>8}  {'noise':>8}")
        lines += [f"  {name:{width}}  {short(error):>8}  {short(limit):>8}  {short(noise):>8}"
                  for name, error, noise, _, limit, _ in tensors]
    return lines


@functools.cache
def workers() -> Twins:
    """Both workers, for the whole session; they import from where this process does."""
    twins = Twins(paths=import_paths())
    atexit.register(twins.close)
    return twins


def import_paths() -> list[str]:
    """The folders on sys.path that a new interpreter would not search by itself."""
    own = [os.path.realpath(sysconfig.get_path(kind)) for kind in ("stdlib", "platstdlib", "purelib", "platlib")]
    folders = [os.path.realpath(folder) for folder in sys.path if os.path.isdir(folder or ".")]
    return [f for f in folders if not any(f == o or f.startswith(o + os.sep) for o in own)]


def _modes(level: str, modes: tuple[str, ...]) -> tuple[str, ...]:
    """All, or the first where the level does not depend on the mode."""
    once = getattr(importlib.import_module(CHECKS[level].split(":")[0]), "ONCE", False)
    return modes[:1] if once else modes


def _within(kind: str, wanted: Iterable[str] | None, offered: tuple[str, ...]) -> tuple[str, ...]:
    wanted = offered if wanted is None else tuple(wanted)
    for name in wanted:
        if name not in offered:
            raise UserError(f"no {kind} {name!r} in this case{choose_from(name, offered)}")
    return wanted
