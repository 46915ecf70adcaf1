"""The figures of scripts/bench.py as lines of text and as tables in a page."""
from pathlib import Path

import bench_ops

from jittwin.backend import PACKAGES

COLUMNS = ("measure", "twin", "wall", "CPU", "peak memory", "share of the peak", "wall, CPU and memory are")
WIDTHS = (21, 8, 12, 12, 13, 28, 0)
UNITS = {"cpu": "CPU s", "seconds": "s"}        # in which the peak is known
QUANTITIES = ("seconds", "cpu", "memory")


def ratios(figures: dict, other: dict) -> list[str]:
    return [f"{figures[key] / other[key]:.2f}" for key in QUANTITIES]


def rows(measure: str, results: dict[str, dict], other: str) -> list[list[str]]:
    """A row of COLUMNS for each twin and one for their ratio. other: what "other" in the figures is called."""
    counted = results.get("torch", {})
    made = []
    for name, figures in results.items():
        row = [measure, name, f"{figures['seconds']:.3f} s", f"{figures['cpu']:.3f} s",
               f"{figures['memory'] / 1e6:.0f} MB", "", ""]
        for unit, shown in UNITS.items():
            if counted.get("operations") and f"peak {unit}" in counted:
                speed = counted["operations"] / figures[unit]
                row[5] = f"{speed / 1e12:.3g} TFLOP/{shown}, {speed / counted[f'peak {unit}']:.0%}"
        if "other" in figures:
            row[6] = f"{', '.join(ratios(figures, figures['other']))} of {other}"
        made.append(row)
    if len(results) == len(PACKAGES):
        made.append([measure, "ratio", *ratios(*(results[name] for name in PACKAGES)), "", ""])
    return made


def operators(results: dict[str, dict], other: str) -> str:
    """The table of the measure ops, and that of what it is compared with."""
    compared = {name: figures["other"] for name, figures in results.items() if "other" in figures}
    return bench_ops.table(results) + (f"\n\n{other}:\n{bench_ops.table(compared)}" if compared else "")


def text(measure: str, results: dict[str, dict], other: str) -> str:
    if measure == "ops":
        return operators(results, other)
    return "\n".join("".join(f"{cell:<{width}}" for cell, width in zip(row, WIDTHS)).rstrip()
                     for row in rows(measure, results, other))


def markdown(report: dict) -> str:
    """The facts of a report in a line, and its measures in tables."""
    measures = report["measures"]
    table = [row for measure, results in measures.items() if measure != "ops"
             for row in rows(measure, results, report["others"].get(measure, ""))]
    lines = [" | ".join(("", *row, "")).strip() for row in ((COLUMNS, ["---"] * len(COLUMNS), *table) if table else ())]
    if "ops" in measures:
        lines += ["", "```", operators(measures["ops"], report["others"].get("ops", "")), "```"]
    return "\n".join([report["facts"], *([""] if table else []), *lines]) + "\n"


def write_section(path: Path, name: str, section: str) -> None:
    """Put a section into a page, in place of the one that the same measures have written; the rest of it stays."""
    begin, end = f"<!-- bench.py {name} -->\n", "<!-- end of bench.py -->\n"
    page = path.read_text() if path.exists() else ""
    before, found, rest = page.partition(begin)
    if found:
        after = rest.partition(end)[2]
    else:
        before, after = page and page.rstrip("\n") + "\n\n", ""
    path.write_text(before + begin + section + end + after)
