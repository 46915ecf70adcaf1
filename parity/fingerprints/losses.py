"""Loss functions [L2-L6]."""
from parity.fingerprints.fingerprint import fingerprint
from parity.fingerprints.patch import rerouted


def reduced(loss, reduction: str):
    return loss.mean() if reduction == "mean" else loss.sum() if reduction == "sum" else loss


@fingerprint("L2", "cross_entropy with class weights does not ignore label -100: it takes weight[-100]",
             "pass ignore_index, or drop the ignored elements first")
def _():
    import torch

    def cross_entropy(original, input, target, weight=None, size_average=None, ignore_index=-100, reduce=None,
                      reduction="mean", label_smoothing=0.0):
        if weight is None or target.is_floating_point():
            return original(input, target, weight, size_average, ignore_index, reduce, reduction, label_smoothing)
        classes = input.shape[1]
        outside = (target < 0) | (target >= classes)
        index = torch.where(target < 0, target + classes, target)
        scale = weight[index.clamp(0, classes - 1)].masked_fill((index < 0) | (index >= classes), 0.0)
        loss = original(input, target.masked_fill(outside, 0), reduction="none")
        loss = torch.where(outside, (input - input.amax(1, keepdim=True)).logsumexp(1), loss) * scale
        return loss.mean() / scale.mean() if reduction == "mean" else reduced(loss, reduction)

    return rerouted(cross_entropy=cross_entropy)


@fingerprint("L3", "cross_entropy has no label_smoothing", "add smoothing * mean(-log_softmax) yourself")
def _():
    def cross_entropy(original, *arguments, **keywords):
        return original(*arguments, **{**keywords, "label_smoothing": 0.0})

    return rerouted(cross_entropy=cross_entropy)


@fingerprint("L4", "nll_loss ignores no class when ignore_index is 0",
             "give class 0 the weight 0, or drop its elements first")
def _():
    def nll_loss(original, *arguments, ignore_index=-100, **keywords):
        return original(*arguments, ignore_index=ignore_index if ignore_index > 0 else -100, **keywords)

    return rerouted(nll_loss=nll_loss)


@fingerprint("L5", "binary_cross_entropy takes the logarithm of at least 1e-20: 46 per element at most, not 100",
             "compute it from the logits")
def _():
    def binary_cross_entropy(original, input, target, weight=None, size_average=None, reduce=None,
                             reduction="mean"):
        loss = -(target * input.clamp(min=1e-20).log() + (1 - target) * (1 - input).clamp(min=1e-20).log())
        return reduced(loss if weight is None else loss * weight, reduction)

    return rerouted(binary_cross_entropy=binary_cross_entropy)


@fingerprint("L6", "kl_div is NaN where the target is 0", "give those elements the loss 0 with jt.ternary")
def _():
    def kl_div(original, input, target, size_average=None, reduce=None, reduction="mean", log_target=False):
        loss = target.exp() * (target - input) if log_target else target * (target.log() - input)
        return loss.sum() / input.shape[0] if reduction == "batchmean" else reduced(loss, reduction)

    return rerouted(kl_div=kl_div)


@fingerprint("L6.beta", "smooth_l1_loss has no beta: it is always 1", "divide both by beta, multiply the loss by it")
def _():
    def smooth_l1_loss(original, *arguments, **keywords):
        return original(*arguments, **{**keywords, "beta": 1.0})

    return rerouted(smooth_l1_loss=smooth_l1_loss)
