"""Pictures of the same prompt, ranked by each metric."""
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from jittwin.metrics.metric import Metric


@dataclass(frozen=True)
class Ranked:
    """The pictures of a prompt.

    rows: rows of an assessment, sorted by the first metric, best first. ranks: by metric, the rank of each row, from 1.
    """
    prompt: str
    rows: list[dict]
    ranks: dict[str, list[int]]


def ranking(rows: Sequence[dict], metrics: Sequence[Metric]) -> list[Ranked]:
    """The rows of an assessment, grouped and ranked by prompt; prompts are in order of appearance."""
    groups = defaultdict(list)
    for row in rows:
        groups[row["prompt"]].append(row)
    found, first = [], metrics[0].info
    for prompt, group in groups.items():
        group.sort(key=lambda row: row[first.name], reverse=first.better == "higher")
        found.append(Ranked(prompt, group, {
            metric.info.name: ranks([row[metric.info.name] for row in group], metric.info.better == "higher")
            for metric in metrics}))
    return found


def ranks(values: Sequence[float], higher_is_better: bool) -> list[int]:
    """The rank of each value, 1 for the best; equal values share the best of their ranks."""
    order = sorted(values, reverse=higher_is_better)
    return [order.index(value) + 1 for value in values]
