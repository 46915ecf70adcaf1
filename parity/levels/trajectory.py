"""L6: the real training loop, step by step.

Re-anchored: before every step Jittor takes over the whole state of PyTorch (weights, running statistics, optimizer,
position), so rounding errors do not grow from step to step, and any number of steps can be compared. The truth of a
step is what float64 PyTorch makes of the same state.
Free: both frameworks go on alone from one state. A step counts as long as float32 PyTorch itself is near the truth.
"""
import json
from collections.abc import Collection, Iterable, Mapping

import numpy as np

from jittwin.draws import Draws
from jittwin.weights import content_hash
from parity.result import Row, row
from parity.training import Outcome, Training, advance, train
from parity.workers.compare import NEARLY_NOTHING, NOTHING, Verdict, equal, is_update, rms
from parity.workers.oracle import Comparison, Twins, widened
from parity.workers.side import Arrays, Side

NEAR = 1e-3          # a free run counts up to this error of float32 PyTorch, relative to the norm of the update
PERTURBATIONS = {"tiny": 4, "full": 2}   # that measure the noise, each a training run; fewer give tighter limits
LEAST = 3            # steps that a free run should count for
LOOKS = 3            # states that a step is compared from: a fault shows in all, a flipped ReLU sign in one only
NEARBY = 2.0 ** -10  # relative distance of the further states
EXACT = ("position", "rates", "counts")


def changes(before: Arrays, outcome: Outcome, still: Collection[str] = ()) -> Arrays:
    """The changes that training made to a checkpoint, in few arrays.

    "update <network>", "update statistics of <network>", "update moments of <optimizer>": the differences, one
    vector each; parameters that a new phase adds count from their initial values. "update frozen weights of
    <network>": the same of weights that no checkpoint holds. "losses": of the last step. "counts": the optimizers'
    steps. "rates": learning rates. "position": epoch, step, and steps in all. "measures": of an epoch that has just
    ended. "still": the largest gradient of each parameter named in `still`, relative to the largest of all; the
    updates leave these parameters out.
    """
    parts: dict[str, list] = {}
    before = {**outcome.begun, **before}
    for key in sorted(set(outcome.arrays) - set(still)):
        stem, _, name = key.partition("/")
        value = np.asarray(outcome.arrays[key], np.float64)
        if stem == "optimizer":
            kind = "counts" if name.endswith("/step") else f"update moments of {name.split('/')[0]}"
        else:
            kind = f"update {stem}" if name in outcome.parameters[stem] else f"update statistics of {stem}"
        parts.setdefault(kind, []).append((value - before.get(key, 0) if kind.startswith("update") else value).ravel())
    for key in sorted(outcome.frozen):
        kind = f"update frozen weights of {key.partition('/')[0]}"
        parts.setdefault(kind, []).append((outcome.frozen[key].astype(np.float64) - outcome.begun[key]).ravel())
    found = {kind: np.concatenate(arrays) for kind, arrays in parts.items()}
    found["losses"] = np.array([outcome.losses[name] for name in sorted(outcome.losses)])
    found["position"] = np.array([outcome.state[name] for name in ("epoch", "step", "global_step")])
    if measures := outcome.state.get("measures"):
        found["measures"] = np.array([measures[name] for name in sorted(measures)], np.float64)    # None is NaN
    if outcome.rates:
        found["rates"] = np.concatenate([outcome.rates[name] for name in sorted(outcome.rates)])
    if outcome.gradients:
        sizes = {name: np.abs(a).max() for name, a in outcome.gradients.items()}
        found["still"] = np.array([sizes.get(name, 0.0) / max(sizes.values()) for name in still], np.float64)
    return found


def step(side: Side, arrays: Arrays, still: Collection[str] = (), **arguments) -> Arrays:
    """In a worker: the changes that one training run makes. arguments: as of `train`."""
    return changes(arrays, (true_outcome if side.wide else train)(side, arrays, **arguments), still)


def true_outcome(side: Side, arrays: Arrays, **arguments) -> Outcome:
    """What a run in float64 leaves. The last one is kept, because `still` and the truth of `step` need the same."""
    key = content_hash(arrays), json.dumps(arguments, sort_keys=True)
    if side.last_true is None or side.last_true[0] != key:
        side.last_true = key, train(side, arrays, **arguments)
    return side.last_true[1]


def still(side: Side, arrays: Arrays, **arguments) -> tuple[Arrays, dict]:
    """PyTorch only: the names of the parameters whose true gradient is zero, such as biases before a normalisation.

    In float32 their gradient is only a rounding error, of which Adam takes the sign and makes a whole step. Returns
    also the values that a new phase adds to the checkpoint, and the keys of all parameters by network.
    """
    with side.double():
        outcome = true_outcome(side, widened(arrays), **arguments)
    sizes = {name: rms(a) for name, a in outcome.gradients.items()}
    added = {name: a.astype(np.float32) for name, a in outcome.begun.items() if name not in arrays}
    return added, {"names": [name for name, size in sizes.items() if size <= NOTHING * max(sizes.values())],
                   "parameters": outcome.parameters}


