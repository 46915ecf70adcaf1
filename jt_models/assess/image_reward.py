"""ImageReward: how well people would like a picture that was made from a prompt.

Xu et al. 2023, arXiv 2304.05977. Keys are those of the official ImageReward.pt.
"""
from jittwin.models.image_reward import MEAN, STD
from jt_models.backbones.blip import Blip
from jt_models.nn.layers import Dropout, Linear, Module, Sequential, name_dropouts


class Mlp(Module):
    """Features (B, C) to raw rewards (B, 1). There are no activations between the layers."""

    def __init__(self, width: int, widths):
        super().__init__()
        first, second, third, fourth = widths
        self.layers = Sequential(Linear(width, first), Dropout(0.2), Linear(first, second), Dropout(0.2),
                                 Linear(second, third), Dropout(0.1), Linear(third, fourth), Linear(fourth, 1))

    def execute(self, x):
        return self.layers(x)


class ImageReward(Module):
    """Pictures (B, 3, S, S), prepared as jittwin.models.blip says, and the prompt of each, to rewards (B,).

    config: a jittwin.models.image_reward.ImageRewardConfig. ids, keep: token ids (B, N), and 1 for tokens and 0 for
    padding. A reward of 0 is the mean of the authors' validation data, and their deviation is 1. The weights must be
    loaded.
    """

    def __init__(self, config):
        super().__init__()
        self.blip = Blip(config.blip)
        self.mlp = Mlp(config.blip.text.hidden_size, config.widths)
        name_dropouts(self)

    def execute(self, pixels, ids, keep):
        read = self.blip.read(ids, keep, self.blip.look(pixels))
        return (self.mlp(read[:, 0]).reshape(-1) - MEAN) / STD
