"""What a folder, a zip file and a list of files hold, as people's systems leave them."""
import io
import os
import random
import zipfile

import numpy as np
import pytest
from PIL import Image

from jittwin import picture_formats
from jittwin.data.aigiqa4k import Aigiqa4k
from jittwin.data.ava import AvaIndex, scan
from jittwin.data.evalmuse import EvalMuse
from jittwin.data.landscape import LandscapeDataset, list_pictures
from jittwin.data.listing import AGAIN, HIDDEN, OTHER, REPEATED, SPECIAL, SYSTEM, UNFINISHED, list_folder
from jittwin.data.pictures import ImageSet, natural, other_pictures
from jittwin.data.synthetic.distorted import write_mini_evalmuse
from jittwin.data.synthetic.prompted import write_mini_aigiqa4k
from jittwin.data.synthetic.rated import write_mini_ava
from jittwin.errors import UserError
from jittwin.generate import Renderer
from jittwin.metrics.assessment import gather
from jittwin.metrics.mask_accuracy import paired_labels
from jittwin.weights import write_weights

APPLE = bytes.fromhex("00051607000200004d6163204f53205820202020202020200002") + bytes(200)


def encoded(form="PNG", seed=0, **options):
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)).save(stream, form, **options)
    return stream.getvalue()


PNG = encoded()


def write(root, files):
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def zipped(path, files):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


# By file: the reason why it is passed over, None for a picture.
REAL = {
    "1.png": None, "sub/2.PNG": None, "sub/deep er/ö.jpg": None, "no suffix": None, "named.data": None, "a..png": None,
    ".ipynb_checkpoints/1-checkpoint.png": HIDDEN, ".hidden.png": HIDDEN, "sub/.thumbs/1.png": HIDDEN,
    "._1.png": SYSTEM, "sub/._2.PNG": SYSTEM, ".DS_Store": SYSTEM, "Thumbs.db": SYSTEM, "sub/desktop.ini": SYSTEM,
    "__MACOSX/1.png": SYSTEM, "__MACOSX/sub/._2.png": SYSTEM, "@eaDir/1.png/SYNOPHOTO_THUMB_M.jpg": SYSTEM,
    "$RECYCLE.BIN/1.png": SYSTEM, ".Trash-1000/files/1.png": SYSTEM, "Icon\r": SYSTEM,
    "1.png~": UNFINISHED, "2.png.part": UNFINISHED, "3.jpg.crdownload": UNFINISHED, "4.png.bak": UNFINISHED,
    "prompts.csv": OTHER, "README": OTHER, "captions/1.txt": OTHER, "film.mp4": OTHER, "empty": OTHER, "more.zip": OTHER,
}
TEXT = {"prompts.csv", "README", "captions/1.txt", "film.mp4", "Thumbs.db", ".DS_Store", "sub/desktop.ini"}


def real_files():
    return {name: b"" if name == "empty" else b"PK\3\4" if name == "more.zip" else b"text" if name in TEXT else
            APPLE if "._" in name else encoded("JPEG") if name.endswith("jpg") else PNG for name in REAL}


def by_reason(expected):
    reasons = sorted({reason for reason in expected.values() if reason})
    return {reason: sorted(name for name in expected if expected[name] == reason) for reason in reasons}


def test_a_folder_and_a_zip_file_as_systems_leave_them(tmp_path):
    folder, archive = write(tmp_path / "set", real_files()), zipped(tmp_path / "set.zip", real_files())
    pictures = sorted((name for name in REAL if REAL[name] is None), key=natural)
    listing = list_folder(folder)
    assert {reason: listing.passed_over[reason] for reason in sorted(listing.passed_over)} == by_reason(REAL)
    for images in map(ImageSet, (folder, archive)):
        assert images.names == pictures
        assert images.passed_over == {reason: len(names) for reason, names in by_reason(REAL).items()}
        (note,) = images.notes
        assert f"{images}: 6 pictures; passed over: " in note and "\n" not in note
        for part in ("3 hidden (.hidden.png, ", "11 left by an operating system", "4 backups or unfinished downloads",
                     "6 other files (README, captions/1.txt, empty, ...)"):
            assert part in note
        assert [images.decode(index).shape for index in range(6)] == [(6, 8, 3)] * 6
    assert ImageSet(folder).content_hash() == ImageSet(archive).content_hash()
    assert len(other_pictures(folder, ["1.png"])) == 5


def test_nothing_is_told_where_nothing_is_passed_over(tmp_path):
    folder = write(tmp_path, {"1.png": PNG, "sub/2.png": PNG})
    assert ImageSet(folder).notes == () == list_pictures(folder).notes


