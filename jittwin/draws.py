"""Counter-based random numbers, equal in both twins and in a resumed run.

Every draw is a pure function of (seed, epoch, step, site). There is no generator state,
so nothing has to be saved and the order of the calls does not matter.
"""
import hashlib

import numpy as np

from jittwin.processes import Share


def key(*parts: int | str) -> int:
    """A 128-bit key for a tuple of integers and strings."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:16], "little")


class Draws:
    """The random numbers of one training step. site: name of the place in the code that draws.

    share: the rows of the batch for which this process draws, or None for all. The first axis of every shape is the
    batch, and each row gets the numbers that it gets if one process draws for the whole batch.
    """

    def __init__(self, seed: int, epoch: int = 0, step: int = 0, share: Share | None = None):
        self.address, self.share = (seed, epoch, step), share

    def within(self, part: str) -> "Draws":
        """The draws of one part of the step, independent of those of another part."""
        draws = Draws(0, share=self.share)
        draws.address = (*self.address, part)
        return draws

    def generator(self, site: str) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(key=key(*self.address, site)))

    def normal(self, site: str, shape) -> np.ndarray:
        """Standard normal, float32."""
        return self._own(self.generator(site).standard_normal(self._whole(shape), dtype=np.float32))

    def uniform(self, site: str, shape) -> np.ndarray:
        """Uniform on [0, 1), float32."""
        return self._own(self.generator(site).random(self._whole(shape), dtype=np.float32))

    def integers(self, site: str, low: int, high: int, shape) -> np.ndarray:
        """Uniform integers from low to high, both included, int64."""
        return self._own(self.generator(site).integers(low, high, size=self._whole(shape), endpoint=True))

    def permutation(self, site: str, length: int) -> np.ndarray:
        return self.generator(site).permutation(length)

    def device_seed(self) -> int:
        """A 31-bit seed for the device's own generator, for draws the twins need not share."""
        return key(*self.address, "device") & 0x7FFFFFFF

    def _whole(self, shape):
        """The shape for the whole batch."""
        sides = (shape,) if isinstance(shape, int) else tuple(shape)
        return (self.share.total, *sides[1:]) if self.share and sides else sides

    def _own(self, drawn):
        return drawn[self.share.taken] if self.share and np.ndim(drawn) else drawn
