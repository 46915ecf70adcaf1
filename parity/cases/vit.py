"""The case of the vision transformer."""
from jittwin.draws import Draws
from jittwin.models.vit import PRESETS
from parity.case import Case, spread_weights


class VisionTransformer(Case):
    """"full" is ViT-L/16 on one picture."""
    name = "vit"
    sizes = ("tiny", "full")
    modes = ("eval",)
    differentiable = ("pixels",)
    full_depth = 2                            # blocks.N

    def config(self, size: str):
        return PRESETS["tiny" if size == "tiny" else "large-patch16-224"]

    def build(self, side, size, mode):
        return side.backend.build(self.name, self.config(size))

    def inputs(self, size, mode):
        width = self.config(size).image_size
        return {"pixels": Draws(3).normal("pixels", (2 if size == "tiny" else 1, 3, width, width))}

    def run(self, side, module, inputs, mode):
        return {"features": module(inputs["pixels"])}

    def weights(self, shapes, seed):
        """Spread so that attention looks at some tokens more than at others."""
        arrays = spread_weights(shapes, seed)
        return {name: 1.5 * values if name.endswith("qkv.weight") else values for name, values in arrays.items()}


CASES = (VisionTransformer(),)
