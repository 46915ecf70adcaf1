"""Exponential moving averages of weights, kept in float32 on the host."""
from collections.abc import Mapping

import numpy as np


class Ema:
    """The averages of several modules' state arrays: average += (1 - decay) * (value - average).

    Early on the decay is limited to (1 + step) / (10 + step), so that the average forgets the
    initial weights; as this depends on the step number only, a resumed run averages alike.
    Integer arrays (counters) are copied. Keys that a module loses or gains, or whose shape
    changes, follow the module.
    """

    def __init__(self, decay: float):
        self.decay = decay
        self.averages: dict[str, dict[str, np.ndarray]] = {}

    def update(self, name: str, state: Mapping[str, np.ndarray], step: int) -> None:
        """Take in the state of module `name` after `step` steps (the first is 1)."""
        weight = np.float32(1.0 - min(self.decay, (1 + step) / (10 + step)))
        old = self.averages.get(name, {})
        self.averages[name] = {key: self._mix(old.get(key), value, weight) for key, value in state.items()}

    @staticmethod
    def _mix(average: np.ndarray | None, value: np.ndarray, weight: np.float32) -> np.ndarray:
        if average is None or average.shape != value.shape or value.dtype.kind != "f":
            return value.astype(np.float32 if value.dtype.kind == "f" else value.dtype)
        change = np.subtract(value, average, dtype=np.float32)
        change *= weight
        average += change
        return average
