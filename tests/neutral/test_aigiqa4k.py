"""PKU-AIGIQA-4K's table, split and samples against the published rules, Pillow's own steps and closed forms."""
import csv

import numpy as np
import openpyxl
import pytest
from PIL import Image
from scipy import stats

from jittwin import cli, imaging
from jittwin.data.aigiqa4k import COLUMNS, VOTES, Aigiqa4k, Row, make_split, of_subset, prompt_groups
from jittwin.data.loader import Loader
from jittwin.data.prompted import PromptedDataset, augmented
from jittwin.data.synthetic.prompted import WEIGHTS, SyntheticAigiqa4k, main_colour, write_mini_aigiqa4k
from jittwin.draws import Draws
from jittwin.errors import UserError
from jittwin.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocess

WAY = Preprocess(256, "bilinear", IMAGENET_MEAN, IMAGENET_STD, crop=(224, 224))
SMALL = Preprocess(36, "bilinear", IMAGENET_MEAN, IMAGENET_STD, crop=(32, 32))


def cells(count=8, with_image=4):
    """Rows of a small table: pairs of a number and the name of a picture follow from the row's number."""
    return [[f"{number}.png", f"p{number // 4}.png" if number < with_image else None, f"text {number // 4}",
             1 + number / 10, 2, 3] for number in range(count)]


