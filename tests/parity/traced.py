"""A small case with all that makes tracing hard: a block called twice, a layer that changes its input in place,
nested outputs, integers, dropout, arguments by name and an argument that is no tensor."""
from jittwin.draws import Draws
from parity.case import Case
from parity.sites import injected


class Scale:
    def __init__(self, factor):
        self.factor = factor


class Small(Case):
    name = "small"
    fault = ""         # of the Jittor side: "glue", "argmax", "extra"

    def __init__(self, fault: str = ""):
        self.fault = fault

    def reference(self):
        return {"factory": "tests.parity.traced:Small", "arguments": {"fault": self.fault}}

    def inputs(self, size, mode):
        return {"x": Draws(1).normal("x", (2, 4, 6, 8))}

    def build(self, side, size, mode):
        fault = self.fault if side.name == "jittor" else ""
        nn = dropout(side)

        class Block(side.layers.Module):
            def __init__(self):
                super().__init__()
                self.conv = side.layers.Conv2d(4, 4, 3, padding=1)
                self.norm = side.layers.BatchNorm2d(4)
                self.drop = nn.Dropout(0.25)

            def execute(self, x, scale, skip=None):
                y = self.drop(self.norm(self.conv(x * 1.01 if fault == "glue" else x)))
                return {"y": y * scale.factor + skip, "parts": (y, None, [skip])}

            forward = execute

        class Choice(side.layers.Module):
            def execute(self, x):
                if fault == "argmax":
                    x = x + 0.5
                return (x[:, 0] > 0.1)

            forward = execute

        class Net(side.layers.Module):
            def __init__(self):
                super().__init__()
                self.block, self.choice = Block(), Choice()
                if fault == "extra":
                    self.extra = side.layers.ReLU()

            def execute(self, x):
                first = self.block(x, Scale(2.0), skip=x)
                second = self.block(first["y"], Scale(0.5), skip=first["parts"][0])
                if fault == "extra":
                    second["y"] = self.extra(second["y"])
                return second["y"], self.choice(second["y"])

            forward = execute

        return Net()

    def run(self, side, module, inputs, mode):
        with injected(side, module):
            y, choice = module(inputs["x"])
        return {"y": y}


def dropout(side):
    if side.name == "torch":
        from torch import nn
    else:
        from jt_models.boot import nn
    return nn


def masks(side, arrays, training: bool):
    """In a worker: each kind of dropout layer, called twice."""
    nn = dropout(side)

    class Layers(side.Module):
        def __init__(self):
            super().__init__()
            self.elements, self.channels = nn.Dropout(0.5), nn.Dropout2d(0.5)

    layers = Layers()
    side.backend.train_mode(layers, training)
    x = side.tensor(arrays["x"])
    with injected(side, layers):
        found = {f"{name} {call}": side.host(getattr(layers, name)(x))
                 for name in ("elements", "channels") for call in range(2)}
    method = "forward" if side.name == "torch" else "execute"
    return found, {"restored": method not in vars(layers.elements)}
