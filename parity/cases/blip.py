"""The case of BLIP: cosines of pictures and texts of different lengths."""
import numpy as np

from jittwin.models.blip import PRESETS, TEXT, VISION
from jittwin.models.conversion import below
from parity.case import Case, spread_weights
from parity.cases.bert import Bert
from parity.cases.vit import VisionTransformer

COUNT = {"tiny": 2, "full": 1}
PARTS = {VISION: VisionTransformer(), TEXT: Bert()}


class Blip(Case):
    """"full" is the published BLIP of ViT-L/16 on one picture."""
    name = "blip"
    sizes = ("tiny", "full")
    modes = ("eval",)
    levels = ("L1", "L2", "L3", "L4")
    differentiable = ("pixels",)
    full_depth = 2

    def config(self, size: str):
        return PRESETS["tiny" if size == "tiny" else "large"]

    def build(self, side, size, mode):
        return side.backend.build(self.name, self.config(size))

    def inputs(self, size, mode):
        words = Bert().inputs("tiny", mode)
        return {**PARTS[VISION].inputs(size, mode), **{name: array[:COUNT[size]] for name, array in words.items()}}

    def run(self, side, module, inputs, mode):
        return {"cosines": module(inputs["pixels"], inputs["ids"], inputs["keep"])}

    def weights(self, shapes, seed):
        """Those of the cases of the two networks, so that attention looks at some tokens more than at others."""
        return with_parts(PARTS, shapes, seed)


def with_parts(parts, shapes, seed) -> dict[str, np.ndarray]:
    """Weights of a network whose parts, by what their names begin with, have cases."""
    found = {prefix + name: array for prefix, case in parts.items()
             for name, array in case.weights(below(shapes, prefix), seed).items()}
    return spread_weights({name: shape for name, shape in shapes.items() if name not in found}, seed) | found


CASES = (Blip(),)
