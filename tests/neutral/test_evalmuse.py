"""EvalMuse-Structure: regions against OpenCV's own results and exact fractions; its files; every mistake in them."""
import csv
import json
import pickle
import random
from fractions import Fraction
from math import ceil, floor

import numpy as np
import pytest
from PIL import Image

from jittwin import cli, imaging
from jittwin.data.annotation import LEVELS, Region, counts, crosses_itself, fill_polygon, levels, read_region
from jittwin.data.evalmuse import EvalMuse, Sample, hold_out, to_score, to_vote
from jittwin.data.evalmuse_files import (
    maps,
    negatives,
    open_training,
    pseudo_labels,
    read_captions,
    read_maps,
    read_train_pickle,
    write_maps,
    write_pickle,
)
from jittwin.data.evalmuse_parts import open_parts
from jittwin.data.submission import Prediction, write_submission
from jittwin.commands.prepare import DISTORTIONS
from jittwin.data.synthetic.distorted import CHOICES, CONSPICUOUS, GLARING, KINDS, Place, SyntheticEvalMuse, write_mini_evalmuse
from jittwin.draws import Draws
from jittwin.errors import UserError
from jittwin.metrics.structure_track import StructureTrack

BOX = {"bbox_type": 1, "bbox": [{"x": 2, "y": 3}, {"x": 7, "y": 9}]}
TRIANGLE = {"bbox_type": 2, "bbox": [[1, 1], [8, 2], [2, 6]]}

# ---- regions ------------------------------------------------------------------------

# What cv2.fillPoly 4.11 draws into 9 rows of 11 pixels.
DRAWN = [
    ([(1, 1), (8, 2), (6, 7), (2, 6)], "........... .####...... .########.. .########.. ..######... ..######... ..#####.... "
     ".....##.... ..........."),
    ([(0, 0), (10, 8), (10, 0), (0, 8)], "#.........# ##.......## ####...#### #####.##### ########### #####.##### "
     "####...#### ##.......## #.........#"),
    ([(2, 3), (2, 3), (9, 7)], "........... ........... ........... ..#........ ...##...... .....##.... .......##.. "
     ".........#. ..........."),
    ([(5, 0), (7, 8), (0, 3), (10, 3), (3, 8)], ".....#..... .....#..... ....##..... ########### .####.####. ...##.##... "
     "...##.#.... ...#####... ...#...#...")]


def filled(points, shape):
    mask = np.zeros(shape, bool)
    fill_polygon(mask, points)
    return mask


@pytest.mark.parametrize("points, rows", DRAWN)
def test_polygons_are_filled_as_by_opencv(points, rows):
    expected = np.array([[pixel == "#" for pixel in row] for row in rows.split()])
    assert (filled(points, (9, 11)) == expected).all()


def exactly(points, shape):
    """The same rule with fractions, pixel by pixel."""
    mask = set()
    places = {}
    for (x0, y0), (x1, y1) in zip(points, points[1:] + points[:1]):
        if x1 < x0:
            (x0, y0), (x1, y1) = (x1, y1), (x0, y0)
        steps = max(x1 - x0, abs(y1 - y0))
        for k in range(steps + 1):
            x, y = (Fraction(start * (steps - k) + end * k, steps or 1) if steps else Fraction(start)
                    for start, end in ((x0, x1), (y0, y1)))
            near = [start + (1 if value >= start else -1) * ceil(abs(value - start) - Fraction(1, 2))
                    for value, start in ((x, x0), (y, y0))]
            mask.add((near[1], near[0]))
        if y0 == y1:
            continue
        if y0 > y1:
            (x0, y0), (x1, y1) = (x1, y1), (x0, y0)
        for y in range(y0, y1):
            places.setdefault(y, []).append(x0 + Fraction((x1 - x0) * (y - y0), y1 - y0))
    for y, crossed in places.items():
        crossed.sort()
        for left, right in zip(crossed[::2], crossed[1::2]):
            mask.update((y, x) for x in range(ceil(left), floor(right) + 1))
    found = np.zeros(shape, bool)
    for y, x in mask:
        if 0 <= y < shape[0] and 0 <= x < shape[1]:
            found[y, x] = True
    return found


