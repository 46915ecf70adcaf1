"""Measure whether the checks find faults: put each seeded fault into a copy of the Jittor twin and check that.

A level kills a fault if one of its rows fails that passes with the unbroken twin. PyTorch's results are computed once
and used for all faults.
"""
import tempfile
import time
from collections.abc import Callable, Iterable, MutableMapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from jittwin.errors import UserError
from parity import runner as check
from parity.faults import FAULTS, Fault, broken_copy, find
from parity.result import LEVELS, Row
from parity.workers.oracle import Twins
from parity.workers.worker import Worker

ENOUGH = 0.95                  # the least kill rate that passes
REASON = 300                   # characters kept of a row's reason for failing

Check = tuple[str, str]        # (model, level)


class Stored(MutableMapping):
    """Results of workers by key. Their arrays lie in files, because those of all models take several GB."""

    def __init__(self):
        self.folder, self.kept = tempfile.TemporaryDirectory(prefix="parity-known-"), {}

    def file(self, key: str) -> Path:
        return Path(self.folder.name, f"{key}.safetensors")

    def __contains__(self, key) -> bool:
        return key in self.kept

    def __setitem__(self, key: str, result: tuple[dict, dict]) -> None:
        arrays, self.kept[key] = result
        save_file({name: np.asarray(array, order="C") for name, array in arrays.items()}, self.file(key))

    def __getitem__(self, key: str) -> tuple[dict, dict]:
        return load_file(self.file(key)), self.kept[key]

    def __delitem__(self, key: str) -> None:
        del self.kept[key]
        self.file(key).unlink()

    def __iter__(self):
        return iter(self.kept)

    def __len__(self) -> int:
        return len(self.kept)


class Remembering(Twins):
    """Workers that keep PyTorch's results, so that each call runs in PyTorch only once."""

    def __init__(self):
        super().__init__()
        self.known = Stored()

    @property
    def torch(self) -> "Remembered":
        return Remembered(super().torch, self)


class Remembered:
    """Stands for a Worker and keeps its results by function and arguments. A call that names a temporary file is
    always new."""

    def __init__(self, worker: Worker, twins: Remembering):
        self.worker, self.twins = worker, twins

    def start(self, function: Callable | str, arrays=None, /, **arguments) -> None:
        self.twins.asked = self.twins._key("call", function, dict(arrays or {}), arguments)
        if self.twins.asked not in self.twins.known:
            self.worker.start(function, arrays, **arguments)

    def finish(self) -> tuple[dict, dict]:
        asked, known = self.twins.asked, self.twins.known
        if asked not in known:
            known[asked] = self.worker.finish()
        return known[asked]

    def call(self, function: Callable | str, arrays=None, /, **arguments) -> tuple[dict, dict]:
        self.start(function, arrays, **arguments)
        return self.finish()


@dataclass
class Mutant:
    """The result for one fault. checks: the checks that it was shown to; killers: those that failed.

    killed: by level, the model, mode and reason of the first row that failed. seconds: the time that it took.
    """
    fault: Fault
    checks: list[Check] = field(default_factory=list)
    killed: dict[str, str] = field(default_factory=dict)
    killers: list[Check] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def first(self) -> str | None:
        """The lowest level that killed the fault, or None."""
        return min(self.killed, key=list(LEVELS).index, default=None)

    @property
    def verdict(self) -> str:
        if self.killed:
            return "killed"
        return "equivalent" if self.fault.equivalent else "survived" if self.checks else "not shown"

    @property
    def counts(self) -> bool:
        return self.verdict in ("killed", "survived")

    def to_json(self) -> dict:
        fault = self.fault
        return {"name": fault.name, "id": fault.id, "file": fault.file, "why": fault.why, "cases": list(fault.cases),
                "everywhere": list(fault.everywhere),
                "verdict": self.verdict, "first": self.first, "killed_by": self.killed,
                "levels": sorted({level for _, level in self.checks}), "seconds": round(self.seconds, 1),
                "explanation": "" if self.killed else fault.equivalent or fault.survives}


