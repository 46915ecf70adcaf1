"""Report: the results of a run as one object, and its JSON form."""
import json
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

from jittwin.errors import UserError
from parity.result import LEVELS, Row, finite
from parity.workers.compare import FACTORS, FLOOR_ULPS, PERTURBATIONS

NUMBERS = ("error", "noise", "ratio")
CONTROL = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|[^\t\n\x20-\x7e\x80-\U0010ffff]")     # such as a compiler's colours
EXTRAS = ("kill_rate", "by_level", "mutants", "objections", "explanations")     # of `mutate` and of `check --explain`

(NOISES, OWNS), (GRADIENT_NOISES, GRADIENT_OWNS) = FACTORS[False], FACTORS[True]
READING = (
    "The truth is PyTorch in float64 on the same weights and inputs. The error is the largest deviation of the Jittor "
    "twin (with --backend torch, of PyTorch on --device) from it, relative to the root mean square of the tensor. For "
    "gradients it is the ninth decile instead of the largest, because one flipped sign of a ReLU moves single elements "
    "of a correct gradient far. The noise is the largest such error of float32 PyTorch when weights and inputs move by "
    f"one unit in the last place, over {PERTURBATIONS} trials (fewer at the published size and where a trial is a "
    "training run). The ratio is the error over the noise, or over float32 PyTorch's own error if that is larger.",
    f"A comparison passes up to {NOISES} times the noise or {OWNS} times PyTorch's own error (gradients and updates: "
    f"{GRADIENT_NOISES} and {GRADIENT_OWNS}), so no tolerance is chosen by hand. In L2, an output that is the sum of n "
    f"products may also be off by {FLOOR_ULPS} sqrt(n) roundings, which adding one after the other costs. Results that "
    "must be equal are compared byte by byte: \"equal\" means that not one bit differs.")


@dataclass
class Report:
    """The results of one run.

    rows: the comparisons. attestation: see parity.levels.environment; also "command" and "seconds" of the run.
    extras: values by the names in EXTRAS, some or none; see parity.faults.mutate.run and parity.explain.finding.
    """
    rows: list[Row]
    attestation: dict
    extras: dict = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        sound = self.attestation.get("verdict") == "pass" and not self.extras.get("objections")
        return sound and bool(self.rows) and all(r.passed for r in self.rows)

    @property
    def verdict(self) -> str:
        return "pass" if self.passed else "fail"

    @property
    def failed(self) -> list[Row]:
        return [r for r in self.rows if not r.passed]

    @property
    def models(self) -> list[str]:
        return list(dict.fromkeys(r.model for r in self.rows if r.level != "L0"))

    @property
    def levels(self) -> list[str]:
        return [level for level in LEVELS if any(r.level == level for r in self.rows)]

    def cells(self) -> dict[tuple[str, str, str], Row]:
        """The worst row by model, size and level: a failing one, else the one with the largest ratio."""
        worst: dict[tuple[str, str, str], Row] = {}
        for r in self.rows:
            key = r.model, r.detail.get("size", ""), r.level
            if key not in worst or badness(r) > badness(worst[key]):
                worst[key] = r
        return worst

    def to_json(self) -> dict:
        return finite({"verdict": self.verdict, "attestation": self.attestation,
                       "cases": [r.to_json() for r in self.rows], **self.extras})


def of_rows(rows: Sequence[Row], attestation: dict | None = None, **facts) -> Report:
    """The report of a run. An L0 row's attestation replaces `attestation`. facts: added to the attestation."""
    found = attestation
    for r in rows:
        if r.level == "L0":
            found = r.detail.pop("attestation", None) or {"verdict": "fail", "reason": r.detail.get("reason", "")}
    return Report(list(rows), {**(found or {"verdict": "fail", "reason": "nothing was attested"}), **facts})


def badness(r: Row) -> tuple[bool, float]:
    return not r.passed, math.inf if math.isnan(r.ratio) else r.ratio


