"""A detector of structural distortion in generated pictures: a map of implausible places, and a score.

NTIRE 2025, structure track (arXiv 2505.16314): two heads on the tokens of Florence-2's encoder. Keys of the heads are
those of the original.
"""
import numpy as np

from jittwin.models.distortion import LEVELS, SCORES
from jt_models.backbones.davit import to_map
from jt_models.backbones.florence2 import Florence2
from jt_models.nn import lora, ops
from jt_models.nn.layers import (
    BatchNorm1d,
    BatchNorm2d,
    Conv2d,
    Linear,
    Module,
    ReLU,
    Sequential,
    name_dropouts,
)


class Double(Module):
    """Maps of twice the height and width, bilinear, the corners in place."""

    def execute(self, x):
        return ops.interpolate(x, (2 * x.shape[2], 2 * x.shape[3]), "bilinear", align_corners=True)


class HeatmapPredictor(Module):
    """A map of tokens (B, C, h, w) to logits (B, classes, 32 h, 32 w)."""

    def __init__(self, config):
        super().__init__()
        first, second, *widths = config.map_widths
        self.conv_layers = Sequential(
            Conv2d(config.map_channels, first, 3, padding=1), BatchNorm2d(first), ReLU(),
            Conv2d(first, second, 3, padding=1), BatchNorm2d(second), ReLU())
        self.deconv_layers = Sequential(*[
            Sequential(Conv2d(before, width, 3, padding=1), Double(), BatchNorm2d(width), ReLU())
            for before, width in zip((second, *widths), widths)])
        self.final_layers = Sequential(Conv2d(widths[-1], config.map_classes, 3, padding=1))

    def execute(self, x):
        return self.final_layers(self.deconv_layers(self.conv_layers(x)))


class ScorePredictor(Module):
    """Features (B, F) to logits (B, classes). The head "conv" makes its features from a map of tokens (B, C, h, w)."""

    def __init__(self, config):
        super().__init__()
        self.shrinks = config.score_head == "conv"
        if self.shrinks:
            widths = (config.map_channels, *config.score_widths)
            self.conv_layers = Sequential(*[
                Sequential(Conv2d(before, width, 2), BatchNorm2d(width), ReLU())
                for before, width in zip(widths, widths[1:])])
        wide, narrow = 2 * config.head_width, config.head_width
        self.fc_layers = Sequential(
            Linear(config.score_features, wide), BatchNorm1d(wide), ReLU(),
            Linear(wide, narrow), BatchNorm1d(narrow), ReLU(), Linear(narrow, config.score_classes))

    def execute(self, x):
        if self.shrinks:
            x = self.conv_layers(x)
        return self.fc_layers(x.reshape(x.shape[0], -1))


class Distortion(Module):
    """Pictures (B, 3, S, S), prepared as jittwin.models.distortion says, and the tokens of an instruction for each.

    config: a jittwin.models.distortion.DistortionConfig. gradient_checkpointing: see Florence2. adapters: a
    jittwin.models.lora.LoraConfig for LoRA on the trunk, whose other weights are frozen with freeze_rest. ids, keep:
    token ids (B, N), and 1 for tokens and 0 for padding, as jittwin.models.distortion.encode_prompts makes them; in the
    mode "reference" of the text, keep counts for nothing. The weights must be loaded.
    """

    def __init__(self, config, gradient_checkpointing: bool = False, adapters=None, freeze_rest: bool = True):
        super().__init__()
        self.florence2 = Florence2(config.trunk, gradient_checkpointing)
        if adapters:
            self.florence2 = lora.adapt(self.florence2, adapters, freeze_rest)
        self.trunk_trained = True
        self.heatmap_predictor = HeatmapPredictor(config)
        self.score_predictor = ScorePredictor(config)
        self.masked = config.text_mode == "fast"
        self.before_too = config.mask_head != "last"
        self.score_head = config.score_head
        name_dropouts(self)

    def execute(self, pixels, ids, keep=None):
        """(maps (B, 1, S, S) from 0 to 1, where 1 is implausible; scores (B,) from 0, bad, to 1)."""
        maps, scores = self.logits(pixels, ids, keep)
        return self.heat(maps), self.score(scores)

    def logits(self, pixels, ids, keep=None):
        """What the heads give: (B, classes, S, S) for the maps and (B, classes) for the scores, one class if the head
        is no "_cls"."""
        image, hidden = self.encode(pixels, ids, keep if self.masked else None)
        count = image.shape[1]
        tokens = ops.concat([image, hidden[:, :count]], 2) if self.before_too else hidden[:, :count]
        places = to_map(tokens[:, 1:], pixels.shape[2] // 32, pixels.shape[3] // 32)
        if self.score_head == "conv":
            seen = places
        elif self.score_head.startswith("linear2"):
            seen = ops.concat([image[:, 0], hidden[:, 0]], 1)
        else:
            seen = hidden[:, 0]
        with ops.autocast():
            maps, scores = self.heatmap_predictor(places), self.score_predictor(seen)
        return ops.full_precision(maps), ops.full_precision(scores)

    def normalize_jointly(self, flag: bool):
        """Whether several processes normalise in the heads by the whole batch, or each by its own pictures."""
        for part in self.modules():
            if isinstance(part, BatchNorm2d):
                part.joint = flag

    def encode(self, pixels, ids, keep=None):
        """What the trunk gives; where trunk_trained is False, nothing is kept for its gradients."""
        if self.trunk_trained:
            return self.florence2(pixels, ids, keep)
        with ops.no_grad():
            image, hidden = self.florence2(pixels, ids, keep)
        return ops.detach(image), ops.detach(hidden)

    def heat(self, logits):
        """Maps (B, 1, S, S) from 0 to 1 from their logits."""
        if logits.shape[1] == 1:
            return ops.sigmoid(logits)
        heat = mean_of(logits.permute(0, 2, 3, 1), LEVELS)
        return heat.reshape(heat.shape[0], 1, *heat.shape[1:])

    def score(self, logits):
        """Scores (B,) from 0 to 1 from their logits."""
        if logits.shape[1] == 1:
            return ops.sigmoid(logits).reshape(-1)
        return mean_of(logits, SCORES)


def mean_of(logits, values):
    """The means (…) of distributions over `values`, a NumPy array (K,), given by their logits (…, K)."""
    return (ops.softmax(logits) * ops.from_host(values.astype(np.float32))).sum(-1)
