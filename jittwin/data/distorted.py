"""Generated pictures with maps of their distortions and votes, as samples for a network."""
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from jittwin import imaging
from jittwin.data.evalmuse import Sample
from jittwin.data.picture_augment import Augmentation
from jittwin.draws import Draws
from jittwin.errors import UserError
from jittwin.preprocessing import Preprocess

CACHED = 256            # resized pictures that a data set keeps: 0.5 GB at 768 pixels


class DistortedDataset:
    """Inputs and targets of the detector of distortion. Pictures are decoded when first asked for and kept, resized.

    way: the preparation of a picture, to a square. side: of the maps, in pixels. augment: None for no augmentation.
    through: side of the square to which a map is brought first, None for none; the original stores maps of 512 pixels.
    cached: most resized pictures in memory. texts: the distinct prompts, in order. UserError: no pictures.
    """

    def __init__(self, samples: Sequence[Sample], way: Preprocess, side: int, augment: Augmentation | None = None,
                 through: int | None = None, cached: int = CACHED):
        if not samples:
            raise UserError("no pictures are left in this part of the data; hold out fewer, or use more")
        self.samples, self.way, self.side, self.augment, self.through = list(samples), way, side, augment, through
        self.names = [sample.name for sample in self.samples]
        numbers = {}
        self.text_of = [numbers.setdefault(sample.prompt, len(numbers)) for sample in self.samples]
        self.texts = list(numbers)
        self.resized = lru_cache(cached)(self._resize)

    def __len__(self) -> int:
        return len(self.samples)

    def _resize(self, index: int) -> tuple[np.ndarray, tuple[int, int]]:
        """The picture uint8 (S, S, 3), and its (height, width) before."""
        image = self.samples[index].read()
        return self.way.resize(image), image.shape[:2]

    def levels(self, index: int) -> np.ndarray:
        """The map before it is resized to `side`, uint8 (h, w) from 0 to 255."""
        levels = self.samples[index].draw(self.resized(index)[1])
        return levels if self.through is None else imaging.resize_levels(levels, (self.through, self.through))

    def get(self, index: int, draws: Draws | None = None) -> dict:
        """dict(pixels float32 (3, S, S), text int64 (), number of its prompt in `texts`, name).

        Where the picture is marked and has a vote also map float32 (1, side, side) and vote float64 (), from 0 to 1.
        draws: needed where the data set augments. UserError: a picture that cannot be decoded.
        """
        sample, image = self.samples[index], self.resized(index)[0]
        found = {"text": np.int64(self.text_of[index]), "name": sample.name}
        if sample.draw:
            levels = imaging.resize_levels(self.levels(index), (self.side, self.side))
            heat = levels.astype(np.float32) / np.float32(255)
            if self.augment:
                image, heat = self.augment(image, heat, draws)
            found |= {"map": heat[None].astype(np.float32), "vote": np.float64(sample.score)}
        return {"pixels": self.way.finish(image), **found}
