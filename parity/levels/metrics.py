"""L8: the metrics and pictures that come out in the end. Whole numbers must be equal, others within two units in
the last place.

A whole number may have been rounded from a value so near to a boundary that the error allowed to that value decides
on which side it falls. Such a flip is excused, counted and reported. The float64 truth says how near the value is.
"""
import numpy as np

from parity.case import Case, arrays_for, load
from parity.result import Row, row
from parity.workers.compare import Verdict, equal, near, rms
from parity.workers.oracle import Comparison, Twins
from parity.workers.side import Arrays, Side

ULPS = 2
EXACT = "exact "      # "exact <name>" are real numbers that a network computed; <name>, if there, is their whole part


def measured(side: Side, arrays: Arrays, case: dict, size: str, mode: str) -> Arrays:
    """In a worker: see the `measured` of the case."""
    return load(case).measured(side, arrays, size, mode)


def check(case: Case, size: str, mode: str, twins: Twins) -> list[Row]:
    found = twins.compare(measured, arrays_for(case, twins, size, mode), case=case.reference(), size=size, mode=mode)
    verdicts, flips = judged(found)
    counted = {name: found.truth[name].size for name in flips}
    return [row(case.name, "L8", mode, verdicts, case.dtype, size=size, flips=flips, counted=counted)]


def judged(found: Comparison) -> tuple[dict[str, Verdict], dict[str, int]]:
    """Verdicts by name, and the number of excused flips of every array of rounded numbers."""
    verdicts, flips = found.verdicts(), {}
    for name in found.truth.keys() & found.candidate.keys():
        seen, truth = found.candidate[name], found.truth[name]
        if name.startswith(EXACT):
            continue
        if EXACT + name in found.truth:
            exact = found.truth[EXACT + name]
            margin = verdicts[EXACT + name].limit * rms(exact)
            verdicts[name], flips[name] = rounded(seen, exact, margin)
        else:
            floating = np.issubdtype(truth.dtype, np.floating)
            verdicts[name] = near(seen, truth, ULPS) if floating else equal(seen, truth)
    return verdicts, flips


def rounded(candidate: np.ndarray, exact: np.ndarray, margin: float) -> tuple[Verdict, int]:
    """Compare `candidate` with the whole parts of `exact`. Returns the verdict, and the number of excused flips: of
    elements that are the next whole number because `exact` is within `margin` of it."""
    if candidate.shape != exact.shape:
        return equal(candidate, exact), 0
    whole, scale = np.floor(exact), max(rms(exact), np.finfo(float).tiny)
    allowed = (np.floor(exact - margin) <= candidate) & (candidate <= np.floor(exact + margin))
    wrong, flips = int(np.sum(~allowed)), int(np.sum(allowed & (candidate != whole)))
    error = float(np.abs(candidate - whole).max(initial=0.0)) / scale
    reason = f"{wrong} of {exact.size} differ, further from a boundary than {margin:.1e}" if wrong else ""
    step = 1 / scale if flips else 0.0        # the relative error of one excused flip
    return Verdict(error, 0.0, step, (1 + margin) * step, reason), flips
