import random

import numpy as np
import pytest
from PIL import Image

from jittwin.data import landscape
from jittwin.data.landscape import LandscapeDataset
from jittwin.draws import Draws
from jittwin.errors import UserError

WIDTH, HEIGHT = 160, 120


def write_pair(folder, name, value=3, size=(HEIGHT, WIDTH), labels="labels", suffix=".png"):
    (folder / "imgs").mkdir(parents=True, exist_ok=True)
    (folder / labels).mkdir(exist_ok=True)
    rng = np.random.default_rng(len(name) + value)
    image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    label = np.full(size, value, np.uint8)
    label[:size[0] // 2, size[1] // 4:] = 1  # neither upside down nor mirrored the same
    Image.fromarray(image).save(folder / "imgs" / (name + suffix))
    Image.fromarray(label).save(folder / labels / (name + ".png"))
    return image, label


def small(folder, **options):
    usual = {"load_size": 144, "crop_size": 128, "aspect_ratio": 2.0, "multiple": 64}
    return LandscapeDataset(folder, **usual | options)


def test_natural_order():
    names = ["7.png", "07b3.png", "a.png", "Img1.png", "img2.png", "img10.png"]
    assert sorted(sorted(names), key=landscape.natural_key) == names


@pytest.mark.parametrize("labels", ["labels", "lables"])
def test_pairs_in_natural_order(tmp_path, labels):
    for name in ("p10", "p9", "p1"):
        write_pair(tmp_path, name, labels=labels)
    (tmp_path / "imgs" / ".hidden.png").write_bytes(b"")
    (tmp_path / "imgs" / "notes.txt").write_text("no picture")
    assert small(tmp_path).names == ["p1", "p9", "p10"]


def test_removal_list_accepts_stems_and_file_names(tmp_path):
    for name in "abcd":
        write_pair(tmp_path, name)
    (tmp_path / "removed.txt").write_text("b\nc.jpg\n\nb\nlabels/b.png\n")
    assert small(tmp_path, removal_list=tmp_path / "removed.txt").names == ["a", "d"]
    (tmp_path / "removed.txt").write_text("a\nb\nc\nd\n")
    with pytest.raises(UserError, match="none of the 4"):
        small(tmp_path, removal_list=tmp_path / "removed.txt")
    with pytest.raises(UserError, match="nowhere.txt"):
        small(tmp_path, removal_list=tmp_path / "nowhere.txt")


@pytest.mark.parametrize("content", [
    b"\xef\xbb\xbfbridge_0.jpg\r\nlake_1.jpg\r\n", "bridge_0\nlake_1".encode("utf-16"), b"bridge_0.jpg\rlake_1\r",
    b"BRIDGE_0.JPG\nlake_1".replace(b"BRIDGE_0", b"bridge_0"), b"imgs/bridge_0.jpg\n./labels\\lake_1.png",
    b"/data/set/imgs/bridge_0.png\nlake_1.webp\n\n"])
def test_a_removal_list_of_another_system_removes_the_same(tmp_path, content):
    for name in ("bridge_0", "lake_1", "lake_10"):
        write_pair(tmp_path, name)
    (tmp_path / "removed.txt").write_bytes(content)
    assert small(tmp_path, removal_list=tmp_path / "removed.txt").names == ["lake_10"]


@pytest.mark.parametrize("seed", range(10))
def test_drawn_removal_lists(tmp_path, seed):
    """Names as people write them, in any encoding: exactly these are removed; a name that is mistyped is an error."""
    rng = random.Random(seed)
    stems = sorted({"".join(rng.choices("abc01_-é山 ", k=6)).strip() + str(n) for n in range(6)})
    for stem in stems:
        write_pair(tmp_path, stem)
    chosen = rng.sample(stems, 3)
    forms = ["{}", "{}.jpg", "{}.JPG", "{}.png", "imgs/{}.png", ".\\labels\\{}.png", "/x/y/{}.jpeg"]
    lines = [rng.choice(forms).format(stem) for stem in chosen]
    encoding, end = rng.choice(["utf-8", "utf-8-sig", "utf-16", "utf-32"]), rng.choice(["\n", "\r\n", "\r"])
    path = tmp_path / "removed.txt"
    path.write_bytes(end.join(lines).encode(encoding))
    assert sorted(small(tmp_path, removal_list=path).names) == [stem for stem in stems if stem not in chosen]
    path.write_bytes(end.join([*lines, f"{chosen[0]}x"]).encode(encoding))
    with pytest.raises(UserError) as error:
        small(tmp_path, removal_list=path)
    assert f"1 of its 4 names are of no picture: '{chosen[0]}x' (did you mean '{chosen[0]}." in str(error.value)


def test_files_list_of_another_system(tmp_path):
    for name in "abc":
        write_pair(tmp_path, name)
    for folder in ("imgs", "labels"):
        (tmp_path / folder / "files.list").write_bytes(b"\xef\xbb\xbfc.png\r\n.\\a.png\r\n")
    assert small(tmp_path).names == ["a", "c"]
    (tmp_path / "imgs" / "files.list").write_bytes("风.png\n".encode("gbk"))
    with pytest.raises(UserError, match="files.list: line 1 is not UTF-8 .byte 0 is 0xb7., it may be GB18030"):
        small(tmp_path)
    (tmp_path / "imgs" / "files.list").write_text("aa.png\n")
    with pytest.raises(UserError, match="names 'aa.png', which does not exist .did you mean 'a.png'"):
        small(tmp_path)


def test_files_list_replaces_the_listing(tmp_path):
    for name in "abc":
        write_pair(tmp_path, name)
    for folder in ("imgs", "labels"):
        (tmp_path / folder / "files.list").write_text("c.png\na.png\n")
    assert small(tmp_path).names == ["a", "c"]
    (tmp_path / "labels" / "files.list").write_text("c.png\nz.png\n")
    with pytest.raises(UserError, match="files.list.*z.png"):
        small(tmp_path)
    (tmp_path / "labels" / "files.list").unlink()
    with pytest.raises(UserError, match="labels/b.png: not named in .*imgs/files.list; name it there, delete that list"):
        small(tmp_path)


@pytest.mark.parametrize("lost,partner", [("imgs", "labels"), ("labels", "imgs")])
def test_missing_partner_is_named(tmp_path, lost, partner):
    for name in "abc":
        write_pair(tmp_path, name)
    for name in "bc":
        (tmp_path / lost / f"{name}.png").unlink()
    with pytest.raises(UserError, match=f"{partner}/b.png.*1 more"):
        small(tmp_path)


def test_folders_that_are_no_data_set(tmp_path):
    with pytest.raises(UserError, match="nowhere: no such folder"):
        small(tmp_path / "nowhere")
    with pytest.raises(UserError, match="needs imgs/"):
        small(tmp_path)
    write_pair(tmp_path, "a")
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "imgs" / "a.jpg")
    with pytest.raises(UserError, match="same name"):
        small(tmp_path)


