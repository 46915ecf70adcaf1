"""The measure `ops` of scripts/bench.py: functions and layers of nn/ at sizes at which the published models use them.

Every row gives CPU seconds of the forward pass and of the forward and backward pass together, and the share of the
machine's peak that the forward pass reaches: of a product of two 2048x2048 matrices for convolutions, linear layers and
attention, of copying an array of 256 MB for all else, where each element that is read or written counts once.

Beside it is the share of a model's forward pass and training step: Jittor's seconds times the calls that PASSES and
ROWS state, over the seconds that PASSES states.
"""
import math
import time
from collections.abc import Callable
from statistics import median
from typing import NamedTuple

import numpy as np

from jittwin.draws import Draws
from parity.workers.side import Side

SIDE, COPIED, TIMES = 2048, 1 << 26, 5      # of the peak's matrices; elements copied; runs of each row


# Jittor's CPU seconds of a forward pass and of a training step, from docs/numbers.md: one thread of a processor with
# AVX-512, 8 pictures or texts (so400m, distortion and APF-GAN: 1; a step of so400m trains LoRA). 0: not measured.
PASSES = {
    "ResNet-18": (0.27, 1.00), "ResNet-50": (0.63, 2.62), "Inception-v4": (1.79, 7.31), "VGG-16": (1.83, 5.88),
    "ViT-L": (6.91, 27.8), "BERT": (0.32, 1.44), "CLIP ViT-L": (9.47, 0), "so400m": (8.3, 19.7),
    "distortion": (5.8, 22.5), "APF-GAN": (1.23, 12.0),
}


class Row(NamedTuple):
    """use: which model has these sizes. shapes: of the inputs. call: `call(side, *inputs)`. products: multiplications
    and additions, or 0 where memory is the limit. fixed: how many inputs at the end get no gradient. calls: how many
    such calls are as much work as all calls of this kind in a forward pass and in a training step of `use`."""

    use: str
    shapes: tuple
    call: Callable
    products: int = 0
    fixed: int = 0
    calls: tuple[float, float] = (0, 0)

    def times(self, forward: float, step: float | None = None) -> "Row":
        """The row with these calls; a step has as many as a forward pass, if nothing else is said."""
        return self._replace(calls=(forward, forward if step is None else step))


def op(name: str, *options, **named) -> Callable:
    return lambda side, *inputs: getattr(side.ops, name)(*inputs, *options, **named)


def layer(name: str, *options, train: bool = False) -> Callable:
    """A layer with its first weights."""
    made: dict = {}

    def call(side, *inputs):
        if not made:
            made["layer"] = getattr(side.layers, name)(*options)
            side.backend.train_mode(made["layer"], train)
        return made["layer"](*inputs)

    return call


