"""`jittwin list`: the models and the metrics as tables."""
import argparse
import importlib.util
import sys

from jittwin.backend import PACKAGES
from jittwin.metrics.catalog import METRICS
from jittwin.models.catalog import MODELS

WIDTH = 140     # columns, if the output is not a terminal


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No options."""


def run(args: argparse.Namespace) -> None:
    """Print the tables, and the backends whose framework is installed here; every backend has all models."""
    from rich.console import Console

    installed = ", ".join(name for name in PACKAGES if importlib.util.find_spec(name)) or "none"
    models = table(["model", "for", "weights", "licence of the weights"],
                   [(m.name, m.summary, m.weights, m.licence) for m in MODELS])
    metrics = table(["metric", "says", "better", "range", "weights", "command"],
                    [(m.name, m.summary, m.better, m.range, m.weights, f"jittwin {m.command}") for m in METRICS])
    screen = Console(width=None if sys.stdout.isatty() else WIDTH)
    screen.print(models, metrics, f"backends installed here: {installed}")


def table(head: list[str], rows: list[tuple[str, ...]]):
    """A table for rich; in a narrow terminal long cells are wrapped, and names are never cut."""
    from rich.box import SIMPLE
    from rich.table import Column, Table

    found = Table(*(Column(name, overflow="fold", no_wrap=name == head[0]) for name in head), box=SIMPLE)
    for row in rows:
        found.add_row(*row)
    return found
