"""The table of `nn.ops` functions: which only move data, how a probe runs each, and an example call of each.

A function without a row here fails a test, and level L2 of every model that calls it.
"""
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from jittwin.draws import Draws

BATCH = (2, 3, 6, 8)


@dataclass(frozen=True)
class Op:
    """How one function is probed.

    example: the arguments of a call; a `Like` stands for a tensor. exact: the result is moved or selected data, so it
    must be equal. run: `run(side, *arguments)` returns what to compare, if the function's own result is not enough.
    masks: the numbers of the tensor arguments that hold 0 and 1. labels: of those that hold class ids. weights: of
    those that stay ordinary numbers in every probe, because PyTorch's own kernels disagree about zero padding times
    an infinite weight. size_argument: the position of the result's (height, width) among the arguments. many: the
    function sums over images of any size.
    """
    example: tuple
    exact: bool = False
    run: Callable | None = None
    masks: tuple[int, ...] = ()
    labels: tuple[int, ...] = ()
    weights: tuple[int, ...] = ()
    size_argument: int | None = None
    many: bool = False


@dataclass(frozen=True)
class Like:
    """A tensor in an example: standard normal float32, or integers from low to high. host: a NumPy array instead."""
    shape: tuple[int, ...]
    type: str = "float32"
    low: int = 0
    high: int = 1
    host: bool = False

    def array(self, site: str) -> np.ndarray:
        if self.type == "float32":
            return Draws(3).normal(site, self.shape)
        return Draws(3).integers(site, self.low, self.high, self.shape).astype(self.type)


def assigned(side, target, source):
    """The target after it was assigned the source."""
    target = side.ops.detach(target)
    side.ops.assign(target, source)
    return target


def detached(side, x):
    """Twice the tensor, with the gradient of one of the two terms only."""
    return side.ops.detach(x) + x


def returned(side, x):
    """A tensor that went to the host and back."""
    return side.tensor(side.ops.to_host(x))


def without_gradient(side):
    """Twice a tensor, computed without gradients, and the gradient of a sum that contains it."""
    x = side.differentiable(side.tensor(np.arange(6, dtype=np.float64 if side.wide else np.float32)))
    with side.ops.no_grad():
        y = x + x
    return {"output": y, "gradient": side.tensor(side.gradients((y * y).sum() + (x + x).sum(), {"x": x})["x"])}


def random(side, shape):
    """Facts about random numbers, whose streams differ by design [F18]: their mean and variance are within five
    standard errors of a standard normal's, a second draw differs from the first, and the shape."""
    first, second = (side.host(side.ops.randn(shape)) for _ in range(2))
    within = 5 / np.sqrt(first.size)
    facts = [abs(first.mean()) < within, abs((first ** 2).mean() - 1) < within * np.sqrt(2),
             bool(np.any(first != second))]
    return {"facts": np.array(facts), "shape": np.array(first.shape)}


def dropped(side, *arguments):
    """A dropped tensor, whose mask must be exact because it comes from counters.

    arguments: the seed of `seed_dropout`, or the arguments of `dropout`.
    """
    side.ops.seed_dropout(arguments[0] if len(arguments) == 1 else 5)
    x, p, site = arguments if len(arguments) > 1 else (side.ops.zeros((4, 9)) + 1, 0.5, 3)
    return side.ops.dropout(x, p, site)


def seeded(name: str):
    """The function of this name, called with dropout masks from seed 5."""
    def call(side, *arguments):
        side.ops.seed_dropout(5)
        return getattr(side.ops, name)(*arguments)

    return call


