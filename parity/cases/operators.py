"""The case of all functions of `nn.ops`, also of those that no model calls yet."""
from parity.case import Case
from parity.levels.ops import MORE, OPS, Like


class Functions(Case):
    """A model that calls every function of `nn.ops`."""
    name = "operators"
    modes = ("eval",)
    levels = ("L2",)

    def build(self, side, size, mode):
        return side.layers.ReLU()

    def inputs(self, size, mode):
        return {}

    def run(self, side, module, inputs, mode):
        for number, (name, example) in enumerate([*((name, op.example) for name, op in OPS.items()), *MORE]):
            getattr(side.ops, name)(*_filled(side, example, f"{number} {name}"))
        return {}


def _filled(side, value, site: str):
    """The arguments of an example, with tensors or arrays in place of each Like."""
    if isinstance(value, Like):
        return value.array(site) if value.host else side.tensor(value.array(site))
    if isinstance(value, tuple):
        return tuple(_filled(side, item, f"{site} {index}") for index, item in enumerate(value))
    return value


CASES = (Functions(),)
