"""Low-rank adapters (Hu et al. 2022, arXiv 2106.09685), of linear layers by peft. Both twins have peft's names."""
import re

import peft
import torch
from peft.tuners.lora import Linear as LoraLinear

from torch_models.nn.layers import Conv2d, Dropout, Linear, Module


class LoraLayer(Module):
    """W x + b + scaling B A dropout(x), of a convolution; A and B must be loaded. Linear layers have peft's.

    A has the convolution's kernel, stride and padding, and B a kernel of 1.
    """

    def __init__(self, base_layer, config):
        super().__init__()
        outputs, inputs, *kernel = base_layer.weight.shape
        self.base_layer = base_layer
        self.lora_dropout = _default(Dropout(config.dropout))
        self.lora_A = _default(Conv2d(inputs, config.r, tuple(kernel), base_layer.stride, base_layer.padding, False))
        self.lora_B = _default(Conv2d(config.r, outputs, 1, bias=False))
        self.scaling = config.scaling
        self.merged = False

    def forward(self, x):
        y = self.base_layer(x)
        if self.merged:
            return y
        a, b, dropout = (part["default"] for part in (self.lora_A, self.lora_B, self.lora_dropout))
        return y + b(a(dropout(x))) * self.scaling

    @torch.no_grad()
    def add(self, share: float):
        """Add `share` times the adapter's change to the weight."""
        a, b = self.lora_A["default"].weight, self.lora_B["default"].weight
        change = (b.flatten(1) @ a.flatten(1)).reshape(self.base_layer.weight.shape)
        self.base_layer.weight += share * self.scaling * change

    def merge(self):
        self.add(1)
        self.merged = True

    def unmerge(self):
        self.add(-1)
        self.merged = False


def _default(part):
    """Holds the adapter named "default". In peft a layer may have several adapters."""
    return torch.nn.ModuleDict({"default": part})


def adapt(module, config, freeze_rest: bool = True):
    """The module with LoRA on the linear layers and convolutions that `config` names.

    All other parameters are frozen, unless freeze_rest is false. Its keys begin with "base_model.model.". B starts at
    zero, so the module computes the same as before. config: a jittwin.models.lora.LoraConfig. ValueError: no layer has
    such a name.
    """
    parts = dict(module.named_modules())
    linear, convolutions = ([path for path, part in parts.items() if isinstance(part, kind) and config.adapts(path)]
                            for kind in (Linear, Conv2d))
    if not linear:
        raise ValueError(f"no linear layer's path matches {config.targets}")
    adapted = peft.get_peft_model(module, peft.LoraConfig(
        r=config.r, lora_alpha=config.alpha, lora_dropout=config.dropout, bias="none", use_rslora=config.stabilised,
        target_modules="|".join(map(re.escape, linear))))
    for path in convolutions:
        parent, _, name = path.rpartition(".")
        setattr(parts[parent], name, LoraLayer(parts[path], config))
    for part in adapted.modules():
        if isinstance(part, LoraLinear):
            part.lora_dropout["default"] = Dropout(config.dropout)      # drops the same elements as in the other twin
    if not freeze_rest:
        adapted.requires_grad_(True)
    return adapted


def merge(module):
    """Add every adapter to the weight of its layer, which is then as fast as without an adapter."""
    for part in _adapted(module):
        if not part.merged:
            part.merge()


def unmerge(module):
    """Subtract the adapters from the weights again. Rounding errors remain."""
    for part in _adapted(module):
        if part.merged:
            part.unmerge()


def _adapted(module) -> list:
    return [part for part in module.modules() if isinstance(part, (LoraLinear, LoraLayer))]