def write(folder, rows=None, columns=COLUMNS, edit=None):
    """The data set of `rows`; each picture has a grey of its own."""
    rows = cells() if rows is None else rows
    (folder / "All").mkdir(parents=True, exist_ok=True)
    (folder / "I2I/Image_prompt").mkdir(parents=True, exist_ok=True)
    book = openpyxl.Workbook()
    for row in [columns, *rows]:
        book.active.append(row)
    if edit:
        edit(book.active)
    book.save(folder / "annotation.xlsx")
    for number, row in enumerate(rows):
        Image.new("RGB", (50, 40), (number, 0, 0)).save(folder / "All" / f"{number}.png")
        Image.new("RGB", (40, 50), (0, number // 4, 0)).save(folder / f"I2I/Image_prompt/p{number // 4}.png")
    return folder


def published_rows():
    return [Row(number, f"{number}.jpg", f"text {number // 8}", f"{number // 8}.jpg" if number < 1600 else None,
                dict.fromkeys(VOTES, 1.0)) for number in range(4000)]


# ---- rows and splits ----------------------------------------------------------------

def test_the_published_counts_and_split():
    rows = published_rows()
    for subset, counts in (("I2I", (1200, 400)), ("T2I", (1800, 600)), ("AIGIQA4K", (3000, 1000))):
        train, test = make_split(of_subset(rows, subset))
        assert (len(train), len(test)) == counts
        assert [row.number for row in test] == [row.number for row in of_subset(rows, subset) if row.number % 4 == 3]
        assert {row.part for row in test} == {"test"} and {row.part for row in train} == {"train"}
    assert [row.number for row in of_subset(rows, "T2I")] == list(range(1600, 4000))


def test_split_by_prompts_shares_none():
    rows = published_rows()
    train, test = make_split(rows, "prompts")
    assert not {row.prompt for row in train} & {row.prompt for row in test} and len(test) == 1000
    assert [row.number for row in test[:9]] == [*range(24, 32), 56]


def test_rows_with_a_text_or_an_image_in_common_go_together():
    rows = [Row(number, str(number), text, image, {}) for number, (text, image) in enumerate(
        [("a", "1"), ("b", "2"), ("c", "2"), ("c", None), ("d", "3"), ("b", "3"), ("e", None)])]
    assert prompt_groups(rows) == [0, 1, 1, 1, 1, 1, 2]
    with pytest.raises(UserError, match="split=prompts: 7 rows with 3 prompts leave nothing to test on"):
        make_split(rows, "prompts")


@pytest.mark.parametrize("call, words", [
    (lambda: of_subset(published_rows(), "i2i"), "subset=i2i: choose from AIGIQA4K, I2I, T2I"),
    (lambda: of_subset(published_rows()[:8], "T2I"), "subset=T2I: none of the 8 rows"),
    (lambda: make_split(published_rows(), "prompt"), "split=prompt .did you mean 'prompts'")])
def test_choices_that_cannot_be(call, words):
    with pytest.raises(UserError, match=words):
        call()


def test_a_folder_is_read(tmp_path):
    data = Aigiqa4k(write(tmp_path))
    row = data.rows[3]
    assert (row.number, row.name, row.prompt, row.image_prompt, row.subset) == (3, "3.png", "text 0", "p0.png", "I2I")
    assert row.votes == {"MOS_q": pytest.approx(1.3), "MOS_a": 2, "MOS_c": 3} and data.rows[4].subset == "T2I"
    assert data.image_prompts == ["p0.png"] and "4 I2I and 4 T2I rows" in data.notes[0]
    assert (data.picture("3.png") == [3, 0, 0]).all() and data.prompt_picture("p0.png").shape == (50, 40, 3)
    assert len(data.readers()) == 9


def changed(at, value):
    """The rows with one cell replaced."""
    rows = cells()
    rows[at[0]][at[1]] = value
    return rows


@pytest.mark.parametrize("rows, columns, words", [
    (None, [*COLUMNS[:4], "MOS_b", COLUMNS[5]], "no column 'MOS_a' (did you mean 'MOS_q'?): choose from Gen"),
    (None, [*COLUMNS[:5], "mos_c"], "no column 'MOS_c'"),
    ([], COLUMNS, "has a header and no rows"),
    (changed((2, 4), "good"), COLUMNS, "row 4: its MOS_a is 'good'; write a number"),
    (changed((2, 3), "=A1"), COLUMNS, "row 4: its MOS_q is the formula =A1"),
    (changed((2, 2), None), COLUMNS, "row 4: its Text_prompt is empty"),
    (changed((2, 2), 7), COLUMNS, "row 4: its Text_prompt is 7, not text"),
    (changed((2, 0), "1.png"), COLUMNS, "row 4 names 1.png as row 3 does; remove one"),
    (changed((2, 0), "../1.png"), COLUMNS, "row 4: its Generated_image is '../1.png'; write a file name"),
    (changed((2, 1), None), COLUMNS, "row 4 has no Image_prompt, but 3 of 8 rows have one and must come first"),
    (changed((6, 1), "p1.png"), COLUMNS, "row 6 has no Image_prompt"),
    (cells(7), COLUMNS, "3 rows without Image_prompt; a multiple of 4 is needed"),
    (cells(8, 5), COLUMNS, "5 rows with Image_prompt; a multiple of 4 is needed"),
    (changed((2, 0), "absent.png"), COLUMNS, "All: 1 of 8 pictures that"),
    (changed((2, 1), "absent.png"), COLUMNS, "Image_prompt: 1 of 2 pictures that")])
def test_mistakes_are_one_line_and_status_2(tmp_path, capsys, rows, columns, words):
    folder = write(tmp_path, rows, columns)
    assert cli.main(["prepare", "aigiqa4k", str(folder)]) == 2
    captured = capsys.readouterr()
    assert words in captured.err and captured.err.count("\n") == 1 and "ready" not in captured.out


@pytest.mark.parametrize("remove, words", [
    ("annotation.xlsx", "annotation.xlsx: cannot be read"), ("All", "All: cannot be listed"),
    ("I2I", "Image_prompt: cannot be listed"), ("", "no such folder; give the folder with annotation.xlsx, All/")])
def test_folders_that_are_no_data_set(tmp_path, remove, words):
    folder = write(tmp_path / "data")
    (folder / remove).rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=words):
        Aigiqa4k(folder)


def test_pictures_of_every_kind_decode_and_a_damaged_one_is_told(tmp_path, capsys):
    folder = write(tmp_path)
    noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    image = Image.fromarray(noise)
    image.quantize(64).save(folder / "All/0.png")
    image.convert("RGBA").save(folder / "All/1.png")
    image.convert("CMYK").save(folder / "All/2.png", "JPEG")
    Image.fromarray((noise[..., 0].astype(np.uint16) << 8) + 5).save(folder / "All/3.png")
    data = Aigiqa4k(folder)
    dataset = PromptedDataset(data, data.rows, SMALL)
    assert [dataset.get(index)["pixels"].shape for index in range(4)] == [(3, 32, 32)] * 4
    assert (data.picture("1.png") == noise).all() and (data.picture("3.png") == noise[..., :1]).all()
    assert cli.main(["prepare", "aigiqa4k", str(folder)]) == 0
    (folder / "All/5.png").write_bytes(b"\x89PNG nothing")
    capsys.readouterr()
    assert cli.main(["prepare", "aigiqa4k", str(folder)]) == 2
    assert "5.png: cannot be read" in (error := capsys.readouterr().err) and "1 of 9 pictures cannot" in error


# ---- samples ------------------------------------------------------------------------

def by_hand(image, side, crop, corner=None, mirrored=False):
    """The published transform, in the words of torchvision's documentation, on a Pillow picture."""
    width, height = image.size
    size = (side, int(side * height / width)) if width <= height else (int(side * width / height), side)
    image = image.resize(size, Image.Resampling.BILINEAR)
    top, left = corner or (int(round((size[1] - crop) / 2)), int(round((size[0] - crop) / 2)))
    image = image.crop((left, top, left + crop, top + crop))
    image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else image
    values = np.asarray(image).astype(np.float32).transpose(2, 0, 1) / np.float32(255)
    mean, std = (np.array(each, np.float32)[:, None, None] for each in ([.485, .456, .406], [.229, .224, .225]))
    return (values - mean) / std


def noise_picture(height, width):
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("shape", [(300, 311), (341, 256), (256, 256), (512, 1000), (97, 60)])
@pytest.mark.parametrize("side, crop", [(256, 224), (320, 299)])
def test_the_transforms_of_testing_and_of_training(shape, side, crop):
    image = noise_picture(*shape)
    way = Preprocess(side, "bilinear", IMAGENET_MEAN, IMAGENET_STD, crop=(crop, crop))
    assert (way(image) == by_hand(Image.fromarray(image), side, crop)).all()
    draws, resized = Draws(1, 2, 3), way.resize(image)
    corner = [int(draws.integers(site, 0, length - crop, ()))
              for site, length in zip(("crop.top", "crop.left"), resized.shape)]
    mirrored = bool(draws.uniform("flip", ()) < 0.5)
    assert (augmented(way, resized, draws) == by_hand(Image.fromarray(image), side, crop, corner, mirrored)).all()


def test_every_place_and_both_directions_are_drawn():
    way = Preprocess(8, "bilinear", (0, 0, 0), (1, 1, 1), crop=(6, 6))
    resized = np.arange(8 * 9, dtype=np.uint8).reshape(8, 9, 1).repeat(3, 2)
    found = [(augmented(way, resized, Draws(0, 0, step)) * 255).round().astype(int)[0] for step in range(400)]
    corners = {(each.min(), each[0, 0] < each[0, 1]) for each in found}
    assert corners == {(top * 9 + left, way) for top in range(3) for left in range(4) for way in (True, False)}
    assert 0.4 < np.mean([each[0, 0] > each[0, 1] for each in found]) < 0.6


def test_samples(tmp_path):
    data = Aigiqa4k(write(tmp_path))
    plain = PromptedDataset(data, data.rows, SMALL, "MOS_q")
    sample = plain.get(5)
    assert set(sample) == {"pixels", "text", "target", "name"} and sample["pixels"].dtype == np.float32
    assert sample["target"] == 1.5 and sample["target"].dtype == np.float64
    assert plain.texts == ["text 0", "text 1"] and sample["text"] == 1
    both = PromptedDataset(data, data.rows, SMALL, "MOS_c", image_prompts=True, augment=True)
    with_image, without = both.get(1, Draws(0)), both.get(5, Draws(0))
    assert with_image["mask"].tolist() == [1, 1] and without["mask"].tolist() == [1, 0]
    assert without["prompt_pixels"].shape == (3, 32, 32) and not without["prompt_pixels"].any()
    assert with_image["prompt_pixels"][0] == pytest.approx(-IMAGENET_MEAN[0] / IMAGENET_STD[0], abs=1e-6)
    batch = next(Loader(both, 4, shuffle=None).epoch(1))
    assert batch["prompt_pixels"].shape == (4, 3, 32, 32) and batch["mask"].shape == (4, 2)
    assert batch["text"].tolist() == [0] * 4 and batch["target"].dtype == np.float64
    with pytest.raises(UserError, match="votes MOS_x .did you mean 'MOS_q'"):
        PromptedDataset(data, data.rows, SMALL, "MOS_x")
    with pytest.raises(UserError, match="no pictures are left"):
        PromptedDataset(data, [], SMALL)


def test_picture_and_image_prompt_are_cut_apart(tmp_path):
    data = Aigiqa4k(write(tmp_path))
    for path in (data.path("0.png"), data.prompt_path("p0.png")):
        Image.fromarray(noise_picture(80, 90)).save(path)
    dataset = PromptedDataset(data, data.rows, SMALL, image_prompts=True, augment=True)
    samples = [dataset.get(0, Draws(0, 0, step)) for step in range(8)]
    assert any((sample["pixels"] != sample["prompt_pixels"]).any() for sample in samples)
    again = dataset.get(0, Draws(0, 0, 3))
    assert all((again[key] == samples[3][key]).all() for key in ("pixels", "prompt_pixels"))


def test_pictures_are_decoded_when_asked_for_and_kept_within_a_bound(tmp_path, monkeypatch):
    data, decoded, decode = Aigiqa4k(write(tmp_path)), [], imaging.decode_image
    monkeypatch.setattr(imaging, "decode_image", lambda path: decoded.append(path.name) or decode(path))
    dataset = PromptedDataset(data, data.rows, SMALL, image_prompts=True, cached=3)
    assert not decoded
    for index in (0, 1, 0, 1):
        dataset.get(index)
    assert decoded == ["0.png", "p0.png", "1.png"]      # rows share their image prompt
    dataset.get(4), dataset.get(0)
    assert decoded[3:] == ["4.png", "0.png"]


# ---- data made here -----------------------------------------------------------------

@pytest.fixture(scope="module")
def synthetic():
    return SyntheticAigiqa4k.for_side(400, 32)


def test_synthetic_rows_are_like_the_published(synthetic):
    assert [row.number for row in synthetic.rows] == list(range(400))
    assert len(of_subset(synthetic.rows, "I2I")) == 160 and synthetic.rows[159].subset == "I2I"
    assert len(synthetic.image_prompts) == 20 and len({row.name for row in synthetic.rows}) == 400
    names = [row.name for row in synthetic.rows]
    assert names[0] == "MJ_0000_00.jpg" and names[160] == "DALLE_1000_00.jpg" and names[-1] == "SD_1019_11.jpg"
    for start in range(0, 400, 4):      # four of one prompt and model follow each other
        four = synthetic.rows[start:start + 4]
        assert len({(row.prompt, row.image_prompt, row.name.split("_")[0]) for row in four}) == 1
    train, test = make_split(synthetic.rows)
    assert (len(train), len(test)) == (300, 100)
    with pytest.raises(UserError, match="30 pictures: must be a multiple of 20"):
        SyntheticAigiqa4k(30, (96, 128))


def test_votes_depend_on_the_picture_and_on_the_prompt(synthetic):
    parts = np.array([(each.quality, each.match, each.naturalness) for each in synthetic.causes])
    for name in VOTES:
        votes = np.array([row.votes[name] for row in synthetic.rows])
        weights = np.linalg.lstsq(np.c_[parts, np.ones(400)], votes, rcond=None)[0][:3] / 5
        assert weights == pytest.approx(WEIGHTS[name], abs=0.05) and 0 <= votes.min() and votes.max() <= 5
    # What a text adds cannot be seen in the picture: the same light is right for one text and wrong for another.
    shown = np.array([each.shown_light for each in synthetic.causes])
    assert abs(stats.spearmanr(shown, parts[:, 1]).statistic) < 0.2


def test_synthetic_samples_follow_from_seed_and_number(synthetic):
    again, other = SyntheticAigiqa4k.for_side(400, 32), SyntheticAigiqa4k.for_side(400, 32, seed=1)
    assert again.rows == synthetic.rows and other.rows != synthetic.rows
    first = PromptedDataset(synthetic, synthetic.rows, SMALL, image_prompts=True)
    second = PromptedDataset(again, again.rows, SMALL, image_prompts=True)
    for index in (0, 200):
        one, two = first.get(index), second.get(index)
        assert all((one[key] == two[key]).all() for key in ("pixels", "prompt_pixels", "target", "text", "mask"))
    assert (other.picture(other.rows[0].name) != synthetic.picture(synthetic.rows[0].name)).any()


def test_light_and_damage_can_be_seen(synthetic):
    """A picture's brightness tells its light, so a network can learn what a text's words ask for."""
    rows = synthetic.rows[:48]
    brightness = [synthetic.picture(row.name).mean() for row in rows]
    light = [synthetic.causes[row.number].shown_light for row in rows]
    assert stats.spearmanr(brightness, light).statistic > 0.6


@pytest.mark.parametrize("colour, word", [
    ((90, 100, 95), "grey"), ((60, 90, 160), "blue"), ((60, 120, 60), "green"), ((160, 130, 40), "yellow"),
    ((150, 60, 50), "red")])
def test_main_colours(colour, word):
    assert main_colour(np.full((4, 4, 3), colour, np.uint8)) == word


def test_a_mini_set_is_read_like_the_real_one(tmp_path, capsys):
    for number, colour in enumerate([(60, 90, 160), (60, 120, 60), (70, 130, 60)]):
        Image.new("RGB", (90, 60), colour).save(tmp_path / f"{number}.png")
    arguments = ["prepare", "aigiqa4k", str(tmp_path / "mini"), "--synthetic", "80", "--size", "48x32", "--photographs"]
    assert cli.main([*arguments, *(str(tmp_path / f"{number}.png") for number in range(3))]) == 0
    printed = capsys.readouterr().out
    assert "32 I2I and 48 T2I rows; PKU-AIGIQA-4K as published has 1600 and 2400" in printed
    assert "80 pictures and 4 image prompts decode" in printed
    assert "split rows: 60 to train, 20 to test, 20 of them with a text that is trained on" in printed
    data = Aigiqa4k(tmp_path / "mini")
    assert data.picture(data.rows[0].name).shape == (32, 48, 3)
    assert [cell.value for cell in openpyxl.load_workbook(tmp_path / "mini/annotation.xlsx").active[1]] == list(COLUMNS)
    with open(tmp_path / "mini/causes.csv") as stream:
        causes = list(csv.DictReader(stream))
    for row, cause in zip(data.rows, causes):
        assert cause["asked"] in row.prompt and 0 <= row.votes["MOS_q"] <= 5
    assert {cause["asked"] for cause in causes} <= {"a place in blue", "a place in green"}
    assert cli.main(arguments[:-1]) == 2
    assert "mini: holds something already; name a new folder" in capsys.readouterr().err


def test_a_mini_set_depends_on_its_seed_alone_and_a_failure_leaves_nothing(tmp_path):
    contents = []
    for name in ("a", "b"):
        write_mini_aigiqa4k(tmp_path / name, 20, 40, 30, seed=1)
        contents.append({path.relative_to(tmp_path / name): path.read_bytes() for path in (tmp_path / name).rglob("*")
                         if path.is_file() and path.suffix != ".xlsx"})
    assert contents[0] == contents[1] and len(contents[0]) == 23
    assert Aigiqa4k(tmp_path / "a").rows == Aigiqa4k(tmp_path / "b").rows
    (tmp_path / "bad.png").write_text("no picture")
    with pytest.raises(UserError, match="bad.png: cannot be read"):
        write_mini_aigiqa4k(tmp_path / "c", 20, 40, 30, photographs=[tmp_path / "bad.png"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "bad.png"]
