"""Mistakes that are common in ports to any framework, and repairs that this project's models must not have.

An id says what the port does, not what PyTorch does.
"""
import contextlib
from collections.abc import Callable

from parity.fingerprints.fingerprint import fingerprint
from parity.fingerprints.layers import interpolate_with
from parity.fingerprints.numeric import batch_norm_storing
from parity.fingerprints.patch import rerouted, swapped
from parity.fingerprints.training import adam_with


@fingerprint("X-unbiased-variance", "a BatchNorm that should store the biased variance stores the unbiased one",
             "leave out the factor n/(n-1)")
def _():
    return batch_norm_storing(lambda n: n / (n - 1))


def norms_with_eps(eps: float) -> Callable:
    def patch():
        def other(place: int):
            def norm(original, *arguments, **keywords):
                if len(arguments) > place:
                    arguments = (*arguments[:place], eps, *arguments[place + 1:])
                else:
                    keywords["eps"] = eps
                return original(*arguments, **keywords)
            return norm
        return rerouted(batch_norm=other(7), instance_norm=other(7), layer_norm=other(4), group_norm=other(4))
    return patch


for _eps in (1e-3, 1e-5, 1e-6, 1e-12):
    fingerprint(f"X-norm-eps-{_eps:.0e}".replace("e-0", "e-"), f"a normalisation uses eps {_eps:g}",
                "pass the eps of the original layer")(norms_with_eps(_eps))


@fingerprint("X-unbiased-normalisation", "a normalisation divides by the unbiased standard deviation",
             "normalise by the biased variance, whatever the running statistics store")
def _():
    def scaled(y, n: int, weight, bias):
        shape = (1, -1, *[1] * (y.dim() - 2))
        y = y * ((n - 1) / n) ** 0.5
        y = y if weight is None else y * weight.reshape(shape)
        return y if bias is None else y + bias.reshape(shape)

    def batch_norm(original, input, running_mean, running_var, weight=None, bias=None, training=False,
                   momentum=0.1, eps=1e-5):
        if not training:
            return original(input, running_mean, running_var, weight, bias, training, momentum, eps)
        n = input.numel() // input.shape[1]
        y = original(input, running_mean, running_var, None, None, True, momentum, eps * (n - 1) / n)
        return scaled(y, n, weight, bias)

    def instance_norm(original, input, running_mean=None, running_var=None, weight=None, bias=None,
                      use_input_stats=True, momentum=0.1, eps=1e-5):
        n = input[0, 0].numel()
        return scaled(original(input, eps=eps * (n - 1) / n), n, weight, bias)

    return rerouted(batch_norm=batch_norm, instance_norm=instance_norm)


def leaky_with_slope(slope: float) -> Callable:
    def leaky_relu(original, x, negative_slope=0.01, inplace=False):
        return original(x, slope)
    return lambda: rerouted(leaky_relu=leaky_relu)


for _slope in (0.01, 0.1, 0.2, 0.3):
    fingerprint(f"X-slope-{_slope}", f"a LeakyReLU has the slope {_slope:g}",
                "pass the slope: Jittor's parameter is called scale, its default is 0.01")(leaky_with_slope(_slope))


@fingerprint("X-momentum", "BatchNorm's momentum is the share it keeps, not the share it takes",
             "pass 1 - momentum")
@contextlib.contextmanager
def _():
    from torch_models.nn.layers import BatchNorm2d

    def batch_norm(original, input, running_mean, running_var, weight=None, bias=None, training=False,
                   momentum=0.1, eps=1e-5):
        momentum = 1 - momentum if 0 < momentum < 1 else momentum
        return original(input, running_mean, running_var, weight, bias, training, momentum, eps)

    def other(original):
        def forward(self, x):
            before, self.momentum = self.momentum, 1 - self.momentum
            y = original(self, x)
            self.momentum = before
            return y
        return forward

    with rerouted(batch_norm=batch_norm), swapped((BatchNorm2d, "forward", other)):
        yield


def square(weight) -> bool:
    return weight.dim() == 2 and weight.shape[0] == weight.shape[1]


@fingerprint("X-transposed-weight", "a square weight of a linear layer is transposed",
             "store Linear weights as (out, in)")
def _():
    def linear(original, x, weight, bias=None):
        return original(x, weight.t() if square(weight) else weight, bias)

    return rerouted(linear=linear)


@fingerprint("X-swapped-kernel", "a convolution's kernel has its height and width exchanged",
             "store kernels as (out, in, height, width)")
def _():
    def conv2d(original, x, weight, *arguments, **keywords):
        swap = weight.shape[-1] == weight.shape[-2]
        return original(x, weight.transpose(-1, -2) if swap else weight, *arguments, **keywords)

    return rerouted(conv2d=conv2d)


