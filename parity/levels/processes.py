"""Several processes against one: a step of two processes that share a batch equals the step of one process.

Both twins take it from the states that a run of PyTorch goes through, each with its own way for processes to meet. The
truth is what one process of float64 PyTorch makes of the same state, and the rules are those of L6. All processes must
end with the same weights, to the last bit.
"""
import numpy as np

from jittwin.processes import differing
from jittwin.weights import content_hash
from parity.levels.trajectory import LOOKS, PERTURBATIONS, changes, judged, nearby, step, still
from parity.result import Row, row
from parity.training import Training, advance, train
from parity.workers.compare import Verdict
from parity.workers.group import together
from parity.workers.oracle import Comparison, Twins, measure
from parity.workers.side import Arrays, Side, group, grouped
from parity.workers.worker import Worker, reference

PROCESSES = 2


def steps(side: Side, arrays: Arrays, states: dict[str, dict], resting: dict[str, list], **arguments) -> Arrays:
    """In each of several processes: the changes that the next step makes to each of some states, "<number>/…".

    Only the first process, which has the checkpoint, tells them. "<number>/equal" is whether all have the same weights.
    """
    found = {}
    for number, state in states.items():
        before = group(arrays, number)
        outcome = train(side, before, state=state or None, steps=int(number) + 1, **arguments)
        apart = differing(side.backend, {"weights": content_hash(outcome.ended)})
        if side.backend.rank == 0:
            found |= grouped(number, {**changes(before, outcome, resting[number]), "equal": np.array([apart is None])})
    return found


class Start:
    """A state from which a step begins, and what the step should make of it."""

    def __init__(self, twins: Twins, number: int, arrays: Arrays, state: dict, **arguments):
        self.arrays, self.state = arrays, state
        arguments = {**arguments, "state": state, "steps": number + 1}
        _, found = twins.torch.call(still, arrays, **arguments)
        self.resting = found["names"]
        truth, self.measured = twins.torch.call(
            measure, arrays, function=reference(step), perturbations=PERTURBATIONS[arguments["size"]],
            arguments={**arguments, "still": self.resting})
        self.truth = group(truth, "truth")

    def judged(self, candidate: Arrays) -> dict[str, Verdict]:
        return judged(Comparison(candidate, self.truth, self.measured["own"], self.measured["noise"], {}))


def check(case: Training, size: str, mode: str, twins: Twins) -> list[Row]:
    """One row per framework. A step that fails is tried again from nearby states, as in L6."""
    arguments = {"case": case.reference(), "size": size}
    reached, arrays, state = {}, {}, None
    for number in case.shared(size):
        arrays, state = twins.torch.call(advance, arrays, state=state, steps=number, **arguments)
        reached[number] = arrays, state
    return [row(case.name, "processes", name, _verdicts(case, twins, worker, reached, arguments), case.dtype)
            for name, worker in (("torch", twins.torch), ("jittor", twins.jittor))]


def _verdicts(case: Training, twins: Twins, worker: Worker, reached: dict, arguments: dict) -> dict[str, Verdict]:
    verdicts, open_steps, same = {}, list(reached), True
    for look in range(LOOKS):
        starts = {number: Start(twins, number, nearby(reached[number][0], look), reached[number][1], **arguments)
                  for number in open_steps}
        candidates, _ = worker.call(
            together, {key: a for number, start in starts.items()
                       for key, a in grouped(str(number), start.arrays).items()},
            processes=PROCESSES, function=reference(steps),
            arguments={**arguments, "states": {str(number): start.state for number, start in starts.items()},
                       "resting": {str(number): start.resting for number, start in starts.items()}})
        open_steps = []
        for number, start in starts.items():
            candidate = group(candidates, str(number))
            same = bool(candidate.pop("equal")[0]) and same
            found = start.judged(candidate)
            verdicts |= {f"{name}, step {number}": verdict for name, verdict in found.items()}
            if not all(verdict.passed for verdict in found.values()):
                open_steps.append(number)
        if not open_steps:
            break
    reason = "" if same else "the processes end with different weights"
    return {**verdicts, "equal in all processes": Verdict(float(not same), 0.0, 0.0, 0.0, reason)}
