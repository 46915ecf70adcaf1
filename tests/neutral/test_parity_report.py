"""A report is made from rows alone: no worker, no framework."""
import io
import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pytest

from jittwin.errors import UserError
from parity.commands import options
from parity.report import charts, junit, markdown, page, report, terminal, write
from parity.result import Row, failure, row
from parity.workers.compare import Verdict

ROOT = Path(__file__).parents[2]
GOOD = Verdict(2e-7, 1e-7, 1.5e-7, 1.2e-6)
BAD = Verdict(3e-4, 1e-7, 2e-7, 1.6e-6, "error 3.0e-4 is over its limit 1.6e-6")
CURVE = [["", 1e-7, 1e-7, 8e-7], ["up_0.conv", 3e-7, 1e-7, 8e-7], ["up_1.conv", 5e-5, 2e-7, 1.6e-6],
         ["up_2", float("inf"), 0.0, 1e-6]]
ATTESTATION = {"verdict": "pass", "made": "2026-01-01 00:00 UTC", "facts": {
    "torch": {"framework": "torch 2", "threads": 2}, "jittor": {"framework": "jittor 1", "threads": 4}},
    "owed": [{"promise": "NaN differs from itself", "id": "P2", "torch": "", "jittor": ""}]}


def rows(*more) -> list[Row]:
    return [row("net", "L1", "eval", {"a": Verdict(0.0, 0.0, 0.0, 0.0)}, size="tiny", seconds=1.5),
            row("net", "L3", "eval", {"out": GOOD}, size="tiny", seconds=0.5), *more]


def failed() -> Row:
    return row("net", "L3", "train", {"out": BAD, "other": GOOD}, size="tiny", curve=CURVE,
               first_divergence="up_1.conv", culprits=["up_1.conv"], flips={"top": 2}, nothing={},
               map={"name": "out", "error": [[0.0, 1e-6], [2e-6, float("inf")]]})


def crashed() -> Row:
    return failure("net", "L9", "train",
                   "the jittor worker ended by SIGSEGV in f; its last lines:\n\x1b[31m<b>&\x00 dies")


MUTANTS = [
    {"name": "swapped", "id": "", "why": "two channels swapped", "verdict": "killed", "first": "L3",
     "levels": ["L1", "L3"], "killed_by": {"L3": "net eval: out"}, "explanation": ""},
    {"name": "slower", "id": "N2", "why": "sums in one pass", "verdict": "survived", "first": None, "levels": ["L3"],
     "killed_by": {}, "explanation": "too small to see"}]
MUTATION = {"kill_rate": 0.5, "mutants": MUTANTS, "objections": ["kill rate 50.0% is below 95%"],
            "by_level": {"L3": {"mutants": 2, "killed": 1, "kill_rate": 0.5, "alone": 1}}}


def made(*more) -> report.Report:
    return report.of_rows(rows(*more), dict(ATTESTATION), command="python -m parity check net", seconds=75.2)


def test_verdict_needs_every_row_and_the_attestation():
    assert made().passed and not made(failed()).passed
    assert not report.of_rows(rows(), {**ATTESTATION, "verdict": "fail"}).passed
    assert not report.of_rows(rows()).passed                # nothing was attested
    assert not report.of_rows([], ATTESTATION).passed       # nothing was compared


def test_the_environment_row_gives_the_attestation():
    environment = row("environment", "L0", "", {"torch: a": Verdict(0, 0, 0, 0)}, attestation=ATTESTATION)
    found = report.of_rows([environment])
    assert found.passed and found.attestation["owed"] == ATTESTATION["owed"] and "attestation" not in environment.detail
    crash = report.of_rows([failure("environment", "L0", "", "no g++")])
    assert crash.attestation == {"verdict": "fail", "reason": "no g++"}


def test_json_has_the_frozen_keys_and_comes_back(tmp_path):
    found = made(failed(), crashed())
    found.extras = {"kill_rate": 0.97}
    text = write.to_json(found)
    parsed = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert set(parsed) == {"verdict", "attestation", "cases", "kill_rate"} and parsed["verdict"] == "fail"
    assert all(set(case) == {"model", "level", "mode", "dtype", "verdict", "error", "noise", "ratio", "worst", "detail"}
               for case in parsed["cases"])
    (tmp_path / "r.json").write_text(text)
    again = report.read(tmp_path / "r.json")
    assert write.to_json(again) == text and again.rows[-1].error == float("inf")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"cases": []}', '{"cases": [{"model": "a"}], "attestation": {}}',
                                  '{"cases": 3, "attestation": {}}'])
