"""Low-rank adapters (Hu et al. 2022, arXiv 2106.09685) with peft's names."""
from jt_models.boot import jt
from jt_models.nn.layers import Conv2d, Dropout, Linear, Module, freeze


class LoraLayer(Module):
    """y = W x + b + scaling B A dropout(x), of a linear layer or a convolution; A and B must be loaded.

    A (r, in) and B (out, r). Of a convolution, A has its kernel, stride and padding, and B a kernel of 1.
    """

    def __init__(self, base_layer, config):
        super().__init__()
        outputs, inputs, *kernel = base_layer.weight.shape
        self.base_layer = base_layer
        self.lora_dropout = _Default(Dropout(config.dropout))
        if kernel:
            a = Conv2d(inputs, config.r, tuple(kernel), base_layer.stride, base_layer.padding, bias=False)
            b = Conv2d(config.r, outputs, 1, bias=False)
        else:
            a, b = Linear(inputs, config.r, bias=False), Linear(config.r, outputs, bias=False)
        self.lora_A, self.lora_B = _Default(a), _Default(b)
        self.scaling = config.scaling
        self.merged = False

    def execute(self, x):
        y = self.base_layer(x)
        if self.merged:
            return y
        return y + self.lora_B.default(self.lora_A.default(self.lora_dropout.default(x))) * self.scaling

    def add(self, share: float):
        """Add `share` times the adapter's change to the weight."""
        weight = self.base_layer.weight
        b, a = (part.default.weight.reshape(part.default.weight.shape[0], -1) for part in (self.lora_B, self.lora_A))
        with jt.no_grad():
            change = jt.matmul(b, a).reshape(weight.shape)
            weight.update((weight + share * self.scaling * change).stop_grad())


class _Default(Module):
    """Holds the adapter named "default". In peft a layer may have several adapters."""

    def __init__(self, default):
        super().__init__()
        self.default = default


class _BaseModel(Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def execute(self, *arguments):
        return self.model(*arguments)


class _Adapted(Module):
    def __init__(self, model):
        super().__init__()
        self.base_model = _BaseModel(model)

    def execute(self, *arguments):
        return self.base_model(*arguments)


def adapt(module, config, freeze_rest: bool = True):
    """The module with LoRA on the linear layers and convolutions that `config` names.

    All other parameters are frozen, unless freeze_rest is false. Its keys begin with "base_model.model.". B starts at
    zero, so the module computes the same as before. config: a jittwin.models.lora.LoraConfig. ValueError: no layer has
    such a name.
    """
    if freeze_rest:
        freeze(module)
    parts = dict(module.named_modules())
    targets = [path for path, part in parts.items() if isinstance(part, (Linear, Conv2d)) and config.adapts(path)]
    if not targets:
        raise ValueError(f"no linear layer's path matches {config.targets}")
    for path in targets:
        parent, _, name = path.rpartition(".")
        setattr(parts[parent], name, LoraLayer(parts[path], config))
    return _Adapted(module)


def merge(module):
    """Add every adapter to the weight of its layer, which is then as fast as without an adapter."""
    for part in _adapted(module):
        if not part.merged:
            part.add(1)
            part.merged = True


def unmerge(module):
    """Subtract the adapters from the weights again. Rounding errors remain."""
    for part in _adapted(module):
        if part.merged:
            part.add(-1)
            part.merged = False


def _adapted(module) -> list:
    return [part for part in module.modules() if isinstance(part, LoraLayer)]
