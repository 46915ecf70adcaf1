"""Reductions, normalisations, elementary functions and integers [N2-N14, F8, F9, P6]."""
from parity.fingerprints.fingerprint import fingerprint
from parity.fingerprints.patch import rerouted

LOWEST = -3.4028234663852886e38      # the value with which Jittor starts a maximum


def chained_mean(x, axes: list[int]):
    """The mean over `axes` (>= 0) without its gradient: one float32 number per result, to which x/n is added term by
    term in the order of memory. Shape: that of x without `axes`."""
    import numpy as np
    import torch
    kept = [axis for axis in range(x.dim()) if axis not in axes]
    rows = x.detach().float().permute(*kept, *axes).reshape(*(x.shape[axis] for axis in kept), -1).numpy()
    return torch.from_numpy(np.add.accumulate(rows * np.float32(1 / rows.shape[-1]), axis=-1)[..., -1:]).squeeze(-1)


@fingerprint("N2", "mean adds the terms x/n one by one to a float32 number, whose last digit each is rounded to",
             "take the mean axis by axis, or of sums of a few hundred terms each")
def _():
    def mean(original, x, dim=None, keepdim=False, **rest):
        exact = original(x, dim=dim, keepdim=keepdim, **rest)
        if not x.numel() or not x.is_floating_point():
            return exact
        given = range(x.dim()) if dim is None or dim == () else [dim] if isinstance(dim, int) else dim
        chained = chained_mean(x, sorted(axis % x.dim() for axis in given))
        return exact + (chained.reshape(exact.shape).to(exact.dtype) - exact).detach()

    return rerouted(mean=mean)


