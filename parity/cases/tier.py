"""The cases of TIER and of the baselines of its paper: every mode, with text and without."""
import numpy as np

from jittwin.draws import Draws
from jittwin.models import inception_v4, resnet, vgg, vit
from jittwin.models.tier import REGRESSOR, TEXT, make_config
from jittwin.models.tier_keys import backbone_in, below
from jittwin.tasks import load_task
from parity.case import Case
from parity.cases.backbones import shifted_weights
from parity.cases.bert import Bert
from parity.cases.inception_v4 import InceptionV4
from parity.cases.resnet import ResNet
from parity.cases.vgg import VGG
from parity.cases.vit import VisionTransformer
from parity.training import Training

SEED = 29       # of the dropout masks, which come from counters in both twins
MASK = np.array([[1, 1], [1, 0], [1, 1]])       # all have a picture, and not all an image prompt
BACKBONES = {resnet: ResNet(), vgg: VGG(), inception_v4: InceptionV4(), vit: VisionTransformer()}


class Tier(Case):
    """A mode says eval or train, nr, fr or pr, and the backbone; "baseline" has no text, and "legacy" runs pictures of
    zeros for image prompts that are not there. "full" has the published sizes."""
    name = "tier"
    sizes = ("tiny", "full")
    modes = ("eval nr vit", "train pr resnet18", "train fr resnet18 baseline")
    more_modes = ("eval fr vit", "train pr resnet18 legacy", "eval pr inceptionv4", "eval nr vgg16 baseline")
    differentiable = ("pixels",)
    optimizer = ("adam", {"weight_decay": 1e-5})
    full_depth = 3                            # encoder.image_encoder.layer1

    def config(self, size: str, mode: str):
        _, kind, backbone, *rest = mode.split()
        return make_config(kind, backbone, size, "baseline" not in rest, "legacy" in rest)

    def build(self, side, size, mode):
        return side.backend.build(self.name, self.config(size, mode))

    def inputs(self, size, mode):
        config, draws, count = self.config(size, mode), Draws(3), len(MASK)
        shape = (count, 3, config.image_size, config.image_size)
        found = {"pixels": draws.normal("pixels", shape), "target": 5 * draws.uniform("target", (count,))}
        if config.image_prompts:
            found["prompt_pixels"] = draws.normal("prompt_pixels", shape)
        if config.text:
            words = Bert().inputs("tiny", mode)
            found |= {"ids": words["ids"], "keep": words["keep"]}
        return found

    def predictions(self, side, module, inputs):
        side.ops.seed_dropout(SEED)
        return module(mask=MASK, **{name: tensor for name, tensor in inputs.items() if name != "target"})

    def run(self, side, module, inputs, mode):
        return {"predictions": self.predictions(side, module, inputs)}

    def losses(self, side, module, inputs, mode, half=""):
        return module.loss(self.predictions(side, module, inputs), inputs["target"])

    def weights(self, shapes, seed):
        """Those of the cases of the parts, and a regressor whose ReLU is rarely near 0."""
        kind, prefix = backbone_in(shapes)
        parts = {TEXT: Bert(), prefix: BACKBONES[kind]}
        found = {name: array for prefix, case in parts.items()
                 for name, array in above(case.weights(below(shapes, prefix), seed), prefix).items()}
        return found | above(shifted_weights(below(shapes, REGRESSOR), seed), REGRESSOR)


def above(arrays, prefix: str) -> dict[str, np.ndarray]:
    return {prefix + name: array for name, array in arrays.items()}


class TierTraining(Training):
    """TIER-PR with a ResNet, some image prompts missing, on augmented pictures; an epoch has three batches of four
    pictures and one of three. "full" compares 50 steps."""
    name = "tier.training"
    task = "tier"
    sizes = ("tiny", "full")
    free_steps = 3

    def config(self, size):
        return load_task(self.task).Config(
            mode="pr", backbone="resnet18", size="tiny", random_model=True, synthetic_images=20, batch_size=4,
            test_batch_size=5, epochs=13, lr=1e-3, workers=1, log_every=1, sample_every=1 << 20)

    def checked(self, size):
        # The first step, the smaller batch that ends an epoch, and the next epoch.
        return list(range(50)) if size == "full" else [0, 3, 4]

    def shared(self, size):
        return list(range(20)) if size == "full" else [3]       # a batch that two processes cannot share evenly

    def boundary(self, size):
        return 4                            # steps of an epoch


CASES = (Tier(), TierTraining())
