"""Agreement with people's votes and ranking by prompt, against scipy and by the command."""
import csv
import json
from types import SimpleNamespace

import numpy as np
import openpyxl
import pytest
from PIL import Image
from scipy import stats

from jittwin import cli
from jittwin.commands import assess as command
from jittwin.data.aigiqa4k import COLUMNS
from jittwin.data.pictures import ImageSet
from jittwin.data.votes import Vote, read_votes
from jittwin.errors import UserError
from jittwin.metrics.agreement import agreements, estimates, resampled
from jittwin.metrics.catalog import ASSESSED
from jittwin.metrics.metric import Info, Scores
from jittwin.metrics.ranking import ranking, ranks
from jittwin.metrics.ratings import AGREEMENT, agreement


def by_scipy(a, b):
    return {"srcc": stats.spearmanr(a, b).statistic, "plcc": stats.pearsonr(a, b).statistic,
            "krcc": stats.kendalltau(a, b).statistic, "rmse": float(np.mean((a - b) ** 2) ** 0.5)}


def pairs(count, levels=None, seed=0):
    """Scores and votes that agree in part; levels: how many values they may have."""
    draw = np.random.default_rng(seed)
    a = draw.normal(size=count)
    b = a + draw.normal(size=count)
    return (a, b) if levels is None else (np.round(a * levels), np.round(b * levels))


@pytest.mark.parametrize("count, levels", [(2, None), (30, None), (30, 1), (200, 2)])
def test_agreement_is_scipys(count, levels):
    a, b = pairs(count, levels)
    assert agreement(a, b) == pytest.approx(by_scipy(a, b), rel=1e-12)


@pytest.mark.parametrize("a, b", [([1, 1, 1], [1, 2, 3]), ([1, 2, 3], [0.1, 0.1, 0.1]), ([1], [2])])
def test_what_has_no_order_is_not_defined(a, b):
    found = estimates(np.array(a), np.array(b), resamples=20)
    for name in ("srcc", "plcc", "krcc"):
        assert np.isnan([found[name].value, found[name].low, found[name].high]).all()
    assert found["rmse"].value == pytest.approx(np.mean((np.array(a) - b) ** 2) ** 0.5)
    assert np.isnan(estimates(np.zeros(0), np.zeros(0))["rmse"].value)


@pytest.mark.parametrize("count, levels", [(6, 1), (40, None), (40, 1)])
def test_resamples_are_those_of_the_repeated_values(count, levels):
    a, b = pairs(count, levels, seed=3)
    picked = np.random.default_rng(1).integers(0, count, (25, count))
    picked[0] = picked[0, 0]        # one picture alone: nothing has an order
    found = resampled(a, b, np.array([np.bincount(row, minlength=count) for row in picked]))
    assert tuple(found) == AGREEMENT
    for number, row in enumerate(picked):
        expected = agreement(a[row], b[row])
        assert {name: found[name][number] for name in found} == pytest.approx(expected, abs=1e-9, nan_ok=True)


def test_many_pictures_are_compared_in_parts():
    a, b = pairs(1500, 3)
    once = resampled(a, b, np.ones((2, 1500), int))
    assert {name: once[name][0] for name in once} == pytest.approx(by_scipy(a, b), abs=1e-12)


def test_intervals_are_those_of_scipys_bootstrap():
    a, b = pairs(80)
    found = estimates(a, b)
    assert found == estimates(a, b) and found != estimates(a, b, seed=1)
    for name, statistic in (("plcc", lambda x, y: stats.pearsonr(x, y).statistic),
                            ("rmse", lambda x, y: np.mean((x - y) ** 2) ** 0.5)):
        expected = stats.bootstrap((a, b), statistic, paired=True, vectorized=False, n_resamples=1000,
                                   method="percentile", random_state=np.random.default_rng(5)).confidence_interval
        assert (found[name].low, found[name].high) == pytest.approx(tuple(expected), abs=0.03)
        assert found[name].low < found[name].value < found[name].high


# ---- groups -------------------------------------------------------------------------

class Brightness:
    """Mean grey of a picture."""

    info = Info("brightness", "assess", "mean grey", "higher", (0, 255), "none")
    profile, notes, random, provenance, towers = (), (), False, {}, ()

    def preprocess(self, image):
        return image.mean()

    def score(self, batch):
        return Scores([{"brightness": float(value)} for value in batch.pixels])

    def describe(self, value):
        return ""


class Darkness(Brightness):
    """Of which less is better."""

    info = Info("darkness", "assess", "255 less the mean grey", "lower", (0, 255), "none")

    def score(self, batch):
        return Scores([{"darkness": 255 - float(value)} for value in batch.pixels])


def rows(values, **columns):
    return [{"image": f"{number}.png", "brightness": float(value),
             **{key: each[number] for key, each in columns.items()}}
            for number, value in enumerate(values)]


