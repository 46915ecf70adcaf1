"""The case of VGG's trunk."""
from jittwin.draws import Draws
from jittwin.models.vgg import PRESETS, VGGConfig
from parity.case import Case
from parity.cases.backbones import shifted_weights

TINY = VGGConfig(((8, 8), (12, 12), (16, 16, 16)))


class VGG(Case):
    """"full" is VGG-16."""
    name = "vgg"
    sizes = ("tiny", "full")
    modes = ("eval",)
    differentiable = ("image",)
    full_depth = 2                            # features.N

    def build(self, side, size, mode):
        return side.backend.build(self.name, TINY if size == "tiny" else PRESETS["vgg16"])

    def inputs(self, size, mode):
        return {"image": Draws(3).normal("image", (2, 3, 40, 52) if size == "tiny" else (2, 3, 224, 224))}

    def run(self, side, module, inputs, mode):
        return {"features": module(inputs["image"])}

    def weights(self, shapes, seed):
        return shifted_weights(shapes, seed)


CASES = (VGG(),)
