"""The case of BERT: texts of different lengths side by side, with dropout in training."""
import numpy as np

from jittwin.draws import Draws
from jittwin.models.bert import PRESETS
from parity.case import Case, spread_weights

LENGTHS = {"tiny": (9, 4, 1), "full": (40, 17)}
SEED = 7


class Bert(Case):
    """"full" is BERT-base. "train" draws its dropout by counters, which are the same in both twins."""
    name = "bert"
    sizes = ("tiny", "full")
    modes = ("eval", "train")
    full_depth = 3                            # encoder.layer.N

    def config(self, size: str):
        return PRESETS["tiny" if size == "tiny" else "base-uncased"]

    def build(self, side, size, mode):
        return side.backend.build(self.name, self.config(size))

    def inputs(self, size, mode):
        lengths = np.array(LENGTHS[size])[:, None]
        keep = np.arange(lengths.max()) < lengths
        ids = Draws(3).integers("ids", 1, self.config(size).vocab_size - 1, keep.shape)
        return {"ids": (ids * keep).astype(np.int32), "keep": keep.astype(np.int32)}

    def run(self, side, module, inputs, mode):
        side.ops.seed_dropout(SEED)
        return {"hidden": module(inputs["ids"], inputs["keep"])}

    def weights(self, shapes, seed):
        """Spread so that attention looks at some tokens more than at others."""
        arrays = spread_weights(shapes, seed)
        for name, values in arrays.items():
            if name.endswith(("query.weight", "key.weight")):
                arrays[name] = 1.5 * values
            elif name.endswith("embeddings.weight"):
                arrays[name] = np.sqrt(values.shape[1]).astype(np.float32) * values
        return arrays


CASES = (Bert(),)