def reduced(side, *_):
    """A linear layer and its gradient in every precision. The numbers are whole, so their sums are exact in any
    order, and only the rounding of operands and results shows."""
    x, weight, bias, g = (Draws(5).integers(name, -50, 50, shape).astype(np.float32)
                          for name, shape in (("x", (4, 24)), ("weight", (6, 24)), ("bias", (6,)), ("g", (4, 6))))
    found = {}
    for precision in ("bfloat16", "float16", "float32"):
        side.ops.set_precision(precision)
        given = side.differentiable(side.tensor(x))
        with side.ops.autocast():
            y = side.ops.linear(given, side.tensor(weight), side.tensor(bias))
        slope = side.gradients((y * side.tensor(g)).sum(), {"x": given})["x"]
        found |= {precision: side.host(y + side.ops.zeros(y.shape)).astype(np.float32), f"{precision} gradient": slope}
    return found


def normalized(side, *arguments):
    """The result of `normalize_modulate`, and the statistics of the batch."""
    return dict(zip(("output", "mean", "variance"), side.ops.normalize_modulate(*arguments)))


def repeated(side, x, shape):
    """An expanded tensor, and one that is repeated so often that one float32 sum adds its gradient up badly [N1]."""
    last = max(dim for dim, own in enumerate(x.shape) if own != shape[dim])
    often = [8192 if dim == last else length for dim, length in enumerate(shape)]
    return {"output": side.ops.expand(x, shape), "often": side.ops.expand(x, often)}