def test_a_file_that_is_no_report_is_one_line(tmp_path, text):
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(UserError, match=r"r\.json: not a parity report"):
        report.read(tmp_path / "r.json")


def test_the_worst_row_stands_in_the_matrix():
    near = row("net", "L3", "other", {"out": Verdict(4e-7, 1e-7, 1e-7, 8e-7)}, size="tiny")
    assert made(near).cells()["net", "tiny", "L3"] is near
    bad = failed()
    assert made(bad, near).cells()["net", "tiny", "L3"] is bad
    assert report.outcome(rows()[0]) == "equal" and report.outcome(near) == "4.0"


@pytest.mark.parametrize("value, text", [(0, "0"), (1.234e-7, "1.2e-7"), (0.5, "0.50"), (1, "1.0"), (45.3, "45"),
                                         (640, "640"), (12345, "1.2e4"), (float("inf"), "inf"), ("inf", "inf")])
def test_numbers_are_short(value, text):
    assert report.short(value) == text


def test_a_failing_row_explains_itself():
    words = report.explained(failed())
    for expected in ("1 of 2 tensors, worst out", "first divergence at up_1.conv", "at fault: up_1.conv"):
        assert expected in words
    assert "\x1b" not in report.explained(crashed()) and "\x00" not in report.explained(crashed())
    many = row("net", "L3", "eval", {"out": BAD}, culprits=[f"m{i}" for i in range(9)])
    assert report.explained(many).endswith("at fault: m0, m1, m2, m3, m4 and 4 more")


# ---- JUnit, Markdown -------------------------------------------------------------------

def test_junit_has_a_case_per_row_and_counts_failures():
    root = ElementTree.fromstring(junit.render(made(failed(), crashed())))
    assert (root.get("tests"), root.get("failures")) == ("4", "2")
    assert [case.get("name") for case in root.iter("testcase")] == ["L1 eval", "L3 eval", "L3 train", "L9 train"]
    first, second = (case.find("failure") for case in list(root.iter("testcase"))[2:])
    assert "error 3.0e-4 is over its limit" in first.get("message") and "ratio 1.5e3" in first.text
    assert "SIGSEGV" in second.get("message") and "<b>& dies" in second.text


def tables(text: str) -> list[list[str]]:
    return [re.split(r"(?<!\\)\|", line)[1:-1] for line in text.splitlines() if line.startswith("|")]


def test_markdown_tables_are_rectangular_and_complete():
    odd = row("net|x", "L5", "train", {"a|b": GOOD})
    text = markdown.render(made(failed(), crashed(), odd))
    assert text.startswith("# Parity: fail") and "`python -m parity check net --markdown FILE`" in text
    assert "| net | equal | **fail** 1.5e3 |" in text                       # the matrix
    assert "| net | L3 | train | tiny | 3.0e-4 | 2.0e-7 | 1.5e3 | **fail** | out |" in text
    assert "| NaN differs from itself | P2 | yes | yes |" in text
    blocks = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert len(blocks) == 4 and all(len({len(line) for line in tables(block)}) == 1 for block in blocks)


# ---- the page --------------------------------------------------------------------------

