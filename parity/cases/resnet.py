"""The case of ResNet: blocks of both kinds, with stored and with the batch's own statistics."""
import numpy as np

from jittwin.draws import Draws
from jittwin.models.resnet import PRESETS, ResNetConfig
from parity.case import Case
from parity.cases.backbones import shifted_weights

# Every kind of part, narrow: two blocks where there may be several, three stages that halve the map.
TINY = ResNetConfig(depths=(1, 2, 1, 1), widths=(8, 12, 16, 20))


class ResNet(Case):
    """"full" is ResNet-50, or for "basic" ResNet-18."""
    name = "resnet"
    sizes = ("tiny", "full")
    modes = ("eval basic", "train basic", "eval bottleneck", "train bottleneck")
    more_modes = ("train leaky",)
    differentiable = ("image",)
    full_depth = 3                            # layerN.M.part

    def build(self, side, size, mode):
        kind = mode.split()[1]
        if size == "full":
            return side.backend.build(self.name, PRESETS["resnet50" if kind == "bottleneck" else "resnet18"])
        changes = {"bottleneck": kind == "bottleneck", "negative_slope": 0.01 if kind == "leaky" else 0.0}
        return side.backend.build(self.name, ResNetConfig(**(vars(TINY) | changes)))

    def inputs(self, size, mode):
        return {"image": Draws(3).normal("image", (2, 3, 64, 96) if size == "tiny" else (2, 3, 224, 224))}

    def run(self, side, module, inputs, mode):
        return {"features": module(inputs["image"])}

    def weights(self, shapes, seed):
        """What a block adds to its input is shifted up alone, so that the sum of several is not near 0 either."""
        arrays = shifted_weights(shapes, seed)
        for name, values in arrays.items():
            ends = "bn3" in name or "downsample" in name or name.replace("bn2", "bn3") not in shapes
            if name.endswith(".bias") and ends:
                arrays[name] = np.abs(values)
        return arrays


CASES = (ResNet(),)
