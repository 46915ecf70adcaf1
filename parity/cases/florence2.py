"""The case of Florence-2's trunk: pictures that windows do not tile, and texts of different lengths."""
import numpy as np

from jittwin.draws import Draws
from jittwin.models.florence2 import PRESETS
from parity.case import Case, spread_weights

SIDES = {"tiny": 96, "full": 768}
LENGTHS = {"tiny": (7, 4), "full": (60,)}
SEED = 13       # of the dropout masks, which come from counters in both twins


class Florence2(Case):
    """"full" is Florence-2-base on one picture. With "masked" the padding of the texts is not attended to."""
    name = "florence2"
    sizes = ("tiny", "full")
    modes = ("eval", "eval masked", "train masked")
    differentiable = ("pixels",)
    full_depth = 4                            # vision_tower.blocks.stage.N

    def config(self, size: str):
        return PRESETS["tiny" if size == "tiny" else "base"]

    def build(self, side, size, mode):
        return side.backend.build(self.name, self.config(size))

    def inputs(self, size, mode):
        lengths = np.array(LENGTHS[size])[:, None]
        keep = np.arange(lengths.max()) < lengths
        ids = Draws(3).integers("ids", 2, self.config(size).text.vocab_size - 1, keep.shape)
        return {"pixels": Draws(3).normal("pixels", (len(lengths), 3, SIDES[size], SIDES[size])),
                "ids": np.where(keep, ids, 1).astype(np.int32), "keep": keep.astype(np.int32)}

    def run(self, side, module, inputs, mode):
        side.ops.seed_dropout(SEED)
        keep = inputs["keep"] if "masked" in mode.split() else None
        image, hidden = module(inputs["pixels"], inputs["ids"], keep)
        return {"image": image, "hidden": hidden}

    def weights(self, shapes, seed):
        return trunk_weights(shapes, seed)


def trunk_weights(shapes, seed: int) -> dict[str, np.ndarray]:
    """Weights with which attention looks at some tokens more than at others, and embeddings of order one."""
    arrays = spread_weights(shapes, seed)
    for name, values in arrays.items():
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            arrays[name] = np.float32(1.5) * values
        elif name.endswith("qkv.weight"):
            arrays[name] = values * np.repeat(np.float32([1.5, 1.5, 1]), len(values) // 3)[:, None]
        elif name.endswith(("embeddings.weight", "shared.weight", "embed_positions.weight", "pos_idx_to_embed")):
            arrays[name] = np.sqrt(values.shape[1]).astype(np.float32) * values
    return arrays


CASES = (Florence2(),)
