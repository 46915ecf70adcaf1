"""Fingerprint, a known difference that a comparison can be tested for, and the table of all fingerprints."""
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass


class Refused(Exception):
    """Raised where PyTorch computes as Jittor does and Jittor would raise an error. Its traceback has this text."""


@dataclass(frozen=True)
class Fingerprint:
    """One way in which a port computes something else than PyTorch.

    id: the entry of the catalogue of Jittor's differences ("N4"; "F6.scale" where an entry holds several), or
    "X-…" for mistakes that ports into any framework share. patch: makes PyTorch compute that way while its
    context lasts, or raise `Refused` if Jittor would raise an error.
    """
    id: str
    title: str
    remedy: str
    patch: Callable[[], AbstractContextManager]


FINGERPRINTS: dict[str, Fingerprint] = {}


def fingerprint(id: str, title: str, remedy: str):
    """Decorator that adds a function to the table. The function returns the patch's context."""
    def enter(patch):
        if id in FINGERPRINTS:
            raise ValueError(f"two fingerprints are called {id}")
        FINGERPRINTS[id] = Fingerprint(id, title, remedy, patch)
        return patch
    return enter