def test_illegal_labels_are_counted_before_training(tmp_path):
    for name, value in (("a", 28), ("b", 29), ("c", 255)):
        write_pair(tmp_path, name, value)
    with pytest.raises(UserError, match=r"labels/b.png: holds label 29; 2 of 3 files.*0\.\.28"):
        small(tmp_path)
    with pytest.raises(UserError, match="label 29"):
        LandscapeDataset(tmp_path, train=False, crop_size=256)


def test_damaged_label_stops_construction(tmp_path):
    write_pair(tmp_path, "a")
    (tmp_path / "labels" / "a.png").write_bytes((tmp_path / "labels" / "a.png").read_bytes()[:60])
    with pytest.raises(UserError, match="a.png.*damaged"):
        small(tmp_path)


def test_size_mismatch_names_both(tmp_path):
    write_pair(tmp_path, "a")
    Image.new("RGB", (WIDTH, HEIGHT + 1)).save(tmp_path / "imgs" / "a.png")
    with pytest.raises(UserError, match="160x120 pixels, but .*imgs/a.png has 160x121"):
        small(tmp_path)


@pytest.mark.parametrize("options,match", [
    ({"crop_size": 100, "load_size": 128}, "100x50.*multiples of 64"),
    ({"aspect_ratio": 4 / 3}, "128x96.*multiples of 64"),
    ({"load_size": 64}, "load_size=64: must be at least crop_size=128"),
    ({"aspect_ratio": 1.0}, "scale to 144x108, too low for a crop 128 high"),
    ({"vertical_crop": "middle"}, "vertical_crop=middle.*'top'")])
