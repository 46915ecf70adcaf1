"""VGG-19 up to relu5_1, the feature network of perceptual losses.

Simonyan and Zisserman 2015, arXiv 1409.1556, configuration E. Keys are torchvision's:
`features.<index>.weight` and `.bias`, so its weights load unchanged.
"""
from torch_models.nn.layers import Conv2d, MaxPool2d, Module, ReLU, Sequential, freeze

# Channels of the 3x3 convolutions of each block; a 2x2 max-pool lies between two blocks.
BLOCKS = ((64, 64), (128, 128), (256, 256, 256, 256), (512, 512, 512, 512), (512,))
TAPS = (1, 6, 11, 20, 29)     # the first ReLU of each block


class VGG19(Module):
    """(B, 3, H, W) to relu1_1, relu2_1, relu3_1, relu4_1, relu5_1 with strides 1, 2, 4, 8, 16. Frozen.

    H and W must be at least 16. `config` is unused: the network has one size.
    """

    def __init__(self, config=None):
        super().__init__()
        layers, channels = [], 3
        for block in BLOCKS:
            if layers:
                layers.append(MaxPool2d(2, 2))
            for wide in block:
                layers += [Conv2d(channels, wide, 3, padding=1), ReLU()]
                channels = wide
        self.features = Sequential(*layers)
        freeze(self)

    def forward(self, x):
        found = []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in TAPS:
                found.append(x)
        return found