def conv(use: str, batch: int, channels: int, out: int, side: int | tuple, kernel: int | tuple, stride: int = 1,
         padding: int | tuple = 0, groups: int = 1) -> Row:
    (height, width), (high, wide), (top, left) = (size if isinstance(size, tuple) else (size, size)
                                                  for size in (side, kernel, padding))
    results = ((height + 2 * top - high) // stride + 1) * ((width + 2 * left - wide) // stride + 1) * batch
    shapes = (batch, channels, height, width), (out, channels // groups, high, wide), (out,)
    return Row(use, shapes, op("conv2d", stride, padding, groups),
               2 * results * out * channels // groups * high * wide)


def linear(use: str, rows: int, channels: int, out: int) -> Row:
    return Row(use, ((rows, channels), (out, channels), (out,)), op("linear"), 2 * rows * channels * out)


def attention(use: str, batch: int, queries: int, keys: int, width: int, heads: int) -> Row:
    shapes = (batch, queries, width), (batch, keys, width), (batch, keys, width)
    return Row(use, shapes, op("attention", heads), 4 * batch * queries * keys * width)


PAPER = (1, 64, 384, 512)       # the largest map of APF-GAN
ROWS = {
    "conv2d 7x7, 3 to 64, stride 2": conv("ResNet-18", 8, 3, 64, 224, 7, 2, 3).times(1),
    "conv2d 3x3, 64 to 64, 56x56": conv("ResNet-18", 8, 64, 64, 56, 3, 1, 1).times(14.5),
    "conv2d 1x1, 256 to 64, 56x56": conv("ResNet-50", 8, 256, 64, 56, 1).times(15),
    "conv2d 1x1, 256 to 1024, 14x14": conv("ResNet-50", 8, 256, 1024, 14, 1).times(13),
    "conv2d 1x1, 2048 to 512, 7x7": conv("ResNet-50", 8, 2048, 512, 7, 1).times(5),
    "conv2d 1x1, 1024 to 2048, stride 2": conv("ResNet-50", 8, 1024, 2048, 14, 1, 2).times(3),
    "conv2d 1x7, 192 to 224, 17x17": conv("Inception-v4", 8, 192, 224, 17, (1, 7), 1, (0, 3)).times(23),
    "conv2d 3x3, 64 to 64, 224x224": conv("VGG-16", 4, 64, 64, 224, 3, 1, 1).times(14.6),
    "conv2d 3x3, 512 to 512, 14x14": conv("VGG-16", 8, 512, 512, 14, 3, 1, 1).times(3),
    "conv2d 16x16, 3 to 1152": conv("so400m", 1, 3, 1152, 512, 16, 16).times(1),
    "conv2d 3x3, 29 to 128, 512x384": conv("APF-GAN", 1, 29, 128, (384, 512), 3, 1, 1),
    "conv2d 3x3, 64 to 64, 512x384": conv("APF-GAN", 1, 64, 64, (384, 512), 3, 1, 1),
    "conv2d 3x3, 64 to 3, 512x384": conv("APF-GAN", 1, 64, 3, (384, 512), 3, 1, 1),
    "conv2d 4x4, 64 to 128, stride 2": conv("APF-GAN's D", 2, 64, 128, (193, 257), 4, 2, 2),
    "depthwise 3x3, 128, 192x192": conv("DaViT", 1, 128, 128, 192, 3, 1, 1, 128),
    "depthwise 3x3, 1024, 24x24": conv("DaViT", 1, 1024, 1024, 24, 3, 1, 1, 1024),
    "linear 1024 rows, 1152 to 4304": linear("so400m", 1024, 1152, 4304).times(83),
    "linear 256 rows, 768 to 3072": linear("BERT", 256, 768, 3072).times(36),
    "linear 8 rows, 1024 to 1024": linear("pooled features", 8, 1024, 1024),
    "attention 1024 tokens": attention("so400m", 1, 1024, 1024, 1152, 16).times(27),
    "attention 8 x 257 tokens": attention("CLIP ViT-L", 8, 257, 257, 1024, 16).times(24),
    "attention 8 x 32 tokens": attention("BERT", 8, 32, 32, 768, 12).times(12),
    "batch norm, stored statistics": Row("ResNet-50", ((8, 256, 56, 56),), layer("BatchNorm2d", 256)).times(13.8, 0),
    "batch norm, training": Row("ResNet-50", ((8, 256, 56, 56),), layer("BatchNorm2d", 256, train=True)).times(0, 13.8),
    "instance norm": Row("APF-GAN's D", ((2, 128, 97, 129),), layer("InstanceNorm2d")),
    "layer_norm": Row("so400m", ((1024, 1152), (1152,), (1152,)), op("layer_norm")).times(55),
    "softmax": Row("BLIP", ((8, 12, 32, 577),), op("softmax")),
    "relu": Row("ResNet-50", ((8, 256, 56, 56),), op("relu")).times(12),
    "leaky_relu": Row("APF-GAN", (PAPER,), op("leaky_relu", 0.2)),
    "tanh": Row("APF-GAN", ((1, 3, 384, 512),), op("tanh")),
    "sigmoid": Row("distortion", ((1, 64, 192, 192),), op("sigmoid")),
    "gelu": Row("ViT-L", ((8 * 197, 4096),), op("gelu")).times(24),
    "gelu_tanh": Row("so400m", ((1024, 4304),), op("gelu_tanh")).times(27),
    "quick_gelu": Row("CLIP ViT-L", ((8 * 257, 4096),), op("quick_gelu")).times(24),
    "addition": Row("CLIP ViT-L", ((8, 257, 1024), (8, 257, 1024)), lambda side, x, y: x + y).times(48),
    "max_pool2d 3x3, stride 2": Row("ResNet-18", ((8, 64, 112, 112),), op("max_pool2d", 3, 2, 1)).times(1),
    "max_pool2d 2x2": Row("VGG-16", ((8, 64, 224, 224),), op("max_pool2d", 2, 2)).times(1.9),
    "avg_pool2d 3x3": Row("Inception-v4", ((8, 384, 35, 35),), op("avg_pool2d", 3, 1, 1, False)).times(9),
    "mean_dims": Row("ResNet-50", ((8, 2048, 7, 7),), op("mean_dims", (2, 3))).times(1),
    "sum_dims": Row("distortion", ((1, 1, 768, 768),), op("sum_dims", (1, 2, 3))),
    "mean": Row("losses", (PAPER,), op("mean")),
    "l1_mean": Row("losses", (PAPER, PAPER), op("l1_mean"), fixed=1),
    "upsample2": Row("APF-GAN", ((1, 128, 192, 256),), op("upsample2")),
    "interpolate, bilinear, x2": Row("distortion", ((1, 64, 96, 96),), op("interpolate", (192, 192), "bilinear")),
    "interpolate, bicubic, half": Row("APF-GAN", ((1, 3, 384, 512),), op("interpolate", (192, 256), "bicubic")),
    "concat": Row("Inception-v4", ((8, 384, 17, 17), (8, 256, 17, 17)),
                  lambda side, *x: side.ops.concat(x, 1)).times(37),
    "dropout": Row("BERT", ((8, 32, 3072),), op("dropout", 0.1, 1)).times(0, 6),
}


def elapsed(action: Callable) -> float:
    start = time.process_time()
    action()
    return time.process_time() - start


def typical(action: Callable) -> float:
    """The median CPU seconds of a call, after one that is not counted."""
    action()
    return median(elapsed(action) for _ in range(TIMES))


def waiting(side: Side) -> Callable:
    """A function that waits until the tensors given to it are computed."""
    if side.name == "torch":
        return lambda tensors: None
    from jt_models.boot import jt
    return lambda tensors: jt.sync(list(tensors))


def backward(side: Side, y, slope, inputs: list) -> list:
    if side.name == "torch":
        import torch
        return torch.autograd.grad(y, inputs, slope)
    from jt_models.boot import jt
    return jt.grad((y * slope).sum(), inputs)


def peaks(side: Side, wait: Callable) -> dict[str, float]:
    """Multiplications and additions, and elements read or written, per CPU second."""
    x, y = (side.tensor(Draws(0).normal(name, (SIDE, SIDE))) for name in "xy")
    given = np.ones(COPIED, np.float32)
    target = np.empty_like(given)

    def product():
        with side.ops.no_grad():
            wait([side.ops.linear(x, y)])

    return {"product": 2 * SIDE ** 3 / typical(product), "copy": 2 * COPIED / typical(lambda: np.copyto(target, given))}


def table(results: dict[str, dict[str, float]]) -> str:
    """The rows, given the figures of Jittor and PyTorch."""
    jittor, torch = results.values()
    lines = [f"{'CPU ms':<38}{'forward':>22}{'and backward':>24}{'share of peak':>18}{'of forward, step':>18}\n{'':<38}"
             + 2 * (f"{'jittor':>8}{'torch':>8}{'ratio':>6}  ") + f"{'jittor':>8}{'torch':>8}"]
    for title, row in ROWS.items():
        line = f"{title:<38}"
        for key in ("forward", "both"):
            ours, theirs = jittor[f"{title} {key}"], torch[f"{title} {key}"]
            line += f"{1e3 * ours:>8.2f}{1e3 * theirs:>8.2f}{ours / theirs:>6.2f}  "
        line += "".join(f"{result[f'{title} share']:>8.2f}" for result in (jittor, torch))
        lines.append(line + "".join(map(percent, of_model(title, jittor))) + f"  {row.use}")
    return "\n".join([*lines, *(
        f"peak of {name}: {result['peak product'] / 1e9:.0f} GFLOP/s, {result['peak copy'] / 1e9:.1f} billion "
        "elements copied or read a second" for name, result in results.items())])


def of_model(title: str, figures: dict[str, float]) -> list[float]:
    """The shares of a model's forward pass and training step that all calls of a row's kind take; 0: not stated."""
    row = ROWS[title]
    return [calls * figures[f"{title} {key}"] / whole if whole else 0 for calls, key, whole in zip(
        row.calls, ("forward", "both"), PASSES.get(row.use, (0, 0)))]


def percent(share: float) -> str:
    return f"{share:>9.1%}" if share else f"{'-':>9}"


def measured(name: str, size: str, folder) -> dict[str, float]:
    """By "<row> forward", "<row> both" and "<row> share"."""
    side = Side(name)
    wait, found = waiting(side), {}
    peak = peaks(side, wait)
    for title, row in ROWS.items():
        inputs = [side.tensor(Draws(0).normal(f"{title} {number}", shape)) for number, shape in enumerate(row.shapes)]
        wait(inputs)

        def forward():
            with side.ops.no_grad():
                wait([row.call(side, *inputs)])

        with side.ops.no_grad():
            y = row.call(side, *inputs)
            slope = y * 0 + 1
            wait([y, slope])
        elements = math.prod(y.shape) + sum(math.prod(shape) for shape in row.shapes)
        seconds = typical(forward)
        found[f"{title} forward"] = seconds
        found[f"{title} share"] = (row.products / peak["product"] or elements / peak["copy"]) / seconds
        trained = [side.differentiable(x) for x in inputs[:len(inputs) - row.fixed]]

        def both():
            y = row.call(side, *trained, *inputs[len(trained):])
            wait([y, *backward(side, y, slope, trained)])

        found[f"{title} both"] = typical(both)
    return found | {f"peak {key}": value for key, value in peak.items()}