class Tags(HTMLParser):
    """Every tag closes the one that is open; collects ids, links and what would load something."""
    VOID = {"meta", "br", "img", "link", "input"}

    def __init__(self, text: str):
        super().__init__()
        self.open, self.ids, self.links, self.loads = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.ids += [found["id"]] if "id" in found else []
        self.links += [found["href"]] if tag == "a" else []
        self.loads += [f"{tag} {key}" for key in found
                       if key in ("src", "srcset", "data") or (key == "href" and tag != "a")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes something else"


def test_the_page_is_whole_and_loads_nothing():
    text = page.render(made(failed(), crashed()))
    tags = Tags(text)
    assert not tags.open and not tags.loads and "url(" not in text and "@import" not in text and "http" not in text
    assert len(set(tags.ids)) == len(tags.ids)
    assert tags.links and {link.lstrip("#") for link in tags.links} <= set(tags.ids)
    assert "<b>&" not in text and "&lt;b&gt;&amp;" in text


def test_the_page_says_what_matters():
    text = page.render(made(failed(), crashed()))
    for expected in ("The twins do not agree", "2 of 4 comparisons passed, 1 model, 1 min 15 s",
                     "first divergence: up_1.conv", "SIGSEGV", "jittor 1",
                     "<td>flips</td><td>{&quot;top&quot;: 2}</td>",
                     'class="differs"', 'class="heat"',
                     "prefers-color-scheme: dark"):
        assert expected in text
    assert "<td>nothing</td>" not in text and "Error along training" not in text
    assert "The twins agree" in page.render(made()) and "What failed" not in page.render(made())


def test_a_page_without_rows_or_attestation_is_whole():
    assert not Tags(page.render(report.of_rows([failure("environment", "L0", "", "no g++")]))).open


def test_growth_marks_the_first_divergence_and_the_culprits():
    svg = ElementTree.fromstring(charts.growth(CURVE, "up_1.conv", ["up_1.conv"]))
    circles = {circle.find("title").text.split(":")[0]: circle for circle in svg.iter("circle")}
    assert {name: circle.get("class") for name, circle in circles.items()} == {
        "the whole model": "point", "up_0.conv": "point", "up_1.conv": "culprit", "up_2": "over"}
    line = next(line for line in svg.iter("line") if line.get("class") == "first")
    assert line.get("x1") == circles["up_1.conv"].get("cx")
    heights = [float(circle.get("cy")) for circle in circles.values()]
    assert heights == sorted(heights, reverse=True) and heights[-1] == charts.TOP     # infinite on top


@pytest.mark.parametrize("curve", [[["a", 0.0, 0.0, 0.0]] * 3, [["a", 1.0, 1.0, 1.0]],
                                   [["a", float("inf"), 0.0, 0.0]] * 2])
def test_growth_of_odd_numbers_stays_inside_the_picture(curve):
    svg = ElementTree.fromstring(charts.growth(curve))
    numbers = [float(part) for line in svg.iter("polyline") for pair in line.get("points").split()
               for part in pair.split(",")]
    assert numbers and all(0 <= number <= charts.WIDTH for number in numbers)


def test_long_curves_keep_tooltips_for_what_is_over_its_limit():
    curve = [[f"m{i}", 1e-7, 1e-7, 8e-7] for i in range(charts.POINTS + 1)] + [["bad", 1e-3, 1e-7, 8e-7]]
    assert len(list(ElementTree.fromstring(charts.growth(curve)).iter("circle"))) == 1


def test_heat_is_deepest_where_the_error_is_largest():
    svg = ElementTree.fromstring(charts.heat([[0.0, 1.0, 1.0], [5.0, 10.0, 0.0]]))
    shades = {path.get("d"): path.get("fill-opacity") for path in svg}
    assert shades == {"M1 0h2v1h-2z": "0.10", "M0 1h1v1h-1z": "0.50", "M1 1h1v1h-1z": "1.00"}


def test_seeded_faults_are_shown_and_objections_fail(capsys):
    found = made()
    found.extras = MUTATION
    assert not found.passed
    text, plain = page.render(found), markdown.render(found)
    assert not Tags(text).open
    for expected in ("50.0%", "too small to see", "kill rate 50.0% is below 95%"):
        assert expected in text and expected in plain
    terminal.show(found)
    shown = capsys.readouterr().out
    for expected in ("50%", "too small to see", "kill rate 50.0% is below 95%"):
        assert expected in shown
    assert "two channels swapped" in text and "| L3 forward | 2 | 1 | 50% | 1 |" in plain


def test_explanations_are_shown_everywhere(capsys):
    found = made(failed())
    found.extras["explanations"] = [{"model": "net", "level": "L3", "mode": "train", "named": "N4",
                                     "text": "net L3 train: out\n  N4 explains it: <running_var>"}]
    text = page.render(found)
    assert not Tags(text).open and "<b>N4</b> explains it" in text and "&lt;running_var&gt;" in text
    assert "- net L3 train: N4" in markdown.render(found)
    terminal.show(found)
    assert "N4 explains it: <running_var>" in capsys.readouterr().out


def test_merging_adds_only_what_is_new():
    mutation = made(failed())
    mutation.extras = MUTATION
    found = report.merged([made(), mutation])
    assert [report.title(r) for r in found.rows] == ["net L1 eval", "net L3 eval", "net L3 train"]
    assert found.extras["kill_rate"] == 0.5 and not found.passed


# ---- files and commands ----------------------------------------------------------------

def asked(**files):
    return SimpleNamespace(**{"json": None, "html": None, "junit": None, "markdown": None, **files})


def test_outputs_are_refused_before_any_work(tmp_path):
    for files, message in (({"html": tmp_path}, "is a folder"), ({"json": tmp_path / "none" / "r"}, "does not exist"),
                           ({"json": tmp_path / "r", "html": tmp_path / "." / "r"}, "--json and --html are the same")):
        with pytest.raises(UserError, match=message):
            options.outputs(asked(**{name: str(path) for name, path in files.items()}))
    assert options.outputs(asked(json=str(tmp_path / "r"))) == {"json": tmp_path / "r"}


def run(*words, **options):
    return subprocess.run([sys.executable, "-m", "parity", *map(str, words)], cwd=ROOT, capture_output=True, text=True,
                          **options)


@pytest.mark.parametrize("found, status", [(made(), 0), (made(failed()), 1)])
def test_report_renders_again_and_keeps_the_status(tmp_path, found, status):
    write.write(found, {"json": tmp_path / "r.json"})
    files = {name: tmp_path / name for name in ("html", "markdown", "junit")}
    done = run("report", tmp_path / "r.json", *(word for name, path in files.items() for word in (f"--{name}", path)))
    assert (done.returncode, done.stdout, done.stderr) == (status, "", "")
    assert files["html"].read_text() == page.render(found)
    shown = run("report", tmp_path / "r.json")
    assert shown.returncode == status and shown.stdout.splitlines()[-1].startswith(found.verdict)


@pytest.mark.parametrize("words, message", [
    (["report", "none.json"], "none.json: not a parity report"), (["chek"], "did you mean 'check'?"),
    (["check", "apf_gna"], "did you mean 'apf_gan'?"), (["check", "--level", "L12"], "no level 'L12'"),
    (["check", "--tier", "night"], "choose from ci, full"), (["check", "--level", "L3", "--up-to", "L4"], "exclude"),
    (["check", "--twin", "tests"], "--twin tests: there is no jt_models package in it"),
    (["check", "--jsn", "r"], "did you mean '--json'?"), (["check", "--json", "tests"], "--json tests is a folder"),
    (["check", "--bundle", "README.md"], "--bundle README.md is a file")])
def test_mistakes_are_one_line_and_status_2(words, message):
    done = run(*words)
    assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1 and not done.stdout
    assert done.stderr.startswith("parity: ")


@pytest.mark.parametrize("words", [[], ["check", "--help"], ["attest", "--help"], ["report", "--help"]])
def test_help_imports_no_framework(words):
    code = ("import sys; from parity.__main__ import main\n"
            "try: status = main(sys.argv[1:])\nexcept SystemExit as end: status = end.code\n"
            "found = {'torch', 'jittor', 'transformers', 'jt_models', 'torch_models'} & set(sys.modules)\n"
            "sys.exit(status or ' '.join(found) or None)")
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout and not done.stderr, done.stderr


@pytest.mark.parametrize("width, shown", [(60, ""), (80, "a.very.long"), (200, "a.very.long" + ".path" * 20)])
def test_a_long_name_never_hides_a_number(width, shown):
    long = row("net", "L3", "train", {"a.very.long" + ".path" * 60: BAD})
    screen = terminal.Console(width=width, file=io.StringIO(), highlight=False)
    terminal.put(screen, terminal.table([*rows(), long], width))
    text = screen.file.getvalue()
    assert all(number in text for number in ("3.0e-4", "2.0e-7", "1.5e3", "equal")) and shown in text
    assert max(map(len, text.splitlines())) <= width


def test_the_terminal_shows_every_row_and_the_reasons(capsys):
    terminal.show(made(failed(), crashed()))
    text = capsys.readouterr().out
    assert text.splitlines()[-1] == "fail: 2 of 4 comparisons passed, 1 model, 1 min 15 s"
    assert "net L3 train: 1 of 2 tensors" in text and "SIGSEGV" in text
    assert sum(line.rstrip() != line for line in text.splitlines()) == 0
