"""Show a report on the terminal, and the progress of a run on stderr."""
import sys

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from parity.report.report import Report, explained, outcome, short, summary, title
from parity.result import LEVELS, Row

COLOURS = {"pass": "green", "fail": "bold red"}
COLUMNS, WORST = ("model", "level", "mode", "error", "noise", "ratio", "verdict"), "worst tensor"
WIDE = 200                     # characters per line of a table that goes to a file or a pipe


def console(stderr: bool = False) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, highlight=False, soft_wrap=False,
                   width=None if stream.isatty() else WIDE)


def put(screen: Console, found: Table) -> None:
    """Print a table without the blanks that would fill its lines."""
    with screen.capture() as captured:
        screen.print(found)
    screen.file.write("\n".join(line.rstrip() for line in captured.get().splitlines()).strip("\n") + "\n\n")


def show(report: Report) -> None:
    """Print the table of all rows, why the failing ones failed, and the verdict."""
    screen = console()
    put(screen, table(report.rows, screen.width))
    for r in report.failed:
        screen.print(f"[bold red]{escape(title(r))}[/]: {escape(explained(r))}", soft_wrap=True)
    for found in report.extras.get("explanations", ()):
        screen.print(escape(found["text"]), soft_wrap=True)
    if "mutants" in report.extras:
        put_faults(screen, report.extras)
    reason = report.attestation.get("reason")
    if reason and not any(r.level == "L0" for r in report.failed):
        screen.print(f"[bold red]environment[/]: {escape(reason)}", soft_wrap=True)
    screen.print(f"[{COLOURS[report.verdict]}]{report.verdict}[/]: {summary(report)}", soft_wrap=True)


def put_faults(screen: Console, extras: dict) -> None:
    """Print how many faults each level killed, the faults that none did, and the objections (parity.faults.mutate)."""
    found = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("level", "faults shown", "killed", "kill rate", "killed by no other level"):
        found.add_column(name, justify="left" if name == "level" else "right")
    for level, seen in extras["by_level"].items():
        found.add_row(f"{level} {LEVELS[level]}", str(seen["mutants"]), str(seen["killed"]),
                      f"{seen['kill_rate']:.0%}", str(seen["alone"]))
    put(screen, found)
    for mutant in extras["mutants"]:
        if mutant["verdict"] != "killed":
            screen.print(f"{mutant['verdict']}: {mutant['name']}, {mutant['why']}: "
                         f"{mutant['explanation'] or 'unexplained'}", soft_wrap=True, markup=False)
    for objection in extras["objections"]:
        screen.print(f"[bold red]{escape(objection)}[/]", soft_wrap=True)


def table(rows: list[Row], width: int) -> Table:
    """The table of all rows. The name of the worst tensor is cut to fit `width`, the numbers never are."""
    found, lines, before = Table(box=box.SIMPLE_HEAD, pad_edge=False), [], None
    for r in rows:
        size = " (full)" if r.detail.get("size") == "full" else ""
        lines.append([r.model if r.model != before else "", r.level, r.mode + size, short(r.error), short(r.noise),
                      outcome(r), r.verdict])
        before = r.model
    widths = [max(map(len, column)) for column in zip(COLUMNS, *lines)]
    room = width - sum(widths) - 3 * len(COLUMNS)
    for name, wide in zip(COLUMNS, widths):
        found.add_column(name, justify="right" if name in ("error", "noise", "ratio") else "left", min_width=wide)
    if room >= len(WORST):
        found.add_column(WORST, max_width=room, overflow="ellipsis", no_wrap=True)
    for number, (r, line) in enumerate(zip(rows, lines)):
        if line[0] and number:
            found.add_section()
        cells = [*map(escape, line[:-1]), f"[{COLOURS[r.verdict]}]{r.verdict}[/]"]
        found.add_row(*cells, *([escape(r.worst)] if room >= len(WORST) else []))
    return found


def show_attestation(found: dict) -> None:
    """Print what both workers compute with, side by side, and what fails."""
    screen, facts = console(), found.get("facts", {})
    sides = Table("", *facts, box=box.SIMPLE_HEAD, pad_edge=False)
    for entry in found.get("owed", ()):
        sides.add_row(f"{entry['promise']} [{entry['id']}]".replace("[", "\\["), *(
            f"[{COLOURS['fail']}]no: {escape(entry[name])}[/]" if entry[name] else "yes" for name in facts))
    sides.add_section()
    for key in next(iter(facts.values()), {}):
        sides.add_row(escape(key), *(escape(str(facts[name].get(key, ""))) for name in facts))
    if facts:
        put(screen, sides)
    reason = f": {escape(found['reason'])}" if "reason" in found else ""
    screen.print(f"[{COLOURS[found['verdict']]}]{found['verdict']}[/]{reason}", soft_wrap=True)


def told(r: Row) -> str:
    return outcome(r) if r.passed and r.error == 0 else f"ratio {outcome(r)}"


class Live:
    """Shows every finished step: on a terminal as a bar, elsewhere as one line per row.

    Call it as `progress` of parity.runner.run, inside a `with` block.
    """

    def __init__(self, steps: list):
        self.steps, self.done, self.screen = steps, 0, console(stderr=True)
        self.bar = Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
                            console=self.screen, transient=True, disable=not self.screen.is_terminal)
        self.task = self.bar.add_task(self.next(), total=len(steps))

    def __enter__(self):
        self.bar.start()
        return self

    def __exit__(self, *_):
        self.bar.stop()

    def next(self) -> str:
        """The step that is being checked."""
        ahead = self.steps[self.done:self.done + 1]
        return escape(" ".join(filter(None, [f"{step.model} {step.level} {step.mode}" for step in ahead])).strip())

    def __call__(self, step, rows: list[Row]) -> None:
        self.done += 1
        self.bar.update(self.task, completed=self.done, description=self.next())
        for r in rows:
            if not self.screen.is_terminal:
                print(f"[{self.done}/{len(self.steps)}] {title(r)}: {r.verdict}, {told(r)}, "
                      f"{r.detail.get('seconds', 0):.1f} s", file=sys.stderr, flush=True)
            elif not r.passed:
                self.screen.print(f"[bold red]fail[/] {escape(title(r))}")
