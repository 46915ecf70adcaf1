"""`jittwin list`: the models as a table."""
import argparse
import importlib.util

from jittwin.backend import PACKAGES
from jittwin.models.catalog import MODELS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No options."""


def run(args: argparse.Namespace) -> None:
    """Print the table; the backends are those whose framework is installed here."""
    from rich.console import Console
    from rich.table import Table

    installed = ", ".join(name for name in PACKAGES if importlib.util.find_spec(name)) or "none installed"
    table = Table("model", "for", "backends here", "weights", "licence of the weights")
    for model in MODELS:
        table.add_row(model.name, model.summary, installed, model.weights, model.licence)
    Console().print(table)
