"""The case of SegFormer: transformers' own network against the Jittor port."""
from jittwin.draws import Draws
from jittwin.models.segformer import PRESETS, SegFormerConfig
from parity.case import Case, spread_weights

# A narrow network with every kind of part: two layers in one stage, four stages, attention heads of width 8.
TINY = SegFormerConfig(depths=(1, 2, 1, 1), hidden_sizes=(8, 16, 24, 32), num_attention_heads=(1, 2, 3, 4),
                       decoder_hidden_size=16, num_labels=7)


class SegFormer(Case):
    """"full" is B5 at its published resolution."""
    name = "segformer"
    sizes = ("tiny", "full")
    modes = ("eval",)
    levels = ("L1", "L2", "L3", "L4")
    differentiable = ("image",)
    full_depth = 4

    def build(self, side, size, mode):
        return side.backend.build(self.name, TINY if size == "tiny" else PRESETS["B5"])

    def inputs(self, size, mode):
        return {"image": Draws(3).normal("image", (2, 3, 64, 96) if size == "tiny" else (1, 3, 640, 640))}

    def run(self, side, module, inputs, mode):
        return {"logits": module(inputs["image"])}

    def weights(self, shapes, seed):
        """Weights with which attention looks at some tokens more than at others. The channels before the one ReLU are
        shifted away from 0, since a rounding error that flips its sign would hide smaller differences."""
        arrays = spread_weights(shapes, seed)
        for name, values in arrays.items():
            if name.endswith(("self.query.weight", "self.key.weight")):
                arrays[name] = 1.5 * values
            elif name == "decode_head.batch_norm.bias":
                arrays[name] = 30 * values
        return arrays


CASES = (SegFormer(),)
