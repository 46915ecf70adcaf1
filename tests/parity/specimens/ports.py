"""Specimens of fingerprints.ports: slips that the port's author makes, not Jittor."""
from specimens.record import specimen


@specimen("X-norm-eps-1e-5", x=(3, 8))
class NormEps:
    def torch(x):
        from torch import nn
        return {"y": nn.LayerNorm(8, eps=1e-3)(x * 0.01)}

    def jittor(x):
        from jt_models.boot import nn
        return {"y": nn.LayerNorm(8)(x * 0.01)}


@specimen("X-slope-0.01", x=(3, 4))
class Slope:
    def torch(x):
        from torch import nn
        return {"y": nn.LeakyReLU(0.2)(x)}

    def jittor(x):
        from jt_models.boot import nn
        return {"y": nn.LeakyReLU()(x)}


@specimen("X-momentum", x=(3, 2, 2, 2))
class Momentum:
    def torch(x):
        from torch import nn
        norm = nn.BatchNorm2d(2, momentum=0.1)
        return {"y": norm(x), "running_mean": norm.running_mean}

    def jittor(x):
        from jt_models.boot import nn
        norm = nn.BatchNorm2d(2, momentum=0.9)
        return {"y": norm(x), "running_mean": norm.running_mean}


@specimen("X-transposed-weight", x=(3, 4), weight=(4, 4))
class TransposedWeight:
    def torch(x, weight):
        from torch.nn import functional as F
        return {"y": F.linear(x, weight)}

    def jittor(x, weight):
        from jt_models.boot import jt
        return {"y": jt.matmul(x, weight)}


@specimen("X-swapped-kernel", x=(1, 2, 5, 5), weight=(3, 2, 3, 3))
class SwappedKernel:
    def torch(x, weight):
        from torch.nn import functional as F
        return {"y": F.conv2d(x, weight)}

    def jittor(x, weight):
        from jt_models.boot import nn
        return {"y": nn.conv2d(x, weight.transpose(0, 1, 3, 2))}


@specimen("X-no-bias", x=(3, 4), weight=(2, 4), bias=(2,))
class MissingBias:
    def torch(x, weight, bias):
        from torch.nn import functional as F
        return {"y": F.linear(x, weight, bias)}

    def jittor(x, weight, bias):
        from jt_models.boot import nn
        return {"y": nn.linear(x, weight)}


def jittor_attention(q, k, v, scale: float):
    from jt_models.boot import jt, nn
    return jt.matmul(nn.softmax(jt.matmul(q, k.transpose(0, 2, 1)) * scale, -1), v)


def torch_attention(q, k, v):
    from torch.nn import functional as F
    return {"y": F.scaled_dot_product_attention(q, k, v)}


@specimen("X-swapped-qk", q=(1, 3, 4), k=(1, 3, 4), v=(1, 3, 4))
class SwappedQueries:
    torch = torch_attention

    def jittor(q, k, v):
        return {"y": jittor_attention(k, q, v, 0.5)}


@specimen("X-unscaled-attention", q=(1, 3, 4), k=(1, 3, 4), v=(1, 3, 4))
class UnscaledAttention:
    torch = torch_attention

    def jittor(q, k, v):
        return {"y": jittor_attention(q, k, v, 1.0)}


@specimen("X-gelu-tanh", x=(3, 4))
class TanhForm:
    def torch(x):
        from torch import nn
        return {"y": nn.GELU()(x)}

    def jittor(x):
        return {"y": 0.5 * x * (1 + (0.7978845608 * (x + 0.044715 * x * x * x)).tanh())}


@specimen("X-nearest", x=(1, 2, 4, 3))
class NearestForBilinear:
    def torch(x):
        from torch.nn import functional as F
        return {"y": F.interpolate(x, size=(6, 6), mode="bilinear", align_corners=False)}

    def jittor(x):
        from jt_models.boot import nn
        return {"y": nn.interpolate(x, size=(6, 6), mode="nearest")}


@specimen("X-align-corners", x=(1, 2, 4, 3))
class AlignedCorners:
    def torch(x):
        from torch.nn import functional as F
        return {"y": F.interpolate(x, size=(8, 6), mode="bilinear", align_corners=False)}

    def jittor(x):
        from jt_models.boot import nn
        return {"y": nn.interpolate(x, size=(8, 6), mode="bilinear", align_corners=True)}


@specimen("X-coupled-decay", x=(4,), slope=(4,))
class CoupledDecay:
    def torch(x, slope):
        import torch

        from specimens.training import leaf, torch_steps
        p = leaf(x)
        torch_steps(torch.optim.AdamW([p], lr=0.1, weight_decay=0.5), lambda: (p * slope).sum())
        return {"p": p}

    def jittor(x, slope):
        from jt_models.boot import jt
        from specimens.training import jittor_steps
        p = x.clone()
        jittor_steps(jt.optim.Adam([p], lr=0.1, weight_decay=0.5), lambda: (p * slope).sum())
        return {"p": p}
