"""Which metrics are measured together where the networks of all do not fit into memory at once."""
from collections.abc import Iterable, Sequence

from jittwin.metrics.metric import Metric
from jittwin.predictors.towers import bytes_of


def weights_of(metrics: Iterable[Metric]) -> int:
    """Bytes of the weights of their networks; a network that they share counts once."""
    return bytes_of(tower for metric in metrics for tower in metric.towers)


def passes(metrics: Sequence[Metric], room: int) -> list[list[Metric]]:
    """The metrics in groups whose weights are at most `room` bytes, each in the order of `metrics`.

    A metric joins the first group where it fits, with networks that it shares. One that fits nowhere is alone.
    """
    groups: list[list[Metric]] = []
    for metric in metrics:
        group = next((group for group in groups if weights_of([*group, metric]) <= room), None)
        if group is None:
            groups.append(group := [])
        group.append(metric)
    return groups
