"""The case of ImageReward: prompts of different lengths, read while looking at pictures."""
from jittwin.models.image_reward import BLIP, PRESETS
from parity.cases.blip import Blip, with_parts


class ImageReward(Blip):
    """"full" is the published network on one picture."""
    name = "image_reward"
    full_depth = 3

    def config(self, size: str):
        return PRESETS["tiny" if size == "tiny" else "large"]

    def run(self, side, module, inputs, mode):
        return {"rewards": module(inputs["pixels"], inputs["ids"], inputs["keep"])}

    def weights(self, shapes, seed):
        return with_parts({BLIP: Blip()}, shapes, seed)


CASES = (ImageReward(),)