def test_any_polygon_is_filled_by_the_rule_also_across_the_border():
    rng = np.random.default_rng(2)
    for _ in range(300):
        points = [tuple(map(int, point)) for point in rng.integers(-12, 35, (rng.integers(1, 9), 2))]
        assert (filled(points, (20, 23)) == exactly(points, (20, 23))).all(), points


def test_rectangles_lack_their_last_row_and_column_and_are_cut_at_the_border():
    region, mended = read_region(BOX)
    mask = np.zeros((10, 10), bool)
    region.fill(mask)
    expected = np.zeros((10, 10), bool)
    expected[3:9, 2:7] = True
    assert (mask == expected).all() and not mended and not list(region.faults((10, 10)))
    mask = np.zeros((4, 4), bool)
    Region(1, ((-5, -5), (2, 9))).fill(mask)
    assert mask.sum() == 8 and mask[:, :2].all()


def test_the_levels_count_annotators_and_not_regions():
    box = Region(1, ((0, 0), (2, 2)))
    for number in range(7):
        found = counts([[box, box]] * number, (3, 3))
        assert found[0, 0] == number and not found[2].any()
    assert [levels([[box]] * number, (3, 3))[1, 1] for number in range(7)] == [*LEVELS, 5, 6]
    assert max(LEVELS[:4]) / 255 == pytest.approx(0.706, abs=1e-3)


@pytest.mark.parametrize("entry, points, mended", [
    ({"bbox_type": 2, "bbox": [[0.5, 1.5], [2.4, 3.6], [4, 0]]}, ((0, 2), (2, 4), (4, 0)), "between pixels"),
    ({"bbox_type": 1, "bbox": [[7, 9], [2, 3]]}, ((2, 3), (7, 9)), "corners in another order"),
    ({"bbox_type": 1, "bbox": [{"x": 7, "y": 3}, {"x": 2, "y": 9.2}]}, ((2, 3), (7, 9)), "between pixels")])
def test_what_is_mended_is_told(entry, points, mended):
    region, told = read_region(entry)
    assert region.points == points and any(mended in line for line in told)


@pytest.mark.parametrize("kind, points, what", [
    (1, ((30, 2), (40, 9)), "outside the picture"), (1, ((-3, 2), (4, 9)), "cut at the border"),
    (1, ((2, 2), (2, 9)), "has no area"), (2, ((1, 1), (5, 5), (1, 1)), "2 different points: a line or a dot"),
    (2, ((0, 0), (9, 9), (9, 0), (0, 9)), "crosses itself"), (2, ((-9, -9), (-3, -2), (-1, -9)), "outside"),
    (2, ((1, 1), (20, 5), (1, 9)), "cut at the border"), (1, ((0, 0), (20, 20)), None), (2, ((0, 0), (19, 0), (5, 19)), None)])
def test_unusual_regions_are_told(kind, points, what):
    told = list(Region(kind, points).faults((20, 20)))
    assert (what in told[0] if what else not told), told


def test_a_star_crosses_itself_and_a_comb_does_not():
    assert crosses_itself(DRAWN[3][0]) and crosses_itself(DRAWN[1][0])
    assert not crosses_itself([(0, 0), (9, 0), (9, 9), (6, 1), (5, 9), (3, 1), (0, 9)])


# Of cv2.resize 4.11.
@pytest.mark.parametrize("part, size, expected", [
    ((4, 6), (3, 5), [[11, 23, 35, 47, 59], [91, 103, 115, 127, 139], [171, 183, 195, 207, 219]]),
    ((4, 6), (2, 3), [[35, 55, 75], [155, 175, 195]]),
    ((2, 3), (5, 4), [[0, 6, 14, 20], [6, 12, 20, 26], [30, 36, 44, 50], [54, 60, 68, 74], [60, 66, 74, 80]])])
