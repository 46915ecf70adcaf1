"""Losses of APF-GAN and the two forward passes of a training step."""
from jittwin.models.apf_gan import ModelConfig, Stage
from torch_models.apf_gan.augment import diff_augment
from torch_models.apf_gan.generator import Condition, device_noise
from torch_models.nn import ops
from torch_models.nn.layers import BatchNorm2d, SpectralConv2d, track


def hinge_generator(predictions):
    """-mean(p), averaged over the discriminators; predictions are the maps for the fake half."""
    return sum(-ops.mean(p) for p in predictions) / len(predictions)


def hinge_discriminator(predictions, real: bool):
    """mean(max(0, 1 - p)) for real, mean(max(0, 1 + p)) for fake, averaged over the discriminators."""
    sign = -1 if real else 1
    return sum(ops.mean(ops.relu(1 + sign * p)) for p in predictions) / len(predictions)


def feature_matching(fake, real):
    """Sum of mean absolute feature differences over layers, averaged over the discriminators.

    fake, real: one list of features per discriminator, the prediction excluded.
    """
    return sum(ops.l1_mean(f, ops.detach(r)) for fs, rs in zip(fake, real) for f, r in zip(fs, rs)) / len(fake)


def perceptual(network, weights, fake, real, resize: str):
    """Weighted sum of mean absolute differences of the network's features. It gets the images in [-1, 1] unchanged."""
    real = ops.interpolate(real, tuple(fake.shape[-2:]), resize)
    with ops.no_grad():
        expected = network(real)
    return sum(weight * ops.l1_mean(f, r) for weight, f, r in zip(weights, network(fake), expected))


class Objective:
    """The losses of one training step, as differentiable scalars by name.

    label: (B, H, W) class ids; real: (B, 3, H, W) in [-1, 1]; noise: see Condition.
    perceptual_loss: (name, network, layer weights) or None. augmentation: policy names.
    """

    def __init__(self, config: ModelConfig, encoder, generator, discriminator, perceptual_loss=None,
                 augmentation=(), lambda_feat: float = 10.0, lambda_perceptual: float = 10.0):
        self.config = config
        self.encoder = encoder
        self.generator = generator
        self.discriminator = discriminator
        self.perceptual_loss = perceptual_loss
        self.augmentation = tuple(augmentation)
        self.lambda_feat = lambda_feat
        self.lambda_perceptual = lambda_perceptual

    def condition(self, label, noise=device_noise, keep: bool = False):
        """The condition and the encoding, which all images of the same class ids (B, H, W) have in common."""
        seg = ops.one_hot(label, self.config.label_nc)
        return Condition(seg, noise, keep, label, self.config.modulation_limit), self.encoder(seg)

    def generate(self, label, stage: Stage, noise=device_noise):
        """Generate at the size of the stage from class ids (B, H, W)."""
        return self.generator(*self.condition(label, noise), stage)

    def discriminate(self, seg, fake, real, stage: Stage, draws, learns: bool = True):
        """Features of every discriminator for fake and for real: two lists of lists.

        learns: whether the discriminators get gradients. If not, the features of real have none.
        """
        semantics, size = self.config.semantics, tuple(fake.shape[-2:])
        if self.augmentation:
            real, fake, seg = diff_augment(real, fake, seg, self.augmentation, draws)
        seg = ops.interpolate(seg, size, semantics.label_resize)
        real = ops.interpolate(real, size, semantics.image_resize)
        if stage.first_fade:
            self.discriminator.inherit(stage.level + 1)
        alias = stage.first_fade and semantics.warm_start == "alias"
        pairs = [ops.concat([seg, fake], 1), ops.concat([seg, real], 1)]
        if learns:
            features, half = self.discriminator(ops.concat(pairs, 0), stage, alias), fake.shape[0]
            return ([[f[:half] for f in scale] for scale in features],
                    [[f[half:] for f in scale] for scale in features])
        fakes = self.discriminator(pairs[0], stage, alias)
        track(self.discriminator, SpectralConv2d, False)    # the same weights for both, and one power iteration
        with ops.no_grad():
            reals = self.discriminator(pairs[1], stage, alias)
        track(self.discriminator, SpectralConv2d, True)
        return fakes, reals

    def generator_losses(self, label, real, stage: Stage, draws, noise=device_noise):
        """Losses of encoder and generator; their sum is what the optimizer minimises."""
        condition, z = self.condition(label, noise)
        fake = self.generator(condition, z, stage)
        fakes, reals = self.discriminate(condition.seg, fake, real, stage, draws, learns=False)
        losses = {"GAN": hinge_generator([scale[-1] for scale in fakes]),
                  "GAN_Feat": self.lambda_feat * feature_matching([s[:-1] for s in fakes], [s[:-1] for s in reals])}
        if self.perceptual_loss:
            name, network, weights = self.perceptual_loss
            losses[name] = self.lambda_perceptual * perceptual(
                network, weights, fake, real, self.config.semantics.image_resize)
        return losses

    def discriminator_losses(self, label, real, stage: Stage, draws, noise=device_noise):
        """Losses of the discriminators, with a new fake image through which no gradient passes."""
        with ops.no_grad():
            track(self.generator, BatchNorm2d, self.config.semantics.batchnorm_updates == "twice")
            condition, z = self.condition(label, noise)
            fake = ops.detach(self.generator(condition, z, stage))
            track(self.generator, BatchNorm2d, True)
        fakes, reals = self.discriminate(condition.seg, fake, real, stage, draws)
        return {"D_Fake": hinge_discriminator([scale[-1] for scale in fakes], real=False),
                "D_real": hinge_discriminator([scale[-1] for scale in reals], real=True)}