def running_variance(x, buffers, momentum: float, factor) -> None:
    """Update the running mean and variance by the statistics of x, the unbiased variance times factor(n)."""
    import torch
    with torch.no_grad():
        mean, variance = (torch.zeros_like(b) for b in buffers)
        torch.nn.functional.batch_norm(x, mean, variance, None, None, True, 1.0)
        variance = variance * factor(x.numel() // x.shape[1])
        for buffer, new in zip(buffers, (mean, variance)):
            buffer.copy_((1 - momentum) * buffer + momentum * new)


def batch_norm_storing(factor):
    """A patch of batch_norm that multiplies the variance that it stores by factor(n), of n values per channel."""
    def batch_norm(original, input, running_mean, running_var, weight=None, bias=None, training=False,
                   momentum=0.1, eps=1e-5):
        if not training or running_var is None:
            return original(input, running_mean, running_var, weight, bias, training, momentum, eps)
        running_variance(input, (running_mean, running_var), momentum, factor)
        return original(input, None, None, weight, bias, True, momentum, eps)
    return rerouted(batch_norm=batch_norm)


@fingerprint("N4", "BatchNorm stores the biased variance of the batch: running_var is (n-1)/n of PyTorch's",
             "update running_var with the batch variance times n/(n-1)")
def _():
    return batch_norm_storing(lambda n: (n - 1) / n)


@fingerprint("N8", "var is biased by default; std is never below 1e-3",
             "pass unbiased=True to var; take the square root of your own variance")
def _():
    def var(original, x, *arguments, **keywords):
        if not {"unbiased", "correction"} & {*keywords} and not any(isinstance(a, bool) for a in arguments):
            keywords["unbiased"] = False
        return original(x, *arguments, **keywords)

    def std(original, x, *arguments, **keywords):
        return original(x, *arguments, **keywords).clamp(min=1e-3)

    return rerouted(var=var, std=std)


@fingerprint("N9", "normalize guards with 1e-15, not 1e-12; norm without dim reduces the last one only",
             "divide by the norm with PyTorch's eps of 1e-12; flatten before a norm over everything")
def _():
    def normalize(original, input, p=2.0, dim=1, eps=1e-12, out=None):
        length = input.square().sum(dim, keepdim=True).clamp(min=1e-30).sqrt() if p == 2 else \
            input.abs().sum(dim, keepdim=True)
        return input / length

    def norm(original, x, p="fro", dim=None, keepdim=False, **rest):
        return original(x, 2 if p in ("fro", None) else p, -1 if dim is None else dim, keepdim, **rest)

    return rerouted(normalize=normalize, norm=norm)


def clamped_sigmoid(x):
    """Sigmoid of max(x, -30), whose gradient passes through the maximum as through x itself."""
    return 1 / (1 + (-(x + (x.clamp(min=-30) - x).detach())).exp())


@fingerprint("N10", "sigmoid is clamped at -30, log_sigmoid is its logarithm, logsumexp overflows",
             "use forms that shift by the maximum: -softplus(-x), max + log(sum(exp(x - max)))")
def _():
    def logsumexp(original, x, dim, keepdim=False, **_):
        return x.float().exp().sum(dim, keepdim=keepdim).log().to(x.dtype)

    return rerouted(sigmoid=lambda original, x, **_: clamped_sigmoid(x),
                    expit=lambda original, x, **_: clamped_sigmoid(x),
                    silu=lambda original, x, inplace=False: x * clamped_sigmoid(x),
                    logsigmoid=lambda original, x, **_: clamped_sigmoid(x).log(), logsumexp=logsumexp)


@fingerprint("N11", "softplus is log(1 + exp(x)), elu and expm1 are exp(x) - 1: zero where x is small",
             "use log1p and expm1, or their series near zero")
def _():
    def softplus(original, x, beta=1, threshold=20):
        z = (beta * x).float()
        return ((1 + z.clamp(max=threshold).exp()).log().to(x.dtype) / beta) + (x - threshold / beta).clamp(min=0)

    def expm1(x):
        return (x.float().exp() - 1).to(x.dtype)

    def elu(original, x, alpha=1.0, inplace=False):
        return x.where(x > 0, alpha * expm1(x))

    return rerouted(softplus=softplus, elu=elu, expm1=lambda original, x, **_: expm1(x))


@fingerprint("N12", "softmax without dim normalises over all elements", "pass dim to softmax and log_softmax")
def _():
    def over_all(original, x, dim=None, *arguments, **keywords):
        if dim is not None:
            return original(x, dim, *arguments, **keywords)
        return original(x.flatten(), 0).reshape(x.shape)

    return rerouted(softmax=over_all, log_softmax=over_all, softmin=over_all)


@fingerprint("N13", "the maximum of nothing but -inf is -3.4e38", "mask with jt.ternary after the maximum")
def _():
    def largest(original, x, *arguments, **keywords):
        found = original(x, *arguments, **keywords)
        if isinstance(found, tuple):
            return type(found)((found[0].clamp(min=LOWEST), found[1]))
        return found.clamp(min=LOWEST) if found.is_floating_point() else found

    return rerouted(max=largest, amax=largest)


@fingerprint("N14", "median(dim) takes the middle along the axis before dim",
             "sort along dim and pick the element (n-1)//2 yourself")
def _():
    def median(original, x, dim=None, keepdim=False):
        if dim is None:
            return original(x)
        found, middle, axis = original(x, dim, keepdim), (x.shape[dim] - 1) // 2, max(dim - 1, 0)
        values = x.sort(dim).values.narrow(axis, middle, 1)
        return type(found)((values if keepdim else values.squeeze(axis), found.indices))

    return rerouted(median=median)


@fingerprint("F8", "round goes away from zero at .5, not to the even neighbour",
             "floor(x + 0.5), corrected where x + 0.5 is an odd integer")
def _():
    return rerouted(round=lambda original, x, **_: x.sign() * (x.abs() + 0.5).floor())


def _whole(*values) -> bool:
    return not any(v.is_floating_point() if hasattr(v, "is_floating_point") else isinstance(v, float)
                   for v in values)


@fingerprint("F9", "integer // truncates and integer % takes the sign of the dividend, as in C",
             "subtract the non-negative remainder ((a % b) + b) % b before dividing")
def _():
    def floor_divide(original, x, y, **keywords):
        return x.div(y, rounding_mode="trunc") if _whole(x, y) else original(x, y, **keywords)

    def remainder(original, x, y, **keywords):
        return x.fmod(y) if _whole(x, y) else original(x, y, **keywords)

    return rerouted(floor_divide=floor_divide, __floordiv__=floor_divide, remainder=remainder, __mod__=remainder)


@fingerprint("P6", "64-bit integers become 32-bit ones and wrap at 2^31",
             "pass the dtype to jt.array, or keep identifiers below 2^31")
def _():
    import torch

    def narrow(original, *arguments, **keywords):
        tensor = original(*arguments, **keywords)
        return tensor.int().long() if tensor.dtype == torch.int64 else tensor

    return rerouted(tensor=narrow, as_tensor=narrow)