def test_maps_are_resized_as_by_opencv(part, size, expected):
    whole = (np.arange(24, dtype=np.uint8) * 10).reshape(4, 6)[:part[0], :part[1]]
    assert imaging.resize_levels(whole, size).tolist() == expected
    assert imaging.resize_levels(whole, whole.shape) is whole


# ---- the folder ---------------------------------------------------------------------

def entry(marks=([BOX], [], [TRIANGLE]), vote=3, prompt="a cat"):
    return {"prompt_en": prompt, "mos": vote, "bbox_info": list(marks)}


def write(folder, entries=None, part="train", text=None):
    """A part of the data set; the pictures have 20 rows of 24 pixels."""
    entries = {"1": entry(), "2": entry(([], [], []), 5), "3": entry(([BOX], [BOX], [BOX]), 4 / 3)} \
        if entries is None else entries
    images = folder / part / "images"
    images.mkdir(parents=True)
    for number in range(1, 4):
        Image.new("RGB", (24, 20), (40 * number, 0, 0)).save(images / f"{number}.jpg")
    (folder / part / f"{part}_info.json").write_text(text or json.dumps(entries))
    return folder


def test_a_folder_is_read(tmp_path):
    data = EvalMuse(write(tmp_path))
    first, clean, third = data.samples
    assert [sample.name for sample in data.samples] == ["1.jpg", "2.jpg", "3.jpg"] and first.prompt == "a cat"
    assert first.score == 0.5 and clean.score == 1.0 and third.score == pytest.approx(1 / 12)
    assert first.read().shape == (20, 24, 3) and not data.problems and not data.geometry() and not data.notes
    found = first.draw((20, 24))
    assert found.shape == (20, 24) and set(np.unique(found)) == {0, 64, 127}
    assert not clean.draw((20, 24)).any() and set(np.unique(third.draw((20, 24)))) == {0, 180}
    assert to_vote(to_score(11 / 3)) == pytest.approx(11 / 3)


def test_pictures_without_votes_may_be_predicted(tmp_path):
    data = EvalMuse(write(tmp_path, {"1.jpg": {"prompt_en": "a"}, "2": {"prompt_en": "b"}}, "val"), "val")
    assert [(sample.score, sample.draw) for sample in data.samples] == [(None, None)] * 2
    assert "1 pictures are not named" in data.notes[0] and "3.jpg" in data.notes[0]


@pytest.mark.parametrize("change, words", [
    ({"mos": 0.9}, "'1' has the mos 0.9; write a number from 1 to 5"), ({"mos": "3"}, "has the mos '3'"),
    ({"mos": float("nan")}, "has the mos nan"), ({"mos": True}, "has the mos True"),
    ({"prompt_en": None}, "has the prompt_en None; write a text"), ({"prompt_en": "\ud800"}, "half a character"),
    ({"bbox_info": None}, "has NoneType as bbox_info"), ({"bbox_info": [7, [], []]}, "has int for annotator 1"),
    ({"bbox_info": [[{"bbox_type": 3, "bbox": [[1, 2]]}], [], []]},
     "region 1 of annotator 1 has bbox_type 3; legal: 1 (rectangle) or 2 (polygon)"),
    ({"bbox_info": [[], [{"bbox": []}], []]}, "region 1 of annotator 2 is {'bbox': []}; write bbox_type and bbox"),
    ({"bbox_info": [[{"bbox_type": 2, "bbox": []}], [], []]}, "has the bbox []; write a list of points"),
    ({"bbox_info": [[{"bbox_type": 1, "bbox": [[1, 2]]}], [], []]}, "is a rectangle with 1 points"),
    ({"bbox_info": [[{"bbox_type": 2, "bbox": [[1, "2"]]}], [], []]}, "has the point [1, '2']; write two numbers"),
    ({"bbox_info": [[{"bbox_type": 2, "bbox": [[1, 1e9]]}], [], []]}, "has the point [1, 1000000000.0]"),
    ({"bbox_info": [[{"bbox_type": 2, "bbox": [[1, float("nan")]]}], [], []]}, "has the point [1, nan]")])
