"""Exponential moving averages of weights, kept in float32 on the host."""
from collections.abc import Mapping

import numpy as np

STATISTICS = ("running_mean", "running_var")       # last names of the statistics of normalisations


class Ema:
    """The averages of several modules' state arrays: average += (1 - decay) * (value - average).

    form="rising": the decay is at most (1 + step) / (10 + step), so that the average soon forgets the initial
    weights. This limit depends on the step number only, so a resumed run computes the same averages.
    form="constant": the decay is the same in every step, the average starts from the initial weights (see `start`), and
    running statistics are not averaged but copied.
    Integer arrays (counters) are copied. A key that a module loses is dropped. A key that it gains,
    or whose shape changes, starts from the current value.
    """

    def __init__(self, decay: float, form: str = "rising"):
        self.decay, self.form = decay, form
        self.averages: dict[str, dict[str, np.ndarray]] = {}

    def start(self, name: str, state: Mapping[str, np.ndarray]) -> None:
        """Begin with the state of module `name` before the first step. A rising decay begins after it instead."""
        if self.form == "constant":
            self.update(name, state, 0)

    def update(self, name: str, state: Mapping[str, np.ndarray], step: int) -> None:
        """Update the averages of module `name` with its state after `step` steps (the first step is 1)."""
        decay = self.decay if self.form == "constant" else min(self.decay, (1 + step) / (10 + step))
        weight = np.float32(1.0 - decay)
        old = self.averages.get(name, {})
        if self.form == "constant":
            old = {key: average for key, average in old.items() if not key.endswith(STATISTICS)}
        self.averages[name] = {key: self._mix(old.get(key), value, weight) for key, value in state.items()}

    @staticmethod
    def _mix(average: np.ndarray | None, value: np.ndarray, weight: np.float32) -> np.ndarray:
        if average is None or average.shape != value.shape or value.dtype.kind != "f":
            return value.astype(np.float32 if value.dtype.kind == "f" else value.dtype)
        change = np.subtract(value, average, dtype=np.float32)
        change *= weight
        average += change
        return average
