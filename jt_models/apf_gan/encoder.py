"""The mask encoder of APF-GAN: a label map becomes the generator's starting tensor."""
from jittwin.models.apf_gan import ModelConfig
from jt_models.nn import ops
from jt_models.nn.layers import InstanceNorm2d, Linear, Module, Sequential, SpectralConv2d


class Encoder(Module):
    """One-hot labels (B, label_nc, H, W) to z (B, 16*ngf, H/64, W/64), without sampling.

    `fc_mu` and `fc_var` are stored in every published file and never used.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        ngf = config.ngf
        widths = [config.label_nc, ngf, 2 * ngf, 4 * ngf, 8 * ngf, 8 * ngf, 16 * ngf]
        for number in range(1, 7):
            conv = SpectralConv2d(widths[number - 1], widths[number], 3, stride=2, padding=1, bias=False,
                                  spectral=config.semantics.spectral)
            setattr(self, f"layer{number}", Sequential(conv, InstanceNorm2d()))
        self.fc_mu = Linear(8 * ngf * 16, 256)
        self.fc_var = Linear(8 * ngf * 16, 256)

    def execute(self, seg):
        x = seg
        for number in range(1, 7):
            x = ops.leaky_relu(getattr(self, f"layer{number}")(x), 0.2)
        return x
