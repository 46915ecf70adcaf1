"""The original project's commands that compare scores with people's votes, on a small data set in its form."""
import csv
from pathlib import Path

import pytest
from scipy import stats

from jittwin.data.aigiqa4k import Aigiqa4k
from jittwin.data.synthetic.prompted import write_mini_aigiqa4k
from jittwin.errors import UserError

SCRIPTS = Path(__file__).parents[2] / "scripts"
COMMANDS = {"BLIPScore_evalaute": ("blipscore", "I2I"), "BLIPScore_evaluate": ("blipscore", "I2I"),
            "ImageReward_evalaute": ("imagereward", "T2I"), "ImageReward_evaluate": ("imagereward", "T2I"),
            "Pick_evalaute": ("pickscore", "T2I"), "Pick_evaluate": ("pickscore", "T2I")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    write_mini_aigiqa4k(found := tmp_path_factory.mktemp("data") / "mini", 20, 64, 48)
    return found


@pytest.fixture
def evaluation(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import scorer_evaluation
    return scorer_evaluation


@pytest.mark.parametrize("score, subset, more", [
    ("blipscore", "I2I", []), ("imagereward", "T2I", ["--true_score", "MOS_c", "--log_info", "x", "--seed", "2"]),
    ("pickscore", "T2I", []), ("blipscore", "I2I", ["--metric", "clipscore"]),
    ("imagereward", "I2I", ["--metric", "blipscore", "--subset", "AIGIQA4K", "--split", "test"])])
def test_correlations_are_those_of_the_rows_in_question(evaluation, folder, tmp_path, capsys, score, subset, more):
    flags = dict(zip(more[::2], more[1::2]))
    assert evaluation.run(["--data-root", str(folder), "--random-weights", "--backend", "torch", "--csv",
                           str(tmp_path / "a.csv"), *more], "a.py", score, subset) == 0
    score, subset = flags.get("--metric", score), flags.get("--subset", subset)
    column, part = flags.get("--true_score", "MOS_q"), flags.get("--split")
    rows = list(csv.DictReader((tmp_path / "a.csv").open()))
    expected = {row.name: row.votes[column] for row in Aigiqa4k(folder).rows
                if subset in ("AIGIQA4K", row.subset) and (part is None or row.number % 4 == 3)}
    assert {Path(row["image"]).name: float(row[column]) for row in rows} == pytest.approx(expected, abs=1e-6)
    pairs = zip(*((float(row[f"{score} (random weights)"]), float(row[column])) for row in rows))
    values, votes = pairs
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith(f"{score} (random weights), {column} of {len(expected)} pictures ({subset}, ")
    found = [float(text.split(": ")[1]) for text in lines[-1].split(": ", 1)[1].split(", ")]
    assert found == pytest.approx([stats.spearmanr(values, votes).statistic, stats.pearsonr(values, votes).statistic],
                                  abs=1e-4)
    assert (len(lines) == 2) == ("--log_info" in flags)


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_its_score_and_subset(evaluation, monkeypatch, name):
    monkeypatch.setattr(evaluation, "run", lambda argv, *found: calls.append(found) or 0)
    calls = []
    text = (SCRIPTS / f"{name}.py").read_text()
    with pytest.raises(SystemExit, match="0"):
        exec(compile(text, name, "exec"), {"__name__": "__main__"})
    assert calls == [(f"{name}.py", *COMMANDS[name])]


def test_no_score_without_weights(evaluation, folder):
    with pytest.raises(UserError, match="blipscore needs trained weights: give --blipscore-weights FILE"):
        evaluation.run(["--data-root", str(folder), "--backend", "torch"], "a.py", "blipscore", "I2I")
