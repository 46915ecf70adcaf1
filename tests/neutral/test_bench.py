"""scripts/bench.py as far as no framework is needed: its command line, its ratios and the pages that it writes."""
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
sys.path.insert(0, str(SCRIPTS))

import bench  # noqa: E402
import bench_tables  # noqa: E402


def figures(seconds, **more):
    return {"seconds": seconds, "cpu": 2 * seconds, "memory": 1e8 * seconds, **more}


RESULTS = {"jittor": figures(1.0, other=figures(4.0)),
           "torch": figures(2.0, operations=3e12, **{"peak cpu": 1.5e12}, other=figures(2.5))}


def test_rows_are_ratios_of_the_twins_and_of_what_they_are_compared_with():
    jittor, torch, ratio = bench_tables.rows("train", RESULTS, "before")
    assert jittor == ["train", "jittor", "1.000 s", "2.000 s", "100 MB", "1.5 TFLOP/CPU s, 100%",
                      "0.25, 0.25, 0.25 of before"]
    assert torch[5:] == ["0.75 TFLOP/CPU s, 50%", "0.80, 0.80, 0.80 of before"]
    assert ratio == ["train", "ratio", "0.50", "0.50", "0.50", "", ""]
    gpu = bench_tables.rows("train", {"torch": figures(2.0, operations=3e12, **{"peak seconds": 3e12})}, "")
    assert len(gpu) == 1 and gpu[0][5] == "1.5 TFLOP/s, 50%"


def test_a_section_of_a_page_is_written_anew_and_the_rest_stays(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# Title\n\nBy hand.\n")
    bench_tables.write_section(page, "train", "first\n")
    bench_tables.write_section(page, "ops", "other\n")
    page.write_text(page.read_text() + "\nAlso by hand.\n")
    bench_tables.write_section(page, "train", "second\n")
    assert page.read_text() == ("# Title\n\nBy hand.\n\n<!-- bench.py train -->\nsecond\n<!-- end of bench.py -->\n\n"
                                "<!-- bench.py ops -->\nother\n<!-- end of bench.py -->\n\nAlso by hand.\n")


def test_a_page_begins_with_the_facts(tmp_path):
    report = {"facts": "a machine", "others": {"train": "before"}, "measures": {"train": RESULTS}}
    lines = bench_tables.markdown(report).splitlines()
    assert lines[:2] == ["a machine", ""] and lines[2].startswith("| measure | twin |")
    assert [line.count("|") for line in lines[2:]] == [len(bench_tables.COLUMNS) + 1] * 5


def test_operators_have_their_own_table_and_that_of_before(monkeypatch):
    monkeypatch.setattr(bench_tables.bench_ops, "table", lambda results: f"rows {results['torch']['x']}")
    results = {"jittor": {"x": 1, "other": {"x": 2}}, "torch": {"x": 3, "other": {"x": 4}}}
    report = {"facts": "a machine", "others": {"ops": "before"}, "measures": {"ops": results}}
    assert bench_tables.markdown(report) == "a machine\n\n```\nrows 3\n\nbefore:\nrows 4\n```\n"
    assert bench_tables.text("ops", {name: {"x": 5} for name in results}, "") == "rows 5"


@pytest.mark.parametrize("against, others", [(None, ["generate_dense"]), ("checkout", ["generate"])])
def test_what_is_compared_takes_turns(monkeypatch, tmp_path, against, others):
    calls = []

    def in_process(measure, name, size, folder, root, peak):
        calls.append((measure, name, root, peak))
        return figures(len(calls), **({"operations": 1} if peak else {}))

    monkeypatch.setattr(bench, "in_process", in_process)
    args = SimpleNamespace(backend=None, against=against, repeat=3, peak=True, size="tiny")
    found = bench.compare("generate", args, tmp_path)
    here, there = ("generate", bench.ROOT), (others[0], against or bench.ROOT)
    assert calls == [(*(here[:1]), name, here[1], peak and name == "torch") if place == here else
                     (place[0], name, place[1], False)
                     for peak in (True, False, False) for name in ("jittor", "torch") for place in (here, there)]
    # The medians are those of the second turn.
    assert found["jittor"]["seconds"] == 5 and found["jittor"]["other"]["seconds"] == 6
    assert found["torch"]["seconds"] == 7 and found["torch"]["operations"] == 1


def test_every_measure_that_is_compared_exists():
    assert set(bench.MULTIPLES) | set(bench.MULTIPLES.values()) <= set(bench.WORKERS)
    assert all(set(group) <= set(bench.WORKERS) for group in bench.GROUPS.values())


@pytest.mark.parametrize("arguments, reason", [
    (["genrate"], "did you mean 'generate'?"),
    (["--size", "tiny", "train", "--against", "{tmp}"], "no checkout of this repository"),
    (["train", "--label", "{tmp}/none.png"], "no such file"),
    (["train", "--peak", "--backend", "jittor"], "--peak needs torch"),
])
def test_wrong_arguments(tmp_path, arguments, reason):
    done = subprocess.run([sys.executable, SCRIPTS / "bench.py", *(each.format(tmp=tmp_path) for each in arguments)],
                          capture_output=True, text=True)
    assert done.returncode == 2 and reason in done.stderr


def test_a_worker_measures_the_checkout_in_whose_folder_it_runs(tmp_path):
    (tmp_path / "jittwin").mkdir()
    (tmp_path / "jittwin/__init__.py").write_text("raise SystemExit('the other checkout')\n")
    done = subprocess.run([sys.executable, SCRIPTS / "bench.py", "import", "--worker", "torch", tmp_path], cwd=tmp_path,
                          capture_output=True, text=True)
    assert done.returncode == 1 and "the other checkout" in done.stderr
