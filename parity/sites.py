"""Dropout that both frameworks draw alike: its masks come from counters, not from a stream.

Covered are dropout layers; a model that calls dropout as a function needs an injection of its own. Layers with a
`site`, which are this project's, draw from counters already.
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
    """Inside, every dropout layer in training multiplies by the mask of its path and of the number of its call."""
    layers, seen = [], set()
    for path, part in side.parts(module).items():
        if id(part) not in seen and is_site(part) and not hasattr(part, "site"):
            seen.add(id(part))
            layers.append((path, part))
    # An attribute of the layer itself, not an interception of its calls: a trace still sees them.
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
    """What stands in for one layer: x times its mask over 1 - p, x (B, …) unchanged outside training."""
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
    """Of being dropped: `p`, or `drop_prob` as stochastic depth calls it in most libraries, None meaning 0."""
    return float((part.p if hasattr(part, "p") else part.drop_prob) or 0.0)


def mask_shape(part, shape: tuple[int, ...]) -> tuple[int, ...]:
    """One value for each element, for each channel of (B, C, …), or for each sample."""
    kind = type(part).__name__
    kept = len(shape) if kind in ELEMENTS else 2 if kind in CHANNELS else 1
    return shape[:kept] + (1,) * (len(shape) - kept)


def mask(site: str, shape: tuple[int, ...], p: float) -> np.ndarray:
    """0 with probability p, else 1 / (1 - p); float32."""
    kept = Draws(SEED).uniform(site, shape) >= p
    return kept.astype(np.float32) / np.float32(1 - p) if p < 1 else np.zeros(shape, np.float32)
