"""Which fingerprints make PyTorch agree with a port that disagrees: the search behind `explain`."""
import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass

from parity.fingerprints import FINGERPRINTS, applied
from parity.fingerprints.fingerprint import Refused
from parity.fingerprints.patch import concerns, listening
from parity.result import severity
from parity.workers.compare import Comparison, Verdict
from parity.workers.oracle import compute, measure, widened
from parity.workers.side import Arrays, Side, group, grouped
from parity.workers.worker import WorkerError

CONFIRMED = 3           # how many of the cheap search's best are measured with noise of their own
TOGETHER = 3            # how many differences one failure may be explained by
HOPELESS = 0.05         # the fraction of the residual that a first difference must remove for a second to be tried
MOST = 12.0             # the excess of an infinite error, orders of magnitude


@dataclass(frozen=True)
class Suspect:
    """One fingerprint or several at once, and how far they explain a failure.

    ids: their ids. worst: the name of the worst tensor. before, after: its error without and with them; limit: the
    largest error that passes. removed: the fraction of the residual that they remove. explains: nothing remains.
    refuses: nothing could be compared, since Jittor raised an error, as PyTorch does with the fingerprint.
    """
    ids: tuple[str, ...]
    worst: str
    before: float
    after: float
    limit: float
    removed: float
    explains: bool
    refuses: bool = False

    @property
    def name(self) -> str:
        return "+".join(self.ids)

    def lines(self) -> list[str]:
        """What it is and how to neutralise it, per id."""
        return [f"{FINGERPRINTS[id].title}; remedy: {FINGERPRINTS[id].remedy}" for id in self.ids]


def excess(verdict: Verdict) -> float:
    """How far a tensor's error is beyond its limit, in orders of magnitude. 0 within the limit, also if the tensor
    fails because noise hides the signal: then no error is left to explain."""
    if verdict.passed or verdict.error <= verdict.limit:
        return 0.0
    return min(MOST, math.log10(1 + min(severity(verdict), 10 ** MOST)))


def shared(comparison: Comparison) -> dict[str, Verdict]:
    """The verdicts of the tensors that both twins return; a twin that wraps a library's model has other modules."""
    return comparison.verdicts([name for name in comparison.truth if name in comparison.candidate])


def total(comparison: Comparison) -> float:
    return sum(map(excess, shared(comparison).values()))


def residuals(side: Side, arrays: Arrays, function: str, arguments: dict, comparison: dict,
              with_ids: Sequence[str] = ()) -> tuple[Arrays, dict]:
    """In the PyTorch worker: the total excess with each fingerprint, applied in addition to `with_ids`, by its id.

    Fingerprints that change nothing here, and those with which the function does not run, are left out.
    arrays: "arrays/…" for the function, "candidate/…" and "unsure/…". comparison: "own" and "noise" as measured
    without fingerprints.
    """
    wide, candidate, unsure = widened(group(arrays, "arrays")), group(arrays, "candidate"), group(arrays, "unsure")

    def truth(*contexts) -> Arrays:
        with ExitStack() as stack:
            for context in contexts:
                stack.enter_context(context)
            stack.enter_context(side.double())
            return compute(side, wide, function, arguments)[0]

    def held():
        return applied("+".join(with_ids)) if with_ids else nullcontext()

    heard, found = listening(), {}
    plain = truth(held(), heard)
    for id in (id for id in FINGERPRINTS if id not in with_ids):
        if not concerns(FINGERPRINTS[id].patch(), heard.called):
            continue
        try:
            changed = truth(held(), applied(id))
        except Exception:       # for example at a shape that the variant cannot compute: it explains nothing here
            continue
        if not same(changed, plain):
            known = {kind: {name: comparison[kind].get(name, 0.0) for name in changed} for kind in ("own", "noise")}
            found[id] = total(Comparison(candidate, changed, values={}, unsure=unsure, **known))
    return {}, found


def same(one: Arrays, other: Arrays) -> bool:
    return one.keys() == other.keys() and all(
        a.shape == other[name].shape and a.tobytes() == other[name].tobytes() for name, a in one.items())


@dataclass(frozen=True)
class Failure:
    """A comparison that failed, and all it takes to repeat its PyTorch side.

    comparison: None where a worker raised an error. error: the text of that error.
    """
    function: Callable | str
    arrays: Arrays
    arguments: dict
    comparison: Comparison | None
    error: str = ""

    @property
    def excess(self) -> float:
        return total(self.comparison)


