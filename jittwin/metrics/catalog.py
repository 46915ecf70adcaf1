"""All metrics: those of single pictures, each a module of this folder, and those of sets of pictures."""
from jittwin.metrics import aesthetic, blipscore, clipscore, distortion, imagereward, mask_accuracy, pickscore, tier
from jittwin.metrics.metric import Info

INFINITY = float("inf")
INCEPTION = "inception_fid"
# The metrics of `jittwin assess`: by name, a module with INFO and load(request).
ASSESSED = {module.INFO.name: module for module in (
    aesthetic, mask_accuracy, tier, distortion, clipscore, blipscore, imagereward, pickscore)}
METRICS = (
    *(module.INFO for module in ASSESSED.values()),
    Info("fid", "fid", "Fréchet distance of two sets", "lower", (0, INFINITY), INCEPTION),
    Info("kid", "fid", "kernel distance of two sets, unbiased", "lower", (-INFINITY, INFINITY), INCEPTION),
    Info("precision", "fid", "fraction of A within the reach of B", "higher", (0, 1), INCEPTION),
    Info("recall", "fid", "fraction of B within the reach of A", "higher", (0, 1), INCEPTION),
    Info("inception score", "fid", "how clear and varied A is", "higher", (1, INFINITY), INCEPTION),
)
