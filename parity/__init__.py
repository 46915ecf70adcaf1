"""The proofs: the only place that knows both twins; they meet in files, never in one process.

For a port of your own: `from parity import Pair, parity_case`.
"""
import importlib

EXPORTS = {"Case": "parity.case", "Pair": "parity.pair", "Twins": "parity.workers.oracle",
           "parity_case": "parity.testing"}
__all__ = list(EXPORTS)


def __getattr__(name: str):
    """Imported when asked for: commands and workers need one or two of these, never all."""
    if name not in EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(EXPORTS[name]), name)
