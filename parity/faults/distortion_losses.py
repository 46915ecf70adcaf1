"""Faults of the losses of the detector of distortion."""
from parity.faults.fault import Fault

L = "assess/distortion_losses.py"
CASES = ("distortion.losses",)

FAULTS = (
    Fault("dice_of_the_whole_batch", "", L,
          "ops.sum_dims(maps, (1, 2, 3))", "ops.sum_dims(maps, (0, 1, 2, 3))",
          "pictures share one dice coefficient", CASES),
    Fault("dice_smoothed_below_alone", "", L,
          "+ SMOOTH) / (total + SMOOTH)", ") / (total + SMOOTH)", "maps without distortion have the largest loss",
          CASES),
    Fault("soft_dice_without_squares", "", L,
          "added(maps * maps) + added(target * target)", "added(maps) + added(target)",
          "soft_dice is dice", CASES),
    Fault("sample_deviation", "", L,
          "((ops.mean(x * x) + SOFTENING)", "(((x * x).sum() / (x.shape[0] - 1) + SOFTENING)",
          "the deviation of a batch is divided by its size less 1", CASES),
    Fault("unfitted_correlation", "", L,
          "apart, fitted = scores - votes, r * scores - votes", "apart, fitted = scores - votes, scores - votes",
          "the correlation does not scale the prediction", CASES),
    Fault("order_reversed", "", L,
          "votes.reshape(1, -1) > votes.reshape(-1, 1)", "votes.reshape(1, -1) < votes.reshape(-1, 1)",
          "pairs in the right order are punished", CASES),
    Fault("largest_gap_without_slope", "", L,
          "(1 + wrong.max())", "(1 + ops.detach(wrong.max()))", "no gradient passes through the largest gap", CASES),
    Fault("bce_of_negative_logits", "", L,
          "(logits - 2 * positive).exp()", "(2 * positive - logits).exp()", "exp of what it should divide by", CASES),
    Fault("weights_exchanged", "", L,
          "config.mask_weight * loss", "config.score_weight * loss", "the map has the weight of the score", CASES),
    Fault("original_mse_for_all", "", L,
          "gap = scores.reshape(-1, 1) - votes if reference else scores - votes",
          "gap = scores.reshape(-1, 1) - votes", "every score is compared with every vote, as in the original", CASES),
)
