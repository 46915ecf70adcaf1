"""Specimens of fingerprints.numeric."""
import numpy as np

from specimens.record import specimen


@specimen("N2", x=(321, 481))
class LargeMean:
    def torch(x):
        return {"mean": (x * 0 + 1).mean(), "rows": (x * 0 + 1).reshape(3, -1).mean(1)}

    def jittor(x):
        return {"mean": (x * 0 + 1).mean(), "rows": (x * 0 + 1).reshape(3, -1).mean(1)}


@specimen("N4", x=(3, 2, 2, 2))
class BatchNormalisation:
    def torch(x):
        import torch
        norm = torch.nn.BatchNorm2d(2)
        return {"y": norm(x), "running_var": norm.running_var}

    def jittor(x):
        from jt_models.boot import nn
        norm = nn.BatchNorm2d(2)
        return {"y": norm(x), "running_var": norm.running_var}


@specimen("N8", x=(3, 4), k=np.arange(5))
class Spread:
    def torch(x, k):
        return {"var": x.var(), "rows": x.var(1), "std": (k * 1e-5).std()}

    def jittor(x, k):
        return {"var": x.var(), "rows": x.var(1), "std": (k * 1e-5).std()}


@specimen("N9", tiny=[[3e-14, 4e-14], [6e-14, 8e-14]], x=(2, 3))
class Norms:
    def torch(tiny, x):
        from torch.nn import functional as F
        return {"normalized": F.normalize(tiny), "norm": x.norm()}

    def jittor(tiny, x):
        from jt_models.boot import jt
        return {"normalized": jt.normalize(tiny), "norm": x.norm()}


@specimen("N10", k=[[100, 99], [3, 2], [-200, -201]], far=[-40, -41])
class Sigmoids:
    def torch(k, far):
        import torch
        from torch.nn import functional as F
        return {"logsumexp": torch.logsumexp(k * 1.0, 1), "log_sigmoid": F.logsigmoid(k * 1.0),
                "sigmoid": torch.sigmoid(far * 1.0)}

    def jittor(k, far):
        from jt_models.boot import nn
        return {"logsumexp": nn.logsumexp(k * 1.0, 1), "log_sigmoid": nn.log_sigmoid(k * 1.0),
                "sigmoid": (far * 1.0).sigmoid()}


@specimen("N11", x=[-18.0, -20.0, -25.0], small=[-1e-8, -2e-9, -1e-9])
class SmallValues:
    def torch(x, small):
        from torch.nn import functional as F
        return {"softplus": F.softplus(x), "elu": F.elu(small)}

    def jittor(x, small):
        from jt_models.boot import nn
        return {"softplus": nn.softplus(x), "elu": nn.elu(small)}


@specimen("N12", x=(3, 4))
class SoftmaxWithoutDim:
    def torch(x):
        import torch
        return {"y": torch.nn.functional.softmax(x)}

    def jittor(x):
        from jt_models.boot import nn
        return {"y": nn.softmax(x)}


@specimen("N13", x=[[-np.inf, -np.inf], [-np.inf, 1.0]])
class MaximumOfNothing:
    def torch(x):
        return {"y": x.max(1).values}

    def jittor(x):
        return {"y": x.max(1)}


@specimen("N14", x=(3, 3))
class Median:
    def torch(x):
        return {"y": x.median(1).values}

    def jittor(x):
        from jt_models.boot import jt
        return {"y": jt.median(x, 1)}


@specimen("F8", odd=[1, 3, 5, -1, -3, -5, 7])
class Halves:
    def torch(odd):
        return {"y": (odd * 0.5).round()}

    def jittor(odd):
        return {"y": (odd * 0.5).round()}


@specimen("F9", k=[-7, 7, -1, 5], d=[2, -2, 3, 3])
class WholeNumbers:
    def torch(k, d):
        return {"quotient": k // d, "rest": k % d}

    def jittor(k, d):
        return {"quotient": k // d, "rest": k % d}


@specimen("P6", k=[2 ** 31 + 5, 7, 2 ** 33 + 1])
class LargeIdentifiers:
    def torch(k):
        return {"k": k}

    def jittor(k):
        return {"k": k}