def test_an_entry_that_cannot_be_used_is_one_line_and_status_2(tmp_path, capsys, change, words):
    folder = write(tmp_path, {"1": {**entry(), **change}, "2": entry(), "absent": entry()})
    assert cli.main(["prepare", "evalmuse", str(folder)]) == 2
    captured = capsys.readouterr()
    assert words in captured.err and captured.err.count("\n") == 1 and "ready" not in captured.out
    assert "1 more entries cannot be used" in captured.err and not (folder / "problems.csv").exists()


@pytest.mark.parametrize("text, words", [
    ("[]", "holds list where an object"), ("{", "no JSON"), ("{}", "names no pictures"), ("\0", "zero character"),
    ('{"1": {}, "1": {}}', "the key '1' occurs twice"), ('{"../1": {}}', "'../1' is no file name"),
    ('{"7": {}}', "'7' has no picture: 7.jpg is missing"), ('{"1": []}', "'1' has list in place of"),
    ("[" * 100000, "no JSON")])
def test_files_that_are_no_annotation(tmp_path, text, words):
    with pytest.raises(UserError) as told:
        EvalMuse(write(tmp_path, text=text))
    assert words in str(told.value) and "\n" not in str(told.value)


@pytest.mark.parametrize("remove, words", [
    ("train/images", "images: cannot be listed"), ("train/train_info.json", "train_info.json: cannot be read"),
    (".", "no such folder; give the folder with train/images/")])
def test_folders_that_are_no_data_set(tmp_path, remove, words):
    folder = write(tmp_path / "data")
    (folder / remove).rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=words):
        EvalMuse(folder)


def test_what_is_unusual_is_used_and_told_one_by_one(tmp_path, capsys):
    cross = {"bbox_type": 2, "bbox": [[0, 0], [9, 9], [9, 0], [0, 9.3]]}
    outside = {"bbox_type": 1, "bbox": [[100, 2], [130, 9]]}
    folder = write(tmp_path, {"1": entry(([cross], [outside])), "2": entry(([], None, [BOX]), prompt=" "),
                              "3": entry(([], [], []))})
    Image.new("L", (24, 20), 9).save(folder / "train/images/2.jpg")
    data = EvalMuse(folder)
    assert len(data.samples) == 3 and set(np.unique(data.samples[0].draw((20, 24)))) == {0, 64}
    assert data.samples[1].read().shape == (20, 24, 3)
    assert cli.main(["prepare", "evalmuse", str(folder)]) == 0
    output = capsys.readouterr().out
    rows = list(csv.reader((folder / "problems.csv").open()))
    assert rows[0] == ["part", "picture", "what"] and sorted(rows[1:]) == sorted([
        ["train", "1.jpg", "region 1 of annotator 1 has points between pixels, which are rounded"],
        ["train", "1.jpg", "has 2 annotators instead of 3"],
        ["train", "1.jpg", "region 1 of annotator 1 crosses itself: what its outline winds around twice is left out"],
        ["train", "1.jpg", "region 1 of annotator 2 lies outside the picture and marks nothing"],
        ["train", "2.jpg", "has an empty prompt"], ["train", "2.jpg", "has 2 annotators instead of 3"]])
    assert "6 things are unusual" in output and "1 pictures are not marked at all" in output and "ready" in output


