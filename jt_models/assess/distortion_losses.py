"""Losses that train the detector of structural distortion, of its map and of its score.

Those of the winners' system of NTIRE 2025 (arXiv 2505.16314): dice (Milletari et al. 2016, arXiv 1606.04797) and
squared differences of maps; squared differences, linear correlation and pairwise order of scores.
"""
from jittwin.models.distortion_losses import SMOOTH, SOFTENING, SPREAD, SRCC_WEIGHT, DistortionLosses
from jt_models.nn import ops, processes


class Objective:
    """The loss of a batch, as differentiable scalars by name.

    config: see DistortionLosses. maps, target: (B, 1, S, S) from 0 to 1. logits: (B, 1, S, S), of which the maps are
    the logistic function; they are needed for the term bce alone, which a map of classes does not have. scores,
    votes: (B,) from 0 to 1.
    """

    def __init__(self, config: DistortionLosses):
        self.config = config

    def losses(self, maps, target, scores, votes, logits=None):
        """Every term, times its weight. Their sum is what the optimizer minimises."""
        config, found = self.config, {}
        scores, votes = processes.whole(scores), processes.whole(votes)      # they are compared with each other
        for term in config.mask:
            loss = binary_cross_entropy(logits, target) if term == "bce" else MASK_LOSSES[term](maps, target)
            found[f"mask_{term}"] = config.mask_weight * loss
        for term in config.score:
            loss = SCORE_LOSSES[term](scores, votes, config.semantics == "reference")
            found[f"score_{term}"] = config.score_weight * loss
        return found


def squared(maps, target):
    """Mean squared difference."""
    gap = maps - target
    return ops.mean(gap * gap)


def dice(maps, target):
    """1 - the dice coefficient of maps that need not be binary, mean over the batch."""
    return overlap(maps, target, added(maps) + added(target))


def soft_dice(maps, target):
    """Like `dice`, with squares in the denominator, so that equal maps have no loss but for the smoothing."""
    return overlap(maps, target, added(maps * maps) + added(target * target))


def overlap(maps, target, total):
    return ops.mean(1 - (2 * added(maps * target) + SMOOTH) / (total + SMOOTH))


def added(maps):
    """The sum of each map (B, 1, S, S), of shape (B, 1, 1, 1)."""
    return ops.sum_dims(maps, (1, 2, 3))


def binary_cross_entropy(logits, target):
    """Mean of -t log p - (1 - t) log(1 - p), where p is the logistic function of the logits.

    ValueError: a map of classes has no such logits.
    """
    if logits is None or tuple(logits.shape) != tuple(target.shape):
        raise ValueError("the term bce needs one logit for each pixel, which a mask head of classes does not have")
    positive = ops.relu(logits)
    # log(1 + exp(-|z|)), written so that its slope at 0 is right
    return ops.mean(positive - logits * target + (1 + (logits - 2 * positive).exp()).log())


def score_squared(scores, votes, reference: bool = False):
    """Mean squared difference. reference: of every score and every vote of the batch, not only of those that belong
    together."""
    gap = scores.reshape(-1, 1) - votes if reference else scores - votes
    return ops.mean(gap * gap)


def linear_correlation(scores, votes, reference: bool = False):
    """About ((1 - r) / 2 + (1 - r^2) / 4) / 2 for the linear correlation r of the batch; 0 of a single picture."""
    if scores.shape[0] < 2:
        return ops.mean(scores * 0)
    scores, votes = standardised(scores), standardised(votes)
    r = ops.mean(scores * votes)
    apart, fitted = scores - votes, r * scores - votes
    return (ops.mean(apart * apart) + ops.mean(fitted * fitted)) / 8


def standardised(x):
    """x (B,) with mean 0 and deviation 1."""
    x = x - ops.mean(x)
    return x / ((ops.mean(x * x) + SOFTENING).sqrt() + SPREAD)


def order(scores, votes, reference: bool = False):
    """How far the scores of pairs lie apart in the wrong order, times SRCC_WEIGHT; 0 of a single picture.

    reference: 0, since the original compares each score with itself alone.
    """
    count = scores.shape[0]
    if count < 2 or reference:
        return ops.mean(scores * 0)
    # Each pair stands here once, the picture with more votes in the column; counted both ways the sum is twice this.
    better = votes.reshape(1, -1) > votes.reshape(-1, 1)
    wrong = ops.where(better, ops.relu(scores.reshape(-1, 1) - scores.reshape(1, -1)), ops.zeros((count, count)))
    return SRCC_WEIGHT * 2 * wrong.sum() / (count * (count - 1)) / (1 + wrong.max())


MASK_LOSSES = {"mse": squared, "dice": dice, "soft_dice": soft_dice}
SCORE_LOSSES = {"mse": score_squared, "plcc": linear_correlation, "srcc": order}
