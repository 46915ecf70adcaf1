"""The proofs that the twins agree. Only this package knows both twins, and it runs each in a process of its own.

For a port of your own: `from parity import Pair, parity_case`.
"""
import importlib

EXPORTS = {"Case": "parity.case", "Pair": "parity.pair", "Twins": "parity.workers.oracle",
           "parity_case": "parity.testing"}
__all__ = list(EXPORTS)


def __getattr__(name: str):
    """Import a name of EXPORTS when it is first used: commands and workers need only one or two of them."""
    if name not in EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(EXPORTS[name]), name)
