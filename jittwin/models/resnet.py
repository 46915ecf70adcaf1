"""ResNet-18 and ResNet-50: their sizes, and how a picture is prepared for them.

He et al. 2016, arXiv 1512.03385. Names of the weights are torchvision's, as are the trained weights.
"""
from dataclasses import dataclass

from jittwin.models.conversion import Conversion, Shapes, Source, counted, unfit
from jittwin.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocess

PREPROCESS = Preprocess(256, "bilinear", IMAGENET_MEAN, IMAGENET_STD, crop=(224, 224))


@dataclass(frozen=True)
class ResNetConfig:
    """depths: blocks of each stage. widths: channels of the 3x3 convolutions of each stage.

    bottleneck: blocks of three convolutions, which give out four times as many channels, else of two.
    negative_slope: of the activations inside blocks. The baselines that came with PKU-AIGIQA-4K have 0.01 in their
    ResNet-18; everything published elsewhere has 0.
    """

    depths: tuple[int, ...] = (2, 2, 2, 2)
    widths: tuple[int, ...] = (64, 128, 256, 512)
    bottleneck: bool = False
    negative_slope: float = 0.0

    @property
    def features(self) -> int:
        """Length of the feature vector."""
        return self.widths[-1] * (4 if self.bottleneck else 1)


PRESETS = {
    "resnet18": ResNetConfig(),
    "resnet50": ResNetConfig((3, 4, 6, 3), bottleneck=True),
}


def infer_config(shapes: Shapes, source: Source | None = None) -> ResNetConfig:
    """Activations have no arrays: their slope is taken to be 0. UserError: not the weights of a ResNet."""
    depths, key = [], "layer{}.{}.conv2.weight"
    while depth := counted(shapes, key.format(len(depths) + 1, "{}")):
        depths.append(depth)
    if not depths:
        raise unfit(source, "not the weights of a ResNet (layer1.0.conv2.weight is missing), as torchvision has them "
                    "in resnet18-f37072fd.pth or resnet50-0676ba61.pth")
    widths = tuple(shapes[key.format(stage, 0)][0] for stage in range(1, len(depths) + 1))
    return ResNetConfig(tuple(depths), widths, "layer1.0.conv3.weight" in shapes)


CONVERSION = Conversion(infer_config, beside=("fc.*", "*.num_batches_tracked"))
