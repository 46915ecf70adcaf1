"""CLIP: features of pictures and texts that can be compared (Radford et al. 2021, arXiv 2103.00020).

Keys are those of the Hugging Face hub. This is transformers' network with the same keys as the port.
"""
from dataclasses import asdict

import transformers
from torch.nn import functional
from transformers.initialization import no_init_weights

from torch_models.nn import ops


class Clip(transformers.CLIPModel):
    """Pictures (B, 3, S, S), prepared as jittwin.models.clip says, and a text for each, to cosines (B,).

    config: a jittwin.models.clip.ClipConfig. ids: token ids (B, N); what follows the end of a text is not seen. The
    weights must be loaded.
    """

    def __init__(self, config):
        with no_init_weights():
            super().__init__(transformers.CLIPConfig(
                text_config=asdict(config.text) | {"bos_token_id": None, "pad_token_id": None},
                vision_config=asdict(config.vision), projection_dim=config.projection_dim, attn_implementation="sdpa"))

    def forward(self, pixels, ids):
        return (self.image_features(pixels) * self.text_features(ids)).sum(1)

    def image_features(self, pixels):
        """Pictures to vectors (B, D) of length 1."""
        with ops.autocast():
            return unit(ops.full_precision(self.visual_projection(self.vision_model(pixels).pooler_output)))

    def text_features(self, ids):
        """Texts to vectors (B, D) of length 1."""
        with ops.autocast():
            return unit(ops.full_precision(self.text_projection(self.text_model(ids).pooler_output)))

    def scale(self):
        """What cosines are multiplied by for a softmax over pictures or texts: a scalar."""
        return self.logit_scale.exp()


def unit(x):
    """Rows of x (B, D) divided by their lengths; a row of zeros stays."""
    return functional.normalize(x)
