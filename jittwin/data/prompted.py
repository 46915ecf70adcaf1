"""Generated pictures with their text prompts, image prompts and people's votes, as samples for a network."""
from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol

import numpy as np

from jittwin.data.aigiqa4k import VOTES, Row
from jittwin.draws import Draws
from jittwin.errors import UserError, choose_from
from jittwin.preprocessing import Preprocess

CACHED = 4096       # resized pictures that a data set keeps: 0.8 GB at a shorter side of 256


class Source(Protocol):
    """Where the pictures of rows come from: Aigiqa4k, or built-in data."""

    rows: list[Row]

    def picture(self, name: str) -> np.ndarray:
        """A generated picture, uint8 (H, W, 3)."""

    def prompt_picture(self, name: str) -> np.ndarray:
        """An image prompt, uint8 (H, W, 3)."""


class PromptedDataset:
    """Samples for some rows of a source. Pictures are decoded when first asked for and kept, resized.

    way: the preparation of a picture; it resizes with the proportions kept and then crops. augment: place and mirroring
    of the crop are drawn, for picture and image prompt separately; otherwise the crop is the centre. column: name of
    the votes, one of VOTES. image_prompts: whether samples hold them. cached: most resized pictures in memory. texts:
    the distinct prompts, in order. UserError: no rows, no such votes.
    """

    def __init__(self, source: Source, rows: Sequence[Row], way: Preprocess, column: str = "MOS_q",
                 image_prompts: bool = False, augment: bool = False, cached: int = CACHED):
        if not rows:
            raise UserError("no pictures are left in this part of the data; use more rows, or another subset or split")
        if column not in VOTES:
            raise UserError(f"votes {column}{choose_from(column, VOTES)}")
        self.source, self.rows, self.way, self.column = source, list(rows), way, column
        self.image_prompts, self.augment = image_prompts, augment
        self.names = [row.name for row in self.rows]
        numbers = {}
        self.text_of = [numbers.setdefault(row.prompt, len(numbers)) for row in self.rows]
        self.texts = list(numbers)
        self._resized = lru_cache(cached)(self._resize)

    def __len__(self) -> int:
        return len(self.rows)

    def target(self, index: int) -> np.ndarray:
        """The vote, float64 (); the picture is not decoded."""
        return np.float64(self.rows[index].votes[self.column])

    def get(self, index: int, draws: Draws | None = None) -> dict:
        """dict(pixels float32 (3, h, w), text int64 (), number of its prompt in `texts`, target float64 (), name).

        With image prompts also prompt_pixels float32 (3, h, w), zeros where there is none, and mask float32 (2,): 1 for
        the picture, and 1 for the image prompt or 0 for none. draws: needed where the data set augments.
        UserError: a picture that cannot be decoded.
        """
        row = self.rows[index]
        pixels = self._prepared(self._resized("picture", row.name), draws, "picture")
        sample = {"pixels": pixels, "text": np.int64(self.text_of[index]), "target": self.target(index),
                  "name": row.name}
        if self.image_prompts:
            there = row.image_prompt is not None
            sample["prompt_pixels"] = (
                self._prepared(self._resized("prompt_picture", row.image_prompt), draws, "image prompt")
                if there else np.zeros_like(pixels))
            sample["mask"] = np.array([1, there], np.float32)
        return sample

    def _resize(self, kind: str, name: str) -> np.ndarray:
        return self.way.resize(getattr(self.source, kind)(name))

    def _prepared(self, resized: np.ndarray, draws: Draws | None, part: str) -> np.ndarray:
        if not self.augment:
            return self.way.finish(resized)
        return augmented(self.way, resized, draws.within(part))


def augmented(way: Preprocess, resized: np.ndarray, draws: Draws) -> np.ndarray:
    """The result of `way.resize` to float32 (3, h, w), cropped at a random place and mirrored with probability 0.5."""
    corner = tuple(int(draws.integers(site, 0, side - part, ()))
                   for site, side, part in zip(("crop.top", "crop.left"), resized.shape, way.crop))
    return way.finish(resized, corner, bool(draws.uniform("flip", ()) < 0.5))
