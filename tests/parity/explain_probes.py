"""Ports that test_explain.py looks at: a mistake that no catalogue knows, and two known ones at once."""


def unknown(side, arrays):
    """Jittor's result is 1 % too large."""
    x = side.tensor(arrays["x"])
    return {"y": side.host(x * (1.01 if side.name == "jittor" else 1.0)), "abs": side.host(x.abs())}


def two_at_once(side, arrays):
    """Bilinear for nearest, and another slope."""
    x = side.tensor(arrays["x"])
    if side.name == "jittor":
        from jt_models.boot import nn
        return {"y": side.host(nn.leaky_relu(nn.interpolate(x, scale_factor=2)))}
    from torch.nn import functional as F
    return {"y": side.host(F.leaky_relu(F.interpolate(x, scale_factor=2), 0.2))}


def right(side, arrays):
    return {"y": side.host(side.ops.relu(side.tensor(arrays["x"])))}


def operators(side, arrays, which: str):
    """One function of the twins' nn.ops, or its gradient."""
    x = side.tensor(arrays["x"])
    if which == "l1_mean":
        x = side.differentiable(x)
        return side.gradients(side.ops.l1_mean(x, x * 0), {"gradient x": x})
    if which == "avg_pool2d":
        return {"y": side.host(side.ops.avg_pool2d(x, 3, 2, 1))}
    return {"y": side.host(side.ops.interpolate(x, (8, 6), "bilinear"))}


def crash(side, arrays):
    """An error of the port itself, beside a pool that Jittor's own layer would refuse."""
    if side.name == "jittor":
        raise ValueError("a slip of the port")
    import torch
    x = side.tensor(arrays["x"])
    return {"y": side.host(torch.nn.functional.avg_pool2d(x, x.shape[-2:]))}


def crash_of_both(side, arrays):
    raise ValueError("a slip of the test")
