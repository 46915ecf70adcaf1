"""The cases of the aesthetic model: transformers' tower, peft's adapters and PyTorch's head against the Jittor port,
and the training of the adapters and the head."""
import numpy as np

from jittwin.draws import Draws
from jittwin.models.aesthetic import AestheticConfig
from jittwin.models.lora import LoraConfig
from jittwin.tasks import load_task
from parity.case import Case
from parity.cases.siglip import TINY, tower_weights
from parity.training import Training

# The two dropout probabilities differ, so that an exchange of them shows.
CONFIG = AestheticConfig(tower=TINY, lora=LoraConfig(r=4, alpha=8, dropout=0.2), head_dropout=0.3)
SEED = 23       # of the dropout masks, which come from counters in both twins
ADAPTED = "vision_model.base_model.model.encoder.layers.1.mlp.fc1.base_layer.weight"


class Aesthetic(Case):
    """The adapters' B matrices are not zero. The mode "recomputed" uses gradient checkpointing, which must change
    nothing."""
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
    """The adapters are merged into the weights and taken out of them again."""
    name = "aesthetic.merged"
    modes = ("eval",)
    levels = ("L3",)

    def run(self, side, module, inputs, mode):
        module.merge()
        found = {"merged weight": module.state_dict()[ADAPTED] * 1, "merged logits": module(inputs["pixels"])}
        module.unmerge()
        return {**found, "weight": module.state_dict()[ADAPTED] * 1, "logits": module(inputs["pixels"])}


class AestheticTraining(Training):
    """Three epochs of thirteen batches: six steps of two batches and one step of the batch left over. Warm-up ends
    with the third step. The cosine schedule ends before training does, since it does not count the batches left over.
    Gradients are clipped at every step.

    "full" compares all of the 21 steps.
    """
    name = "aesthetic.training"
    task = "aesthetic"
    sizes = ("tiny", "full")

    def config(self, size):
        return load_task(self.task).Config(
            random_model=True, architecture="tiny", lora_r=4, lora_alpha=8, lora_dropout=0.2, synthetic_images=32,
            train_split=0.82, batch_size=2, accumulation=2, epochs=3, lr=2e-3, head_lr=5e-3, warmup_ratio=0.2,
            clip=0.02, workers=1, log_every=1, sample_every=1 << 20)

    def checked(self, size):
        # Rate 0, warm-up and its end; the batch left over and the next epoch; the cosine's end and beyond.
        return list(range(21)) if size == "full" else [0, 1, 2, 3, 6, 7, 13, 17, 20]

    def shared(self, size):
        return list(range(20)) if size == "full" else [2, 6]

    def boundary(self, size):
        return 7                            # steps of an epoch


CASES = (Aesthetic(), Merged(), AestheticTraining())