@fingerprint("X-flipped-kernel", "a convolution flips its kernel, as a transposed one does",
             "convolve without flipping: deep learning's convolution is a correlation")
def _():
    def conv2d(original, x, weight, *arguments, **keywords):
        return original(x, weight.flip(-1, -2), *arguments, **keywords)

    return rerouted(conv2d=conv2d)


@fingerprint("X-no-bias", "the bias of linear layers or convolutions is left out", "add the bias")
def _():
    def linear(original, x, weight, bias=None):
        return original(x, weight)

    def conv2d(original, x, weight, bias=None, *arguments, **keywords):
        return original(x, weight, None, *arguments, **keywords)

    return rerouted(linear=linear, conv2d=conv2d)


def attention(change: Callable):
    """Scaled dot-product attention with other queries, keys or keywords: change(query, key) returns all three.

    The attribute is swapped, because `rerouted` would not see the calls inside nn.MultiheadAttention.
    """
    from torch.nn import functional

    def other(original):
        def scaled_dot_product_attention(query, key, value, *arguments, **keywords):
            query, key, changed = change(query, key)
            return original(query, key, value, *arguments, **{**keywords, **changed})
        return scaled_dot_product_attention
    return swapped((functional, "scaled_dot_product_attention", other))


@fingerprint("X-swapped-qk", "attention exchanges queries and keys", "scores are q k^T, not k q^T")
def _():
    return attention(lambda q, k: (k, q, {}) if q.shape == k.shape else (q, k, {}))


@fingerprint("X-unscaled-attention", "attention does not divide the scores by the root of the head's width",
             "divide by sqrt(head width)")
def _():
    return attention(lambda q, k: (q, k, {"scale": 1.0}))


@fingerprint("X-gelu-tanh", "GELU takes its tanh form", "use the form with erf")
def _():
    return rerouted(gelu=lambda original, x, **_: original(x, approximate="tanh"))


@fingerprint("X-nearest", "interpolate takes the nearest pixel where it should be bilinear or bicubic",
             "pass mode to interpolate")
def _():
    return interpolate_with(lambda asked: {"mode": "nearest", "align_corners": None})


@fingerprint("X-nearest-exact", "the nearest pixel is the one under the centre of the new pixel, not under its corner",
             "take pixel floor(i * old / new)")
def _():
    return interpolate_with(lambda asked: {"mode": "nearest-exact"} if asked["mode"] == "nearest" else {})


@fingerprint("X-bilinear", "interpolate is bilinear where it should be bicubic", "pass mode to interpolate")
def _():
    return interpolate_with(lambda asked: {"mode": "bilinear"} if asked["mode"] == "bicubic" else {})


@fingerprint("X-align-corners", "interpolate aligns the corners where it should not", "align_corners=False")
def _():
    return interpolate_with(lambda asked: {} if asked["mode"] in ("nearest", "area") else {"align_corners": True})


@fingerprint("X-pool-excluded", "average pools leave the padding out of the count", "divide by the whole window")
def _():
    def avg_pool2d(original, x, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True,
                   divisor_override=None):
        return original(x, kernel_size, stride, padding, ceil_mode, False)

    return rerouted(avg_pool2d=avg_pool2d)


@fingerprint("X-no-tanh", "a tanh is left out", "apply tanh where the original does")
def _():
    return rerouted(tanh=lambda original, x: x)


@fingerprint("X-adam-eps", "Adam adds eps after the bias correction where it should come before",
             "add eps to the root of the uncorrected second moment")
def _():
    return adam_with(ours=lambda optimizer, step: {"form": "torch"})


@fingerprint("X-no-bias-correction", "Adam does not correct the bias of its moments", "divide by 1 - beta^step")
def _():
    return adam_with(count=lambda step, who: 10 ** 9)


@fingerprint("X-step-ahead", "Adam's count of steps is one ahead", "count from 1 at the first update")
def _():
    return adam_with(count=lambda step, who: step + 1)


@fingerprint("X-coupled-decay", "AdamW adds its decay to the gradient, or Adam does not",
             "AdamW shrinks the parameter itself")
def _():
    return adam_with(lambda known: {"decoupled_weight_decay": not known["decoupled_weight_decay"]},
                     ours=lambda optimizer, step: {"decoupled": not optimizer.decoupled})


@fingerprint("X-unused-skipped", "Adam leaves parameters alone that the loss does not reach, where it should take "
             "their gradient as zero", "give them a zero gradient")
def _():
    from torch_models.nn import optim
    return swapped((optim.Adam, "unused", lambda original: lambda self, name: None))
