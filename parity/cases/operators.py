"""The functions of `nn.ops`, those that no model calls yet included."""
from parity.case import Case
from parity.levels.ops import MORE, OPS, Like


class Functions(Case):
    """All functions of `nn.ops`, as a model that calls every one of them."""
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
    """An example's arguments."""
    if isinstance(value, Like):
        return value.array(site) if value.host else side.tensor(value.array(site))
    if isinstance(value, tuple):
        return tuple(_filled(side, item, f"{site} {index}") for index, item in enumerate(value))
    return value


CASES = (Functions(),)
