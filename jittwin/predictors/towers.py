"""Networks for inference, built once for all the predictors and metrics that need the same weights."""
import gc
from collections.abc import Callable, Hashable, Iterable, Mapping
from math import prod
from typing import Any

import numpy as np

from jittwin.backend import Backend, Module
from jittwin.errors import UserError
from jittwin.models.catalog import find
from jittwin.preprocessing import Preprocess
from jittwin.weights import content_hash
from jittwin.weights.state import check_state

FLOAT = 4       # bytes of an element: networks hold float32 whatever the precision of their products


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
        """Free the memory of all networks. A predictor that is used again builds its network again."""
        self._built.clear()
        gc.collect()        # modules of some frameworks refer to themselves


class Tower:
    """A model with these arrays, in inference mode.

    towers: where it is taken from when it is used, and kept for others; None builds it at once, for its owner alone.
    weights: hash of the arrays, computed where it is not known. dtype: in which the network is used. finish: done to a
    new network last. bytes: of its weights. UserError: the arrays do not fit.
    """

    def __init__(self, backend: Backend, model: str, config: Any, arrays: Mapping[str, np.ndarray],
                 towers: Towers | None = None, weights: str | None = None, dtype: str = "float32",
                 allow_unexpected: Iterable[str] = (), finish: Callable[[Module], None] = lambda network: None):
        shapes = backend.state_shapes(model, config)
        check_state(shapes, arrays, allow_unexpected=allow_unexpected)
        self.bytes = FLOAT * sum(map(prod, shapes.values()))

        def build() -> Module:
            backend.free_memory()       # of networks that were released
            network = backend.build(model, config)
            backend.load_numpy(network, arrays, allow_unexpected=tuple(allow_unexpected))
            backend.infer_only(network)
            finish(network)
            return network

        if towers is None:
            self.key, built = None, build()
            self._get = lambda: built
        else:
            self.key = (backend.name, backend.device, model, config, weights or content_hash(arrays), dtype)
            self._get = lambda: towers.get(self.key, build)

    @property
    def network(self) -> Module:
        return self._get()

    def build(self) -> None:
        """Build it before it is used."""
        self._get()


class NetworkPredictor:
    """What the predictors that see a picture with its prompt have in common: a network and what its results depend on.

    weights: with `name`, `config`, `arrays` and `random`. preprocess: of pictures. longest: most tokens of a prompt.
    truncated: the prompts that have more and lost their ends. dtype: precision. towers: networks to share; None builds
    one for this predictor alone.
    """

    def __init__(self, backend: Backend, model: str, weights: Any, preprocess: Preprocess, longest: int,
                 dtype: str = "float32", towers: Towers | None = None):
        self.backend, self.weights, self.config, self.dtype = backend, weights, weights.config, dtype
        self.preprocess, self.longest = preprocess, longest
        self.sha256 = content_hash(weights.arrays)
        self.tower = Tower(backend, model, weights.config, weights.arrays, towers, self.sha256, dtype,
                           find(model).conversion.beside)
        self.truncated: list[str] = []

    @property
    def network(self) -> Module:
        return self.tower.network

    @property
    def provenance(self) -> dict:
        """Names and hashes of everything besides pictures and prompts that results depend on."""
        return {"network": self.config.name, "weights": self.weights.name, "weights_sha256": self.sha256,
                "random_weights": self.weights.random, "backend": self.backend.name, "device": self.backend.device,
                "dtype": self.dtype}


def bytes_of(towers: Iterable[Tower]) -> int:
    """Bytes of the weights of several; a network that they share counts once."""
    return sum({tower.key or id(tower): tower.bytes for tower in towers}.values())


def check_finite(*outputs: np.ndarray) -> None:
    """UserError unless every number that a network gave is finite."""
    if not all(np.isfinite(output).all() for output in outputs):
        raise UserError("the network's output is not finite: the weights are damaged, or need --dtype float32")
