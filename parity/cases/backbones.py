"""Cases of the feature networks. Their weights are frozen, so only the picture has a gradient."""
import numpy as np

from jittwin.draws import Draws
from parity.case import Case


def shifted_weights(shapes, seed: int) -> dict[str, np.ndarray]:
    """Random weights with which rounding errors rarely flip the sign of a ReLU.

    A flip changes the gradient of a whole field of view and would hide smaller differences. Every channel is shifted by
    two to three standard deviations, at random up (mostly active) or down (mostly 0).
    """
    draws, arrays = Draws(5, seed), {}
    for name, shape in shapes.items():
        values = draws.normal(name, shape)
        if len(shape) > 1:
            arrays[name] = values * np.float32(np.sqrt(0.4 / np.prod(shape[1:])))
        elif name.endswith((".weight", ".running_var")):
            arrays[name] = 0.75 + 0.5 * draws.uniform(name, shape)
        elif name.endswith(".running_mean"):
            arrays[name] = values * np.float32(0.1)
        else:
            arrays[name] = 2.5 * np.sign(values) + np.float32(0.1) * values
    return arrays


class Features(Case):
    """A network of one size. "full" is the size of the published pictures; both sizes use every layer."""
    sizes = ("tiny", "full")
    modes = ("eval",)
    levels = ("L1", "L2", "L3", "L4")
    differentiable = ("image",)
    shape: tuple[int, ...]                    # of the tiny pictures

    def build(self, side, size, mode):
        return side.backend.build(self.name, None)

    def inputs(self, size, mode):
        shape = self.shape if size == "tiny" else (1, 3, 384, 512)
        return {"image": Draws(3).uniform("image", shape) * 2 - 1}

    def run(self, side, module, inputs, mode):
        return {f"feature {index}": feature for index, feature in enumerate(module(inputs["image"]))}

    def weights(self, shapes, seed):
        return shifted_weights(shapes, seed)


class VGG19(Features):
    name = "vgg19"
    shape = (2, 3, 48, 64)


class InceptionV3(Features):
    """As published, the network normalises by the statistics of its batch; the mode "running" uses stored ones."""
    name = "inception_v3"
    modes = ("eval",)
    more_modes = ("eval running",)
    shape = (2, 3, 128, 160)                  # smaller pictures would leave Mixed_7 few values to normalise by

    def build(self, side, size, mode):
        return side.backend.build(self.name, None, batch_statistics="running" not in mode)


class FidInception(Features):
    """The network of FID, on pictures in [0, 1], with either padding of its average pools."""
    name = "inception_fid"
    modes = ("eval",)
    more_modes = ("eval included",)
    shape = (1, 3, 320, 330)                  # resized to 299x299 in the network

    def build(self, side, size, mode):
        return side.backend.build(self.name, None, pool_padding="included" if "included" in mode else "excluded")

    def inputs(self, size, mode):
        return {"image": super().inputs(size, mode)["image"] / 2 + np.float32(0.5)}

    def run(self, side, module, inputs, mode):
        return {"features": module(inputs["image"])}

    def weights(self, shapes, seed):
        """The only output lies behind all layers, and the shifts of the other networks would leave it little that
        depends on the picture. So all channels are shifted up alike, and filters that sum to zero cancel the shift."""
        arrays = super().weights(shapes, seed)
        for name, values in arrays.items():
            if values.ndim == 4:
                values = values * np.float32(np.sqrt(1 / 0.4))
                arrays[name] = values - values.mean((1, 2, 3), keepdims=True)
            elif name.endswith("bn.bias"):
                arrays[name] = np.abs(values)
        return arrays


CASES = (VGG19(), InceptionV3(), FidInception())
