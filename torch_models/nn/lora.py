"""Low-rank adapters (Hu et al. 2022, arXiv 2106.09685), made by peft. Both twins have peft's names."""
import peft
from peft.tuners.lora import Linear as LoraLinear

from torch_models.nn.layers import Dropout


def adapt(module, config):
    """The module with LoRA on the linear layers that `config` names; all other parameters are frozen.

    Its keys begin with "base_model.model.". B starts at zero, so the module computes the same as before.
    config: a jittwin.models.lora.LoraConfig. ValueError: no layer has such a name.
    """
    adapted = peft.get_peft_model(module, peft.LoraConfig(
        r=config.r, lora_alpha=config.alpha, lora_dropout=config.dropout, bias="none", target_modules=config.targets))
    for part in _adapted(adapted):
        part.lora_dropout["default"] = Dropout(config.dropout)      # drops the same elements as in the other twin
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
    return [part for part in module.modules() if isinstance(part, LoraLinear)]