def test_a_picture_that_cannot_be_decoded_is_named(tmp_path, capsys):
    folder = write(tmp_path)
    (folder / "train/images/3.jpg").write_bytes(b"\xff\xd8\xff nothing")
    assert cli.main(["prepare", "evalmuse", str(folder)]) == 2
    assert "3.jpg: cannot be read" in capsys.readouterr().err


def test_the_split_is_the_originals_and_touches_no_generator():
    samples = [Sample(str(number), None, "") for number in range(50)]
    expected = list(range(50))
    random.seed(3)
    random.shuffle(expected)
    random.seed(99)
    state = random.getstate()
    train, val = hold_out(samples, 12, 3)
    assert random.getstate() == state
    assert [int(sample.name) for sample in [*val, *train]] == expected and len(val) == 12
    assert hold_out(samples, 0, 3) == (samples, [])
    for count in (50, -1):
        with pytest.raises(UserError, match=f"{count} pictures to hold out of 50: choose 0 to 49"):
            hold_out(samples, count, 0)


# ---- maps, pickles, negatives, pseudo-labels ----------------------------------------

@pytest.mark.parametrize("side", [None, 512])
def test_maps_and_the_originals_pickle_come_back_as_they_were(tmp_path, side):
    folder = write(tmp_path / "data")
    samples = EvalMuse(folder).samples
    assert write_maps(folder / "train/maps.npz", maps(samples, side)) == 3
    assert write_pickle(folder / "train_info.pkl", maps(samples, side)) == 3
    content = pickle.loads((folder / "train_info.pkl").read_bytes())
    assert content["3.jpg"]["score"] == pytest.approx(4 / 3) and content["3.jpg"]["prompt"] == "a cat"
    for again in (read_maps(folder / "train/maps.npz", folder / "train/images"),
                  read_train_pickle(folder / "train_info.pkl", folder / "train/images")):
        for before, after in zip(samples, again, strict=True):
            expected = before.draw((20, 24))
            if side:
                expected = imaging.resize_levels(expected, (side, side))
            assert (after.draw((20, 24)) == expected).all() and (after.read() == before.read()).all()
            assert (after.name, after.prompt) == (before.name, before.prompt)
            assert after.score == pytest.approx(before.score)


def test_training_opens_what_there_is(tmp_path):
    folder = write(tmp_path)
    samples, problems, notes = open_training(folder)
    write_maps(folder / "train/maps.npz", maps(samples))
    write_pickle(folder / "train_info.pkl", maps(samples, 512))
    (folder / "train/train_info.json").unlink()
    assert "maps.npz" in open_training(folder)[2][0]
    (folder / "train/maps.npz").unlink()
    assert "train_info.pkl" in open_training(folder)[2][0]
    (folder / "train_info.pkl").unlink()
    with pytest.raises(UserError, match="train_info.json: cannot be read"):
        open_training(folder)


def test_prepare_takes_maps_and_parts_to_be_predicted(tmp_path, capsys):
    folder = write(tmp_path / "data")
    write_pickle(folder / "train_info.pkl", maps(EvalMuse(folder).samples, 512))
    (folder / "train/train_info.json").unlink()
    prepare = ["prepare", "evalmuse", str(folder)]
    assert cli.main(prepare) == 0
    output = capsys.readouterr().out
    assert "train_info.pkl: its maps are used" in output and "3 pictures, all decode, with maps" in output
    assert cli.main([*prepare, "--maps", "native"]) == 0 and "maps.npz: 3 maps" in capsys.readouterr().out
    assert read_maps(folder / "train/maps.npz", folder / "train/images")[0].draw(None).shape == (512, 512)
    (folder / "train/images/2.jpg").write_bytes(b"nothing")
    before = (folder / "train/maps.npz").read_bytes()
    for extra in ([], ["--maps", "512"]):
        assert cli.main([*prepare, *extra]) == 2 and "2.jpg: cannot be read" in capsys.readouterr().err
    assert (folder / "train/maps.npz").read_bytes() == before
    other = write(tmp_path / "other", {"1": {"prompt_en": "a"}}, "test")
    assert cli.main(["prepare", "evalmuse", str(other)]) == 0 and "ready to be predicted" in capsys.readouterr().out
    assert cli.main(["prepare", "evalmuse", str(other), "--maps", "512"]) == 2
    assert "needs" in capsys.readouterr().err


