"""`jittwin list`: the models and the metrics as tables."""
import argparse
import importlib.util
import sys

from jittwin.backend import PACKAGES
from jittwin.metrics.catalog import METRICS
from jittwin.models.catalog import MODELS

WIDTH = 140     # where the output is not a terminal


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No options."""


def run(args: argparse.Namespace) -> None:
    """Print the tables; the backends are those whose framework is installed here."""
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Column, Table

    installed = ", ".join(name for name in PACKAGES if importlib.util.find_spec(name)) or "none installed"
    table = Table(Column("model", no_wrap=True), "for", "backends here", "weights", "licence of the weights",
                  box=SIMPLE)
    for model in MODELS:
        table.add_row(model.name, model.summary, installed, model.weights, model.licence)
    metrics = Table(Column("metric", no_wrap=True), "says", "better", "range", "weights", "command", box=SIMPLE)
    for metric in METRICS:
        metrics.add_row(metric.name, metric.summary, metric.better, metric.range, metric.weights,
                        f"jittwin {metric.command}")
    Console(width=None if sys.stdout.isatty() else WIDTH).print(table, metrics)