def test_groups_hold_their_pictures():
    a, b = pairs(40)
    votes = {f"{number}.png": Vote(b[number], "I2I" if number < 16 else "T2I", "test" if number % 4 == 3 else "train")
             for number in range(39)}       # the last picture has no vote
    found = {group.name: group for group in agreements(rows(a), [Brightness()], votes)}
    assert {name: group.count for name, group in found.items()} == {
        "all": 39, "I2I": 16, "T2I": 23, "test": 9, "train": 30, "I2I test": 4, "I2I train": 12, "T2I test": 5,
        "T2I train": 18}
    chosen = [number for number in range(16, 39) if number % 4 == 3]
    measured = {name: each.value for name, each in found["T2I test"].measures["brightness"].items()}
    assert measured == pytest.approx(by_scipy(a[chosen], b[chosen]))
    plain = agreements(rows(a), [Brightness()], {name: Vote(vote.value) for name, vote in votes.items()})
    assert [group.name for group in plain] == ["all"] and plain[0].measures == found["all"].measures


# ---- votes --------------------------------------------------------------------------

def pictures(folder, values):
    folder.mkdir(exist_ok=True)
    for name, value in values.items():
        Image.new("RGB", (6, 4), (value,) * 3).save(folder / name)
    return ImageSet(folder)


def test_votes_of_a_table(tmp_path):
    images = pictures(tmp_path / "set", {"1.png": 10, "2.png": 20, "10.png": 30})
    (tmp_path / "v.csv").write_text("File,Subset,MOS_q,split\n./set\\1.png,a,3.5,\n10,b,4,test\nx.png,b,1,test\n")
    votes, unrated, unused = read_votes(tmp_path / "v.csv", "MOS_q").of(images)
    assert votes == {"1.png": Vote(3.5, "a", None), "10.png": Vote(4, "b", "test")}
    assert (unrated, unused) == (["2.png"], ["x.png"])


def annotation(path, count=16, drop=()):
    book = openpyxl.Workbook()
    book.active.append(COLUMNS)
    for number in range(count):
        if number not in drop:
            book.active.append([f"{number}.png", f"{number // 8}.jpg" if number < 8 else None, f"text {number // 8}",
                                number / 4, 2, 3])
    book.save(path)
    return path


def test_the_published_table_tells_subsets_and_split(tmp_path):
    votes = read_votes(annotation(tmp_path / "annotation.xlsx"), "MOS_q").by_name
    assert votes["3.png"] == Vote(0.75, "I2I", "test") and votes["8.png"] == Vote(2, "T2I", "train")
    # Once rows are missing, places tell nothing.
    filtered = read_votes(annotation(tmp_path / "part.xlsx", drop=(0, 1, 5, 9)), "MOS_q").by_name
    assert filtered["3.png"] == Vote(0.75, "I2I", None) and filtered["8.png"] == Vote(2, "T2I", None)


@pytest.mark.parametrize("content, words", [
    ("picture,MOS\na.png,1\n", "no column 'MOS_q' .did you mean 'MOS'"),
    ("id,MOS_q\n1,2\n", "names no column of the pictures .id, MOS_q.; call it one of picture"),
    ("picture,MOS_q\na.png,good\n", "line 2: its MOS_q is 'good'; write a number"),
    ("picture,MOS_q\na.png,\n", "line 2: its MOS_q is empty"),
    ("picture,MOS_q\n,2\n", "line 2: its picture is empty"),
    ("picture,MOS_q\na.png,1\n./a.png,1\n", "'a.png' is listed twice .line 2 and line 3.; remove one"),
    ("picture,MOS_q\n", "has a header and no rows")])
def test_mistakes_in_votes(tmp_path, content, words):
    (tmp_path / "v.csv").write_text(content)
    with pytest.raises(UserError, match=words):
        read_votes(tmp_path / "v.csv", "MOS_q")


# ---- ranking ------------------------------------------------------------------------

def test_ranks():
    assert ranks([0.1, 0.9, 0.5], True) == [3, 1, 2] and ranks([0.1, 0.9, 0.5], False) == [1, 3, 2]
    assert ranks([2, 1, 2, 0], True) == [1, 3, 1, 4]


def test_pictures_are_ranked_among_those_of_their_prompt():
    found = ranking(rows([5, 9, 7, 1], prompt=["b", "a", "b", "a"]), [Brightness()])
    assert [(each.prompt, [row["image"] for row in each.rows], each.ranks) for each in found] == [
        ("b", ["2.png", "0.png"], {"brightness": [1, 2]}), ("a", ["1.png", "3.png"], {"brightness": [1, 2]})]


# ---- the command --------------------------------------------------------------------

@pytest.fixture
def place(tmp_path, monkeypatch):
    """Four pictures of two prompts, votes for three of them and for one more, and two metrics."""
    monkeypatch.chdir(tmp_path)
    pictures(tmp_path / "set", {"1.png": 10, "2.png": 200, "3.png": 90, "4.png": 40})
    (tmp_path / "p.csv").write_text('1.png,"a cat,\non <b>"\n2.png,"a cat,\non <b>"\n3.png,a dog\n4.png,a dog\n')
    (tmp_path / "v.csv").write_text("picture,MOS_q,split\n1.png,1,train\n2.png,5,train\n3.png,2,test\n9.png,2,test\n")
    monkeypatch.setattr(command, "ready_backend", lambda *arguments: (SimpleNamespace(rank=0, world_size=1), "float32"))
    for metric in (Brightness, Darkness):
        module = SimpleNamespace(INFO=metric.info, load=lambda request, metric=metric: metric())
        monkeypatch.setitem(ASSESSED, metric.info.name, module)
    return tmp_path