def free(side: Side, arrays: Arrays, still: Collection[str], state: dict, steps: int, **arguments) -> Arrays:
    """In a worker: the changes after 1 step, 2 steps … `steps` steps from a checkpoint."""
    found, now, begun = {}, arrays, state["global_step"]
    for count in range(1, steps + 1):
        outcome = train(side, now, state=state, steps=begun + count, **arguments)
        now, state = outcome.arrays, outcome.state
        found |= {f"{name} after {count}": a for name, a in changes(arrays, outcome, still).items()}
    return found


def judged(found: Comparison, names: Iterable[str] | None = None) -> dict[str, Verdict]:
    """Verdicts of changes. Counts, and values that follow from a closed form, must be equal."""
    verdicts = found.verdicts(names)
    for name in verdicts.keys() & found.candidate.keys() & found.truth.keys():
        kind = name.split(" ")[0]
        if kind in EXACT:
            verdicts[name] = equal(found.candidate[name], found.truth[name])
        elif kind == "still":
            verdicts[name] = stays(found.candidate[name])
    return verdicts


def stays(gradients: np.ndarray) -> Verdict:
    """Whether gradients whose true value is zero are nearly zero. gradients: relative to the largest of all."""
    seen = float(gradients.max(initial=0.0))
    reason = "" if seen <= NEARLY_NOTHING else f"{seen:.1e} of the largest gradient where the truth is zero"
    return Verdict(seen, 0.0, 0.0, NEARLY_NOTHING, reason)


def check(case: Training, size: str, mode: str, twins: Twins) -> list[Row]:
    """Two rows: re-anchored at the case's `checked` steps, and free from the second of them on."""
    return [anchored(case, size, twins), freely(case, size, twins)]


def compared(twins: Twins, arrays: Arrays, **arguments) -> dict[str, Verdict]:
    """The verdicts of one step from a checkpoint."""
    _, found = twins.torch.call(still, arrays, **arguments)
    size = arguments["size"]
    return judged(twins.compare(step, arrays, perturbations=PERTURBATIONS[size], keep=size == "tiny",
                                still=found["names"], **arguments))


def nearby(arrays: Arrays, look: int) -> Arrays:
    """The same checkpoint with every weight, statistic and moment moved a little; look 0 moves nothing."""
    draws = Draws(17, look)
    return {name: a if a.dtype != np.float32 or not look else
            a * (1 + np.float32(NEARBY) * (2 * draws.uniform(name, a.shape) - 1)) for name, a in arrays.items()}


def anchored(case: Training, size: str, twins: Twins) -> Row:
    """One row for all steps. If a step fails, the same step from nearby states decides; the row's detail lists such
    steps as "again"."""
    arguments = {"case": case.reference(), "size": size}
    verdicts, curve, arrays, state, again = {}, [], {}, None, []
    for number in case.checked(size):
        arrays, state = twins.torch.call(advance, arrays, state=state, steps=number, **arguments)
        for look in range(LOOKS):
            found = compared(twins, nearby(arrays, look), state=state, steps=number + 1, **arguments)
            if all(verdict.passed for verdict in found.values()):
                break
            again.append(number)
        curve.append(farthest(f"step {number}", found))
        verdicts |= {f"{name}, step {number}": verdict for name, verdict in found.items()}
    return row(case.name, "L6", "re-anchored", verdicts, case.dtype, curve=curve, steps=len(curve), again=again,
               worst_ratio=max(v.ratio for name, v in verdicts.items() if is_update(name)))


def freely(case: Training, size: str, twins: Twins) -> Row:
    """The run from the second of the case's checked steps on; from a later one if float32 PyTorch soon leaves the truth
    there, because a sign is undecided."""
    for begun in case.checked(size)[1:1 + LOOKS]:
        found = freely_from(begun, case, size, twins)
        if found.detail["steps"] >= LEAST:
            break
    return found


def freely_from(begun: int, case: Training, size: str, twins: Twins) -> Row:
    arguments = {"case": case.reference(), "size": size}
    arrays, state = twins.torch.call(advance, {}, state=None, steps=begun, **arguments)
    _, resting = twins.torch.call(still, arrays, state=state, steps=begun + 1, **arguments)
    found = twins.compare(free, arrays, perturbations=PERTURBATIONS[size], still=resting["names"], state=state,
                          steps=case.free_steps, **arguments)
    verdicts, counted, drifts = {}, 0, []
    for count in range(1, case.free_steps + 1):
        # Losses are left out: they depend on the parameters with zero gradient, which drift.
        names = [name for name in found.truth
                 if name.endswith(f" after {count}") and name.split(" ")[0] in ("update", *EXACT)]
        drifts.append(max(found.own[name] for name in names if name.startswith("update ")))
        if drifts[-1] < NEAR and counted == count - 1:
            verdicts, counted = verdicts | judged(found, names), count
    return row(case.name, "L6", "free", verdicts, case.dtype, steps=counted, begun=begun, drift=drifts)


def farthest(label: str, verdicts: Mapping[str, Verdict]) -> list:
    """The update of one step that is nearest to its limit, as a point of the growth curve."""
    updates = [v for name, v in verdicts.items() if is_update(name)]
    worst = max(updates, key=lambda v: v.error / v.limit if v.limit else v.error)
    return [label, worst.error, worst.noise, worst.limit]
