"""Convolution whose gradient is built in one piece.

Jittor writes a convolution as a product of seven-dimensional tensors, which its compiler fuses away. While it builds
the gradient of a graph, it holds the gradients of those tensors too, and a part of the graph that is computed
meanwhile, as checkpointing does, would store them: gigabytes for one layer.
"""
from jt_models.boot import jt, nn


class Conv(jt.Function):
    """nn.conv2d of x and weight. stride, padding: (rows, columns)."""

    def __init__(self, stride: tuple[int, int], padding: tuple[int, int], groups: int):
        self.settings = None, stride, padding, 1, groups

    def execute(self, x, weight):
        self.kept = x, weight
        return nn.conv2d(x, weight, *self.settings)

    def grad(self, g):
        x, weight = (given.detach().start_grad() for given in self.kept)
        return jt.grad((nn.conv2d(x, weight, *self.settings) * g.detach()).sum(), [x, weight])
