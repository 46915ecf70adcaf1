"""Layers that are computed again for their gradient."""
from jt_models.boot import jt
from jt_models.nn.kernels.precision import arithmetic, autocast


class Checkpoint(jt.Function):
    """module(*arguments) without its inner graph, which is built again for the gradient.

    Call it with the arguments, followed by `parameters`, the module's parameters that need gradients. The gradients
    of one module are computed before the next module's are requested, or Jittor's lazy graph would hold all layers.
    """

    def __init__(self, module, parameters: list):
        self.module, self.parameters, self.autocast = module, parameters, arithmetic["autocast"]

    def execute(self, *inputs):
        self.arguments = inputs[:len(inputs) - len(self.parameters)]
        self.smooth = [x.requires_grad for x in self.arguments]     # read before Jittor stops their gradients
        with jt.no_grad():
            y = self.module(*self.arguments)
        return y.start_grad()

    def grad(self, g):
        arguments = [x.detach() for x in self.arguments]
        wanted = [x for x, smooth in zip(arguments, self.smooth) if smooth]
        with autocast(self.autocast):
            y = self.module(*arguments)
        # The incoming gradient was computed from the parameters, but here it counts as a constant.
        found = jt.grad((y * g.detach()).sum(), [*wanted, *self.parameters])
        for gradient in found:
            gradient.stop_grad()
        jt.sync(found)
        found = iter(found)
        return [next(found) if smooth else None for smooth in (*self.smooth, *[True] * len(self.parameters))]
