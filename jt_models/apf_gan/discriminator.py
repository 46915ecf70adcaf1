"""The multi-scale discriminator of APF-GAN, grown along with the generator."""
from jittwin.models.apf_gan import ModelConfig, Stage, discriminator_order
from jt_models.nn import ops
from jt_models.nn.layers import Conv2d, InstanceNorm2d, LeakyReLU, Module, Sequential, SpectralConv2d


class Discriminator(Module):
    """PatchGAN with `extra` leading blocks: (B, label_nc + 3, H, W) to a list of features, prediction last."""

    def __init__(self, extra: int, config: ModelConfig):
        super().__init__()
        channels, width, spectral = config.label_nc + 3, config.ndf, config.semantics.spectral
        self.extra = extra
        self.layers = config.n_layers_D
        for j in reversed(range(extra + 1)):
            conv = Conv2d(channels, width // 2 ** j, 4, padding=2)
            setattr(self, f"toRGB_extra{j}", Sequential(conv, LeakyReLU(0.2)))
        for j in reversed(range(1, extra + 1)):
            conv = SpectralConv2d(width // 2 ** j, width // 2 ** (j - 1), 4, stride=2, padding=2, bias=False,
                                  spectral=spectral)
            setattr(self, f"extra{j}", Sequential(Sequential(conv, InstanceNorm2d()), LeakyReLU(0.2)))
        for n in range(self.layers):
            wider = min(2 * width, 512)
            conv = SpectralConv2d(width, wider, 4, stride=1 if n == self.layers - 1 else 2, padding=2, bias=False,
                                  spectral=spectral)
            setattr(self, f"model{n}", Sequential(Sequential(conv, InstanceNorm2d()), LeakyReLU(0.2)))
            width = wider
        setattr(self, f"model{self.layers}", Sequential(Conv2d(width, 1, 4, padding=2)))

    def execute(self, x, alpha: float = 0.0, parent=None):
        """alpha > 0 blends in the newest block. With `parent`, the layers that both discriminators have are the
        parent's: this discriminator computes with the parent's variables, to which the gradients go."""
        top, inherited = self.extra, self if parent is None else parent
        first = getattr(self, f"toRGB_extra{top}")(x)
        features = []
        if alpha > 0:
            half = ops.interpolate(x, (x.shape[2] // 2, x.shape[3] // 2), "bilinear")
            old = getattr(inherited, f"toRGB_extra{top - 1}")(half)
            first = (1 - alpha) * old + alpha * getattr(self, f"extra{top}")(first)
            top -= 1
        x = first
        for j in reversed(range(1, top + 1)):
            owner = self if j == self.extra else inherited
            x = getattr(owner, f"extra{j}")(x)
            features.append(x)
        for n in range(self.layers + 1):
            x = getattr(inherited, f"model{n}")(x)
            features.append(x)
        return features


class MultiscaleDiscriminator(Module):
    """Discriminators 0..num_D-1, each with one more leading block than the one before.

    forward returns one feature list per discriminator that takes part in the stage.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        for k in range(config.num_D):
            setattr(self, f"multiscale_discriminator_{k}", Discriminator(k, config))

    def execute(self, x, stage: Stage, alias: bool = False):
        """x (B, label_nc + 3, h, w) at the size of the stage; `alias` lets the newest one compute
        with its parent's variables (the warm start of the published code)."""
        results = []
        for position, k in enumerate(discriminator_order(stage, self.config.num_D, self.config.semantics)):
            if position:
                x = ops.avg_pool2d(x, 3, 2, 1, self.config.semantics.pool_padding == "included")
            newest = position == 0 and stage.alpha > 0
            parent = getattr(self, f"multiscale_discriminator_{k - 1}") if newest and alias else None
            net = getattr(self, f"multiscale_discriminator_{k}")
            results.append(net(x, stage.alpha if newest else 0.0, parent))
        return results

    def inherit(self, k: int):
        """Warm start: copy to discriminator k every value that its parent k-1 has too."""
        state = self.state_dict()
        own, parent = f"multiscale_discriminator_{k}.", f"multiscale_discriminator_{k - 1}."
        for name in [n for n in state if n.startswith(parent)]:
            ops.assign(state[own + name[len(parent):]], state[name])
