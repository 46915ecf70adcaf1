"""TIER: the quality of a generated picture, judged with the prompts that it was made from.

Yuan et al. 2024, arXiv 2404.18409. A text encoder and an image encoder are trained together with a small regressor.
The baselines of the same paper are the same without text.
"""
import numpy as np

from jittwin.models.inception_v4 import InceptionV4Config
from jittwin.models.resnet import ResNetConfig
from jittwin.models.vgg import VGGConfig
from jittwin.models.vit import ViTConfig
from torch_models.backbones.bert import Bert
from torch_models.backbones.inception_v4 import InceptionV4
from torch_models.backbones.resnet import ResNet
from torch_models.backbones.vgg import VGG
from torch_models.backbones.vit import VisionTransformer
from torch_models.nn import ops
from torch_models.nn.layers import Linear, Module, name_dropouts


class Vit(Module):
    """The vision transformer, one name deeper, as the official checkpoints have it."""

    def __init__(self, config):
        super().__init__()
        self.vit = VisionTransformer(config)

    def forward(self, pixels):
        return self.vit(pixels)


NETWORKS = {ResNetConfig: ResNet, InceptionV4Config: InceptionV4, VGGConfig: VGG, ViTConfig: Vit}


class Encoder(Module):
    """The networks of text and pictures."""

    def __init__(self, config):
        super().__init__()
        self.text_encoder = Bert(config.text)
        self.image_encoder = NETWORKS[type(config.image)](config.image)


class Regressor(Module):
    """Features (B, width) to predictions (B, 1)."""

    def __init__(self, width: int):
        super().__init__()
        self.fc1 = Linear(width, width // 2)
        self.fc2 = Linear(width // 2, 1)

    def forward(self, x):
        return self.fc2(ops.relu(self.fc1(x)))


class Tier(Module):
    """Pictures, with the prompts that the mode asks for, to mean opinion scores (B,) in the scale of the training data.

    config: a jittwin.models.tier.TierConfig. The weights must be loaded. Inputs:
    pixels: (B, 3, S, S), prepared as jittwin.models.tier.preprocess says.
    ids, keep: token ids (B, N), and 1 for tokens and 0 for padding; None for a baseline.
    prompt_pixels: image prompts (B, 3, S, S), prepared like `pixels`, for the modes "fr" and "pr".
    mask: NumPy (B, 2) for the mode "pr": 1 for the picture, and 1 for an image prompt or 0 for none. The pixels of
    image prompts that are not there have no effect unless config.legacy_pr_batch.
    """

    def __init__(self, config):
        super().__init__()
        self.mode = config.mode
        self.legacy_pr_batch = config.legacy_pr_batch
        if config.text:
            self.encoder = Encoder(config)
        else:
            self.backbone = NETWORKS[type(config.image)](config.image)
        self.reads = config.text is not None
        self.regressor = Regressor(config.width)
        name_dropouts(self)

    def forward(self, pixels, ids=None, keep=None, prompt_pixels=None, mask=None):
        text = self.encode_text(ids, keep) if self.reads else None
        return self.predict(self.encode_image(pixels, prompt_pixels, mask), text)

    def encode_text(self, ids, keep):
        """The mean over the tokens of each text, those of its start and end included: (B, C)."""
        with ops.autocast():
            hidden = ops.full_precision(self.encoder.text_encoder(ids, keep))
        keep = keep.reshape(*keep.shape, 1)
        return (hidden * keep).sum(1) / keep.sum(1)

    def encode_image(self, pixels, prompt_pixels=None, mask=None):
        """Features of pictures and their image prompts, which run as one batch: (B, D), or (B, 2 D) for "fr"."""
        count = pixels.shape[0]
        if self.mode == "nr":
            return self.look(pixels)
        if self.mode == "fr":
            features = self.look(ops.concat([pixels, prompt_pixels], 0))
            return self.join(features[:count], features[count:])
        there = np.asarray(mask)[:, 1] != 0
        given = np.arange(count) if self.legacy_pr_batch else np.flatnonzero(there)
        features = self.look(with_pictures(pixels, prompt_pixels, given))
        second = np.arange(count)
        second[there] = count + np.searchsorted(given, np.flatnonzero(there))
        return self.join(features[:count], rows(features, second))

    def join(self, first, second):
        """Features (B, D) of pictures and (B, D) of their image prompts, as the regressor takes them.

        For "fr" (B, 2 D), one after the other. For "pr" (B, D), the mean; a picture without an image prompt takes the
        place of it, so that the mean is the picture's features.
        """
        return ops.concat([first, second], 1) if self.mode == "fr" else (first + second) / 2

    def look(self, pixels):
        """Features (B, D) of pictures."""
        with ops.autocast():
            return ops.full_precision((self.encoder.image_encoder if self.reads else self.backbone)(pixels))

    def predict(self, image, text=None):
        """Predictions (B,) from the results of encode_image and encode_text."""
        return self.regressor(ops.concat([text, image], 1) if self.reads else image).reshape(-1)

    def loss(self, predictions, target):
        """{"MSE": mean squared difference of predictions and scores, both (B,)}."""
        gap = predictions - target
        return {"MSE": ops.mean(gap * gap)}


def rows(x, numbers):
    """The rows of x (N, C) with these numbers, a NumPy array (M,): (M, C)."""
    return ops.embedding(ops.from_host(numbers.astype(np.int32)), x)


def with_pictures(pixels, others, given):
    """`pixels`, then those pictures of `others` with the numbers `given`, in one batch."""
    if not len(given):
        return pixels
    if len(given) < others.shape[0]:
        shape = others.shape[1:]
        others = rows(others.reshape(others.shape[0], -1), given).reshape(len(given), *shape)
    return ops.concat([pixels, others], 0)
