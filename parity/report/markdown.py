"""A report as Markdown tables: the matrix of models and levels, every comparison, the environment."""
from parity.report.report import READING, Report, explained, outcome, short, summary
from parity.result import LEVELS, Row


def render(report: Report) -> str:
    attestation = report.attestation
    made = ", ".join(filter(None, [attestation.get("made", ""), summary(report)]))
    lines = [f"# Parity: {report.verdict}", "", f"{made}."]
    if "command" in attestation:
        lines += ["", f"Written by `{attestation['command']} --markdown FILE`; do not edit."]
    lines += ["", *(line for text in READING for line in (text, "")), *matrix(report)]
    if report.failed:
        lines += ["", "## Failed", "", *(f"- {cell(r.model)} {r.level} {r.mode}: {cell(explained(r))}"
                                         for r in report.failed)]
    if report.extras.get("explanations"):
        lines += ["", "## Explanations", "", *(
            f"- {cell(found['model'])} {found['level']} {found['mode']}: {found['named'] or 'no known difference'}"
            for found in report.extras["explanations"])]
    lines += mutation(report) + ["", "## Every comparison", "", *comparisons(report.rows)]
    return "\n".join(lines + environment(attestation)) + "\n"


def matrix(report: Report) -> list[str]:
    """The worst ratio by model and level."""
    cells, levels = report.cells(), [level for level in report.levels if level != "L0"]
    sizes = list(dict.fromkeys((model, size) for model, size, level in cells if level != "L0"))
    table = [[f"{model} ({size} size)" if size == "full" else model,
              *(mark(cells.get((model, size, level))) for level in levels)] for model, size in sizes]
    return rows_of(["model", *(f"{level} {LEVELS[level]}" for level in levels)], table)


def mark(r: Row | None) -> str:
    return "" if r is None else outcome(r) if r.passed else f"**fail** {short(r.ratio)}"


def comparisons(rows: list[Row]) -> list[str]:
    head = ["model", "level", "mode", "size", "error", "noise", "ratio", "verdict", "worst tensor"]
    return rows_of(head, [[r.model, r.level, r.mode, r.detail.get("size", ""), short(r.error), short(r.noise),
                           outcome(r), r.verdict if r.passed else "**fail**", r.worst] for r in rows])


def mutation(report: Report) -> list[str]:
    """How many seeded faults each level notices, and which no level notices."""
    extras = report.extras
    if "kill_rate" not in extras:
        return []
    mutants = extras.get("mutants", [])
    levels = [[f"{level} {LEVELS[level]}", f["mutants"], f["killed"], f"{f['kill_rate']:.0%}", f["alone"]]
              for level, f in extras.get("by_level", {}).items()]
    lines = ["", "## Seeded faults", "", f"{len(mutants)} faults were put into the Jittor twin, one at a time; "
             f"{extras['kill_rate']:.1%} of those that change a result are noticed.", "",
             *rows_of(["level", "faults it was shown", "noticed", "kill rate", "noticed by it alone"], levels)]
    missed = [[m[key] for key in ("name", "id", "why", "verdict", "explanation")] for m in mutants
              if m["verdict"] != "killed"]
    if missed:
        lines += ["", *rows_of(["not noticed", "catalogue", "fault", "verdict", "because"], missed)]
    return lines + [f"- {cell(objection)}" for objection in extras.get("objections", [])]


def environment(attestation: dict) -> list[str]:
    facts = attestation.get("facts", {})
    if not facts:
        return ["", "## Environment", "", attestation.get("reason", "")]
    names = list(facts)
    promises = [[entry["promise"], f"{entry['id']}", *("yes" if not entry[n] else f"**no**: {entry[n]}" for n in names)]
                for entry in attestation["owed"]]
    recorded = [[key, *(facts[n].get(key, "") for n in names)] for key in next(iter(facts.values()))]
    return ["", "## Environment", "", *rows_of(["must hold", "catalogue", *names], promises), "",
            *rows_of(["recorded", *names], recorded)]


def rows_of(head: list[str], table: list[list]) -> list[str]:
    lines = [head, ["---"] * len(head), *table]
    return ["| " + " | ".join(cell(value) for value in line) + " |" for line in lines]


def cell(value) -> str:
    """The value as text that cannot break its table cell."""
    return " ".join(str(value).split()).replace("|", "\\|")