@pytest.mark.parametrize("seed", range(40))
def test_generated_trees_keep_every_file_in_one_place(tmp_path, seed):
    """Every file is a picture or passed over, by a rule that the test states again for these names."""
    draw = random.Random(seed)
    parts = ["a", "B 1", "ünï", "x.y", ".git", "._a", "__MACOSX", "@eaDir", "..."]
    ends = {".png": PNG, ".JPG": encoded("JPEG"), ".webp": encoded("WEBP"), ".gif": encoded("GIF"), ".txt": b"a",
            "": b"", ".db": PNG, ".tmp": PNG}
    expected, files = {}, {}
    for number in range(draw.randrange(1, 25)):
        above = [draw.choice(parts) for _ in range(draw.randrange(4))]
        stem, end = draw.choice(["", ".", "._"]) + f"f{number}", draw.choice(list(ends))
        name = "/".join([*above, stem + end])
        whole = [*above, stem]
        expected[name] = (SYSTEM if {"._a", "__MACOSX", "@eaDir"} & {*above} or any(p.startswith("._") for p in whole)
                          else HIDDEN if any(p[0] == "." for p in whole) else UNFINISHED if end == ".tmp"
                          else OTHER if end in (".txt", "") else None)
        files[name] = ends[end]
    pictures = sorted((name for name in files if expected[name] is None), key=natural)
    for where in (write(tmp_path / "set", files), zipped(tmp_path / "set.zip", files)):
        if not pictures:
            with pytest.raises(UserError, match="holds no picture; passed over: "):
                ImageSet(where)
            continue
        images = ImageSet(where)
        assert images.names == pictures
        assert images.passed_over == {reason: len(names) for reason, names in by_reason(expected).items()}


@pytest.mark.parametrize("form, suffixes", [
    ("JPEG", (".jfif", ".jpe", ".jpeg", ".JPG", ".dat", "")), ("PNG", (".apng", ".x", "")), ("GIF", (".gif", "")),
    ("AVIF", (".avif", ".jpg", "")), ("JPEG2000", (".jp2", ".j2k", "")), ("WEBP", (".webp", ".png")),
    ("TIFF", (".tif", ".TIFF", "")), ("BMP", (".bmp", ".dib", "")), ("TGA", (".tga",)), ("PPM", (".ppm", ".pnm")),
    ("PCX", (".pcx",)), ("ICO", (".ico",)), ("QOI", (".qoi", ""))])
def test_what_pillow_decodes_is_a_picture_whatever_its_suffix(tmp_path, form, suffixes):
    content = encoded(form)
    images = ImageSet(write(tmp_path, {f"picture{number}{suffix}": content for number, suffix in enumerate(suffixes)}))
    assert len(images) == len(suffixes) and not images.notes
    for index in range(len(images)):
        assert images.decode(index).ndim == 3


