"""The models: what they are for, which pretrained weights they take, and under which licence those come."""
from dataclasses import dataclass


@dataclass(frozen=True)
class Record:
    """name: what Backend.build calls the model. weights: files it can start from."""

    name: str
    summary: str
    weights: str
    licence: str


MODELS = (
    Record("apf_gan.encoder", "label map to latent", "official net_E, optional", "CC BY-NC-SA 4.0"),
    Record("apf_gan.generator", "label and latent to picture", "official net_G, optional", "CC BY-NC-SA 4.0"),
    Record("apf_gan.discriminator", "multi-scale critic, for training", "none", "-"),
    Record("vgg19", "perceptual loss of phase 1", "torchvision vgg19", "BSD-3-Clause"),
    Record("inception_v3", "perceptual loss of phase 2", "torchvision inception_v3", "BSD-3-Clause"),
)