def read(path: str | os.PathLike) -> Report:
    """The report in a JSON file. UserError if the file does not exist or is no report."""
    try:
        found = json.loads(Path(path).read_text())
    except (ValueError, OSError) as error:
        raise UserError(f"{os.fspath(path)}: not a parity report ({error}): "
                        "pass a file that check --json or mutate --json wrote") from error
    required = [f.name for f in fields(Row) if f.name != "detail"]
    try:
        rows = [Row(**{name: case[name] for name in required}, detail=case.get("detail", {}))
                for case in found["cases"]]
        for r in rows:
            for name in NUMBERS:
                setattr(r, name, float(getattr(r, name)))
        return Report(rows, dict(found["attestation"]), {key: found[key] for key in EXTRAS if key in found})
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{os.fspath(path)}: not a parity report ({type(error).__name__}: {error}): "
                        "pass a file that check --json or mutate --json wrote") from error


# ---- numbers as people read them -------------------------------------------------------

def short(value) -> str:
    """A number with two digits: "0", "1.2e-7", "0.34", "inf"."""
    value = float(value)
    if value == 0:
        return "0"
    if not math.isfinite(value):
        return str(value)
    if 0.01 <= abs(value) < 1000:
        return f"{value:#.2g}".rstrip(".") if abs(value) < 100 else f"{value:.0f}"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def outcome(r: Row) -> str:
    """A cell of the matrix: the ratio, or "equal" where not one bit differs."""
    return "equal" if r.passed and r.error == 0 else short(r.ratio)


def duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else f"{int(seconds) // 60} min {int(seconds) % 60} s"


def summary(report: Report) -> str:
    """One sentence: how many comparisons of how many models passed."""
    passed, total = len(report.rows) - len(report.failed), len(report.rows)
    words = [f"{passed} of {total} comparisons passed", _several(len(report.models), "model")]
    if "seconds" in report.attestation:
        words.append(duration(report.attestation["seconds"]))
    if report.attestation.get("verdict") != "pass" and not any(r.level == "L0" for r in report.failed):
        words.append("the environment failed")
    return ", ".join(words)


def _several(count: int, thing: str) -> str:
    return f"{count} {thing}{'' if count == 1 else 's'}"


def explained(r: Row) -> str:
    """Why a row failed, where the twins first differ and which modules are at fault."""
    words, culprits = [r.detail.get("reason", "") or "no reason was given"], r.detail.get("culprits", [])
    if r.detail.get("first_divergence"):
        words.append(f"first divergence at {r.detail['first_divergence']}")
    if culprits:
        more = f" and {len(culprits) - 5} more" if len(culprits) > 5 else ""
        words.append(f"at fault: {', '.join(culprits[:5])}{more}")
    if r.detail.get("bundle"):
        words.append(f"reproduced in {r.detail['bundle']}")
    return CONTROL.sub("", "; ".join(words))


def title(r: Row) -> str:
    """The name of a row, such as "apf_gan.generator L3 train", with the size unless it is tiny."""
    size = r.detail.get("size", "tiny")
    return " ".join(filter(None, [r.model, r.level, r.mode, f"({size} size)" if size != "tiny" else ""]))


# ---- several reports -------------------------------------------------------------------

def merged(reports: Sequence[Report]) -> Report:
    """The first report, with the rows and extras that only the others have."""
    first, *others = reports
    for other in others:
        known = {_identity(r) for r in first.rows}
        first.rows += [r for r in other.rows if _identity(r) not in known]
        first.extras = {**other.extras, **first.extras}
        if other.attestation.get("verdict") != "pass" and first.attestation.get("verdict") == "pass":
            first.attestation = other.attestation
    if others:
        seconds = sum(report.attestation.get("seconds", 0) for report in reports)
        first.attestation = {**first.attestation, "seconds": seconds,
                             "command": " ".join(["python -m parity report", *["REPORT.json"] * len(reports)])}
    return first


def _identity(r: Row) -> tuple[str, ...]:
    return r.model, r.level, r.mode, r.detail.get("size", "")
