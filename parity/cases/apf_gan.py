"""Cases of the APF-GAN networks, each alone and all in one training step, and of the whole training.

A mode names the variant: "train 40 repaired" is a training pass as in epoch 40, with every repair of the published
semantics. "noise" adds the segmentation-guided noise, which epochs of the second phase have anyway.
"""
import numpy as np

from jittwin.draws import Draws
from jittwin.models.apf_gan import AUGMENTATIONS, REPAIRED, ModelConfig, Semantics, Stage, stage
from jittwin.tasks import load_task
from parity.case import Case
from parity.training import Training

GROWN = 180          # the epoch in which images reach their full size; the second phase comes after it


def epoch_of(mode: str) -> int:
    """The epoch that a mode names, or else GROWN."""
    return next((int(word) for word in mode.split() if word.isdigit()), GROWN)


def stage_of(mode: str) -> Stage:
    return stage(epoch_of(mode), GROWN, 4)


def is_noisy(mode: str) -> bool:
    return epoch_of(mode) > GROWN or "noise" in mode.split()


def noise(side):
    """The noise to inject into Condition: standard normal, from the number of the normalisation and its shape."""
    def draw(index, shape):
        return side.tensor(as_wide(side, Draws(5).normal(f"noise {index}", shape)))
    return draw


def as_wide(side, array: np.ndarray) -> np.ndarray:
    return array.astype(np.float64) if side.wide else array


