"""A small network for both frameworks, sound or with one of the traps that level L1 looks for."""


def torch_network(tied: bool = False):
    from torch import nn, ones, zeros

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(3, 3)
            self.register_buffer("scale", ones(3))
            self.gain = nn.Parameter(zeros(3))
            self.last = nn.Linear(3, 3)
            if tied:
                self.last.weight = self.first.weight

        def forward(self, x):
            return self.last(self.first(x) * self.scale) * self.gain

    return Network()


def jittor_network(trap: str = "", tied: bool = False):
    from jt_models.boot import jt
    from jt_models.nn.layers import Linear, Module

    class Network(Module):
        def __init__(self):
            super().__init__()
            self.first = Linear(3, 3)
            self.register_buffer("scale", jt.ones(3))
            self.gain = jt.zeros(3)
            self.last = Linear(3, 3)
            if tied:
                self.last.weight = self.first.weight
            if trap in TRAPS:
                TRAPS[trap](self, jt)

        def execute(self, x):
            return self.last(self.first(x) * self.scale) * self.gain

    return Network()


def _underscored(network, jt):
    network._gain = network.gain
    del network.gain


def _listed(network, jt):
    network.parts = [network.last]
    del network.last


def _trained_buffer(network, jt):
    network.scale.start_grad()


def _listed_var(network, jt):
    network.more = {"table": [jt.ones(2)]}


def _frozen(network, jt):
    network.gain.stop_grad()


def _reshaped(network, jt):
    network.gain = jt.zeros((3, 1))


def _halved(network, jt):
    network.gain = network.gain.float16()


TRAPS = {"underscore": _underscored, "list": _listed, "buffer": _trained_buffer, "listed Var": _listed_var,
         "frozen": _frozen, "shape": _reshaped, "type": _halved}
