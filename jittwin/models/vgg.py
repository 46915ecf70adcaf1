"""VGG-16 and VGG-19: their sizes, and how a picture is prepared for them.

Simonyan and Zisserman 2015, arXiv 1409.1556, configurations D and E. Names of the weights are torchvision's, as are the
trained weights.
"""
import re
from dataclasses import dataclass

from jittwin.models.conversion import Conversion, Shapes, Source, unfit
from jittwin.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocess

PREPROCESS = Preprocess(256, "bilinear", IMAGENET_MEAN, IMAGENET_STD, crop=(224, 224))


@dataclass(frozen=True)
class VGGConfig:
    """blocks: the channels of the 3x3 convolutions between two poolings.

    classifier: outputs of its layers, which features do not need but checkpoints of TIER's baselines hold; () for none.
    """

    blocks: tuple[tuple[int, ...], ...] = ((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3)
    classifier: tuple[int, ...] = ()

    @property
    def features(self) -> int:
        """Length of the feature vector."""
        return self.blocks[-1][-1]


PRESETS = {
    "vgg16": VGGConfig(),
    "vgg19": VGGConfig(((64,) * 2, (128,) * 2, (256,) * 4, (512,) * 4, (512,) * 4)),
}


def infer_config(shapes: Shapes, source: Source | None = None) -> VGGConfig:
    """UserError: not the weights of a VGG without batch normalisation."""
    found = sorted((int(key.split(".")[1]), shape) for key, shape in shapes.items()
                   if re.fullmatch(r"features\.\d+\.weight", key))
    if not found or any(len(shape) != 4 for _, shape in found):
        raise unfit(source, "not the weights of a VGG without batch normalisation, as torchvision has them in "
                    "vgg16-397923af.pth or vgg19-dcbb9e9d.pth")
    blocks, last = [[]], 0
    for index, shape in found:
        if index > last + 2:        # a pooling lies between them
            blocks.append([])
        blocks[-1].append(shape[0])
        last = index
    return VGGConfig(tuple(map(tuple, blocks)))


CONVERSION = Conversion(infer_config, own=("features",), beside=("classifier.*",))