def test_sizes_the_networks_cannot_take(tmp_path, options, match):
    write_pair(tmp_path, "a")
    with pytest.raises(UserError, match=match):
        small(tmp_path, **options)


class Fixed:
    """Draws with chosen results that record what they were asked for."""

    def __init__(self, x, y, u):
        self.results, self.asked = {"crop.x": x, "crop.y": y, "flip": u}, {}

    def integers(self, site, low, high, shape):
        self.asked[site] = (low, high)
        return min(self.results[site], high)

    def uniform(self, site, shape):
        return np.asarray(self.results[site])


def by_hand(image, label, x, y, flipped):
    """The reference's transform with Pillow alone: 160x120 -> 144x108 -> crop 128x64."""
    image = Image.fromarray(image).resize((144, 108), Image.Resampling.BICUBIC).crop((x, y, x + 128, y + 64))
    label = Image.fromarray(label).resize((144, 108), Image.Resampling.NEAREST).crop((x, y, x + 128, y + 64))
    if flipped:
        image, label = (p.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for p in (image, label))
    return (np.asarray(image, np.float32) / 255 - 0.5) / 0.5, np.asarray(label)


@pytest.mark.parametrize("u,vertical", [(0.7, "top"), (0.2, "top"), (0.2, "random")])
def test_training_transform_matches_pillow(tmp_path, u, vertical):
    image, label = write_pair(tmp_path, "a", 7)
    draws = Fixed(11, 23, u)
    sample = small(tmp_path, vertical_crop=vertical).get(0, draws)
    expected, expected_label = by_hand(image, label, 11, 23 if vertical == "random" else 0, u < 0.5)
    np.testing.assert_allclose(sample["image"], expected.transpose(2, 0, 1), atol=1e-6)
    assert (sample["label"] == expected_label).all() and set(np.unique(sample["label"])) == {1, 7}
    assert sample["image"].dtype == np.float32 and sample["label"].dtype == np.uint8 and sample["name"] == "a"
    assert sample["label"].flags.c_contiguous and sample["image"].flags.c_contiguous
    assert draws.asked == {"crop.x": (0, 16), "crop.y": (0, 44 if vertical == "random" else 0)}


def test_challenge_sizes_and_flip_off(tmp_path):
    write_pair(tmp_path, "a", size=(768, 1024), suffix=".jpg")
    sample = LandscapeDataset(tmp_path, flip=False).get(0, draws := Fixed(60, 0, 0.0))
    assert sample["image"].shape == (3, 384, 512) and sample["label"].shape == (384, 512)
    assert draws.asked == {"crop.x": (0, 60), "crop.y": (0, 0)}
    label = sample["label"]  # half of 429 rows; a quarter of 572 columns, less the 60 cut off
    assert (label[:214, 84:] == 1).all() and (label[215:] == 3).all() and (label[:, :83] == 3).all()


def test_real_draws_vary_and_repeat(tmp_path):
    write_pair(tmp_path, "a")
    data = small(tmp_path)
    pictures = [data.get(0, Draws(5, epoch, 0))["image"] for epoch in (0, 0, 1, 2, 3)]
    assert (pictures[0] == pictures[1]).all()
    assert any((pictures[0] != other).any() for other in pictures[2:])


def test_label_folder_for_generation(tmp_path):
    _, label = write_pair(tmp_path, "a10", 4, size=(96, 128))
    write_pair(tmp_path, "a9", 5, size=(192, 192))
    for folder in (tmp_path, tmp_path / "labels"):
        data = LandscapeDataset(folder, train=False, crop_size=256)
        assert data.names == ["a9", "a10"] and data.shapes == [(256, 256), (192, 256)]
        sample = data.get(1)
        assert set(sample) == {"label", "name"}
        assert (sample["label"] == np.asarray(Image.fromarray(label).resize((256, 192), 0))).all()
    with pytest.raises(UserError, match="a10.png: 192x144.*multiples of 64"):
        LandscapeDataset(tmp_path, train=False, crop_size=192, multiple=64)
