"""The case of the losses of the detector of structural distortion: every term and both semantics."""
import numpy as np

from jittwin.draws import Draws
from jittwin.models.distortion_losses import MASK_TERMS, SCORE_TERMS, DistortionLosses
from parity.case import Case


class Losses(Case):
    """Scores in nearly the wrong order; the mode "single" has one picture. The weights of the two parts differ, so that
    an exchange of them shows."""
    name = "distortion.losses"
    modes = ("eval", "eval reference", "eval single")
    levels = ("L2", "L3", "L4")
    differentiable = ("logits", "scores")

    def build(self, side, size, mode):
        return side.layers.ReLU()       # the losses have no parameters

    def inputs(self, size, mode):
        count = 1 if "single" in mode else 5
        draws, votes = Draws(4), np.linspace(0, 1, count, dtype=np.float32)
        target = np.array([0, 64, 127, 180], np.float32)[draws.integers("target", 0, 3, (count, 1, 9, 7))] / 255
        noise = draws.normal("scores", (count,))
        scores = 0.5 - 0.3 * votes + 0.1 * noise
        return {"logits": 2 * draws.normal("logits", (count, 1, 9, 7)) - 2, "target": target,
                "scores": scores.astype(np.float32), "votes": votes}

    def terms(self, side, inputs, mode):
        config = DistortionLosses(MASK_TERMS, SCORE_TERMS, 0.7, 1.3, "reference" if "reference" in mode else "repaired")
        logits = inputs["logits"]
        return side.backend.build("distortion.objective", config).losses(
            side.ops.sigmoid(logits), inputs["target"], inputs["scores"], inputs["votes"], logits)

    def run(self, side, module, inputs, mode):
        return {name: loss.reshape(1) for name, loss in self.terms(side, inputs, mode).items()}

    def losses(self, side, module, inputs, mode, half=""):
        return self.terms(side, inputs, mode)


CASES = (Losses(),)
