"""Give dropout layers the same masks in both frameworks: counters decide the masks, not a stream of random numbers.

Only dropout layers are covered; a model that calls dropout as a function must inject its masks itself. This
project's own layers, which have a `site`, use counters already.
"""
import contextlib
from collections.abc import Iterator

import numpy as np

from jittwin.draws import Draws
from parity.workers.side import Side

SEED = 17
ELEMENTS, CHANNELS = ("Dropout",), ("Dropout1d", "Dropout2d", "Dropout3d")
SAMPLES = "DropPath"        # stochastic depth (arXiv 1603.09382): how the names of such classes end in every library


@contextlib.contextmanager
def injected(side: Side, module) -> Iterator[None]:
    """While this context lasts, a dropout layer in training mode multiplies by the mask of its path and call number."""
    layers, seen = [], set()
    for path, part in side.parts(module).items():
        if id(part) not in seen and is_site(part) and not hasattr(part, "site"):
            seen.add(id(part))
            layers.append((path, part))
    # The layer's forward is replaced, not the call of the layer, so a trace still sees the call.
    name = "forward" if side.name == "torch" else "execute"
    for path, part in layers:
        part.__dict__[name] = masked(side, path, part)
    try:
        yield
    finally:
        for _, part in layers:
            del part.__dict__[name]


def is_site(part) -> bool:
    kind = type(part).__name__
    return kind in (*ELEMENTS, *CHANNELS) or kind.endswith(SAMPLES)


def masked(side: Side, path: str, part):
    """The replacement of one layer's forward: x (B, …) times the layer's mask; x unchanged outside training."""
    calls = 0

    def call(x):
        nonlocal calls
        number, calls = calls, calls + 1
        p = probability(part)
        training = part.training if side.name == "torch" else part.is_training()
        if not training or not p:
            return x
        values = mask(f"{path}#{number}", mask_shape(part, tuple(x.shape)), p)
        return x * side.tensor(values.astype(np.float64) if side.wide else values)

    return call


def probability(part) -> float:
    """The layer's probability of dropping: `p`, or `drop_prob` of stochastic depth; None means 0."""
    return float((part.p if hasattr(part, "p") else part.drop_prob) or 0.0)


def mask_shape(part, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of the layer's mask: one value per element, per channel of (B, C, …), or per sample."""
    kind = type(part).__name__
    kept = len(shape) if kind in ELEMENTS else 2 if kind in CHANNELS else 1
    return shape[:kept] + (1,) * (len(shape) - kept)


def mask(site: str, shape: tuple[int, ...], p: float) -> np.ndarray:
    """0 with probability p, else 1 / (1 - p); float32."""
    kept = Draws(SEED).uniform(site, shape) >= p
    return kept.astype(np.float32) / np.float32(1 - p) if p < 1 else np.zeros(shape, np.float32)
