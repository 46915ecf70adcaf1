"""Low-rank adapters (Hu et al. 2022, arXiv 2106.09685) by peft, whose names both twins carry."""
import peft
from peft.tuners.lora import Linear as LoraLinear

from torch_models.nn.layers import Dropout


def adapt(module, config):
    """The module with LoRA on the linear layers that `config` names and all else frozen; its keys begin with
    "base_model.model.". B starts at zero, so nothing changes yet.

    config: a jittwin.models.lora.LoraConfig. ValueError: no layer of that name.
    """
    adapted = peft.get_peft_model(module, peft.LoraConfig(
        r=config.r, lora_alpha=config.alpha, lora_dropout=config.dropout, bias="none", target_modules=config.targets))
    for part in _adapted(adapted):
        part.lora_dropout["default"] = Dropout(config.dropout)      # drops what the other twin drops
    return adapted


def merge(module):
    """Add every adapter to the weight of its layer, which is then as fast as without."""
    for part in _adapted(module):
        if not part.merged:
            part.merge()


def unmerge(module):
    """Take the adapters out of the weights again, which leaves rounding errors."""
    for part in _adapted(module):
        if part.merged:
            part.unmerge()


def _adapted(module) -> list:
    return [part for part in module.modules() if isinstance(part, LoraLinear)]
