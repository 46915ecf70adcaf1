"""VGG: the whole trunk, pooled to a vector, and VGG-19 up to relu5_1, the feature network of perceptual losses.

Simonyan and Zisserman 2015, arXiv 1409.1556. Keys are torchvision's: `features.<index>.weight` and `.bias`, so its
weights load unchanged.
"""
from torch_models.nn import ops
from torch_models.nn.layers import Conv2d, Dropout, Linear, MaxPool2d, Module, ReLU, Sequential, freeze

# The channels of the 3x3 convolutions in each block of VGG19.
BLOCKS = ((64, 64), (128, 128), (256, 256, 256, 256), (512, 512, 512, 512), (512,))
TAPS = (1, 6, 11, 20, 29)     # the first ReLU of each block
POOLED = 7 * 7                # pixels of the map that the classifier gets


def convolutions(blocks) -> list:
    """3x3 convolutions, each with its ReLU, with a 2x2 max-pool between two blocks."""
    layers, channels = [], 3
    for block in blocks:
        if layers:
            layers.append(MaxPool2d(2, 2))
        for wide in block:
            layers += [Conv2d(channels, wide, 3, padding=1), ReLU()]
            channels = wide
    return layers


def classifier(channels: int, widths):
    """Linear layers from a map of 7x7 pixels, with ReLU and dropout between them."""
    layers, inputs = [], channels * POOLED
    for wide in widths:
        if layers:
            layers += [ReLU(), Dropout(0.5)]
        layers.append(Linear(inputs, wide))
        inputs = wide
    return Sequential(*layers)


class VGG(Module):
    """Pictures (B, 3, H, W), prepared as jittwin.models.vgg says, to features (B, config.features).

    H and W must be at least 32. config: a jittwin.models.vgg.VGGConfig. The features are the mean over the last map.
    The classifier is part of the state only, and frozen. The weights must be loaded.
    """

    def __init__(self, config):
        super().__init__()
        self.features = Sequential(*convolutions(config.blocks), MaxPool2d(2, 2))
        if config.classifier:
            self.classifier = classifier(config.features, config.classifier)
            freeze(self.classifier)

    def forward(self, x):
        return ops.mean_dims(self.features(x), (2, 3)).reshape(x.shape[0], -1)


class VGG19(Module):
    """(B, 3, H, W) to relu1_1, relu2_1, relu3_1, relu4_1, relu5_1 with strides 1, 2, 4, 8, 16. Frozen.

    H and W must be at least 16. `config` is unused: the network has one size.
    """

    def __init__(self, config=None):
        super().__init__()
        self.features = Sequential(*convolutions(BLOCKS))
        freeze(self)

    def forward(self, x):
        found = []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in TAPS:
                found.append(x)
        return found
