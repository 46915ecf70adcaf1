"""Inception-v4: its sizes, its files, and how a picture is prepared for it.

Szegedy et al. 2016, arXiv 1602.07261. Names of the weights are those of Remi Cadene's port, as are the trained weights,
whose classifier has 1001 classes, the first of them the background.
"""
from dataclasses import dataclass

from jittwin.models.conversion import Conversion, Shapes, Source, counted, unfit
from jittwin.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocess

# The weights were trained on values from -1 to 1. The assessment models that build on them normalise as for ImageNet.
PREPROCESS = Preprocess(320, "bilinear", IMAGENET_MEAN, IMAGENET_STD, crop=(299, 299))
STEM, FIRST, WIDTH = 6, 32, 1536    # modules before the first block; channels of the first one, and of the last map


@dataclass(frozen=True)
class InceptionV4Config:
    """blocks: of the three resolutions. divisor: channels of every layer are divided by it, 1 to 32 and a power of 2.

    classes: of the classifier, which features do not need but files hold; 0 for none.
    """

    blocks: tuple[int, int, int] = (4, 7, 3)
    divisor: int = 1
    classes: int = 1000

    @property
    def features(self) -> int:
        """Length of the feature vector."""
        return WIDTH // self.divisor


def infer_config(shapes: Shapes, source: Source | None = None) -> InceptionV4Config:
    """UserError: not the weights of an Inception-v4."""
    blocks, at = [], STEM
    # What the blocks of each resolution have; between two kinds of them lies the module that halves the map.
    for key in ("branch2.2", "branch2.4", "branch2_2"):
        blocks.append(counted(shapes, f"features.{{}}.{key}.conv.weight", at))
        at += blocks[-1] + 1
    first = shapes.get("features.0.conv.weight")
    if not first or not all(blocks):
        raise unfit(source, "not the weights of an Inception-v4, as Remi Cadene's port has them in "
                    "inceptionv4-8e4777a0.pth")
    return InceptionV4Config(tuple(blocks), FIRST // first[0], shapes.get("last_linear.bias", (0,))[0])


CONVERSION = Conversion(infer_config, own=("features",), beside=("*.num_batches_tracked",))
