"""Small models for level L2 whose twins are made of the twins' own layers and functions."""


def torch_network():
    from torch import nn
    from torch_models.nn import layers, ops
    return _network(nn.Module, layers, ops, "forward")


def jittor_network():
    from jt_models.nn import layers, ops
    return _network(layers.Module, layers, ops, "execute")


def _network(base, layers, ops, call):
    class Network(base):
        def __init__(self):
            super().__init__()
            self.conv = layers.Conv2d(3, 4, 3, 1, 1)
            self.norm = layers.BatchNorm2d(4)

    def forward(self, x):
        x = ops.interpolate(ops.relu(self.norm(self.conv(x))), (4, 4), "bilinear")
        return ops.max_pool2d(ops.avg_pool2d(x, 3, 1, 1, False), 2, 2)

    setattr(Network, call, forward)
    return Network()