def label_maps(config: ModelConfig, batch: int) -> np.ndarray:
    """Class ids (B, H, W) in blocks of 5 pixels, so that every resizing of the label map has to mix classes."""
    height, width = config.size
    blocks = Draws(1).integers("label", 0, config.label_nc - 1, (batch, -(-height // 5), -(-width // 5)))
    return blocks.repeat(5, 1).repeat(5, 2)[:, :height, :width].astype(np.uint8)


def pictures(config: ModelConfig, batch: int) -> np.ndarray:
    """Smooth pictures (B, 3, H, W) in [-1, 1]."""
    height, width = config.size
    b, c, y, x = np.mgrid[:batch, :3, :height, :width]
    return np.sin(0.05 * y * (c + 1) + 0.03 * x + b).astype(np.float32)


class ApfGan(Case):
    """The base of the networks' cases. "tiny" is narrow and has 128x192 pixels; "full" is as published."""
    sizes = ("tiny", "full")
    optimizer = ("adam", {"betas": (0.0, 0.9), "form": "jittor"})

    def config(self, size: str, mode: str = "train") -> ModelConfig:
        semantics = REPAIRED if "repaired" in mode.split() else Semantics()
        if size == "full":
            return ModelConfig(semantics=semantics)
        return ModelConfig(label_nc=8, ngf=4, ndf=8, crop_size=192, aspect_ratio=1.5, spade_hidden=8,
                           modulation="distinct", semantics=semantics)

    def batch(self, size: str) -> int:
        return 2 if size == "tiny" else 1

    def weights(self, shapes, seed):
        """Weights with which few pixels are fully black or white. In such pixels the gradient would vanish and every
        rounding error show as another grey level."""
        weights = super().weights(shapes, seed)
        return {name: a * np.float32(0.2) if "conv_img." in name else a for name, a in weights.items()}

    def network(self, side, part: str, size: str, mode: str):
        """The network `part` ("encoder", "generator" or "discriminator") as it is in the mode's epoch."""
        options = {"seg_noise": is_noisy(mode), "heads": not stage_of(mode).full} if part == "generator" else {}
        return side.backend.build(f"apf_gan.{part}", self.config(size, mode), **options)


class Encoder(ApfGan):
    name = "apf_gan.encoder"
    modes = ("train", "train repaired")
    more_modes = ("eval", "eval repaired")
    differentiable = ("seg",)

    def build(self, side, size, mode):
        return self.network(side, "encoder", size, mode)

    def inputs(self, size, mode):
        config = self.config(size)
        return {"seg": Draws(1).uniform("seg", (self.batch(size), config.label_nc, *config.size))}

    def run(self, side, module, inputs, mode):
        return {"z": module(inputs["seg"])}


class Generator(ApfGan):
    """In epoch 40 the picture is the sum of two heads, of which the new one has the weight 1/3. With 1/2 an exchange
    of the heads would not show."""
    name = "apf_gan.generator"
    modes = ("eval noise", "train 40", "train repaired")
    more_modes = ("eval", "train", "train noise", "train 1", "eval repaired")
    differentiable = ("z", "seg")

    def build(self, side, size, mode):
        return self.network(side, "generator", size, mode)

    def inputs(self, size, mode):
        config, batch = self.config(size), self.batch(size)
        height, width = config.size
        seg = np.eye(config.label_nc, dtype=np.float32)[label_maps(config, batch)]
        return {"z": Draws(1).normal("z", (batch, 16 * config.ngf, height // 64, width // 64)),
                "seg": np.moveaxis(seg, -1, 1)}

    def run(self, side, module, inputs, mode):
        condition = side.twin("apf_gan.generator").Condition(inputs["seg"], noise(side))
        return {"image": module(condition, inputs["z"], stage_of(mode))}


class Discriminator(ApfGan):
    """In epoch 31 the newest discriminator computes with its parent's variables."""
    name = "apf_gan.discriminator"
    modes = ("train", "train 40 repaired")
    more_modes = ("train 1", "train 31", "train 40", "train repaired", "train 31 repaired")
    differentiable = ("pairs",)

    def build(self, side, size, mode):
        return self.network(side, "discriminator", size, mode)

    def inputs(self, size, mode):
        config, at = self.config(size), stage_of(mode)
        top = config.num_D - 1 if at.full else at.level + (at.alpha > 0)
        height, width = (side >> config.num_D - 1 - top for side in config.size)
        return {"pairs": Draws(1).normal("pairs", (self.batch(size), config.label_nc + 3, height, width))}

    def run(self, side, module, inputs, mode):
        at = stage_of(mode)
        alias = at.first_fade and module.config.semantics.warm_start == "alias"
        if at.first_fade:
            module.inherit(at.level + 1)
        return {f"scale {k} feature {n}": feature for k, features in enumerate(module(inputs["pairs"], at, alias))
                for n, feature in enumerate(features)}


class Objective(ApfGan):
    """Encoder, generator and discriminators together in one training step, with its losses.

    Here the generator's normalisations are computed for each distinct neighbourhood; in the case of the generator
    alone, whose one-hot maps get a gradient, at each pixel.
    The epochs reach every stage: plain, first fade and later fade of each resolution, full size, second phase.
    """
    name = "apf_gan.objective"
    modes = ("train 31", "train 181")
    more_modes = (*(f"train {epoch}" for epoch in (1, 40, 60, 91, 120, 151, 180)), "train 31 repaired",
                  "train 181 repaired")
    halves = ("G", "D")

    def build(self, side, size, mode):
        parts = {net: self.network(side, part, size, mode)
                 for net, part in (("E", "encoder"), ("G", "generator"), ("D", "discriminator"))}

        class Networks(side.Module):
            def __init__(self):
                super().__init__()
                for net, module in parts.items():
                    setattr(self, net, module)

        networks = Networks()
        networks.config = self.config(size, mode)
        return networks

    def inputs(self, size, mode):
        config, batch = self.config(size), self.batch(size)
        return {"label": label_maps(config, batch), "real": pictures(config, batch)}

    def objective(self, side, module, mode: str):
        def features(image):
            """Takes the place of a perceptual network, since each has a case of its own."""
            return [image, side.ops.avg_pool2d(image, 2, 2)]

        augmentation = AUGMENTATIONS if epoch_of(mode) > GROWN else ()
        return side.backend.build("apf_gan.objective", module.config, module.E, module.G, module.D,
                                  augmentation=augmentation, perceptual_loss=("features", features, (0.25, 1.0)))

    def run(self, side, module, inputs, mode):
        """All tensors that the networks return."""
        objective, at = self.objective(side, module, mode), stage_of(mode)
        condition, z = objective.condition(inputs["label"], noise(side))
        image = module.G(condition, z, at)
        scales = objective.discriminate(condition.seg, image, inputs["real"], at, Draws(11))
        return {"image": image, **{
            f"{kind} {k} {n}": feature for kind, results in zip(("fake", "real"), scales)
            for k, scale in enumerate(results) for n, feature in enumerate(scale)}}

    def losses(self, side, module, inputs, mode, half=""):
        objective, found = self.objective(side, module, mode), {}
        for name, losses in (("G", objective.generator_losses), ("D", objective.discriminator_losses)):
            if half in ("", name):
                found |= losses(inputs["label"], inputs["real"], stage_of(mode), Draws(11), noise(side))
        return found

    def trained(self, half, parameter):
        return (half == "D") == parameter.startswith("D.")


class ApfGanTraining(Training):
    """APF-GAN grows through four resolutions, with two epochs of fading each, and is then fine-tuned.

    "full" has more batches per epoch, a hundred steps in all, but no larger networks.
    """
    name = "apf_gan.training"
    task = "apf_gan"
    sizes = ("tiny", "full")
    free_steps = 4                          # at the fifth float32 PyTorch itself has left the truth

    def config(self, size):
        return load_task(self.task).Config(
            ngf=2, ndf=8, spade_hidden=4, load_size=208, crop_size=192, aspect_ratio=1.5,
            batch_size=2, finetune_batch_size=2, synthetic_images=2 if size == "tiny" else 8,
            pg_niter=15, pretrain_epochs=16, epochs=25, decay_epochs=4,
            noise="shared", log_every=1, sample_every=1 << 20)

    def checked(self, size):
        # The plain step, the first and a later step of fading of each resolution; full size; both ends of phase 2.
        return [0, 2, 3, 4, 7, 8, 9, 12, 13, 14, 16, 24] if size == "tiny" else list(range(100))

    def shared(self, size):
        # Fading, and phase 2 with its noise and augmentation.
        return [3, 24] if size == "tiny" else list(range(20))

    def boundary(self, size):
        config = self.config(size)
        return config.pretrain_epochs * (config.synthetic_images // config.batch_size)


CASES = (Encoder(), Generator(), Discriminator(), Objective(), ApfGanTraining())
