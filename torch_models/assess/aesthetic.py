"""The aesthetic scorer: a frozen SigLIP 2 tower with LoRA, its tokens averaged, and a head of three layers.

The loss is NIMA's (Talebi and Milanfar 2018, arXiv 1709.05424).
"""
from jittwin.models.aesthetic import DISTANCES, HEAD_SIZES, SOFTENING
from torch_models.backbones.siglip import SiglipVisionModel
from torch_models.nn import lora, ops
from torch_models.nn.layers import GELU, Dropout, Linear, Module, Sequential, name_dropouts


class AestheticHead(Module):
    """Features (B, hidden_size) to logits (B, num_classes)."""

    def __init__(self, hidden_size: int, num_classes: int, dropout: float):
        super().__init__()
        first, second = HEAD_SIZES
        self.mlp = Sequential(
            Linear(hidden_size, first), GELU(), Dropout(dropout),
            Linear(first, second), GELU(), Dropout(dropout),
            Linear(second, num_classes))

    def forward(self, x):
        return self.mlp(x)


class AestheticModel(Module):
    """Pictures (B, 3, S, S) in [-1, 1] to logits (B, 10) of the ratings 1 to 10; only LoRA and the head are trained.

    config: a jittwin.models.aesthetic.AestheticConfig. The weights must be loaded: the tower's with `tower_state`,
    those of LoRA and the head from a file or from jittwin.weights.initial.
    """

    def __init__(self, config, gradient_checkpointing: bool = False):
        super().__init__()
        self.vision_model = lora.adapt(SiglipVisionModel(config.tower, gradient_checkpointing), config.lora)
        self.aesthetic_head = AestheticHead(config.tower.hidden_size, config.num_classes, config.head_dropout)
        name_dropouts(self)

    def forward(self, pixels):
        return self.aesthetic_head(self.embed(pixels))

    def embed(self, pixels):
        """The mean of the tower's tokens after its last normalisation, (B, hidden_size); in float32 like the head."""
        with ops.autocast():
            hidden = ops.full_precision(self.vision_model(pixels))
        return ops.mean_dims(hidden, (1,))[:, 0]

    def loss(self, pixels, target, r: int = 2):
        """{"EMD": mean distance of the predicted distributions from `target` (B, 10)}; see `emd`."""
        return {"EMD": emd(self(pixels), target, r)}

    def merge(self):
        """Add LoRA to the tower's weights, for inference."""
        lora.merge(self.vision_model)

    def unmerge(self):
        """Undo `merge`, up to rounding."""
        lora.unmerge(self.vision_model)


def emd(logits, target, r: int = 2):
    """Mean over the batch of (mean_k |difference of the cumulative distributions|^r)^(1/r); r is 1 or 2.

    For r = 2 the mean is raised by 1e-12: the slope of the root is infinite at 0.
    """
    if r not in DISTANCES:
        raise ValueError(f"EMD with r = {r}; legal: 1 or 2")
    gap = ops.cumsum(ops.softmax(logits) - target)
    if r == 1:
        return ops.l1_mean(gap, ops.zeros(gap.shape))
    return ops.mean((ops.mean_dims(gap * gap, (1,)) + SOFTENING).sqrt())