class Hostile:
    def __reduce__(self):
        return print, ("it ran",)


@pytest.mark.parametrize("content, words", [
    (Hostile(), "refused: the pickle contains"), ([1], "holds no dictionary of pictures"),
    ({"1.jpg": 7}, "holds no dictionary"), ({"1.jpg": {"heat_map": [1], "prompt": "a", "score": 3}}, "is list; it must be"),
    ({"1.jpg": {"heat_map": np.zeros((3, 3)), "prompt": "a", "score": 3}}, "is float64 (3, 3); it must be uint8"),
    ({"1.jpg": {"heat_map": np.zeros((3, 3), np.uint8), "prompt": 1, "score": 3}}, "needs a text as 'prompt'"),
    ({"1.jpg": {"heat_map": np.zeros((3, 3), np.uint8), "prompt": "a", "score": 9}}, "a vote from 1 to 5"),
    ({"8.jpg": {"heat_map": np.zeros((3, 3), np.uint8), "prompt": "a", "score": 3}}, "1 of 1 pictures that")])
def test_pickles_that_are_refused(tmp_path, capsys, content, words):
    folder = write(tmp_path)
    (folder / "train_info.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(UserError) as told:
        read_train_pickle(folder / "train_info.pkl", folder / "train/images")
    assert words in str(told.value) and "\n" not in str(told.value) and not capsys.readouterr().out


def test_damaged_maps_are_named(tmp_path):
    folder = write(tmp_path)
    path = folder / "train/maps.npz"
    write_maps(path, maps(EvalMuse(folder).samples))
    about = json.loads(path.with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(json.dumps({name: about[name] for name in ("1.jpg", "2.jpg")}))
    with pytest.raises(UserError, match="1 pictures are not in both this file and maps.json: 3.jpg"):
        read_maps(path, folder / "train/images")
    path.write_bytes(b"PK nothing")
    with pytest.raises(UserError, match="maps.npz: no .npz of maps"):
        read_maps(path, folder / "train/images")


@pytest.mark.parametrize("text", ['image,caption\n1.jpg,"a man, a dog"\n1.jpg,other\n2.jpg,b\n',
                                  "image,caption\n1.jpg,a man, a dog\n1.jpg,other\n2.jpg,b\n",
                                  "image_name| comment_number| comment\n1.jpg| 0| a man, a dog\n1.jpg| 1| x\n2.jpg| 0| b\n"])
def test_negatives_are_clean_photographs_with_their_first_caption(tmp_path, text):
    images = tmp_path / "flickr30k"
    images.mkdir()
    for number in (1, 2):
        Image.new("RGB", (8, 6)).save(images / f"{number}.jpg")
    (images / "captions.txt").write_text(text)
    captions = read_captions(images / "captions.txt")
    assert [" ".join(caption.replace(",", " , ").split()) for caption in captions.values()] == ["a man , a dog", "b"]
    found = negatives(tmp_path, 2, 0)
    assert sorted(sample.name for sample in found) == ["1.jpg", "2.jpg"] and {sample.score for sample in found} == {1.0}
    assert not found[0].draw((6, 8)).any() and found[0].read().shape == (6, 8, 3)
    assert [sample.name for sample in negatives(tmp_path, 1, 0)] == [found[0].name] and negatives(tmp_path, 0) == []
    with pytest.raises(UserError, match="3 photographs without distortion are asked for, and it names 2"):
        negatives(tmp_path, 3)
    (images / f"{found[0].name}").unlink()
    with pytest.raises(UserError, match="1 of 1 photographs are not there"):
        negatives(tmp_path, 1)


def test_the_originals_negatives(tmp_path):
    images = tmp_path / "flickr30k"
    images.mkdir()
    with pytest.raises(UserError, match="flickr30k: holds no captions"):
        negatives(tmp_path, 1)
    Image.new("RGB", (8, 6)).save(images / "1.jpg")
    content = {"1.jpg": {"heat_map": np.zeros((6, 8), np.uint8), "prompt": "a", "score": 5}}
    (tmp_path / "flick30k_negative_dataset.pkl").write_bytes(pickle.dumps(content))
    assert [(sample.prompt, sample.score) for sample in negatives(tmp_path, 1)] == [("a", 1.0)]


def test_pseudo_labels_take_the_place_of_votes(tmp_path):
    folder = write(tmp_path, {"1": {"prompt_en": "a"}, "2": {"prompt_en": "b"}}, "val")
    area = np.zeros((4, 5), np.uint8)
    area[1, 2] = 1
    write_submission(tmp_path / "s.pkl", {"1": Prediction(0.25, area), "2": Prediction(0.5, 0 * area)})
    first, second = pseudo_labels(tmp_path / "s.pkl", folder)
    assert (first.score, second.score, first.prompt) == (0.25, 0.5, "a")
    assert (first.draw((20, 24)) == 255 * area).all()
    write_submission(tmp_path / "s.pkl", {"1": Prediction(1.25, area)})
    with pytest.raises(UserError, match="predicts nothing for 1 of the 2 pictures"):
        pseudo_labels(tmp_path / "s.pkl", folder)


def test_the_parts_of_a_run(tmp_path):
    folder = write(tmp_path, {"1": entry(), "2": entry(([], [])), "3": entry()})
    parts = open_parts(folder)
    assert [sample.name for sample in parts.train] == ["1.jpg", "2.jpg", "3.jpg"] and parts.val == []
    assert "1 things are unusual, such as: 2.jpg has 2 annotators instead of 3" in parts.notes[0]
    parts = open_parts(folder, held_out=1, seed=4)
    assert len(parts.val) == 1 and len(parts.train) == 2
    write(folder, {"3": {"prompt_en": "a"}}, "val")
    write_submission(tmp_path / "s.pkl", {"3": Prediction(0.25, np.ones((4, 5), np.uint8))})
    (folder / "flickr30k").mkdir()
    Image.new("RGB", (8, 6)).save(folder / "flickr30k/9.jpg")
    (folder / "flickr30k/captions.csv").write_text("image,caption\n9.jpg,b\n")
    parts = open_parts(folder, negative_count=1, labels=tmp_path / "s.pkl")
    assert [sample.name for sample in parts.train] == ["1.jpg", "2.jpg", "3.jpg", "9.jpg"]
    assert [sample.score for sample in parts.val] == [0.25] and "1 predictions" in parts.notes[0]
    with pytest.raises(UserError, match="validate on one of the two"):
        open_parts(folder, held_out=1, labels=tmp_path / "s.pkl")


# ---- the synthetic set --------------------------------------------------------------

@pytest.mark.parametrize("kind", KINDS)
def test_each_distortion_changes_its_place_and_nothing_else(kind):
    image = SyntheticEvalMuse(4, (96, 96), 3).painter.picture(2, 1, (96, 96), Draws(1))
    place = Place.drawn((96, 96), Draws(5), [kind])
    changed, mask = place.plant(image, Draws(6)), place.mask((96, 96))
    assert changed.dtype == np.uint8 and (changed[~mask] == image[~mask]).all()
    assert np.abs(changed[mask].astype(int) - image[mask]).mean() > 1 and 50 < mask.sum() < 96 ** 2 / 4
    assert (place.plant(image, Draws(6)) == changed).all()


def test_kinds_are_chosen_without_moving_their_places():
    every, some = SyntheticEvalMuse(30, (96, 96), 1), SyntheticEvalMuse.for_side(30, 64, 1, CONSPICUOUS)
    assert {place.kind for places in some.places for place in places} == set(CONSPICUOUS) < set(KINDS)
    assert {place.kind for places in every.places for place in places} == set(KINDS)
    assert [[place.outline for place in places] for places in every.places] == [
        [place.outline for place in places] for places in some.places] and some.fractions == every.fractions


def test_the_glaring_kind_is_one_colour_everywhere():
    assert DISTORTIONS == tuple(CHOICES)
    data = SyntheticEvalMuse(12, (96, 96), 1, kinds=tuple(GLARING))
    colours = np.array([data.picture(index)[data.planted(index)].mean(0) for index in range(12) if data.places[index]])
    assert len(colours) > 5 and (np.abs(colours - (0.9 * np.array((235, 20, 175)) + 12)) < 16).all()


def test_votes_fall_with_the_planted_area_and_marks_lie_on_it():
    data = SyntheticEvalMuse(200, (96, 96), 0)
    votes = np.array([data.vote(index) for index in range(200)])
    assert np.corrcoef(votes, data.fractions)[0, 1] < -0.7 and 0.08 < np.mean(np.array(data.fractions) == 0) < 0.25
    assert np.allclose(votes * 3, np.rint(votes * 3)) and votes.min() < 2 and votes.max() == 5
    overlap = []
    for index, sample in enumerate(data.samples):
        planted, marked = data.planted(index), sample.draw((96, 96)) > LEVELS[1]
        if planted.any():
            overlap.append((planted & marked).sum() / (planted | marked).sum())
    assert np.mean(overlap) > 0.6
    assert sum(len(each) for marks in data.marks.values() for each in marks) > 600
    # To mark everything is no way to find them.
    track = StructureTrack((0,))
    for sample in data.samples[:40]:
        track.add(np.full((96, 96), 9, np.uint8), 0.5, sample.draw((96, 96)), sample.score)
    assert track.outcome().measures["f1"] < 0.25


def test_the_mini_set_is_a_data_set_and_never_half_written(tmp_path, capsys):
    photographs = tmp_path / "photographs"
    photographs.mkdir()
    rng = np.random.default_rng(0)
    for number in range(3):
        Image.fromarray(rng.integers(0, 256, (60, 80, 3), np.uint8)).save(photographs / f"{number}.png")
    arguments = ["prepare", "evalmuse", str(tmp_path / "mini"), "--synthetic", "6", "--size", "64x48", "--photographs"]
    assert cli.main([*arguments, str(photographs), "--maps", "native"]) == 0
    assert "6 pictures, all decode" in capsys.readouterr().out
    data, made = EvalMuse(tmp_path / "mini"), SyntheticEvalMuse(6, (48, 64))
    assert not data.problems and not data.geometry()
    stored = read_maps(tmp_path / "mini/train/maps.npz", tmp_path / "mini/train/images")
    for sample, other, drawn in zip(data.samples, made.samples, stored):
        expected = other.draw((48, 64))
        assert (sample.draw((48, 64)) == expected).all() and (drawn.draw((48, 64)) == expected).all()
        assert sample.score == pytest.approx(other.score, abs=1e-6) and sample.read().shape == (48, 64, 3)
    rows = list(csv.DictReader((tmp_path / "mini/planted.csv").open()))
    assert {row["picture"] for row in rows} == set(made.names) and {row["kind"] for row in rows} <= {"", *GLARING}
    assert cli.main([*arguments, str(photographs)]) == 2 and "holds something already" in capsys.readouterr().err
    (photographs / "1.png").write_bytes(b"nothing")
    with pytest.raises(UserError):
        write_mini_evalmuse(tmp_path / "other", 6, 64, 48, 0, [photographs])
    assert not (tmp_path / "other").exists() and not list(tmp_path.glob(".other*"))
