"""Networks for inference, built once for all the predictors and metrics that need the same weights."""
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any

import numpy as np

from jittwin.backend import Backend, Module
from jittwin.weights import content_hash


class Towers:
    """The networks that were built, until they are released."""

    def __init__(self):
        self._built: dict[Hashable, Module] = {}

    def get(self, key: Hashable, build: Callable[[], Module]) -> Module:
        """The network of this key; `build` makes it if there is none."""
        if key not in self._built:
            self._built[key] = build()
        return self._built[key]

    def release(self) -> None:
        """Forget all networks: their memory is free as soon as no predictor or metric uses them."""
        self._built.clear()


def inference_network(backend: Backend, model: str, config: Any, arrays: Mapping[str, np.ndarray],
                      towers: Towers | None = None, weights: str | None = None, dtype: str = "float32",
                      allow_unexpected: Iterable[str] = (),
                      finish: Callable[[Module], None] = lambda network: None) -> Module:
    """A model with these arrays, in inference mode.

    towers: where it is taken from, and kept for others; None builds it anew. weights: hash of the arrays, computed
    where it is not known. dtype: in which the network is used. finish: done to a new network last. UserError: the
    arrays do not fit.
    """
    def build() -> Module:
        network = backend.build(model, config)
        backend.load_numpy(network, arrays, allow_unexpected=tuple(allow_unexpected))
        backend.train_mode(network, False)
        finish(network)
        return network

    if towers is None:
        return build()
    return towers.get((backend.name, backend.device, model, config, weights or content_hash(arrays), dtype), build)