def chosen(names: Sequence[str] = (), only: Iterable[str] | None = None) -> list[Fault]:
    """The faults that concern these models; if `only` is given, those of them that it names.

    UserError: an unknown name, a case outside this project, or no fault is left.
    """
    if own := [name for name in names if ":" in name]:
        raise UserError(f"{own[0]}: faults are put into this project's Jittor twin alone: name one of its models")
    cases = {case.name for case in check.select(names)} | {check.ENVIRONMENT}
    wanted = [find(name) for name in only] if only else FAULTS.values()
    found = [fault for fault in wanted if shown(fault, cases, None)]
    if not found:
        raise UserError(f"no fault of {', '.join(f.name for f in wanted)} concerns {', '.join(names)}: "
                        f"choose from {', '.join(f.name for f in chosen(names))}")
    return found


def steps(names: Iterable[str], levels: Iterable[str] | None) -> list[check.Step]:
    """The steps of these cases. L0 is part of them only if "environment" is among the names."""
    wanted = list(LEVELS if levels is None else levels)
    cases, found = [name for name in names if name != check.ENVIRONMENT], []
    if check.ENVIRONMENT in names and "L0" in wanted:
        found += check.plan(levels=["L0"])
    if cases:
        # The name of a case may also be the name of a family that contains it.
        found += [step for step in check.plan(cases, levels=[level for level in wanted if level != "L0"])
                  if step.model in cases]
    return found


def shown(fault: Fault, cases: set[str], levels: Sequence[str] | None) -> list[check.Step]:
    """The steps that a fault is shown to: its own cases, and all others at the levels where it is found everywhere."""
    own, everywhere = [name for name in fault.cases if name in cases], fault.everywhere
    found = [step for step in steps(own, levels) if not fault.levels or step.level in fault.levels]
    if wanted := [level for level in everywhere if levels is None or level in levels]:
        found += steps(sorted(cases.difference(own, [check.ENVIRONMENT])), wanted)
    return found


def run(names: Sequence[str] = (), only: Iterable[str] | None = None, levels: Sequence[str] | None = None,
        progress: Callable[[Mutant], None] | None = None, twins: Twins | None = None) -> dict:
    """Put the faults that concern these models into the Jittor twin, one after another.

    names: models or families, none for all. only: these faults; levels: these levels; None for all.
    progress: called with every Mutant. twins: the workers to use. Returns, fit for a report: "kill_rate" of the
    faults that are not equivalent and that some check was shown, "by_level", "mutants", "objections" to the
    result (see `objections`), and "rows", those of the unbroken twin. Ctrl-C ends it with the faults done so far.
    """
    if twins is None:
        with Remembering() as twins:
            return run(names, only, levels, progress, twins)
    check.check_levels(levels or ())
    faults = chosen(names, only)
    cases = {case.name for case in check.select(names)} | {check.ENVIRONMENT}
    planned = {fault.name: shown(fault, cases, levels) for fault in faults}
    needed = dict.fromkeys(step for steps in planned.values() for step in steps)
    rows = [row for step in needed for row in check.perform(step, twins)]
    sound = {key(row) for row in rows if row.passed}
    mutants, before = [], twins.twin
    with tempfile.TemporaryDirectory(prefix="parity-mutants-") as folder:
        try:
            for fault in faults:
                twins.replace_jittor(broken_copy(fault, Path(folder, fault.name)))
                mutants.append(judged(fault, planned[fault.name], twins, sound))
                if progress:
                    progress(mutants[-1])
        except KeyboardInterrupt:       # what is known is reported
            pass
        finally:
            twins.replace_jittor(before)
    done = len(mutants)
    # A general fault need not concern these models; those that must notice it are its own cases.
    mutants = [mutant for mutant in mutants if mutant.killed or cases & set(mutant.fault.cases)]
    found = {"kill_rate": kill_rate(mutants), "by_level": by_level(mutants),
             "mutants": [mutant.to_json() for mutant in mutants], "rows": rows}
    found["objections"] = objections(rows, mutants)
    if failing := recheck(needed, sound, twins):
        found["objections"].append(f"the unbroken twin passed {failing.model} {failing.level} before and fails it now, "
                                   f"so faults may not be why checks failed: {shortened(failing)}")
    if done < len(faults):
        found["objections"].append(f"stopped after {done} of {len(faults)} faults")
    elif only is None and levels is None:
        found["objections"] += [f"rejected: {level} of {model} kills nothing" for model, level in idle(mutants)]
        unseen = cases - {step.model for step in needed} - {
            c.name for c in check.select(names) if c.shared or "tiny" not in c.sizes}
        found["objections"] += [f"no fault concerns {name}" for name in sorted(unseen)]
    return found


