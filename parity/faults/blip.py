"""Faults of BLIP and ImageReward: how a text looks at a picture, and how features become cosines and rewards."""
from parity.faults.fault import Fault

B, I, T = "backbones/blip.py", "assess/image_reward.py", "backbones/bert.py"
LOOKER, READER = "blip", "image_reward"       # cases that are sensitive to a line of their parts

FAULTS = (
    Fault("picture_not_looked_at", "", T,
          "if image is not None:", "if image is None:", "the prompt is read without looking at the picture", (READER,)),
    Fault("looks_before_it_reads", "", T,
          "        x = self.attention(x, x, mask)\n        if image is not None:\n"
          "            x = self.crossattention(x, image)\n",
          "        if image is not None:\n            x = self.crossattention(x, image)\n"
          "        x = self.attention(x, x, mask)\n",
          "a text looks at the picture before it reads itself", (READER,)),
    Fault("tokens_not_normalised", "", "backbones/vit.py",
          "self.norm(self.tokens(pixels))", "self.tokens(pixels)", "the last normalisation of the pictures is missing",
          (LOOKER,)),
    Fault("a_patch_for_the_picture", "", B,
          "self.look(pixels)[:, 0]", "self.look(pixels)[:, 1]", "a picture's feature is that of its first patch"),
    Fault("lengths_kept", "", B,
          "x / (x * x).sum(1).sqrt().reshape(-1, 1)", "x", "products of features are no cosines"),
    Fault("reward_without_bias", "", I,
          "Linear(fourth, 1))", "Linear(fourth, 1, bias=False))", "the last linear layer has no bias"),
    Fault("mean_after_deviation", "", I,
          "- MEAN) / STD", ") / STD - MEAN", "the mean is subtracted after the division"),
)
