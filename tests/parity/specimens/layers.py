"""Specimens of fingerprints.layers."""
from importlib import import_module

from specimens.record import specimen


@specimen("F1", x=(1, 2, 7, 7))
class AdaptivePools:
    def torch(x):
        from torch import nn
        return {"average": nn.AdaptiveAvgPool2d(5)(x), "maximum": nn.AdaptiveMaxPool2d(5)(x)}

    def jittor(x):
        from jt_models.boot import nn
        return {"average": nn.AdaptiveAvgPool2d(5)(x), "maximum": nn.AdaptiveMaxPool2d(5)(x)}


@specimen("F2", x=(1, 2, 7, 7))
class WholePicture:
    def torch(x):
        from torch import nn
        return {"y": nn.AvgPool2d(7)(x)}

    def jittor(x):
        from jt_models.boot import nn
        return {"y": nn.AvgPool2d(7)(x)}


@specimen("F19", x=(2, 3, 4))
class Slopes:
    def torch(x):
        from torch import nn
        return {"y": nn.PReLU(3)(x)}

    def jittor(x):
        from jt_models.boot import nn
        return {"y": nn.PReLU(3)(x)}


@specimen("F3", x=(1, 2, 7, 7))
class CeilMode:
    def torch(x):
        from torch import nn
        return {"y": nn.MaxPool2d(2, 2, 1, ceil_mode=True)(x)}

    def jittor(x):
        from jt_models.boot import nn
        return {"y": nn.MaxPool2d(2, 2, 1, ceil_mode=True)(x)}


@specimen("F4", x=(1, 2, 6, 6))
class PoolDivisors:
    def torch(x):
        from torch import nn
        return {"excluded": nn.AvgPool2d(3, 2, 1, count_include_pad=False)(x),
                "ceil": nn.AvgPool2d(3, 2, 1, ceil_mode=True)(x)}

    def jittor(x):
        from jt_models.boot import nn
        return {"excluded": nn.AvgPool2d(3, 2, 1, count_include_pad=False)(x),
                "ceil": nn.AvgPool2d(3, 2, 1, ceil_mode=True)(x)}


@specimen("F6", x=(1, 2, 4, 3))
class InterpolateByDefault:
    def torch(x):
        from torch.nn import functional as F
        return {"y": F.interpolate(x, scale_factor=2)}

    def jittor(x):
        from jt_models.boot import nn
        return {"y": nn.interpolate(x, scale_factor=2)}


@specimen("F6.scale", x=(1, 2, 7, 7))
class InterpolateByScale:
    def torch(x):
        from torch.nn import functional as F
        return {"y": F.interpolate(x, scale_factor=1.3, mode="bilinear", align_corners=False)}

    def jittor(x):
        from jt_models.boot import nn
        return {"y": nn.interpolate(x, scale_factor=1.3, mode="bilinear", align_corners=False)}


@specimen("F7", x=(1, 2, 4, 3))
class UpsamplingBilinear:
    def torch(x):
        from torch import nn
        return {"y": nn.UpsamplingBilinear2d(scale_factor=2)(x)}

    def jittor(x):
        from jt_models.boot import nn
        return {"y": nn.UpsamplingBilinear2d(scale_factor=2)(x)}


@specimen("F13", x=(3, 4))
class GeluTanh:
    def torch(x):
        from torch import nn
        return {"y": nn.GELU("tanh")(x)}

    def jittor(x):
        from jt_models.boot import nn
        return {"y": nn.GELU()(x)}


@specimen("F14", differentiable=("weight",), ids=[0, 0, 1, 2], weight=(4, 3))
class PaddedEmbedding:
    def torch(ids, weight):
        from torch.nn import functional as F
        return {"y": F.embedding(ids, weight, padding_idx=0)}

    def jittor(ids, weight):
        from jt_models.boot import nn
        table = nn.Embedding(4, 3, padding_idx=0)
        table.weight = weight
        return {"y": table(ids)}


@specimen("F16", x=(2, 4), weight=(3, 4))
class WeightNorm:
    def torch(x, weight):
        from torch import nn
        layer = nn.Linear(4, 3, bias=False)
        layer.weight = nn.Parameter(weight.clone())
        layer = nn.utils.weight_norm(layer)
        layer.weight_v.data *= 2.0
        return {"y": layer(x), "g": layer.weight_g}

    def jittor(x, weight):
        from jt_models.boot import jt, nn
        layer = nn.Linear(4, 3, bias=False)
        layer.weight = weight
        import_module(f"{jt.__name__}.weightnorm").weight_norm(layer, "weight", 0)
        layer.weight_v = layer.weight_v * 2.0
        return {"y": layer(x), "g": layer.weight_g}


@specimen("S10", x=(3, 4))
class FreshDropout:
    def torch(x):
        from torch import nn
        return {"y": nn.Dropout(1.0)(x)}

    def jittor(x):
        from jt_models.boot import nn
        return {"y": nn.Dropout(1.0)(x)}
