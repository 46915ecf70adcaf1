"""Exponential moving averages of weights, kept in float32 on the device."""
from collections.abc import Mapping

import numpy as np

from jittwin.backend import Backend, Tensor

STATISTICS = ("running_mean", "running_var")       # last names of the statistics of normalisations


class Ema:
    """The averages of several modules' states: average += (1 - decay) * (value - average).

    form="rising": the decay is at most (1 + step) / (10 + step), so that the average soon forgets the initial
    weights. This limit depends on the step number only, so a resumed run computes the same averages.
    form="constant": the decay is the same in every step, the average starts from the initial weights (see `start`), and
    running statistics are not averaged but copied.
    Integer tensors (counters) are copied. A key that a module loses is dropped. A key that it gains,
    or whose shape changes, starts from the current value.
    """

    def __init__(self, backend: Backend, decay: float, form: str = "rising"):
        self.backend, self.decay, self.form = backend, decay, form
        self.averages: dict[str, dict[str, Tensor]] = {}

    def start(self, name: str, state: Mapping[str, Tensor]) -> None:
        """Begin with the state of module `name` before the first step. A rising decay begins after it instead."""
        if self.form == "constant":
            self.update(name, state, 0)

    def restore(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Go on from these averages of module `name`."""
        self.averages[name] = {key: self.backend.copy(self.backend.asarray(array)) for key, array in arrays.items()}

    def update(self, name: str, state: Mapping[str, Tensor], step: int) -> None:
        """Update the averages of module `name` with its state after `step` steps (the first step is 1)."""
        decay = self.decay if self.form == "constant" else min(self.decay, (1 + step) / (10 + step))
        old = self.averages.get(name, {})
        kept = {key: old[key] for key, value in state.items() if key in old and self.follows(key, old[key], value)}
        if kept:
            self.backend.follow(list(kept.values()), [state[key] for key in kept], 1.0 - decay)
        self.averages[name] = {key: kept[key] if key in kept else self.backend.copy(value)
                               for key, value in state.items()}

    def follows(self, key: str, average: Tensor, value: Tensor) -> bool:
        """Whether the average of a key goes on with this value; otherwise it becomes the value."""
        copied = self.form == "constant" and key.endswith(STATISTICS)
        return not copied and "float" in str(value.dtype) and tuple(average.shape) == tuple(value.shape)
