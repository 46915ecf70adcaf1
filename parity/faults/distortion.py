"""Faults of the detector of distortion and of its training."""
from parity.faults.fault import Fault

D = "assess/distortion.py"
TRAINING = ("distortion.training", "distortion.lora")
FAULTS = (
    Fault("trunk_frozen_after_warm_up", "", D,
          "if self.trunk_trained:", "if not self.trunk_trained:",
          "no gradient reaches the trunk when it should be trained", TRAINING),
    Fault("score_of_a_place", "", D,
          "seen = hidden[:, 0]", "seen = hidden[:, 1]",
          "the score head sees the first place instead of the whole picture", ("distortion", *TRAINING)),
)
