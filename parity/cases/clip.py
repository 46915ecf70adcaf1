"""The case of CLIP: cosines and logits of pictures and texts of different lengths."""
from dataclasses import replace

import numpy as np

from jittwin.draws import Draws
from jittwin.models.clip import PRESETS, ClipConfig
from parity.case import Case, Shapes
from parity.cases.siglip import tower_weights
from parity.workers.side import Arrays

LENGTHS = {"tiny": (9, 4, 12), "full": (77,)}     # tokens of each text, with its start and its end


class Clip(Case):
    """The mode "gelu" has the other activation, and the end of a text is given by its id instead of being the largest
    id. "full" is OpenAI's ViT-L/14 on one picture, and in the mode "gelu" LAION's, which has the same sizes."""
    name = "clip"
    sizes = ("tiny", "full")
    modes = ("eval", "eval gelu")
    levels = ("L1", "L2", "L3", "L4")
    differentiable = ("pixels",)
    full_depth = 4                            # text_model.encoder.layers.N

    def config(self, size: str, mode: str) -> ClipConfig:
        found = PRESETS["tiny" if size == "tiny" else "l14"]
        if "gelu" not in mode.split():
            return found
        return replace(found, text=replace(found.text, hidden_act="gelu", eos_token_id=found.text.vocab_size - 1),
                       vision=replace(found.vision, hidden_act="gelu"))

    def build(self, side, size, mode):
        return side.backend.build("clip", self.config(size, mode))

    def inputs(self, size, mode):
        config, lengths = self.config(size, mode), LENGTHS[size]
        words, end = config.text.vocab_size, config.text.vocab_size - 1
        ids = Draws(3).integers("ids", 0, words - 3, (len(lengths), max(lengths)))
        ids[:, 0] = words - 2
        for row, length in enumerate(lengths):
            ids[row, length - 1:] = end             # the padding has the id of the end
        side = config.vision.image_size
        return {"pixels": Draws(3).normal("pixels", (len(lengths), 3, side, side)), "ids": ids.astype(np.int32)}

    def run(self, side, module, inputs, mode):
        cosines = module(inputs["pixels"], inputs["ids"])
        return {"cosines": cosines, "logits": cosines * module.scale()}

    def weights(self, shapes: Shapes, seed: int) -> Arrays:
        """Those of SigLIP's case. Texts have large embeddings, so that their words matter."""
        arrays = tower_weights(shapes, seed)
        for name, values in arrays.items():
            if name.endswith("token_embedding.weight"):
                arrays[name] = values * np.float32(np.sqrt(values.shape[-1]))
        return arrays


class ClipH14(Clip):
    """The network of PickScore, ViT-H/14. It has the parts of the other, so that there is no tiny one."""
    name = "clip_h14"
    sizes = ("full",)
    modes = ("eval",)
    levels = ("L1", "L3")

    def config(self, size: str, mode: str) -> ClipConfig:
        return PRESETS["h14"]


CASES = (Clip(), ClipH14())
