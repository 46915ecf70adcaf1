"""What a check finds: one row per model, level and mode. The report is made of rows alone."""
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from parity.workers.compare import Verdict

LEVELS = {
    "L0": "environment", "L1": "structure and conversion", "L2": "operators", "L3": "forward",
    "L4": "backward", "L5": "update", "L6": "trajectory", "L7": "data", "L8": "metrics", "L9": "resume",
    "processes": "two against one",
}


@dataclass
class Row:
    """One line of a report. error, noise and ratio are those of the worst tensor.

    detail: more for the page and for people: {"reason": str, "limit": float, "tensors": [[name, error, noise,
    own, limit, reason], …] worst first, "curve": [[module path, error, noise, limit], …] in the order of
    execution, "first_divergence": path, "culprits": [paths], "size": "tiny"|"full", "seconds": float,
    "map": {"name": …, "error": 2-D list} for the worst tensor …}; every key may be absent.
    """
    model: str
    level: str
    mode: str
    dtype: str
    verdict: str                  # "pass" or "fail"
    error: float
    noise: float
    ratio: float
    worst: str
    detail: dict = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        return self.verdict == "pass"

    def to_json(self) -> dict:
        return finite(asdict(self))


def row(model: str, level: str, mode: str, verdicts: Mapping[str, Verdict], dtype: str = "float32",
        **detail) -> Row:
    """The row of a set of tensors. The row fails if there is no tensor, because then nothing was compared."""
    if not verdicts:
        return failure(model, level, mode, "nothing was compared", dtype, **detail)
    ranked = sorted(verdicts.items(), key=lambda item: (item[1].passed, -severity(item[1])))
    worst, verdict = ranked[0]
    failed = [name for name, v in ranked if not v.passed]
    reason = f"{len(failed)} of {len(ranked)} tensors, worst {worst}: {verdict.reason}" if failed else ""
    tensors = [[name, v.error, v.noise, v.own, v.limit, v.reason] for name, v in ranked[:20]]
    return Row(model, level, mode, dtype, "fail" if failed else "pass", verdict.error, verdict.noise,
               verdict.ratio, worst, {"reason": reason, "limit": verdict.limit, "tensors": tensors,
                                      "count": len(ranked), **detail})


def failure(model: str, level: str, mode: str, reason: str, dtype: str = "float32", **detail) -> Row:
    """The failing row of a comparison that could not be made."""
    return Row(model, level, mode, dtype, "fail", math.inf, 0.0, math.inf, "", {"reason": reason, **detail})


def severity(verdict: Verdict) -> float:
    """The error divided by its limit; infinite if the error is not finite."""
    if not math.isfinite(verdict.error):
        return math.inf
    return verdict.error / verdict.limit if verdict.limit else (math.inf if verdict.error else 0.0)


def finite(value):
    """The value with infinities and NaN as strings, since JSON has neither, and NumPy scalars as plain numbers."""
    if isinstance(value, dict):
        return {str(key): finite(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value.item() if hasattr(value, "item") else value
