"""`@parity_case(pair)` makes pytest tests that prove a port, one per level and mode."""
import atexit
import functools
import inspect
import os
import sys
import sysconfig
from collections.abc import Callable, Iterable, Mapping

import pytest

from jittwin.errors import UserError, choose_from
from parity.case import Case
from parity.explain.finding import Finding, RecordingTwins
from parity.explain.search import search
from parity.fingerprints import FINGERPRINTS
from parity.pair import Pair
from parity.report.report import explained, short, title
from parity.result import Row
from parity.runner import Step, modes_of, perform
from parity.workers.oracle import Twins
from parity.workers.worker import WorkerError

SHOWN = 5      # tensors in a message


def parity_case(case: Case, levels: Iterable[str] | None = None, modes: Iterable[str] | None = None,
                xfail: Mapping[str, str] | None = None) -> Callable:
    """Make tests of the decorated function: "test_name[L3-train]" for every level and mode of the case.

    A failing test shows the numbers of the tensors that differ, the modules at fault, and the known difference that
    explains the failure. If the comparison passes, the function's body runs, for further assertions. Its parameter
    `report`, if it has one, gets the rows (parity.result.Row); its other parameters are fixtures as usual.
    levels, modes: some of the case's; None for all. xfail: the known differences that are accepted, such as
    {"L3-train": "N4"}. Such a test fails if the comparison passes, or if another difference or none explains it.
    UserError: an unknown level, mode, test or catalogue entry.
    """
    levels, modes = _within("level", levels, case.levels), _within("mode", modes, case.modes)
    steps = {f"{level}-{mode}": Step(level, case, case.sizes[0], mode)
             for level in levels for mode in modes_of(level, modes)}
    accepted = dict(xfail or {})
    for test, id in accepted.items():
        _within("test", [test], steps)
        _within("catalogue entry", [id], FINGERPRINTS)

    def decorate(test: Callable) -> Callable:
        parameters = inspect.signature(test).parameters

        @functools.wraps(test)
        def proof(parity_test, **fixtures):
            rows = prove(steps[parity_test], workers(), accepted.get(parity_test, ""))
            return test(**fixtures, **({"report": rows} if "report" in parameters else {}))

        proof.__signature__ = inspect.Signature(
            [inspect.Parameter("parity_test", inspect.Parameter.KEYWORD_ONLY),
             *(p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters.values() if p.name != "report")])
        return pytest.mark.parametrize("parity_test", steps)(proof)

    return decorate


def prove(step: Step, twins: Twins, accepted: str = "") -> list[Row]:
    """The rows of one level in one mode. If one fails, the running test fails, as `parity_case` describes.

    accepted: the catalogue entry that may explain a failure; "" for none.
    """
    recorder = RecordingTwins(twins)
    rows = perform(step, recorder)
    failing = [row for row in rows if not row.passed]
    if not failing:
        if accepted:
            pytest.fail(f"{title(rows[0])} passes: take {accepted} out of xfail", pytrace=False)
        return rows
    if reason := misfit(step.case, twins):
        pytest.fail(reason, pytrace=False)      # nothing else means anything before the weights fit
    failure = recorder.take()
    finding = Finding(step.case.name, step.level, step.mode, "", search(failure, twins) if failure else [])
    lines = [line for row in failing for line in described(row)] + (finding.lines()[1:] if finding.explained else [])
    if accepted and finding.named == accepted:
        pytest.xfail(f"{accepted}: {FINGERPRINTS[accepted].title}")
    pytest.fail("\n".join(lines), pytrace=False)


def misfit(case: Case, twins: Twins) -> str:
    """Why the weights of a Pair do not fit; "" if they fit, or if even this cannot be found out."""
    try:
        return case.misfit(twins) if isinstance(case, Pair) else ""
    except (UserError, WorkerError):
        twins.renew()
        return ""                               # the row says what is wrong


def described(row: Row) -> list[str]:
    """Why a row failed, and the tensors that are farthest off."""
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
    """Both workers, shared by the whole session. They search the same folders for modules as this process does."""
    twins = Twins(paths=import_paths())
    atexit.register(twins.close)
    return twins


def import_paths() -> list[str]:
    """The folders on sys.path that a new interpreter would not search by itself."""
    own = [os.path.realpath(sysconfig.get_path(kind)) for kind in ("stdlib", "platstdlib", "purelib", "platlib")]
    folders = [os.path.realpath(folder) for folder in sys.path if os.path.isdir(folder or ".")]
    return [f for f in folders if not any(f == o or f.startswith(o + os.sep) for o in own)]


def _within(kind: str, wanted: Iterable[str] | None, offered: Iterable[str]) -> tuple[str, ...]:
    """The wanted names, or all that are offered if `wanted` is None. UserError for a name that is not offered."""
    wanted = tuple(offered if wanted is None else wanted)
    for name in wanted:
        if name not in offered:
            raise UserError(f"no {kind} {name!r}{choose_from(name, offered)}")
    return wanted
