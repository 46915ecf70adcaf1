"""The cases of the detector of structural distortion: every head, both ways to read a text, and its training."""
import numpy as np

from jittwin.draws import Draws
from jittwin.models.conversion import below
from jittwin.models.distortion import TRUNK, make_config
from jittwin.tasks import load_task
from parity.case import Case
from parity.cases.backbones import shifted_weights
from parity.cases.florence2 import Florence2
from parity.training import Training

SEED = 17       # of the dropout masks, which come from counters in both twins
LENGTH = 8          # of the tiny texts, in tokens
CONV_SIDE = 160     # of the smallest tiny picture for the score head "conv"


class Distortion(Case):
    """A mode says eval or train, the mask head and the score head; "fast" does not attend to padding. "full" is the
    detector on Florence-2-base, with texts of as many tokens as it has positions for, or with "fast" of 192. There the
    PyTorch worker takes 5.4 GB and the Jittor worker 2.7 GB for one picture."""
    name = "distortion"
    trunk = "base"
    sizes = ("tiny", "full")
    modes = ("eval concat linear", "train concat_cls linear2_cls fast")
    more_modes = ("train concat linear", "eval last linear_cls", "train last linear2", "eval concat conv fast",
                  "train concat conv")
    differentiable = ("pixels",)
    optimizer = ("adamw", {"weight_decay": 1e-2})
    full_depth = 3

    def config(self, size: str, mode: str):
        _, mask_head, score_head, *rest = mode.split()
        text_mode = "fast" if "fast" in rest else "reference"
        if size == "full":
            return make_config(self.trunk, score_head, mask_head, text_mode)
        side = CONV_SIDE if score_head == "conv" else None
        return make_config("tiny", score_head, mask_head, text_mode, LENGTH, side)

    def build(self, side, size, mode):
        return side.backend.build("distortion", self.config(size, mode))

    def inputs(self, size, mode):
        """Pictures whose colours differ, so that a batch has a variance to normalise by, and texts of different
        lengths."""
        config, draws = self.config(size, mode), Draws(3)
        count = 4 if size == "tiny" else 2 if mode.startswith("train") else 1
        pixels = draws.normal("pixels", (count, 3, config.image_size, config.image_size))
        keep = np.arange(config.text_length) < np.array([[7], [4], [6], [2]])[:count] * config.text_length // 8
        ids = draws.integers("ids", 2, config.trunk.text.vocab_size - 1, keep.shape)
        return {"pixels": pixels + 2 * draws.normal("colours", (count, 3, 1, 1)),
                "ids": np.where(keep, ids, 1).astype(np.int32), "keep": keep.astype(np.int32)}

    def run(self, side, module, inputs, mode):
        side.ops.seed_dropout(SEED)
        heat, score = module(inputs["pixels"], inputs["ids"], inputs["keep"])
        return {"heat": heat, "score": score}

    def weights(self, shapes, seed):
        """Those of the trunk's case, and heads whose ReLUs are rarely near 0. The normalisations shift their inputs,
        and the layers before them do not."""
        trunk = {TRUNK + name: array for name, array in Florence2().weights(below(shapes, TRUNK), seed).items()}
        heads = shifted_weights({name: shape for name, shape in shapes.items() if name not in trunk}, seed)
        for name, values in heads.items():
            if name.endswith(".bias") and len(shapes[name.removesuffix("bias") + "weight"]) > 1:
                heads[name] = values * np.float32(0.04)
        return trunk | heads


class DistortionLarge(Distortion):
    """The published detector, on Florence-2-large with a text of 1024 tokens. It has the parts of the other, so that
    there is no tiny one."""
    name = "distortion_large"
    trunk = "large"
    sizes = ("full",)
    modes = ("eval concat linear",)
    more_modes = ()
    levels = ("L1", "L3")


class DistortionTraining(Training):
    """Two steps of the heads alone in the warm-up, then six epochs of two steps, each from two batches and from the one
    left over. "full" compares all of the 14 steps."""
    name = "distortion.training"
    task = "distortion"
    sizes = ("tiny", "full")
    free_steps = 3
    joint = {"joint_norm": True}
    changes = {"warmup_epochs": 1, "warmup_batch_size": 4, "score_loss": "mse-plcc-srcc", "semantics": "repaired"}

    def config(self, size):
        return load_task(self.task).Config(
            random_model=True, size="tiny", side=96, head_width=64, text_mode="fast", maps="native",
            synthetic_images=12, batch_size=4, epochs=6, accumulation=2, lr=1e-3, min_lr=1e-5, workers=1, log_every=1,
            sample_every=1 << 20, save_epochs=1, **self.changes)

    def checked(self, size):
        # The first and the last step of the warm-up, the first of the trunk, a batch left over, and the next epoch.
        return list(range(14)) if size == "full" else [0, 1, 2, 3, 4]

    def shared(self, size):
        return self.checked(size) if size == "full" else [1, 3]

    def boundary(self, size):
        return 2                            # steps of the warm-up


class LoraTraining(DistortionTraining):
    """Only LoRA and the heads are trained, with the original's losses."""
    name = "distortion.lora"
    changes = {"warmup_epochs": 0, "lora_rank": 4, "score_loss": "mse-plcc", "semantics": "reference"}

    def checked(self, size):
        # Not the first step, in which Adam takes the mere signs of gradients. Where they differ between the twins, the
        # gradients are below 2e-7 of the largest: 4 of 103,000 weights, and biases before a normalisation.
        return list(range(1, 12)) if size == "full" else [1, 2, 3]


CASES = (Distortion(), DistortionLarge(), DistortionTraining(), LoraTraining())