def recheck(steps: Iterable[check.Step], sound: set, twins: Twins) -> Row | None:
    """Take the first step that the unbroken twin passed once more; the row that fails now, if any.

    A full disk or a lost temporary folder makes every later check fail, which looks as if it had noticed its fault.
    """
    passed = {(model, level) for model, level, _ in sound}
    step = next((step for step in steps if (step.model, step.level) in passed), None)
    rows = check.perform(step, twins) if step else []
    return next((row for row in rows if key(row) in sound and not row.passed), None)


def key(row: Row) -> tuple[str, str, str]:
    return row.model, row.level, row.mode


def judged(fault: Fault, steps: Iterable[check.Step], twins: Twins, sound: set) -> Mutant:
    """Check the broken twin. Rows that fail with the unbroken twin as well are ignored. A check that has noticed the
    fault in one mode does not run in the others."""
    begun, mutant = time.monotonic(), Mutant(fault)
    for step in steps:
        one = step.model, step.level
        for row in check.perform(step, twins) if one not in mutant.killers else ():
            if key(row) not in sound:
                continue
            if one not in mutant.checks:
                mutant.checks.append(one)
            if not row.passed and one not in mutant.killers:
                mutant.killers.append(one)
                mutant.killed.setdefault(row.level, f"{row.model} {row.mode}: {shortened(row)}")
    mutant.seconds = time.monotonic() - begun
    return mutant


def shortened(row: Row) -> str:
    """The end of a row's reason for failing, where a traceback says what happened."""
    reason = " ".join(row.detail.get("reason", "").split())
    return reason if len(reason) <= REASON else f"… {reason[-REASON:]}"


def kill_rate(mutants: Sequence[Mutant]) -> float:
    counted = [m for m in mutants if m.counts]
    return sum(m.verdict == "killed" for m in counted) / len(counted) if counted else 0.0


def by_level(mutants: Sequence[Mutant]) -> dict[str, dict]:
    """By level: how many faults it was shown, how many it killed, the kill rate, and how many only it killed."""
    found = {}
    for level in LEVELS:
        shown = [m for m in mutants if m.counts and any(level == seen for _, seen in m.checks)]
        killed = [m for m in shown if level in m.killed]
        if shown:
            found[level] = {"mutants": len(shown), "killed": len(killed), "kill_rate": len(killed) / len(shown),
                            "alone": sum(len(m.killed) == 1 for m in killed)}
    return found


def idle(mutants: Sequence[Mutant]) -> list[Check]:
    """The checks that killed no fault of those that they were shown."""
    seen = {one for m in mutants if m.counts for one in m.checks}
    return sorted(seen - {one for m in mutants for one in m.killers})


def objections(rows: Sequence[Row], mutants: Sequence[Mutant]) -> list[str]:
    """Why the result is not good enough. For a whole run, `run` adds the checks that kill nothing."""
    found = [f"{r.model} {r.level} {r.mode} fails with the unbroken twin, so it shows nothing: "
             f"{r.detail.get('reason', '')}" for r in rows if not r.passed]
    rate = kill_rate(mutants)
    if rate < ENOUGH:
        found.append(f"kill rate {rate:.1%} is below {ENOUGH:.0%}")
    for m in mutants:
        if m.verdict == "survived" and not m.fault.survives:
            found.append(f"{m.fault.name} survives unexplained: {m.fault.why}")
        if m.verdict == "not shown":
            found.append(f"{m.fault.name}: no check that passes with the unbroken twin was run on it")
        if m.verdict == "killed" and m.fault.equivalent:
            found.append(f"{m.fault.name} is said to change nothing, yet {m.first} noticed")
    return found
