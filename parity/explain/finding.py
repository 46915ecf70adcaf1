"""Name the known difference between the frameworks that explains a failure.

PyTorch is made to compute with each known difference of Jittor (parity.fingerprints) in turn. If it then agrees with
the Jittor twin, that difference explains the failure.
"""
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from jittwin.errors import UserError
from parity import runner
from parity.explain.search import Failure, Suspect, search
from parity.result import Row
from parity.workers.oracle import PERTURBATIONS, Twins
from parity.workers.worker import WorkerError

LEVELS = ("L2", "L3", "L4", "L5")   # these compare a model's numbers; the levels from L6 on compare whole programs
SHOWN = 3                           # suspects per failure


@dataclass(frozen=True)
class Finding:
    """One failure. suspects: the likeliest first; culprits: the modules that differ even with the right inputs, if
    the level finds them; reason: why the row failed."""
    model: str
    level: str
    mode: str
    reason: str
    suspects: list[Suspect] = field(default_factory=list)
    culprits: list[str] = field(default_factory=list)

    @property
    def explained(self) -> bool:
        return bool(self.suspects) and self.suspects[0].explains

    @property
    def named(self) -> str:
        """The id that explains the failure, or several joined by "+"; "" if none does."""
        return self.suspects[0].name if self.explained else ""

    def lines(self) -> list[str]:
        found = [f"{' '.join(filter(None, (self.model, self.level, self.mode)))}: {self.reason}"]
        if not self.explained:
            found.append("  no known difference explains it")
            if self.culprits:
                found.append(f"  modules that differ on their own: {', '.join(self.culprits)}")
        for suspect in self.suspects[:1 if self.explained else SHOWN]:
            if suspect.refuses:
                found.append(f"  {suspect.name} explains it: Jittor computes nothing here")
            elif suspect.explains:
                found.append(f"  {suspect.name} explains it: {suspect.worst} {suspect.before:.1e} from PyTorch, "
                             f"{suspect.after:.1e} from PyTorch with {suspect.name} (limit {suspect.limit:.1e})")
            else:
                found.append(f"  {suspect.name} removes {100 * suspect.removed:.0f} % of the excess")
            found += [f"    {line}" for line in suspect.lines()]
        also = [s.name for s in self.suspects[1:] if s.explains]
        if also:
            found.append(f"  so do {', '.join(also)}")
        return found


@dataclass(frozen=True)
class Explanation:
    """All failures that were found. compared: the number of rows, passed or failed."""
    findings: list[Finding]
    compared: int

    @property
    def passed(self) -> bool:
        return not self.findings

    @property
    def named(self) -> list[str]:
        """The ids that explain something, without repetition."""
        return list(dict.fromkeys(f.named for f in self.findings if f.explained))

    def text(self) -> str:
        lines = [line for finding in self.findings for line in finding.lines()]
        explained = sum(f.explained for f in self.findings)
        lines.append(f"{self.compared} compared, {len(self.findings)} failed, {explained} explained"
                     + (f": {', '.join(self.named)}" if self.named else ""))
        return "\n".join(lines)


class RecordingTwins:
    """Stands for a Twins and keeps every comparison that is made through it."""

    def __init__(self, twins: Twins):
        self.twins = twins
        self.made: list[Failure] = []
        self.refused: list[Failure] = []    # where a worker raised an error
        self.exact: list[tuple] = []        # calls of `both`, whose results the level compares itself

    def __getattr__(self, name: str):
        return getattr(self.twins, name)

    def compare(self, function, arrays, /, perturbations: int = PERTURBATIONS, **arguments):
        try:
            comparison = self.twins.compare(function, arrays, perturbations=perturbations, **arguments)
        except WorkerError as error:
            self.refused.append(Failure(function, arrays, arguments, None, str(error)))
            raise
        self.made.append(Failure(function, arrays, arguments, comparison))
        return comparison

    def both(self, function, arrays=None, /, **arguments):
        self.exact.append((function, arrays or {}, arguments))
        return self.twins.both(function, arrays, **arguments)

    def take(self) -> Failure | None:
        """The worst failure among the comparisons since the last `take`; None if nothing failed.

        A comparison in which a worker raised an error is the worst. If no comparison failed, the calls of `both` are
        repeated as comparisons, and the first that fails counts.
        """
        made, exact, refused = self.made, self.exact, self.refused
        self.made, self.exact, self.refused = [], [], []
        if refused:
            return refused[0]
        worst = max((m for m in made if m.excess), key=lambda m: m.excess, default=None)
        for function, arrays, arguments in exact if worst is None else ():
            try:
                again = Failure(function, arrays, arguments, self.twins.compare(function, arrays, **arguments))
            except (WorkerError, UserError):        # it runs in float32 only, or it failed in the level as well
                self.twins.renew()
                continue
            if again.excess:
                return again
        return worst


def run(names: Iterable[str] = (), twin=None, levels: Iterable[str] | None = None, twins: Twins | None = None,
        progress: Callable[[Finding], None] | None = None) -> Explanation:
    """Check models and explain what fails.

    names, twin, twins: as in parity.runner.run. levels: LEVELS by default. progress: called with every finding.
    """
    if twins is None:
        with Twins(twin) as twins:
            return run(names, levels=levels, twins=twins, progress=progress)
    return explained(runner.plan(names, levels=LEVELS if levels is None else levels), twins, progress)


def explained(steps: Iterable[runner.Step], twins: Twins,
              progress: Callable[[Finding], None] | None = None) -> Explanation:
    """Perform these steps of a check and explain what fails."""
    findings, rows = [], []
    for step in steps:
        recorder = RecordingTwins(twins)
        found = runner.perform(step, recorder)
        failed = [r for r in found if not r.passed]
        rows += found
        if failed:
            failure = recorder.take()
            suspects = search(failure, twins) if failure else []
            findings.append(Finding(failed[0].model, step.level, step.mode, failed[0].detail.get("reason", ""),
                                    suspects, list(failed[0].detail.get("culprits", ()))))
            if progress:
                progress(findings[-1])
    return Explanation(findings, len(rows))


def explain_failures(rows: Iterable[Row], steps: Iterable[runner.Step], twins: Twins) -> list[dict]:
    """{"model", "level", "mode", "named": ids of the catalogue, "text"} of each failed row that can be explained."""
    failed = {(r.model, r.level, r.mode, r.detail.get("size")) for r in rows if not r.passed}
    # Steps at full size are left out: there each known difference would take as long as the check did.
    found = explained([s for s in steps if (s.model, s.level, s.mode, s.size) in failed
                       and s.level in LEVELS and s.size != "full"], twins)
    return [{"model": f.model, "level": f.level, "mode": f.mode, "named": f.named, "text": "\n".join(f.lines())}
            for f in found.findings]
