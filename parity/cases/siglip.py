"""The case of the SigLIP vision tower: transformers' own network against the Jittor port."""
import numpy as np

from jittwin.draws import Draws
from jittwin.models.siglip import PRESETS, SiglipVisionConfig
from parity.case import Case, spread_weights

TINY = SiglipVisionConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
                          patch_size=8, image_size=32)
FULL = "so400m-patch16-512"


class Siglip(Case):
    """The mode "pooled" has the attention pooling head as well. "full" is the published tower on one picture. There
    the PyTorch worker, which computes in float64 and then in float32, takes 9 GB and the Jittor worker 4.5 GB."""
    name = "siglip"
    sizes = ("tiny", "full")
    modes = ("eval", "eval pooled")
    levels = ("L1", "L2", "L3", "L4")
    differentiable = ("pixels",)
    full_depth = 3                            # encoder.layers.N

    def config(self, size: str, mode: str) -> SiglipVisionConfig:
        chosen = TINY if size == "tiny" else PRESETS[FULL]
        return SiglipVisionConfig(**(vars(chosen) | {"head": "pooled" in mode.split()}))

    def build(self, side, size, mode):
        return side.backend.build(self.name, self.config(size, mode))

    def inputs(self, size, mode):
        width = self.config(size, mode).image_size
        return {"pixels": Draws(3).normal("pixels", (2 if size == "tiny" else 1, 3, width, width))}

    def run(self, side, module, inputs, mode):
        hidden = module(inputs["pixels"])
        pooled = {"pooler_output": module.pool(hidden)} if "pooled" in mode.split() else {}
        return {"last_hidden_state": hidden, **pooled}

    def weights(self, shapes, seed):
        return tower_weights(shapes, seed)


def tower_weights(shapes, seed: int) -> dict[str, np.ndarray]:
    """Weights with which attention looks at some tokens more than at others, and with which the first layer norms see
    values so small that their epsilon matters."""
    arrays = spread_weights(shapes, seed)
    for name, values in arrays.items():
        if "self_attn.q_proj." in name or "self_attn.k_proj." in name:
            factor = 1.5 if values.ndim > 1 and "lora" not in name else 1
        elif "embeddings.patch_embedding." in name:
            factor = 0.1
        elif name.endswith("position_embedding.weight"):
            factor = 0.1 * np.sqrt(values.shape[-1])
        else:
            factor = np.sqrt(values.shape[-1]) if name.endswith("head.probe") else 1
        arrays[name] = np.asarray(values * np.float32(factor))      # a product of scalars is no array
    return arrays


CASES = (Siglip(),)
