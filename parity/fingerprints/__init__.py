"""Make PyTorch compute as something else does: one context per known difference of Jittor 1.3.11, or common mistake.

`applied("N4")` makes every torch module in the process, whoever wrote it, store the biased running variance.
If a failing comparison then agrees, the failure is explained.
"""
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from jittwin.errors import UserError, choose_from
from parity.fingerprints import layers, losses, numeric, ports, ties, training
from parity.fingerprints.fingerprint import FINGERPRINTS, Fingerprint

__all__ = ["FINGERPRINTS", "Fingerprint", "applied", "layers", "losses", "numeric", "ports", "ties", "training"]


@contextmanager
def applied(ids: str) -> Iterator[None]:
    """While this context lasts, PyTorch computes as this fingerprint says, or as several joined by "+".

    UserError: an unknown fingerprint.
    """
    for id in ids.split("+"):
        if id not in FINGERPRINTS:
            raise UserError(f"no fingerprint {id!r}{choose_from(id, FINGERPRINTS)}")
    with ExitStack() as stack:
        for id in ids.split("+"):
            stack.enter_context(FINGERPRINTS[id].patch())
        yield