IMAGES = Like(BATCH)
ROWS = Like((5, 3)), Like((5, 3)), Like((2, 6, 8), "int32", 0, 4)
QUERIES, KEYS = Like((2, 7, 8)), Like((2, 5, 8))
OPS = {
    "leaky_relu": Op((IMAGES, 0.2)),
    "relu": Op((IMAGES,)),
    "tanh": Op((IMAGES,)),
    "sigmoid": Op((IMAGES,)),
    "concat": Op(((IMAGES, Like((2, 2, 6, 8))), 1), exact=True),
    "detach": Op((IMAGES,), exact=True, run=detached),
    "assign": Op((IMAGES, IMAGES), exact=True, run=assigned),
    "from_host": Op((Like(BATCH, host=True),), exact=True),
    "to_host": Op((IMAGES,), exact=True, run=returned),
    "no_grad": Op((), exact=True, run=without_gradient),
    "zeros": Op(((2, 3),), exact=True),
    "randn": Op(((64, 64),), exact=True, run=random),
    "one_hot": Op((Like((2, 6, 8), "uint8", 0, 4), 5), exact=True, labels=(0,)),
    "conv2d": Op((IMAGES, Like((4, 3, 3, 3)), Like((4,)), 2, 1), weights=(1, 2)),
    "depthwise_conv2d": Op((IMAGES, Like((3, 1, 3, 3)), Like((3,)), 1), weights=(1, 2)),
    "linear": Op((Like((2, 5, 8)), Like((6, 8)), Like((6,))), weights=(1, 2)),
    "gelu": Op((IMAGES,)),
    "gelu_tanh": Op((IMAGES,)),
    "layer_norm": Op((Like((2, 5, 8)), Like((8,)), Like((8,)), 1e-5)),
    "softmax": Op((Like((2, 5, 8)),)),
    "attention": Op((QUERIES, KEYS, KEYS, 2), run=seeded("attention")),
    "interpolate": Op((IMAGES, (9, 10), "bicubic"), size_argument=1),
    "upsample2": Op((IMAGES,), exact=True),
    "avg_pool2d": Op((IMAGES, 3, 2, 1, False)),
    "max_pool2d": Op((IMAGES, 3, 2, 1)),
    "add_noise": Op((IMAGES, Like((2, 1, 6, 8)), ROWS[0], ROWS[2]), labels=(3,)),
    "modulate": Op((IMAGES, *ROWS, 0.2), labels=(3,)),
    "normalize_modulate": Op((IMAGES, *ROWS, 1e-5, 0.2), labels=(3,), run=normalized),
    "mean": Op((IMAGES,), many=True),
    "sum_dims": Op((IMAGES, (1, 2, 3)), many=True),
    "mean_dims": Op((IMAGES, (1, 3))),
    "expand": Op((Like((2, 3, 1, 1)), BATCH), exact=True, run=repeated),
    "cumsum": Op((Like((3, 10)),)),
    "full_precision": Op((IMAGES,), exact=True),
    "l1_mean": Op((IMAGES, IMAGES), many=True),
    "shift2d": Op((IMAGES, Like((2,), "int64", -3, 3, host=True), Like((2,), "int64", -3, 3, host=True)), exact=True),
    "where": Op((Like((2, 1, 1, 1), "uint8"), IMAGES, IMAGES), exact=True, masks=(0,)),
    "seed_dropout": Op((3,), exact=True, run=dropped),
    "dropout": Op((IMAGES, 0.25, 7), run=dropped),
    "set_precision": Op(("float32",), exact=True, run=reduced),
    "autocast": Op((), exact=True, run=reduced),
    "quick_gelu": Op((IMAGES,)),
    "padding_mask": Op((Like((3, 5), "uint8"),), exact=True, masks=(0,)),
    "causal_mask": Op((5,), exact=True),
    "embedding": Op((Like((3, 6), "int64", 0, 4), Like((5, 9)), 2), exact=True, labels=(0,)),
    "take_along_dim": Op((IMAGES, Like((2, 3, 4, 1), "int64", 0, 4), 2), exact=True, labels=(1,)),
    "cross_entropy": Op((Like((6, 9)), Like((6,), "int64", 0, 8)), labels=(1,)),
    "drop_path": Op((Like((9, 3, 4)), 0.4, 7), run=seeded("drop_path")),
}
# More examples: every mode, and the argument types that behave differently.
MORE = (
    ("one_hot", (Like((2, 6, 8), "int64", 0, 4), 5)),
    ("from_host", (Like((4,), "int64", -9, 9, host=True),)),
    ("depthwise_conv2d", (IMAGES, Like((3, 1, 5, 5)), None, 1)),
    ("linear", (Like((4, 8)), Like((6, 8)))),
    ("softmax", (IMAGES,)),
    ("interpolate", (IMAGES, (3, 4), "nearest")),
    ("interpolate", (IMAGES, (5, 7), "nearest")),
    ("interpolate", (IMAGES, (9, 10), "bilinear")),
    ("interpolate", (IMAGES, (3, 4), "bilinear")),
    ("interpolate", (IMAGES, (5, 7), "bicubic")),
    ("interpolate", (IMAGES, (12, 16), "bilinear", True)),
    ("interpolate", (IMAGES, (3, 1), "bilinear", True)),
    ("interpolate", (IMAGES, (9, 10), "bicubic", True)),
    ("avg_pool2d", (IMAGES, 3, 2, 1, True)),
    ("max_pool2d", (Like((2, 3, 4, 3)), 3, 2, 1)),
    ("max_pool2d", (IMAGES, 2, 2)),
    ("attention", (QUERIES, KEYS, KEYS, 2, Like((2, 1, 1, 5)))),
    ("attention", (QUERIES, KEYS, KEYS, 2, Like((1, 2, 7, 5)), 0.25, 7)),
    ("cross_entropy", (Like((6, 9)), Like((6,), "int64", 2, 4), "mean", 3)),
    ("cross_entropy", (Like((6, 9)), Like((6,), "int64", 2, 4), "none", 3)),
    ("cross_entropy", (Like((6, 9)), Like((6,), "int64", 0, 8), "sum")),
    ("conv2d", (IMAGES, Like((3, 1, 1, 5)), Like((3,)), 1, (1, 2), 3)),
    ("conv2d", (IMAGES, Like((6, 1, 1, 5)), None, (2, 1), (1, 2), 3)),
    ("conv2d", (Like((3, 5, 12, 16)), Like((6, 5, 1, 1)), Like((6,)))),
    ("conv2d", (Like((2, 16, 5, 6)), Like((24, 16, 3, 3)), None, 2)),
)
