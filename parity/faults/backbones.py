"""Faults of the networks that TIER and its baselines get features from."""
from parity.faults.fault import Fault

R, I, V, T, B = (f"backbones/{name}.py" for name in ("resnet", "inception_v4", "vgg", "vit", "bert"))

FAULTS = (
    Fault("bottleneck_stride", "", R,
          "self.conv1 = Conv2d(in_channels, channels, 1, bias=False)\n        self.bn1 = BatchNorm2d(channels)\n"
          "        self.conv2 = Conv2d(channels, channels, 3, stride, padding=1, bias=False)",
          "self.conv1 = Conv2d(in_channels, channels, 1, stride, bias=False)\n"
          "        self.bn1 = BatchNorm2d(channels)\n"
          "        self.conv2 = Conv2d(channels, channels, 3, padding=1, bias=False)",
          "a bottleneck halves its map in its first convolution, as in the paper, and not in the second"),
    Fault("activation_before_sum", "", R,
          "self.activation(self.residual(x) + kept)", "self.activation(self.residual(x)) + kept",
          "a block's input is added after the activation"),
    Fault("inception_v4_pool_divisor", "F4", I,
          "count_include_pad=False", "count_include_pad=True", "average pools count the zeros of the border"),
    Fault("branches_exchanged", "", I,
          "return Mixed(conv=conv(narrow, 192, 192, *HALVING), pool=MaxPool2d(3, 2))",
          "return Mixed(pool=MaxPool2d(3, 2), conv=conv(narrow, 192, 192, *HALVING))",
          "two branches of equal width are joined in the other order"),
    Fault("fork_of_the_wrong_map", "", I,
          "self.branch2_2(self.branch2_1(self.branch2_0(x)))", "self.branch2_2(self.branch2_1(self.branch1_0(x)))",
          "a branch begins with the first convolution of its neighbour, which has the same shape"),
    Fault("trunk_without_last_pool", "", V,
          "Sequential(*convolutions(config.blocks), MaxPool2d(2, 2))", "Sequential(*convolutions(config.blocks))",
          "the last max-pool is left out", ("vgg",)),
    Fault("feature_after_norm", "", T,
          "return self.tokens(pixels)[:, 0]", "return self.norm(self.tokens(pixels))[:, 0]",
          "the feature is taken after the last normalisation"),
    Fault("queries_and_keys_swapped", "", T,
          "q, k, v = (x[:, :, at:at + width]", "k, q, v = (x[:, :, at:at + width]",
          "two thirds of a matrix exchanged, which have equal shapes"),
    Fault("first_token_without_place", "", T,
          "ops.concat([first, x], 1) + self.pos_embed)", "ops.concat([first, x + self.pos_embed[:, 1:]], 1))",
          "the first token gets no position"),
    Fault("padding_seen", "", B,
          "ops.padding_mask(keep), image)", "None, image)", "tokens attend to the padding"),
    Fault("attention_dropout_forgotten", "", B,
          "self.dropout.rate(), self.dropout.site)", "0.0, self.dropout.site)",
          "the weights of attention are all kept"),
    Fault("padding_trained", "", B,
          "padding_idx=config.pad_token_id)", "padding_idx=None)", "the embedding of the padding gets a gradient"),
)
