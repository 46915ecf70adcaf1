"""Specimens of fingerprints.ties. The ties are at 0, which a perturbation by one ULP leaves alone."""
import numpy as np

from specimens.record import specimen

HALF_ZERO = np.array([[0.0, 1.5, 0.0, -0.5], [0.0, -2.0, 0.25, 0.0]])


@specimen("G1", differentiable=("x",), x=HALF_ZERO)
class AbsoluteValue:
    def torch(x):
        return {"y": x.abs()}

    def jittor(x):
        return {"y": x.abs()}


@specimen("G2", differentiable=("x", "y"), x=HALF_ZERO, y=np.zeros((2, 4)))
class ElementwiseMaximum:
    def torch(x, y):
        import torch
        return {"larger": torch.maximum(x, y), "clamped": x.clamp(0, 1)}

    def jittor(x, y):
        from jt_models.boot import jt
        return {"larger": jt.maximum(x, y), "clamped": x.clamp(0, 1)}


@specimen("G3", differentiable=("x",), x=np.zeros((2, 4)))
class ReducedMaximum:
    def torch(x):
        from torch import nn
        return {"rows": x.max(1).values, "pooled": nn.AdaptiveMaxPool2d(1)(x.reshape(1, 2, 2, 2))}

    def jittor(x):
        from jt_models.boot import nn
        return {"rows": x.max(1), "pooled": nn.AdaptiveMaxPool2d(1)(x.reshape(1, 2, 2, 2))}


@specimen("G4", differentiable=("x",), x=HALF_ZERO)
class ParametricReLU:
    def torch(x):
        from torch import nn
        return {"y": nn.PReLU()(x)}

    def jittor(x):
        from jt_models.boot import nn
        return {"y": nn.PReLU()(x)}


@specimen("G5", x=[np.nan, 1.0, -1.0])
class ReLUOfNaN:
    def torch(x):
        from torch import nn
        return {"y": nn.ReLU()(x)}

    def jittor(x):
        from jt_models.boot import nn
        return {"y": nn.ReLU()(x)}
