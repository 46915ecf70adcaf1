"""The metric `tier`: the vote that people would give a generated picture, with the prompts that it was made from."""
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from jittwin import imaging
from jittwin.data.matching import few
from jittwin.errors import UserError, choose_from
from jittwin.metrics.metric import Batch, Info, Option, Request
from jittwin.metrics.prompted import PromptedMetric
from jittwin.models.tier import MODES
from jittwin.predictors.tier import TierPredictor, read_tier, untrained

WEIGHTS = Option("tier-weights", "FILE", "best_model.pt of the original, a file of `jittwin convert`, a run or "
                 "RUN/best", weights=True)
MODE = Option("tier-mode", "MODE", "nr, fr or pr, for weights that do not tell it")
TOKENIZER = Option("tier-tokenizer", "FOLDER", "folder of BERT's vocabulary, such as bert-base-uncased (default: the "
                   "one beside the weights or of their run)")
IMAGES = Option("tier-image-prompts", "FOLDER", "pictures that the column image_prompt of --prompts names; for the "
                "modes fr and pr")
INFINITY = float("inf")
INFO = Info("tier", "assess", "predicted vote, in the scale of the votes it was trained on", "higher",
            (-INFINITY, INFINITY), "TIER, trained with PKU-AIGIQA-4K", needs_prompt=True,
            options=(WEIGHTS, MODE, TOKENIZER, IMAGES))


class ImagePrompts(Mapping):
    """Prepared image prompts by their names; each is decoded when it is asked for."""

    def __init__(self, folder: Path, names, prepare):
        self.folder, self.prepare = folder, prepare
        self.names = dict.fromkeys(names)
        missing = [name for name in self.names if not (folder / name).is_file()]
        if missing:
            raise UserError(f"{folder}: {len(missing)} of {len(self.names)} image prompts are not there: "
                            f"{few(missing)}; name their folder with {IMAGES.flag}")

    def __getitem__(self, name: str) -> np.ndarray:
        return self.prepare(imaging.decode_image(self.folder / name))

    def __iter__(self):
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


class TierMetric(PromptedMetric):
    """Predicted votes. prompts_of: names of image prompts by those of pictures. pictures: prepared, by these names."""

    def __init__(self, predictor: TierPredictor, prompts_of: Mapping[str, str], pictures: Mapping[str, np.ndarray]):
        super().__init__(INFO, predictor)
        self.prompts_of, self.pictures = prompts_of, pictures

    def values(self, batch: Batch) -> np.ndarray:
        names = [self.prompts_of.get(name) for name in batch.names]
        return self.predictor.score_pixels(np.stack(batch.pixels), batch.prompts, names, self.pictures)


def load(request: Request) -> TierMetric:
    """UserError: no weights, or damaged ones; a mode that they lack or do not tell; image prompts that are missing."""
    where, mode, tokenizer, folder = (request.options[option.name] for option in INFO.options)
    if mode is not None and mode not in MODES:
        raise UserError(f"{MODE.flag} {mode}{choose_from(mode, MODES)}")
    if where is None and not request.random:
        raise UserError(f"tier needs trained weights: give {WEIGHTS.flag} {WEIGHTS.metavar}, or --random-weights")
    weights = untrained(request.backend, mode) if where is None else read_tier(where, mode, tokenizer)
    predictor = TierPredictor(request.backend, weights, request.dtype, request.towers)
    config, prompts_of, pictures = weights.config, {}, {}
    if folder is not None and not config.image_prompts:
        raise UserError(f"{IMAGES.flag} {folder}: {weights.name} is {config.name}, which sees no image prompts; leave "
                        "it out")
    if config.image_prompts:
        prompts_of = request.image_prompts
        lacking = [name for name in request.images.shown_names if name not in prompts_of]
        if config.mode == "fr" and lacking:
            raise UserError(f"{config.name} needs an image prompt for every picture, and {len(lacking)} of "
                            f"{len(request.images)} have none: {few(lacking)}; name them in a column image_prompt of "
                            "--prompts, or use weights of TIER-PR")
        if prompts_of and folder is None:
            raise UserError(f"{config.name} sees the image prompts that --prompts names: give {IMAGES.flag} FOLDER")
        pictures = ImagePrompts(Path(folder or "."), prompts_of.values(), predictor.preprocess)
    return TierMetric(predictor, prompts_of, pictures)
