"""The metric `distortion`: how plausible the structure of a generated picture is, and where it is not."""
import numpy as np

from jittwin import imaging
from jittwin.data.submission import THRESHOLD, binarise, to_levels
from jittwin.errors import UserError, choose_from
from jittwin.metrics.metric import Batch, Info, Option, Request, Scores
from jittwin.metrics.prompted import PromptedMetric
from jittwin.models.distortion import TEXT_LENGTHS
from jittwin.predictors.distortion import DistortionPredictor, read_detector, untrained

WEIGHTS = Option("distortion-weights", "FILE", "last.pth of the original, a file of `jittwin convert`, a run or "
                 "RUN/best", weights=True)
TOKENIZER = Option("distortion-tokenizer", "FOLDER", "folder of BART's vocabulary, such as facebook/bart-large "
                   "(default: the one beside the weights or of their run)")
TEXT = Option("distortion-text", "MODE", "reference, padded as in the original, or fast (default: as trained)")
AREA = "distorted_area"     # the part of the picture whose map is above the threshold with which the original hands in
INFO = Info("distortion", "assess", "plausible structure, 1 is best; maps show where it is implausible, red most",
            "higher", (0, 1), "the detector on Florence-2, trained with EvalMuse-Structure", produces="map",
            needs_prompt=True, options=(WEIGHTS, TOKENIZER, TEXT))


class DistortionMetric(PromptedMetric):
    """Scores, the distorted part of each picture, and the pictures under their maps."""

    def score(self, batch: Batch) -> Scores:
        try:
            scores, maps = self.predictor.score_pixels(np.stack(batch.pixels), batch.prompts)
        except UserError as error:
            raise UserError(f"{batch.names[0]} and the pictures after it: {error}") from error
        levels = [to_levels(heat) for heat in maps]
        values = [{INFO.name: float(score), AREA: float(binarise(area, THRESHOLD).mean())}
                  for score, area in zip(scores, levels)]
        drawn = [self.drawn(*each) for each in zip(batch.pixels, levels, batch.sizes)] if batch.draw else None
        return Scores(values, drawn)

    def drawn(self, pixels: np.ndarray, levels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """A picture under its map, uint8 (h, w, 3), with the proportions of `size`, not larger than the map."""
        way = self.preprocess
        square = pixels.transpose(1, 2, 0) * np.float32(way.std) + np.float32(way.mean)
        square = np.rint(np.clip(square, 0, 1) * 255).astype(np.uint8)
        share = min(1, max(levels.shape) / max(size))
        shown = imaging.resize_image(square, tuple(max(1, round(side * share)) for side in size))
        return imaging.heat_overlay(shown, levels)


def load(request: Request) -> DistortionMetric:
    """UserError: no weights, or damaged ones; no vocabulary; an unknown way to read texts."""
    where, tokenizer, mode = (request.options[option.name] for option in INFO.options)
    if mode is not None and mode not in TEXT_LENGTHS:
        raise UserError(f"{TEXT.flag} {mode}{choose_from(mode, TEXT_LENGTHS)}")
    if where is None and not request.random:
        raise UserError(f"distortion needs trained weights: give {WEIGHTS.flag} {WEIGHTS.metavar}, or --random-weights")
    weights = untrained(request.backend) if where is None else read_detector(where, tokenizer, mode)
    return DistortionMetric(INFO, DistortionPredictor(request.backend, weights, request.dtype, request.towers))