@pytest.mark.parametrize("name, content, message", [
    ("1.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(300), "HEIC, .* pip install pillow-heif"),
    ("phone", b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + bytes(300), "HEIC, .* pip install pillow-heif"),
    ("1.jpg", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(300), "HEIC, .* pip install pillow-heif"),
    ("1.jxl", b"\xff\x0a" + bytes(50), "JXL, .* pip install pillow-jxl-plugin"),
    ("DSC_1.NEF", encoded("TIFF"), "raw data of a camera"), ("1.dng", encoded("TIFF"), "raw data of a camera"),
    ("1.png", b"", "it is empty"), ("1.jpg", b"\n <!DOCTYPE html><html>", "it is a web page"),
    ("1.jpg", b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"), ("2.jpg", APPLE, "companion file"),
    ("1.png", PNG[:60], "damaged PNG: "), ("1.jpg", encoded("JPEG")[:-40], "damaged JPEG: .*truncated"),
    ("1.webp", encoded("WEBP")[:40], "damaged WEBP"), ("1.png", b"nothing known", "not a picture, or damaged")])
def test_a_picture_that_cannot_be_decoded_says_why(tmp_path, monkeypatch, name, content, message):
    """It belongs to the set, so that no number is measured without it in silence."""
    monkeypatch.setattr(picture_formats, "decoded", lambda known=picture_formats.decoded(): tuple(
        form for form in known if form not in ("HEIF", "JXL")))
    images = ImageSet(write(tmp_path, {name: content}))
    with pytest.raises(UserError, match=f"{name}: cannot be read .*{message}") as caught:
        images.decode(0)
    assert "\n" not in str(caught.value)


def test_links_pipes_and_loops(tmp_path):
    folder = write(tmp_path / "set", {"1.png": PNG, "sub/2.png": PNG})
    write(tmp_path / "elsewhere", {"3.png": PNG, "deep/4.png": PNG})
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "sub/loop").symlink_to(folder)
    (folder / "again").symlink_to(folder / "sub")
    (folder / "5.png").symlink_to(tmp_path / "elsewhere/3.png")
    (folder / "broken.png").symlink_to(tmp_path / "nowhere.png")
    os.mkfifo(folder / "pipe.png")
    images = ImageSet(folder)
    assert images.names == ["1.png", "5.png", "broken.png", "linked/3.png", "linked/deep/4.png", "sub/2.png"]
    assert images.passed_over == {SPECIAL: 1, AGAIN: 2}
    with pytest.raises(UserError, match="broken.png: cannot be read .a link to .*nowhere.png, which is not there"):
        images.decode(2)


@pytest.mark.parametrize("name", ["Icon\r", "a\nb.txt", "\x1b[31mred.txt", "\u202egpj.exe"])
def test_names_with_control_characters_do_not_reach_the_terminal(tmp_path, name):
    write(tmp_path, {name: b"text", f"{name}.png": PNG})
    images = ImageSet(tmp_path)
    assert len(images) == 1 and all(text.isprintable() for text in (*images.notes, *images.shown_names))


def test_names_in_zip_files(tmp_path):
    """Of Windows, with the folder names of Windows and of the folder above, and twice."""
    with pytest.warns(UserWarning, match="Duplicate name"):
        with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
            for name in ("sub\\1.png", "sub\\.hidden\\2.png", "__MACOSX\\._1.png", "../3.png", "./4.png", "4.png",
                         "4.png"):
                archive.writestr(name, PNG)
            archive.mkdir("folder.png")
    images = ImageSet(tmp_path / "set.zip")
    assert len(images) == 4 and images.passed_over == {HIDDEN: 1, SYSTEM: 1, REPEATED: 1}


def test_files_given_by_name_are_meant(tmp_path):
    folder = write(tmp_path, {".a.png": PNG, "b": PNG, "notes.txt": b"no picture", "Thumbs.db": b"x", "d/.c.png": PNG,
                              "d/c.png": PNG})
    names = [str(folder / name) for name in (".a.png", "b", "notes.txt", "Thumbs.db", "b", "d")]
    images = gather(names)
    assert [os.path.basename(name) for name in images.names] == [".a.png", "b", "c.png", "notes.txt"]
    assert len(images.notes) == 2 and "1 hidden (.c.png)" in images.notes[0]
    assert "1 left by an operating system" in images.notes[1] and "1 named twice" in images.notes[1]


def test_names_that_are_not_utf_8(tmp_path):
    names = [os.fsdecode(name) for name in (b"\xff.png", b"a\xe9.jpg", b"\xfe.txt", "\u00e9\u0301.png".encode())]
    write(tmp_path, {name: encoded("JPEG") if "jpg" in name else PNG for name in names[:2] + names[3:]} | {
        names[2]: b"text"})
    images = ImageSet(tmp_path)
    assert len(images) == 3 and len(images.content_hash()) == 64 and len(other_pictures(tmp_path, [])) == 3
    assert "1 other files (\\udcfe.txt)" in images.notes[0] and all(name.isprintable() for name in images.shown_names)
    (tmp_path / "AVA.txt").write_bytes(b"1 " + b"7" + b" 0 1 5 17 38 36 15 6 5 1 1 22 1396\n")
    write(tmp_path, {"7.png": PNG})
    index = AvaIndex(tmp_path)
    assert len(index.content_hash()) == 64 and "3 pictures are not used" in "".join(index.left_out())


def landscape(root, names, droppings=()):
    for name in names:
        size = np.random.default_rng(len(name)).integers(0, 256, (48, 64, 3), np.uint8)
        for folder, image, end in (("imgs", size, "jpg"), ("labels", size[..., 0] % 29, "png")):
            (root / folder / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(root / folder / f"{name}.{end}")
    for name in droppings:
        write(root, {name: APPLE if "._" in name else PNG})
    return root


OPTIONS = {"load_size": 64, "crop_size": 64, "aspect_ratio": 4 / 3}


def test_training_reads_a_folder_by_the_same_rule(tmp_path):
    clean = LandscapeDataset(landscape(tmp_path / "clean", ["1", "2", "town/1"]), **OPTIONS)
    dirty = LandscapeDataset(landscape(tmp_path / "dirty", ["1", "2", "town/1"], (
        "imgs/._1.jpg", "imgs/.DS_Store", "labels/._1.png", "labels/.ipynb_checkpoints/2-checkpoint.png",
        "imgs/Thumbs.db", "labels/town/desktop.ini")), **OPTIONS)
    assert clean.names == dirty.names == ["1", "2", "town/1"] and not clean.notes
    imgs, labels = dirty.notes
    assert "imgs: 3 pictures; passed over: 3 left by an operating system" in imgs
    assert "1 hidden" in labels and "2 left by an operating system" in labels
    dirty.decode_pictures()
    drawn = LandscapeDataset(tmp_path / "dirty", train=False, crop_size=64)
    assert drawn.names == clean.names and drawn.notes == (labels,)
    assert [path.name for path in paired_labels(ImageSet(tmp_path / "dirty/imgs"), tmp_path / "dirty")] == [
        "1.png", "2.png", "1.png"]


def test_a_folder_that_cannot_be_listed_is_told(tmp_path, monkeypatch):
    write(tmp_path, {"1.png": PNG, "sub/2.png": PNG})
    real = os.scandir

    def refuse(path):
        if str(path).endswith("sub"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match="sub: cannot be listed .Permission denied"):
        ImageSet(tmp_path)


def test_rated_pictures_and_annotations_are_read_by_the_same_rule(tmp_path):
    """Of AVA, of PKU-AIGIQA-4K and of EvalMuse."""
    droppings = ("._1.jpg", ".DS_Store", ".thumbs/1.jpg", "notes.txt")
    write_mini_ava(tmp_path / "ava", 6, 32, 24)
    write_mini_aigiqa4k(tmp_path / "aigiqa", 20, 32, 24)
    write_mini_evalmuse(tmp_path / "muse", 4, 32, 24)
    for folder in ("ava/images", "aigiqa/All", "muse/train/images"):
        write(tmp_path / folder, {name: b"text" for name in droppings} | {"unknown.jpg": encoded("JPEG")})
    first = AvaIndex(tmp_path / "ava").ids[0]
    (tmp_path / f"ava/images/{first}.jpg").rename(tmp_path / f"ava/images/{first}.jfif")
    index = AvaIndex(tmp_path / "ava")
    assert len(index.ids) == 6 and index.path(first).suffix == ".jfif" and not scan(index)
    for notes in (index.left_out(), Aigiqa4k(tmp_path / "aigiqa").notes, EvalMuse(tmp_path / "muse").notes):
        told = "\n".join(notes)
        assert "1 hidden" in told and "2 left by an operating system" in told and "1 other files (notes.txt)" in told
        assert "1 pictures are not " in told and "unknown.jpg" in told


class Grey:
    """Stands where the networks are."""

    def __call__(self, names, maps, seeds):
        for seed in seeds:
            yield seed, [np.full((*label.shape, 3), seed, np.uint8) for label in maps]


def test_pictures_of_label_maps_in_subfolders_lie_in_subfolders(tmp_path):
    labels = LandscapeDataset(landscape(tmp_path / "set", ["1", "town/1", "town/2"]), train=False, crop_size=64)
    Renderer(Grey(), labels, batch=2).render({3: tmp_path / "out"}, quiet=True)
    assert ImageSet(tmp_path / "out").names == ["1.jpg", "town/1.jpg", "town/2.jpg"]
    assert not other_pictures(tmp_path / "out", {f"{name}.jpg" for name in labels.names})
    assert [path.parent.name for path in paired_labels(ImageSet(tmp_path / "out"), tmp_path / "set")] == [
        "labels", "town", "town"]


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".pkl"])
def test_weights_in_place_of_pictures_are_told(tmp_path, suffix):
    write_weights(tmp_path / f"a{suffix}", {"w": np.ones(3)})
    with pytest.raises(UserError, match=f"a{suffix}: .*; it holds weights: give pictures here, and the weights by their"):
        ImageSet(tmp_path / f"a{suffix}")
    (tmp_path / "b.zip").write_bytes(b"<!DOCTYPE html>")
    with pytest.raises(UserError, match="neither a folder nor a zip file of pictures; it is a web page in place of the file"):
        ImageSet(tmp_path / "b.zip")
    (tmp_path / "c.zip").write_bytes(b"")
    with pytest.raises(UserError, match="c.zip: neither a folder nor a zip file of pictures$"):
        ImageSet(tmp_path / "c.zip")
