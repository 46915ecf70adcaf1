"""Specimens of fingerprints.losses."""
import numpy as np

from specimens.record import specimen


@specimen("L2", logits=(4, 104), labels=[0, 1, -100, 2], weight=np.linspace(0.5, 2.0, 104))
class WeightedCrossEntropy:
    def torch(logits, labels, weight):
        from torch import nn
        return {"loss": nn.CrossEntropyLoss(weight)(logits, labels)}

    def jittor(logits, labels, weight):
        from jt_models.boot import nn
        return {"loss": nn.CrossEntropyLoss(weight)(logits, labels)}


@specimen("L3", logits=(4, 3), labels=[0, 1, 1, 2])
class SmoothedLabels:
    def torch(logits, labels):
        from torch import nn
        return {"loss": nn.CrossEntropyLoss(label_smoothing=0.1)(logits, labels)}

    def jittor(logits, labels):
        from jt_models.boot import nn
        return {"loss": nn.CrossEntropyLoss()(logits, labels)}


@specimen("L4", logits=(4, 3), labels=[0, 1, 1, 2])
class IgnoredClass:
    def torch(logits, labels):
        from torch.nn import functional as F
        return {"loss": F.nll_loss(F.log_softmax(logits, 1), labels, ignore_index=0)}

    def jittor(logits, labels):
        from jt_models.boot import nn
        return {"loss": nn.nll_loss(nn.log_softmax(logits, 1), labels, ignore_index=0)}


@specimen("L5", p=[0, 1, 1, 0], t=[1, 0, 1, 0])
class SaturatedCrossEntropy:
    def torch(p, t):
        from torch import nn
        return {"loss": nn.BCELoss()(p * 1.0, t * 1.0)}

    def jittor(p, t):
        from jt_models.boot import nn
        return {"loss": nn.BCELoss()(p * 1.0, t * 1.0)}


@specimen("L6", logits=(2, 3), target=[[0.0, 0.25, 0.75], [0.5, 0.5, 0.0]])
class DivergenceFromZero:
    def torch(logits, target):
        from torch import nn
        return {"loss": nn.KLDivLoss(reduction="sum")(nn.functional.log_softmax(logits, 1), target)}

    def jittor(logits, target):
        from jt_models.boot import nn
        return {"loss": nn.KLDivLoss(reduction="sum")(nn.log_softmax(logits, 1), target)}


@specimen("L6.beta", x=(3, 4), y=(3, 4))
class SmoothL1:
    def torch(x, y):
        from torch import nn
        return {"loss": nn.SmoothL1Loss(beta=0.5)(x, y)}

    def jittor(x, y):
        from jt_models.boot import nn
        return {"loss": nn.smooth_l1_loss(y, x)}
