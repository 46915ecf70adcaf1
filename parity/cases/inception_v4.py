"""The case of Inception-v4: every kind of block, narrow, with stored and with the batch's own statistics."""
from jittwin.draws import Draws
from jittwin.models.inception_v4 import InceptionV4Config
from parity.case import Case
from parity.cases.backbones import shifted_weights

TINY = InceptionV4Config(blocks=(1, 1, 1), divisor=32, classes=7)


class InceptionV4(Case):
    """"full" is the published network at its published resolution."""
    name = "inception_v4"
    sizes = ("tiny", "full")
    modes = ("eval", "train")
    differentiable = ("image",)
    full_depth = 3                            # features.N.branch

    def build(self, side, size, mode):
        return side.backend.build(self.name, TINY if size == "tiny" else InceptionV4Config())

    def inputs(self, size, mode):
        return {"image": Draws(3).normal("image", (2, 3, 139, 107) if size == "tiny" else (2, 3, 299, 299))}

    def run(self, side, module, inputs, mode):
        return {"features": module(inputs["image"])}

    def weights(self, shapes, seed):
        return shifted_weights(shapes, seed)


CASES = (InceptionV4(),)
