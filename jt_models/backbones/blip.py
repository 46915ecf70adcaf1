"""BLIP: features of pictures and texts that can be compared, and a text read while looking at a picture.

Li et al. 2022, arXiv 2201.12086. Keys are those of the official files. Stochastic depth, which only pretraining uses,
is left out.
"""
from jt_models.backbones.bert import Bert
from jt_models.backbones.vit import VisionEncoder
from jt_models.nn import ops
from jt_models.nn.layers import Linear, Module, name_dropouts


class Blip(Module):
    """Pictures (B, 3, S, S), prepared as jittwin.models.blip says, and a text for each, to cosines (B,).

    config: a jittwin.models.blip.BlipConfig. ids, keep: token ids (B, N), and 1 for tokens and 0 for padding. The
    weights must be loaded.
    """

    def __init__(self, config):
        super().__init__()
        self.visual_encoder = VisionEncoder(config.vision)
        self.text_encoder = Bert(config.text)
        self.vision_proj = Linear(config.vision.hidden_size, config.projection)
        self.text_proj = Linear(config.text.hidden_size, config.projection)
        name_dropouts(self)

    def execute(self, pixels, ids, keep):
        return (self.image_features(pixels) * self.text_features(ids, keep)).sum(1)

    def image_features(self, pixels):
        """Pictures to vectors (B, D) of length 1."""
        return unit(self.vision_proj(self.look(pixels)[:, 0]))

    def text_features(self, ids, keep):
        """Texts, each read alone, to vectors (B, D) of length 1."""
        return unit(self.text_proj(self.read(ids, keep)[:, 0]))

    def look(self, pixels):
        """Tokens (B, M, C) of pictures."""
        with ops.autocast():
            return ops.full_precision(self.visual_encoder(pixels))

    def read(self, ids, keep, image=None):
        """Tokens (B, N, C) of texts. image: what `look` returns for the picture of each text; None to read alone."""
        with ops.autocast():
            return ops.full_precision(self.text_encoder(ids, keep, image))


def unit(x):
    """Rows of x (B, D) divided by their lengths."""
    return x / (x * x).sum(1).sqrt().reshape(-1, 1)