BOTH = ["assess", "set", "--metrics", "brightness,darkness"]


def test_the_command_tells_agreement_and_ranks(place, capsys):
    assert cli.main([*BOTH, "--prompts", "p.csv", "--rank", "--against", "v.csv", "--column", "MOS_q", "--skip-unrated",
                     "--skip-unused", "--report", "report"]) == 0
    captured = capsys.readouterr()
    assert "v.csv: no vote for 1 of the 4 pictures in set: 4.png; they are excluded from the agreement" in captured.err
    assert "v.csv: 1 of its 4 votes are of no picture in set: '9.png' (did you mean '4.png'?); they" in captured.err
    lines = captured.out.splitlines()
    at = lines.index("prompt: a cat, on <b>")
    assert lines[at + 1:at + 3] == ["  brightness: 1. 2.png 200.00, 2. 1.png 10.00",
                                   "  darkness: 1. 2.png 55.00, 2. 1.png 245.00"]
    at = lines.index("against MOS_q of v.csv, with 95% intervals of 1000 resamples:")
    assert lines[at + 1].startswith("  brightness  all, 3 pictures:  SRCC 1.000 [1.000, 1.000]  PLCC 0.982 [0.982, 1")
    assert lines[at + 2] == "  brightness  test, 1 pictures:  SRCC -  PLCC -  KRCC -  RMSE 88.000 [88.000, 88.000]"
    assert lines[at + 4].startswith("  darkness  all, 3 pictures:  SRCC -1.000 ")
    record = json.loads((place / "report/scores.json").read_text())
    assert record["ranking"][0] == {"prompt": "a cat,\non <b>", "images": ["2.png", "1.png"],
                                    "ranks": {"brightness": [1, 2], "darkness": [1, 2]}}
    against = record["against"]
    assert (against["pictures_without_vote"], against["votes_without_picture"]) == (["4.png"], ["9.png"])
    assert [(group["group"], group["count"]) for group in against["groups"]] == [("all", 3), ("test", 1), ("train", 2)]
    everything = against["groups"][0]["measures"]["brightness"]
    expected = by_scipy(np.array([10.0, 200, 90]), np.array([1.0, 5, 2]))
    assert {name: each["value"] for name, each in everything.items()} == pytest.approx(expected)
    assert against["groups"][1]["measures"]["brightness"]["srcc"] == {"value": None, "low": None, "high": None}
    with open(place / "report/scores.csv", newline="") as stream:
        assert [row["vote"] for row in csv.DictReader(stream)] == ["1.000000", "5.000000", "2.000000", ""]
    page = (place / "report/index.html").read_text()
    assert "Agreement with MOS_q of v.csv" in page and page.count("<h2>a ") == 2 and "a cat,\non &lt;b&gt;" in page
    assert page.count("rank 1 of 2") == 4 and page.count("people <b>") == 3 and page.count("image/jpeg") == 4


def test_nothing_of_it_is_in_files_where_it_was_not_asked_for(place, capsys):
    assert cli.main([*BOTH, "--output", "s.json", "--report", "report"]) == 0
    record = json.loads((place / "s.json").read_text())
    assert set(record) == {"metrics", "seconds", "images", "failed"} and "vote" not in record["images"][0]
    page = (place / "report/index.html").read_text()
    assert "Agreement" not in page and "rank " not in page and "Pictures, best first" in page
    assert "against" not in capsys.readouterr().out


@pytest.mark.parametrize("argv, words", [
    (["--rank"], "--rank: ranks pictures of the same prompt: give --prompts FILE"),
    (["--column", "MOS_q"], "--column: goes with --against FILE"),
    (["--skip-unrated"], "--skip-unrated: goes with --against FILE"),
    (["--against", "v.csv"], "the column of the votes is not named: choose from picture, MOS_q, split"),
    (["--against", "v.csv", "--column", "MOS_q"],
     "no vote for 1 of the 4 pictures in set: 4.png; add their votes, or exclude them with --skip-unrated"),
    (["--against", "v.csv", "--column", "MOS_q", "--skip-unrated"],
     "v.csv: 1 of its 4 votes are of no picture in set: '9.png' (did you mean '4.png'?); correct or remove them, or"),
    (["--skip-unused"], "--skip-unused: goes with --prompts FILE or --against FILE"),
    (["--against", "none.xlsx", "--column", "MOS_q"], "none.xlsx: cannot be read (No such file"),
    (["--against", "other.csv", "--column", "a"],
     "other.csv: none of the 4 pictures in set has a vote; it names x.png")])
def test_mistakes_are_one_line_and_status_2(place, capsys, argv, words):
    (place / "other.csv").write_text("picture,a\nx.png,1\n")
    assert cli.main([*BOTH, *argv]) == 2
    captured = capsys.readouterr()
    assert words in captured.err and captured.err.count("\n") == 1 and not captured.out
