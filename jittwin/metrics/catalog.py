"""The metrics: which command gives them, how to read them, and what they need."""
from dataclasses import dataclass


@dataclass(frozen=True)
class Info:
    """What a person should know of a metric.

    better: "higher" or "lower". span: least and greatest value. module: of a metric of `jittwin assess`, has
    add_metric_arguments(parser) for its options and load_metric(args, backend, dtype), which gives a
    jittwin.metrics.metric.Metric.
    """

    name: str
    command: str
    summary: str
    better: str
    span: tuple[float, float]
    weights: str
    module: str | None = None

    @property
    def range(self) -> str:
        return "{:g} to {:g}".format(*self.span)


INFINITY = float("inf")
INCEPTION = "inception_fid"
METRICS = (
    Info("aesthetic", "assess", "mean rating, as of photographs in AVA", "higher", (1, 10),
           "a SigLIP2 tower and adapters", "jittwin.metrics.aesthetic"),
    Info("fid", "fid", "Fréchet distance of two sets", "lower", (0, INFINITY), INCEPTION),
    Info("kid", "fid", "kernel distance of two sets, unbiased", "lower", (-INFINITY, INFINITY), INCEPTION),
    Info("precision", "fid", "share of A within the reach of B", "higher", (0, 1), INCEPTION),
    Info("recall", "fid", "share of B within the reach of A", "higher", (0, 1), INCEPTION),
    Info("inception score", "fid", "how clear and varied A is", "higher", (1, INFINITY), INCEPTION),
    Info("mask accuracy", "select", "share of pixels that show their label", "higher", (0, 1), "segformer"),
)
ASSESSED = {metric.name: metric for metric in METRICS if metric.command == "assess"}
