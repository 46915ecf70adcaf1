"""Which losses train the detector of structural distortion, and their weights."""
from collections.abc import Mapping
from dataclasses import dataclass, fields

from jittwin.errors import UserError, choose_from

MASK_TERMS = ("mse", "dice", "soft_dice", "bce")
SCORE_TERMS = ("mse", "plcc", "srcc")
SEMANTICS = ("repaired", "reference")
# The original asks whether a setting contains "ce", and then takes the mean squared error.
ALIASES: dict[str, Mapping[str, str]] = {"mask_loss": {}, "score_loss": {"ce": "mse"}}
TERMS = {"mask_loss": MASK_TERMS, "score_loss": SCORE_TERMS}
SRCC_WEIGHT = 0.3           # of the term srcc beside the others
SOFTENING = 1e-12           # added to a variance, whose root has an infinite slope at 0
SPREAD = 1e-5               # added to a deviation by which is divided
SMOOTH = 1.0                # of the dice losses


@dataclass(frozen=True)
class DistortionLosses:
    """The terms of the loss of the map and of that of the score, and the weights of the two.

    semantics: "reference" computes the score's terms as the original does: mse compares every prediction with every
    vote, and srcc is 0. "repaired" computes what their names say. ValueError: a term or semantics that does not exist.
    """

    mask: tuple[str, ...] = ("dice", "mse")
    score: tuple[str, ...] = ("mse",)
    mask_weight: float = 1.0
    score_weight: float = 1.0
    semantics: str = "repaired"

    def __post_init__(self):
        for name, given, legal in (("mask", self.mask, MASK_TERMS), ("score", self.score, SCORE_TERMS),
                                   ("semantics", [self.semantics], SEMANTICS)):
            for term in given:
                if term not in legal:
                    raise ValueError(f"{name} is {term!r}{choose_from(term, legal)}")
        for field in fields(self)[2:4]:
            if not 0 <= getattr(self, field.name) < float("inf"):
                raise ValueError(f"{field.name} is {getattr(self, field.name)}; legal: 0 and more")


def parse_terms(text: str, kind: str) -> tuple[str, ...]:
    """The terms of a setting such as "dice-mse", each once and in the order of TERMS[kind].

    kind: mask_loss or score_loss. UserError: a name that is no term, or none at all.
    """
    given = [ALIASES[kind].get(name, name) for name in text.replace(",", "-").replace("+", "-").split("-")]
    for name in given:
        if name not in TERMS[kind]:
            raise UserError(f"{kind}={text}: '{name}' is no term{choose_from(name, TERMS[kind])}; join several with -")
    return tuple(term for term in TERMS[kind] if term in given)
