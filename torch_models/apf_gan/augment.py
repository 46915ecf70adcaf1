"""Differentiable augmentation of real images, fake images and label maps together.

The method is DiffAugment (Zhao et al. 2020, arXiv 2006.10738). Unlike there, crop and translation also move the
label map. Changes of colour are drawn separately for real and fake. The host draws the random numbers
(`jittwin.draws.Draws`), so both twins augment alike.
"""
import numpy as np

from jittwin.models.apf_gan import AUGMENTATIONS
from torch_models.nn import ops


def per_sample(values):
    """(B,) host array to a (B, 1, 1, 1) tensor."""
    return ops.from_host(values.astype(np.float32).reshape(-1, 1, 1, 1))


def color(x, draws, site: str):
    """Change brightness, saturation and contrast of x (B, 3, H, W), one random number per sample each. No clamping."""
    batch = x.shape[0]
    x = x + per_sample(draws.uniform(f"{site}.brightness", batch) - 0.5)
    mean = ops.mean_dims(x, (1,))
    x = (x - mean) * per_sample(draws.uniform(f"{site}.saturation", batch) * 2) + mean
    mean = ops.expand(ops.mean_dims(x, (3, 2, 1)), x.shape)
    return (x - mean) * per_sample(draws.uniform(f"{site}.contrast", batch) + 0.5) + mean


def crop(real, fake, label, draws):
    """Enlarge by 1.2 and cut out one window for the whole batch; each sample is replaced with probability 1/2."""
    batch, _, height, width = real.shape
    large = int(1.2 * height), int(1.2 * width)
    top = int(draws.integers("crop.top", 0, large[0] - height, ()))
    left = int(draws.integers("crop.left", 0, large[1] - width, ()))
    taken = per_sample(draws.uniform("crop.taken", batch) < 0.5)

    def window(x, mode):
        cut = ops.interpolate(x, large, mode)[:, :, top:top + height, left:left + width]
        return ops.where(taken, cut, x)

    return window(real, "bicubic"), window(fake, "bicubic"), window(label, "nearest")


def translation(real, fake, label, draws):
    """Shift each sample by up to an eighth of each side; pixels that come from outside are zero."""
    batch, _, height, width = real.shape
    reach_y, reach_x = int(0.125 * height + 0.5), int(0.125 * width + 0.5)
    dy = draws.integers("translation.y", -reach_y, reach_y, batch)
    dx = draws.integers("translation.x", -reach_x, reach_x, batch)
    return tuple(ops.shift2d(x, dy, dx) for x in (real, fake, label))


def diff_augment(real, fake, label, policy, draws):
    """Apply the policies in the order given to images (B, 3, H, W) and one-hot labels (B, C, H, W)."""
    for name in policy:
        if name == "color":
            real, fake = color(real, draws, "color.real"), color(fake, draws, "color.fake")
        elif name == "crop":
            real, fake, label = crop(real, fake, label, draws)
        elif name == "translation":
            real, fake, label = translation(real, fake, label, draws)
        else:
            raise ValueError(f"unknown augmentation {name!r}; known: {', '.join(AUGMENTATIONS)}")
    return real, fake, label