def search(failure: Failure, twins) -> list[Suspect]:
    """Suspects, the best first: those that explain the failure, then by how much of it they remove.

    Where no single fingerprint explains it, the best one is kept and joined by a second, and by a third.
    """
    if failure.comparison is None:
        return refusals(failure, twins)
    suspects, held = [], ()
    for _ in range(TOGETHER):
        found = sorted((remaining, id) for id, remaining in cheap(failure, twins, held).items())
        tried = [confirmed(failure, twins, (*held, id), remaining) for remaining, id in found[:CONFIRMED]]
        tried += [estimated(failure, (*held, id), remaining) for remaining, id in found[CONFIRMED:]]
        suspects += [s for s in tried if s.removed > 0 and (not held or s.explains)]
        best = max(tried, key=quality, default=None)
        if best is None or best.explains or best.removed < HOPELESS:
            break
        held = best.ids
    return sorted(suspects, key=quality, reverse=True)


def refusals(failure: Failure, twins) -> list[Suspect]:
    """The fingerprints with which PyTorch raises the error that Jittor raised; none if plain PyTorch raises one."""
    try:
        _, values = twins.torch.call(refusing, failure.arrays, function=failure.function, arguments=failure.arguments,
                                      error=failure.error)
    except WorkerError:
        return []
    return [Suspect((id,), "", math.inf, 0.0, 0.0, 1.0, True, refuses=True) for id in values["ids"]]


def refusing(side: Side, arrays: Arrays, function: str, arguments: dict, error: str) -> tuple[Arrays, dict]:
    """In the PyTorch worker: the ids of `refusals`."""
    found = []
    with listening() as heard:
        compute(side, arrays, function, arguments)
    for id in (id for id in FINGERPRINTS if concerns(FINGERPRINTS[id].patch(), heard.called)):
        try:
            with applied(id):
                compute(side, arrays, function, arguments)
        except Refused as refused:
            found += [id] if str(refused) in error else []
        except Exception:       # for example at a shape that the variant cannot compute: it explains nothing here
            continue
    return {}, {"ids": found}


def quality(suspect: Suspect) -> tuple:
    return suspect.explains, -len(suspect.ids), suspect.removed


def cheap(failure: Failure, twins, held: tuple[str, ...]) -> dict[str, float]:
    c = failure.comparison
    arrays = {**grouped("arrays", failure.arrays), **grouped("candidate", c.candidate), **grouped("unsure", c.unsure)}
    _, found = twins.torch.call(residuals, arrays, function=failure.function,
                                arguments=failure.arguments, comparison={"own": c.own, "noise": c.noise},
                                with_ids=list(held))
    return found


def confirmed(failure: Failure, twins, ids: tuple[str, ...], remaining: float) -> Suspect:
    """A suspect measured like any comparison: with truth, own error and noise of PyTorch under the fingerprints."""
    try:
        arrays, measured = twins.torch.call(measured_under, failure.arrays, ids=list(ids), function=failure.function,
                                            arguments=failure.arguments)
    except WorkerError:         # the function runs in float64 only
        return estimated(failure, ids, remaining)
    changed = Comparison(failure.comparison.candidate, group(arrays, "truth"), measured["own"], measured["noise"],
                         {}, group(arrays, "unsure"))
    verdicts, before = shared(changed), shared(failure.comparison)
    name = max(verdicts, key=lambda name: (excess(verdicts[name]), before[name].error if name in before else 0))
    remaining = total(changed)
    return Suspect(ids, name, before[name].error if name in before else math.inf, verdicts[name].error,
                   verdicts[name].limit, 1 - remaining / failure.excess, remaining == 0)


def measured_under(side: Side, arrays: Arrays, ids: Sequence[str], **asked) -> tuple[Arrays, dict]:
    """In the PyTorch worker: what `measure` finds while PyTorch computes as these fingerprints say."""
    with applied("+".join(ids)):
        return measure(side, arrays, **asked)


def estimated(failure: Failure, ids: tuple[str, ...], remaining: float) -> Suspect:
    return Suspect(ids, "", math.nan, math.nan, math.nan, 1 - remaining / failure.excess, False)
