"""Submissions of the structure track: written, read, thresholded and merged; the original's two commands on them."""
import pickle

import numpy as np
import pytest
from PIL import Image
from test_evalmuse import write
from test_scripts import script

from jittwin import imaging
from jittwin.data.evalmuse import EvalMuse
from jittwin.data.submission import (
    Prediction,
    is_raw,
    key_of,
    merged,
    read_submission,
    thresholded,
    write_submission,
)
from jittwin.errors import UserError


def predictions(*levels, score=0.5):
    return {str(number): Prediction(score, np.full((3, 4), level, np.uint8)) for number, level in enumerate(levels)}


def test_a_submission_has_the_originals_form_and_comes_back(tmp_path):
    path = tmp_path / "a_thre90.pkl"
    write_submission(path, thresholded(predictions(0, 90, 91, 255, score=np.float32(0.25))))
    content = pickle.loads(path.read_bytes())
    assert [int(entry["pred_area"].max()) for entry in content.values()] == [0, 0, 1, 1]
    assert all(type(entry["score"]) is float and entry["pred_area"].dtype == np.uint8 for entry in content.values())
    again = read_submission(path)
    assert again.keys() == content.keys() and again["2"].score == 0.25 and (again["2"].area == 1).all()
    assert [key_of(name) for name in ("1.jpg", "a/b.c.png", "./x.png", "plain")] == ["1", "b", "x", "plain"]


def test_numbers_of_numpy_and_bool_maps_are_read(tmp_path):
    content = {"1": {"score": np.float32(0.5), "pred_area": np.ones((2, 3), bool)}}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content))
    found = read_submission(tmp_path / "a.pkl")["1"]
    assert found.score == 0.5 and found.area.dtype == np.uint8 and found.area.sum() == 6


class Hostile:
    def __reduce__(self):
        return print, ("it ran",)


@pytest.mark.parametrize("content, words", [
    (Hostile(), "refused: the pickle contains"), ({}, "holds no dictionary of predictions"), ([1], "holds no dictionary"),
    ({"1": 3}, "its entry '1' is not"), ({"1": {"score": 0.5}}, "its entry '1' is not"),
    ({1: {"score": 0.5, "pred_area": np.zeros((2, 2), np.uint8)}}, "its entry 1 is not"),
    ({"1": {"score": "0.5", "pred_area": np.zeros((2, 2), np.uint8)}}, "its entry '1' is not"),
    ({"1": {"score": 0.5, "pred_area": np.zeros((2, 2))}}, "its entry '1' is not"),
    ({"1": {"score": 0.5, "pred_area": np.zeros((2, 2, 1), np.uint8)}}, "its entry '1' is not")])
def test_files_of_another_form_are_refused(tmp_path, capsys, content, words):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(UserError) as told:
        read_submission(tmp_path / "a.pkl")
    assert words in str(told.value) and "\n" not in str(told.value) and not capsys.readouterr().out


def test_the_mean_loses_its_fractions():
    found = merged([predictions(10, 90, score=0.2), predictions(13, 91, score=0.5)])
    assert [int(each.area[0, 0]) for each in found.values()] == [11, 90] and found["0"].score == pytest.approx(0.35)
    assert merged([predictions(7)])["0"].area.max() == 7
    with pytest.raises(UserError, match="1 pictures are in some of the files to merge and not in others: 1"):
        merged([predictions(1), predictions(1, 2)])
    with pytest.raises(UserError, match=r"0: its maps to merge have the sizes \(3, 4\), \(5, 5\)"):
        merged([predictions(1), {"0": Prediction(0, np.zeros((5, 5), np.uint8))}])
    assert is_raw(predictions(0)) and is_raw(predictions(0, 7)) and not is_raw(predictions(0, 1))


def test_adjust_outputs_merges_raw_files_alone(tmp_path, monkeypatch, capsys):
    adjust = script("adjust_outputs", monkeypatch).run
    for name, levels in (("a_1_raw", (80, 200)), ("b_2_raw", (102, 100)), ("a_1_thre90", (1, 1)), ("merged", (255, 255))):
        write_submission(tmp_path / f"{name}.pkl", predictions(*levels))
    assert adjust(["--pkl_root", str(tmp_path)]) == 0 and "2 pictures, the mean of 2 files" in capsys.readouterr().out
    assert [int(each.area.max()) for each in read_submission(tmp_path / "merged.pkl").values()] == [91, 150]
    assert [int(each.area.max()) for each in read_submission(tmp_path / "merged_thre90.pkl").values()] == [1, 1]
    assert adjust(["--pkl_root", str(tmp_path), "--threshold", "100"]) == 0
    assert [int(each.area.max()) for each in read_submission(tmp_path / "merged_thre100.pkl").values()] == [0, 1]
    write_submission(tmp_path / "c_raw.pkl", predictions(0, 1))
    for arguments, words in (([tmp_path], "c_raw.pkl: its maps are of 0 and 1"), ([tmp_path / "no"], "no file"),
                             ([tmp_path, "--threshold", "300"], "--threshold 300: legal: 0 to 254")):
        with pytest.raises(UserError, match=words):
            adjust(["--pkl_root", *map(str, arguments)])


def test_data_process_writes_what_the_original_trains_from(tmp_path, monkeypatch, capsys):
    process = script("data_process", monkeypatch).run
    folder = write(tmp_path / "root")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DATA_ROOT", raising=False)
    with pytest.raises(UserError, match="DATA_ROOT is not set"):
        process([])
    monkeypatch.setenv("DATA_ROOT", str(folder))
    assert process([]) == 0 and "3 pictures" in capsys.readouterr().out
    content = pickle.loads((tmp_path / "data/train_info.pkl").read_bytes())
    assert set(content) == {"1.jpg", "2.jpg", "3.jpg"} and set(content["1.jpg"]) == {"heat_map", "prompt", "score"}
    for sample in EvalMuse(folder).samples:
        expected = imaging.resize_levels(sample.draw((20, 24)), (512, 512))
        assert (content[sample.name]["heat_map"] == expected).all()
    assert content["2.jpg"]["score"] == 5 and content["2.jpg"]["heat_map"].dtype == np.uint8
    # The clean picture of a plain colour is 0.3 of it and 0.7 of the colour of level 0.
    seen = np.asarray(Image.open(tmp_path / "data/headmap_vis/2.jpg")).reshape(-1, 3).mean(0)
    assert np.abs(seen - (0.3 * 80, 0, 0.7 * 127)).max() < 3
    assert process(["--data", str(folder), "--out", "other", "--no-pictures"]) == 0
    assert not (tmp_path / "other/headmap_vis").exists() and (tmp_path / "other/train_info.pkl").exists()


def test_maps_in_jet_colours():
    # Of OpenCV's COLORMAP_JET, give or take 1.
    known = {0: (0, 0, 128), 32: (0, 0, 255), 64: (0, 128, 255), 128: (130, 255, 126), 160: (255, 252, 0), 255: (128, 0, 0)}
    found = imaging.jet(np.array([list(known)], np.uint8))[0]
    assert np.abs(found.astype(int) - np.array(list(known.values()))).max() <= 1
    image = np.full((6, 8, 3), 100, np.uint8)
    mixed = imaging.heat_overlay(image, np.full((3, 4), 255, np.uint8), 0.5)
    assert mixed.shape == (6, 8, 3) and (np.abs(mixed.astype(int) - (114, 50, 50)) <= 1).all()
