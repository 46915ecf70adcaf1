"""AVA's votes, pictures and splits against the file format, NumPy's own shuffle and what the original wrote."""
import json
import os
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from jittwin import cli
from jittwin.data import ava
from jittwin.data.ava import AvaDataset, AvaIndex, bad_ids, mean_and_deviation, read_scores
from jittwin.data.ava_split import make_split, open_split
from jittwin.data.loader import Loader
from jittwin.data.synthetic.rated import BEST, WORST, Damage, SyntheticAva, draw_votes, write_mini_ava
from jittwin.draws import Draws
from jittwin.errors import UserError
from jittwin.models.siglip import SiglipVisionConfig, preprocess

FIRST_ROW = "1 953619 0 1 5 17 38 36 15 6 5 1 1 22 1396"  # as published
TOWER = SiglipVisionConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
                           patch_size=8, image_size=32)
PREPARE = preprocess(TOWER)


def row(image, votes="1 2 3 4 5 6 7 8 9 10"):
    return f"7 {image} {votes} 0 0 1"


def write_ava(folder, ids, rows=None, suffix=".jpg"):
    """A data folder with a small picture, of its own grey, for each id."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "AVA.txt").write_text("\n".join(rows or map(row, ids)) + "\n")
    for number, image in enumerate(ids):
        Image.fromarray(np.full((6, 8, 3), number, np.uint8)).save(folder / "images" / f"{image}{suffix}")
    return folder


def ids_up_to(count):
    return [str(100 + number) for number in range(count)]


@pytest.fixture
def forty(tmp_path):
    return AvaIndex(write_ava(tmp_path / "ava", ids_up_to(40)))


def write_list(path, ids):
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(f"{image}\n" for image in ids))
    return path


# ---- votes --------------------------------------------------------------------------

def test_the_first_row_as_published(tmp_path):
    (tmp_path / "AVA.txt").write_text(FIRST_ROW + "\n")
    votes = read_scores(tmp_path / "AVA.txt")["953619"]
    assert votes.dtype == np.float32 and votes.sum() == 124
    assert mean_and_deviation(votes) == pytest.approx((5.637097, 1.421804), abs=5e-7)
    shares = ava.rating_fractions(votes)
    assert shares.dtype == np.float32 and (shares == votes / np.float32(124)).all()


def test_rows_that_cannot_be_used_are_counted(tmp_path):
    rows = [FIRST_ROW, "", "  ", "2 11 1 2 3", row(12, "0 0 0 0 0 0 0 0 0 0"), row(13, "1 2 3 4 x 6 7 8 9 10"),
            row(14, "1 2 3 4 -5 6 7 8 9 10"), "9 15 1 0 0 0 0 0 0 0 0 2", row(953619, "3 0 0 0 0 0 0 0 0 1"),
            row(16), row(17), row(18, "9" * 30 + " 0 0 0 0 0 0 0 0 0"), row(19), "  20\t21  1 1 1 1 1 1 1 1 1 1  "]
    (tmp_path / "AVA.txt").write_text("\r\n".join(rows))
    scores = read_scores(tmp_path / "AVA.txt")
    assert list(scores) == ["953619", "15", "16", "17", "19", "21"]  # the file's order
    assert (scores.short, scores.malformed, scores.unrated, scores.repeated) == (1, 3, 1, 1)
    assert scores["953619"].tolist() == [3, 0, 0, 0, 0, 0, 0, 0, 0, 1]  # the last row counts


@pytest.mark.parametrize("content, message", [
    (b"", "not an AVA.txt: 0 of 0 rows"), (b"\xff\xd8\xff\xe0", "is a JPEG picture; give AVA.txt"),
    (b"id,score\n1,2\n3,4\n", "not an AVA.txt: 0 of 3 rows"),
    (b"a b c d e f g h i j k l m n o\n" * 3, "not an AVA.txt: 0 of 3 rows"),
    (row(5).encode() + b"\nsome\nprose\n", "not an AVA.txt: 1 of 3 rows"),
    (b"1 2 0 0 0 0 0 0 0 0 0 0 0 0 0\n", "not an AVA.txt: 0 of 1 rows")])
def test_a_file_that_is_no_list_of_votes(tmp_path, content, message):
    (tmp_path / "AVA.txt").write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_scores(tmp_path / "AVA.txt")


# ---- pictures -----------------------------------------------------------------------

def test_pictures_are_found_by_the_first_suffix_that_exists(tmp_path):
    folder = write_ava(tmp_path, ["1", "2"])
    for name in ("2.png", "3.PNG", "4.gif"):
        (folder / "images" / name).write_bytes(b"")
    (folder / "AVA.txt").write_text("\n".join(map(row, "54321")))
    index = AvaIndex(folder)
    assert [index.path(image).name for image in index.ids] == ["4.gif", "3.PNG", "2.jpg", "1.jpg"]
    assert index.missing == ["5"]


@pytest.mark.parametrize("votes_at, images_at", [("", ""), ("AVA_Files", "images"), ("AVA_dataset", "images")])
def test_layouts(tmp_path, votes_at, images_at):
    for part in (votes_at, images_at):
        (tmp_path / part).mkdir(exist_ok=True)
    (tmp_path / votes_at / "AVA.txt").write_text(FIRST_ROW)
    Image.new("RGB", (4, 4)).save(tmp_path / images_at / "953619.jpg")
    assert AvaIndex(tmp_path).ids == ["953619"]
    elsewhere = AvaIndex(tmp_path, tmp_path / images_at, tmp_path / votes_at / "AVA.txt")
    assert elsewhere.path("953619") == tmp_path / images_at / "953619.jpg"


def test_the_folder_is_listed_once_and_no_id_is_asked_for(tmp_path, monkeypatch):
    folder, asked, stat, scandir = write_ava(tmp_path, ids_up_to(200)), [], os.stat, os.scandir
    monkeypatch.setattr(os, "stat", lambda *a, **k: asked.append("stat") or stat(*a, **k))
    monkeypatch.setattr(os, "scandir", lambda *a: asked.append("list") or scandir(*a))
    assert len(AvaIndex(folder).ids) == 200
    counted = Counter(asked)
    assert counted["list"] == 1 and counted["stat"] < 10


def test_folders_that_are_no_data_set(tmp_path):
    with pytest.raises(UserError, match="no AVA data set; it needs AVA.txt"):
        AvaIndex(tmp_path)
    (tmp_path / "AVA.txt").write_text(FIRST_ROW)
    with pytest.raises(UserError, match="holds none of the 1 pictures .* expected as 953619.jpg"):
        AvaIndex(tmp_path)
    with pytest.raises(UserError, match="nowhere: cannot be listed"):
        AvaIndex(tmp_path, images=tmp_path / "nowhere")


def test_samples(forty, tmp_path):
    data = AvaDataset(forty.ids[5:8], forty.scores, forty, PREPARE)
    sample = data.get(1, Draws(0))
    assert len(data) == 3 and sample["name"] == "106"
    assert sample["pixels"].shape == (3, 32, 32) and sample["pixels"].dtype == np.float32
    assert sample["pixels"] == pytest.approx(6 / 127.5 - 1, abs=0.02)  # its grey is 6, and it went through JPEG
    assert sample["target"] == pytest.approx(np.arange(1, 11) / 55)
    batch, = Loader(data, 3, shuffle=None).epoch(1)
    assert batch["pixels"].shape == (3, 3, 32, 32) and batch["target"].shape == (3, 10)
    with pytest.raises(UserError, match="no picture is left"):
        AvaDataset([], forty.scores, forty, PREPARE)


def damage_file(index, image):
    """Cut a picture off in the middle."""
    content = index.path(image).read_bytes()
    index.path(image).write_bytes(content[:len(content) // 2])


def test_undecodable_pictures_are_reported_and_never_become_grey(forty, tmp_path):
    damage_file(forty, "103")
    forty.path("117").write_text("<html>404</html>")
    with pytest.raises(UserError, match=r"images/103.jpg: cannot be decoded, like 2 of 40 pictures \(5.00%, at most "):
        bad_ids(forty, tmp_path)
    report = (tmp_path / "bad_ids.txt").read_text().splitlines()
    assert report[0].startswith("# 2 of 40") and [line.split()[0] for line in report[1:]] == ["103", "117"]
    assert list(bad_ids(forty, tmp_path, max_bad=0.05)) == ["103", "117"]
    split = make_split(forty).without(bad_ids(forty, tmp_path, max_bad=0.05))
    assert not {"103", "117"} & {*split.train_ids, *split.test_ids}
    with pytest.raises(UserError, match="103.jpg: cannot be read"):
        AvaDataset(["103"], forty.scores, forty, PREPARE).get(0)


def test_the_report_is_used_for_the_files_it_is_about(forty, tmp_path, monkeypatch):
    decoded = []
    monkeypatch.setattr(ava.imaging, "decode_image", lambda path: decoded.append(path))
    assert bad_ids(forty, tmp_path) == {} and sorted(decoded) == sorted(map(forty.path, forty.ids))
    assert bad_ids(forty, tmp_path) == {} and len(decoded) == 40
    (tmp_path / "bad_ids.txt").rename(forty.folder / "bad_ids.txt")  # where `jittwin prepare` leaves it
    assert bad_ids(forty, tmp_path) == {} and len(decoded) == 40
    forty.path("100").unlink()
    fewer = AvaIndex(forty.folder)
    assert bad_ids(fewer, tmp_path) == {} and len(decoded) == 79


# ---- splits -------------------------------------------------------------------------

def test_the_random_split_is_numpys_global_shuffle(forty):
    np.random.seed(0)
    state = np.random.get_state()
    split = make_split(forty, seed=42)
    assert all(np.array_equal(a, b) for a, b in zip(state, np.random.get_state()))  # which is left alone
    try:
        np.random.seed(42)
        expected = ids_up_to(40)
        np.random.shuffle(expected)
    finally:
        np.random.set_state(state)
    assert split.train_ids == expected[:36] and split.test_ids == expected[36:] and split.val_ids is split.test_ids


def test_a_known_list_gives_a_known_split(tmp_path):
    split = make_split(AvaIndex(write_ava(tmp_path, list("abcdefghij"))), train_split=0.75)
    assert ("".join(split.train_ids), "".join(split.test_ids)) == ("ibfahcj", "edg")
    # np.random.seed(42); np.random.shuffle(np.arange(10)) is well known to give 8 1 5 0 7 2 9 4 3 6


def test_three_way_keeps_the_training_ids_and_halves_the_rest(forty):
    random, three = make_split(forty, train_split=0.8), make_split(forty, "three-way", train_split=0.8)
    assert three.train_ids == random.train_ids and three.val_ids + three.test_ids == random.test_ids
    assert (len(three.val_ids), len(three.test_ids)) == (4, 4)


def test_lists_and_official(forty, tmp_path):
    test = write_list(tmp_path / "test.jpgl", ["104", "101", "139"])
    train = write_list(tmp_path / "train.jpgl", ["images/110.jpg", "120.JPG"])
    split = make_split(forty, "lists", train_list=train, test_list=test)
    assert split.train_ids == ["110", "120"] and split.test_ids == ["104", "101", "139"] == split.val_ids
    official = make_split(forty, "official", test_list=test)
    assert official.test_ids == split.test_ids and len(official.val_ids) == 1 and len(official.train_ids) == 36
    assert sorted(official.train_ids + official.val_ids + official.test_ids) == forty.ids
    other = make_split(forty, "official", test_list=test, seed=1)
    assert other.val_ids != official.val_ids or other.train_ids != official.train_ids


def test_avas_own_lists_are_found_beside_the_votes(forty):
    with pytest.raises(UserError, match="aesthetics_image_lists/generic_test.jpgl: no such file; set test_list"):
        make_split(forty, "official")
    write_list(forty.folder / "aesthetics_image_lists" / "generic_test.jpgl", ["100", "101"])
    assert make_split(forty, "official").test_ids == ["100", "101"]


def test_max_samples(forty, tmp_path):
    random = make_split(forty, max_samples=10)
    assert sorted(random.train_ids + random.test_ids) == forty.ids[:10] and len(random.test_ids) == 1
    test, train = (write_list(tmp_path / name, ids) for name, ids in
                   (("test", forty.ids[:10]), ("train", forty.ids[10:])))
    lists = make_split(forty, "lists", max_samples=10, train_list=train, test_list=test)
    assert (lists.train_ids, lists.test_ids) == (forty.ids[10:20], forty.ids[:2])
    official = make_split(forty, "official", max_samples=25, test_list=test)
    assert official.test_ids == forty.ids[:5]  # and the other listed ids train no more than these
    assert sorted(official.train_ids + official.val_ids) == forty.ids[10:35]


@pytest.mark.parametrize("options, message", [
    ({"mode": "offical"}, "split=offical .did you mean 'official'"), ({"train_split": 1.0}, "train_split=1.0: must be"),
    ({"max_samples": 0}, "max_samples=0: must be at least 1"), ({"max_samples": 1}, "train_ids is empty"),
    ({"mode": "official", "test_list": "nowhere"}, "nowhere: cannot be read .No such file or directory.; give a text file with one id")])
def test_splits_that_cannot_be(forty, options, message):
    with pytest.raises(UserError, match=message):
        make_split(forty, **options)


def test_lists_that_cannot_be(forty, tmp_path):
    def lists(train, test):
        return make_split(forty, "lists", train_list=write_list(tmp_path / "train", train),
                          test_list=write_list(tmp_path / "test", test))
    with pytest.raises(UserError, match="train: holds no ids"):
        lists([], ["100"])
    with pytest.raises(UserError, match="train and .*test: 2 ids are in both, such as 101; remove them"):
        lists(["100", "101", "102"], ["102", "101"])
    with pytest.raises(UserError, match="test: 2 of its 3 ids are not rated in .*AVA.txt: '10l' .did you mean '1"):
        lists(["100"], ["10l", "101", "8"])
    for image in ("102", "103"):
        (forty.images / forty.files.pop(image)).unlink()
    with pytest.raises(UserError, match="test: none of its 2 ids, such as 102, has votes and a picture"):
        lists(["100"], ["102", "103"])


def test_the_kept_split_is_read_again(forty, tmp_path):
    path = tmp_path / "dataset_split.json"
    made = open_split(path, forty, mode="three-way")
    before = path.read_bytes()
    assert open_split(path, forty, mode="three-way") == made and path.read_bytes() == before
    content = json.loads(before)
    assert [*content][:4] == ["train_ids", "test_ids", "train_split", "seed"]  # the original's keys
    assert content["schema_version"] == 1 and content["votes_sha256"] == forty.scores.sha256


def original_file(path, index, **changes):
    """What the original program writes."""
    split = make_split(index)
    content = {"train_ids": split.train_ids, "test_ids": split.test_ids, "train_split": 0.9, "seed": 42} | changes
    path.write_text(json.dumps(content))
    return path


def test_the_original_programs_file_is_taken_when_its_ids_are_these(forty, tmp_path):
    ids = forty.ids  # another shuffle of the same ids, as other software may have given
    path = original_file(tmp_path / "split.json", forty, train_ids=ids[4:], test_ids=ids[:4])
    split = open_split(path, forty)
    assert split.train_ids == ids[4:] and split.test_ids == ids[:4] and split.val_ids is split.test_ids
    original_file(path, forty, train_ids=ids[4:-1] + ["999"], test_ids=ids[:4])  # as many, but others
    with pytest.raises(UserError, match="its 40 ids are not the 40 of this data"):
        open_split(path, forty)
    original_file(path, forty, seed=7)
    with pytest.raises(UserError, match="seed was 7, is 42"):
        open_split(path, forty)


def test_a_split_of_other_data_is_refused_and_kept(forty, tmp_path):
    path = tmp_path / "dataset_split.json"
    open_split(path, forty)
    before = path.read_text()

    def refused(message, index=forty, **options):
        with pytest.raises(UserError, match=message):
            open_split(path, index, **options)
        assert path.read_text() == written

    written = before
    refused("mode was random, is three-way.; restore them, or start a new run", mode="three-way")
    refused("max_samples was None, is 20; its 40 ids are not the 20", max_samples=20)
    votes = forty.folder / "AVA.txt"
    votes.write_text(votes.read_text() + row(999) + "\n")
    refused("AVA.txt had other content", AvaIndex(forty.folder))
    content = json.loads(before)
    content["train_ids"][0], content["test_ids"][0] = content["test_ids"][0], content["train_ids"][0]
    path.write_text(written := json.dumps(content))
    refused("its ids are not those it was written with")


@pytest.mark.parametrize("content, message", [
    ("{", "not a split of a data set"), ("[]", "not a split of a data set"), ("{}", "no 'train_ids'"),
    ('{"train_ids": [1], "test_ids": [2], "train_split": 0.9, "seed": 42}', "not lists of strings"),
    ('{"train_ids": ["1"], "test_ids": ["1"], "train_split": 0.9, "seed": 42}', "an id is in it twice"),
    ('{"train_ids": ["1"], "test_ids": ["2"], "schema_version": 9}', "schema_version 9, this program knows 1"),
    ('{"train_ids": ["1"], "test_ids": ["2"], "schema_version": 1, "settings": 3}', "not a split of a data set")])
def test_a_file_that_is_no_split(forty, tmp_path, content, message):
    path = tmp_path / "dataset_split.json"
    path.write_text(content)
    with pytest.raises(UserError, match=f"dataset_split.json: .*{message}"):
        open_split(path, forty)
    assert path.read_text() == content


# ---- data made here -----------------------------------------------------------------

def test_synthetic_samples_are_fixed_by_seed_and_number():
    data = SyntheticAva(3, PREPARE, 32, seed=5)
    sample = data.get(1, Draws(0))
    assert sample["pixels"].shape == (3, 32, 32) and sample["target"].sum() == pytest.approx(1)
    again, shifted = SyntheticAva(9, PREPARE, 32, seed=5).get(1, Draws(8)), SyntheticAva(2, PREPARE, 32, seed=5, start=1).get(0)
    for other in (again, shifted):
        assert other["name"] == sample["name"]
        assert all((other[key] == sample[key]).all() for key in ("pixels", "target"))
    assert (SyntheticAva(3, PREPARE, 32, seed=6).get(1)["pixels"] != sample["pixels"]).any()
    with pytest.raises(UserError, match="count=0"):
        SyntheticAva(0, PREPARE, 32)


def test_votes_fall_with_the_damage():
    severities = [Damage.drawn(Draws(0, 0, number)).severity for number in range(300)]
    means = [mean_and_deviation(draw_votes(severity, Draws(1, 0, number)))[0]
             for number, severity in enumerate(severities)]
    assert min(severities) < 0.05 and max(severities) > 0.9
    assert stats.spearmanr(severities, means).statistic < -0.99
    assert mean_and_deviation(draw_votes(0.5, Draws(2)))[0] == pytest.approx((BEST + WORST) / 2, abs=0.4)
    assert 78 <= draw_votes(0.5, Draws(3)).sum() <= 549


@pytest.mark.parametrize("kind", ["exposure", "blur", "noise", "jpeg"])
def test_more_damage_changes_the_picture_more(kind):
    picture = SyntheticAva(1, PREPARE, 32).picture(0)
    errors = [np.abs(Damage(**{kind: amount}).apply(picture, Draws(0)).astype(int) - picture).mean()
              for amount in (0, 0.2, 0.5, 1)]
    assert errors[0] == 0 and all(less + 1 < more for less, more in zip(errors, errors[1:]))


def photograph(path, colour):
    Image.fromarray(np.full((60, 90, 3), colour, np.uint8)).save(path)
    return path


def test_a_mini_ava_is_read_like_the_real_one(tmp_path, capsys):
    photographs = [photograph(tmp_path / f"{number}.png", 20 * number + 60) for number in range(7)]
    arguments = ["prepare", "ava", str(tmp_path / "mini"), "--synthetic", "50", "--size", "48x32", "--photographs"]
    assert cli.main([*arguments, *map(str, photographs)]) == 0
    printed = capsys.readouterr().out
    votes = np.array(list(read_scores(tmp_path / "mini" / "AVA.txt").values()))
    mean = np.mean([mean_and_deviation(row)[0] for row in votes])
    assert f"50 rated pictures, {votes.sum(1).min():.0f} to" in printed and f"mean rating {mean:.3f}" in printed
    assert "50 pictures can be decoded, 0 cannot" in printed
    assert "split lists: 35 to train, 15 to test" in printed  # photographs 0 and 5 of 7 are tested on
    assert "split official: 34 to train, 1 to choose, 15 to test" in printed
    rows = [line.split() for line in (tmp_path / "mini" / "AVA.txt").read_text().splitlines()]
    assert {len(fields) for fields in rows} == {15} and len({fields[1] for fields in rows}) == 50
    index = AvaIndex(tmp_path / "mini")
    assert {Image.open(index.path(image)).size for image in index.ids} == {(48, 32), (32, 48)}
    split = make_split(index, "lists")
    table = (line.split(",") for line in (tmp_path / "mini" / "damage.csv").read_text().splitlines()[1:])
    source = {fields[0]: fields[1] for fields in table}
    assert not {source[image] for image in split.train_ids} & {source[image] for image in split.test_ids}
    assert len(split.train_ids) + len(split.test_ids) == 50
    assert cli.main([*arguments[:-1]]) == 2
    assert "mini: holds something already; name a new folder" in capsys.readouterr().err


def test_a_mini_ava_depends_on_its_seed_alone(tmp_path):
    contents = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_mini_ava(tmp_path / name, 3, 40, 30, seed)
        contents.append({path.relative_to(tmp_path / name): path.read_bytes()
                         for path in (tmp_path / name).rglob("*") if path.is_file()})
    assert contents[0] == contents[1] and contents[0].keys() != contents[2].keys()


def test_a_mini_ava_that_fails_leaves_nothing(tmp_path):
    photograph(tmp_path / "good.png", 90)
    (tmp_path / "broken.png").write_text("no picture")
    with pytest.raises(UserError, match="broken.png: cannot be read"):
        write_mini_ava(tmp_path / "mini", 4, 40, 30, photographs=[tmp_path / "good.png", tmp_path / "broken.png"])
    assert sorted(os.listdir(tmp_path)) == ["broken.png", "good.png"]


def test_preparing_tells_what_is_wrong(tmp_path, capsys):
    ids = ids_up_to(30)
    folder = write_ava(tmp_path / "ava", ids, [*map(row, ids), row("999"), "5 6", row("7", "0 0 0 0 0 0 0 0 0 0")])
    assert cli.main(["prepare", "ava", str(folder)]) == 0
    printed = capsys.readouterr().out
    assert "rows not used: 1 too short, 1 no votes" in printed and "1 rated pictures have no file, such as 999" in printed
    assert "split random: 27 to train, 3 to test" in printed and "split official" in printed
    damage_file(AvaIndex(folder), "104")
    assert cli.main(["prepare", "ava", str(folder)]) == 2
    captured = capsys.readouterr()
    assert "29 pictures can be decoded, 1 cannot" in captured.out and "104.jpg: cannot be decoded" in captured.err
    assert captured.err.count("\n") == 1 and "104  #" in (folder / "bad_ids.txt").read_text()
