"""Learning-rate schedules in closed form: functions from the step (or epoch) number, from 0, to a multiplier.

Closed forms need no state in a checkpoint and give both twins the same number at every step.
`step` counts optimizer steps or epochs, as the caller chooses; all lengths are in the same unit.
"""
import math
from collections.abc import Callable, Sequence

Schedule = Callable[[int], float]


def constant() -> Schedule:
    """Always 1."""
    return lambda step: 1.0


def linear(start: int, end: int, floor: float = 0.0) -> Schedule:
    """1 up to `start`, then a straight line that reaches `floor` at `end` and stays there."""
    if end <= start:
        raise ValueError(f"linear schedule: end {end} must be greater than start {start}")
    return lambda step: 1.0 - (1.0 - floor) * min(max(step - start, 0) / (end - start), 1.0)


def step(every: int, factor: float = 0.1) -> Schedule:
    """1, multiplied by `factor` each time `every` steps have passed."""
    if every < 1:
        raise ValueError(f"step schedule: every={every} must be at least 1")
    return lambda step: factor ** (step // every)


def multistep(milestones: Sequence[int], factor: float = 0.1) -> Schedule:
    """1, multiplied by `factor` at each milestone."""
    return lambda step: factor ** sum(step >= milestone for milestone in milestones)


def cosine(length: int, floor: float = 0.0) -> Schedule:
    """Half a cosine from 1 to `floor` over `length` steps, then `floor` (Loshchilov and Hutter, 2017)."""
    if length < 1:
        raise ValueError(f"cosine schedule: length {length} must be at least 1")
    return lambda step: floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * min(step / length, 1.0)))


def exponential(factor: float) -> Schedule:
    """factor ** step."""
    return lambda step: factor ** step


def warmup(length: int, after: Schedule, start: float = 0.0) -> Schedule:
    """A straight line from `start` to 1 over `length` steps, then `after`, counted from its own 0."""
    if length < 1:
        return after
    return lambda step: start + (1.0 - start) * step / length if step < length else after(step - length)
