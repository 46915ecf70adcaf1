"""The cases of the aesthetic model: transformers' tower, peft's adapters and PyTorch's head against the Jittor port;
and the training that moves the adapters and the head."""
import numpy as np

from jittwin.draws import Draws
from jittwin.models.aesthetic import AestheticConfig
from jittwin.models.lora import LoraConfig
from jittwin.tasks import load_task
from parity.case import Case
from parity.cases.siglip import TINY, tower_weights
from parity.training import Training

# Two probabilities, so that one in the place of the other shows.
CONFIG = AestheticConfig(tower=TINY, lora=LoraConfig(r=4, alpha=8, dropout=0.2), head_dropout=0.3)
SEED = 23       # of the dropout masks, which are counters' in both twins
ADAPTED = "vision_model.base_model.model.encoder.layers.1.mlp.fc1.base_layer.weight"


class Aesthetic(Case):
    """With adapters whose B is not zero. "recomputed" checkpoints gradients, which must change nothing."""
    name = "aesthetic"
    modes = ("eval", "train", "train recomputed")
    differentiable = ("pixels",)
    optimizer = ("adamw", {"weight_decay": 0.01})

    def build(self, side, size, mode):
        side.ops.seed_dropout(SEED)
        return side.backend.build("aesthetic", CONFIG, gradient_checkpointing="recomputed" in mode.split())

    def inputs(self, size, mode):
        votes = np.exp(Draws(3).normal("target", (3, CONFIG.num_classes)))
        return {"pixels": Draws(3).normal("pixels", (3, 3, TINY.image_size, TINY.image_size)),
                "target": votes / votes.sum(1, keepdims=True)}

    def run(self, side, module, inputs, mode):
        return {"logits": module(inputs["pixels"])}

    def losses(self, side, module, inputs, mode, half=""):
        return {f"EMD r={r}": module.loss(inputs["pixels"], inputs["target"], r)["EMD"] for r in (2, 1)}

    def weights(self, shapes, seed):
        return tower_weights(shapes, seed)


class Merged(Aesthetic):
    """With the adapters merged into the weights, and taken out of them again."""
    name = "aesthetic.merged"
    modes = ("eval",)
    levels = ("L3",)

    def run(self, side, module, inputs, mode):
        module.merge()
        found = {"merged weight": module.state_dict()[ADAPTED] * 1, "merged logits": module(inputs["pixels"])}
        module.unmerge()
        return {**found, "weight": module.state_dict()[ADAPTED] * 1, "logits": module(inputs["pixels"])}


class AestheticTraining(Training):
    """Twenty steps of two batches each, in five epochs: warm-up, both groups of rates, clipping, dropout."""
    name = "aesthetic.training"
    task = "aesthetic"
