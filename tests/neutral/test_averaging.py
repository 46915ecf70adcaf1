"""Averages of weights, ranges of checkpoints, the record of a selection."""
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from jittwin.checkpoints.average import average, ema_factors, greedy_soup, mean_factors
from jittwin.checkpoints.find import epochs, find_checkpoints
from jittwin.commands.select import known_rows, read_aesthetic, table
from jittwin.errors import UserError
from jittwin.report.charts import line_chart


def source(value, dtype=np.float32, extra=()):
    arrays = {"w": np.full((2, 3), value, dtype), "count": np.array(7, np.int64)}
    return f"epoch {value}", lambda: arrays | dict.fromkeys(extra, np.zeros(1, np.float32))


def test_mean_is_taken_in_double_precision():
    third = np.float32(0.1)
    merged = average([source(third), source(np.float32(0.7)), source(third)], mean_factors(3), np.float64)
    exact = (float(third) * 2 + float(np.float32(0.7))) / 3
    np.testing.assert_allclose(merged["w"], exact, rtol=1e-15)
    assert merged["w"].dtype == np.float64 and merged["count"].dtype == np.int64 and merged["count"] == 7


def test_float16_does_not_overflow_on_the_way():
    merged = average([source(60000, np.float16)] * 4, mean_factors(4), np.float32)
    assert (merged["w"] == np.float32(np.float16(60000))).all() and merged["w"].dtype == np.float32


def test_ema_is_the_recursion():
    expected = 1.0
    for value in (2.0, 5.0, 3.0):
        expected = 0.8 * expected + 0.2 * value
    factors = ema_factors(4, 0.8)
    assert sum(factors) == pytest.approx(1)
    assert np.dot(factors, [1, 2, 5, 3]) == pytest.approx(expected)


def test_other_networks_are_refused():
    with pytest.raises(UserError, match="epoch 2: not the same network as epoch 1: 1 unexpected: b"):
        average([source(1), source(2, extra=("b",))], mean_factors(2))
    with pytest.raises(UserError, match="1 missing: b"):
        average([source(1, extra=("b",)), source(2)], mean_factors(2))


def test_a_soup_keeps_what_improves_it():
    worth = {"a": 1.0, "b": 9.0, "c": -0.5}
    kept, log = greedy_soup(["a", "b", "c"], lambda names: sum(worth[n] for n in names) / len(names))
    assert kept == ["a", "c"] and log == [("a", 1.0, True), ("b", 5.0, False), ("c", 0.25, True)]


@pytest.mark.parametrize("text, expected", [
    ("273", ["273"]), ("273,299", ["273", "299"]), ("8-11", ["8", "9", "10", "11"]), ("3-4, 1,3", ["3", "4", "1"])])
def test_epochs(text, expected):
    assert epochs(text) == expected


@pytest.mark.parametrize("text", ["", "a", "3-1", "1-", "-2", "1.5"])
def test_what_is_no_epoch(text):
    with pytest.raises(UserError, match="neither a number nor a range"):
        epochs(text)


def test_checkpoints_of_the_originals_folder(tmp_path):
    for name in ("3_net_G.pkl", "10_net_G.pkl", "avg_3_10_net_G.pkl", "10_net_E.pkl", "._3_net_G.pkl"):
        (tmp_path / name).write_bytes(b"")
    assert list(find_checkpoints(str(tmp_path), None)) == ["3", "10", "avg_3_10"]
    assert find_checkpoints(str(tmp_path), "1-5") == {"3": str(tmp_path / "3")}
    with pytest.raises(UserError, match="no checkpoint of epochs 4; there is 3, 10, avg_3_10"):
        find_checkpoints(str(tmp_path), "4")
    with pytest.raises(UserError, match="there is none"):
        find_checkpoints(str(tmp_path / "absent"), None)


def test_epochs_that_are_not_there(tmp_path, capsys):
    """In a range they are told and left out; one named by itself is wanted, and no average may go without it."""
    for name in ("3_net_G.pkl", "10_net_G.pkl", ".11_net_G.pkl.0123456789ab.tmp"):
        (tmp_path / name).write_bytes(b"")
    assert list(find_checkpoints(str(tmp_path), "1-3,10")) == ["3", "10"]
    assert capsys.readouterr().err == f"{tmp_path}: 2 of the 4 epochs 1-3,10 are there: 3, 10\n"
    assert list(find_checkpoints(str(tmp_path), "3,10")) == list(find_checkpoints(str(tmp_path), None)) == ["3", "10"]
    assert capsys.readouterr().err == ""
    with pytest.raises(UserError, match="no checkpoint of epochs 4, 12; there is 3, 10$"):
        find_checkpoints(str(tmp_path), "3,12,4,8-10")


def test_the_table_has_the_best_first():
    rows = {"1": {"networks": "x", "fid": 3.0, "mask_accuracy": 0.5}, "2": {"networks": "y", "fid": 2.0,
                                                                           "mask_accuracy": 0.25}}
    assert table(["2", "1"], rows, "random") == ("epoch,fid,mask_accuracy,weights\n2,2.000000,0.250000,random\n"
                                                 "1,3.000000,0.500000,random\n")


def test_a_record_of_other_settings_is_refused(tmp_path):
    path = tmp_path / "select.json"
    assert known_rows(path, {}) == {}
    path.write_text('{"settings": {"seed": 1}, "rows": {"3": {"fid": 2}}}')
    assert known_rows(path, {"seed": 1}) == {"3": {"fid": 2}}
    with pytest.raises(UserError, match="with another seed"):
        known_rows(path, {"seed": 2})
    for damaged in ("{", "[]", '{"settings": [], "rows": {}}'):
        path.write_text(damaged)
        with pytest.raises(UserError, match="damaged"):
            known_rows(path, {"seed": 1})


@pytest.mark.parametrize("content, message", [
    (b"aesthetic,epoch\n5\n", "its epoch is empty; write it as text"),
    (b"aesthetic,epoch\n5,4\n", "has no line for epoch 5: choose from 4"), (b"\xff\xfe", "the file is empty"),
    ("aesthetic,epoch\n5,五".encode("gbk"), "line 2 is not UTF-8")])
def test_a_table_of_scores_that_is_none(tmp_path, content, message):
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_aesthetic(str(tmp_path / "a.csv"), ["5"])


@pytest.mark.parametrize("values", [[3.0], [2.0, 2.0], [5.0, 1.0, 9.0] * 9])
def test_the_chart_is_an_svg_that_marks_the_least(values):
    points = [(f"<{i}>", value) for i, value in enumerate(values)]
    root = ElementTree.fromstring(line_chart("FID & more", "epoch", "FID", points))
    circles = [e for e in root if e.tag.endswith("circle")]
    assert len(circles) == len(values)
    marked = [i for i, c in enumerate(circles) if c.get("r") == "5"]
    assert marked == [values.index(min(values))]
    heights = [float(c.get("cy")) for c in circles]
    assert (np.argsort(heights, kind="stable") == np.argsort([-v for v in values], kind="stable")).all()
