import os
import pickle

import numpy as np
import pytest
from PIL import Image

from jittwin.data.pure import PureDictionary
from jittwin.errors import UserError


def picture(value, size=(64, 64)):
    return np.full((*size, 3), value, np.uint8)


def write(folder, name, label, image):
    for kind, array in (("imgs", image), ("labels", label)):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(folder / kind / f"{name}.png")


def constant(value, size=(48, 60)):
    return np.full(size, value, np.uint8)


def test_build_takes_constant_maps_in_lexicographic_order(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (48, 60, 3), dtype=np.uint8)
    for name, value in (("s10", 100), ("s9", 90), ("s1", 10)):
        write(tmp_path, name, constant(1), picture(value, (48, 60)))
    write(tmp_path, "water", constant(2), noise)
    mixed = constant(1)
    mixed[0, 0] = 5
    write(tmp_path, "mixed", mixed, noise)
    images = PureDictionary.build(tmp_path, size=(24, 32)).images
    assert sorted(images) == [1, 2] and [p[0, 0, 0] for p in images[1]] == [10, 100, 90]  # s1, s10, s9
    bicubic = Image.fromarray(noise).resize((32, 24), Image.Resampling.BICUBIC)
    assert (images[2][0] == np.asarray(bicubic)).all()


def test_build_refuses_unknown_classes(tmp_path):
    write(tmp_path, "a", constant(29), picture(0, (48, 60)))
    with pytest.raises(UserError, match="a.png: holds class 29"):
        PureDictionary.build(tmp_path)


def test_apply_pastes_the_last_unused_photograph():
    pure = PureDictionary({1: [picture(10), picture(20)], 3: [picture(30)]})
    generated, label, warnings = picture(200), constant(1, (64, 64)), []
    label[0, :60] = 4  # 1.5 % of another class keeps the generated pixels
    first = pure.apply(label, generated, warnings.append)
    assert (first[1:] == 20).all() and (first[0, :60] == 200).all() and (generated == 200).all()
    assert (pure.apply(label, generated, warnings.append)[1:] == 10).all() and not warnings
    assert (pure.apply(label, generated, warnings.append) == 200).all() and "used up" in warnings[0]
    assert (pure.apply(constant(7, (64, 64)), generated, warnings.append) == 200).all()
    assert "class 7 do not exist" in warnings[1] and len(warnings) == 2
    assert (pure.apply(constant(7, (64, 64)), generated) == 200).all()  # silent without a callback
    assert [p[0, 0, 0] for p in pure.images[1]] == [10, 20]  # using it does not change what is saved


def test_apply_needs_more_than_98_percent():
    label = constant(1, (100, 100))
    label[:2] = 0
    pure = PureDictionary({1: [picture(10, (100, 100))]})
    assert (pure.apply(label, picture(200, (100, 100))) == 200).all()  # exactly 98 %
    label[0, 0] = 1
    assert (pure.apply(label, picture(200, (100, 100)))[2:] == 10).all()


def test_apply_fits_label_and_photograph_to_the_image():
    pure = PureDictionary({1: [picture(10, (32, 32))]})
    result = pure.apply(constant(1, (20, 20)), picture(200, (64, 128)))
    assert result.shape == (64, 128, 3) and (result == 10).all()


def test_save_and_load(tmp_path):
    rng = np.random.default_rng(0)
    pure = PureDictionary({label: list(rng.integers(0, 256, (label + 1, 6, 8, 3), dtype=np.uint8))
                           for label in (0, 2)})
    pure.save(tmp_path / "pure.npz")
    loaded = PureDictionary.load(tmp_path / "pure.npz")
    assert list(loaded.images) == [0, 2]
    for label, pictures in pure.images.items():
        assert all((a == b).all() for a, b in zip(pictures, loaded.images[label], strict=True))
    PureDictionary({}).save(tmp_path / "empty.npz")
    assert PureDictionary.load(tmp_path / "empty.npz").images == {}


def original(path, content):
    """The file as the original code writes it: a length-1 object array of one dictionary."""
    np.save(path, np.array([content], dtype=object), allow_pickle=True)
    return path


def test_original_file_is_read(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.jpg", dpi=(72, 72))
    with Image.open(tmp_path / "a.jpg") as opened:
        opened.load()
        resized = opened.resize((16, 12), Image.Resampling.BICUBIC)  # carries the JPEG's info dictionary
        expected = [np.asarray(resized), np.asarray(opened), noise]
        path = original(tmp_path / "pure_img.npy", {
            np.uint8(5): [resized, opened],
            np.uint8(28): [Image.fromarray(noise), Image.new("L", (4, 3), 9)]})
    images = PureDictionary.load(path).images
    assert sorted(images) == [5, 28]
    for got, wanted in zip(images[5] + images[28], expected):
        assert got.dtype == np.uint8 and (got == wanted).all()
    assert (images[28][1] == 9).all() and images[28][1].shape == (3, 4, 3)


class Bomb:
    """Pickles as a call that writes a file."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("make", [lambda marker: Bomb(os.system, f"touch {marker}"),
                                  lambda marker: Bomb(os.mkdir, marker),
                                  lambda marker: Bomb(eval, f"__import__('os').mkdir({marker!r})")])
def test_hostile_pickle_runs_nothing(tmp_path, make):
    marker = str(tmp_path / "owned")
    path = original(tmp_path / "pure_img.npy", {np.uint8(1): [make(marker)]})
    with pytest.raises(UserError, match="pure_img.npy: not a pure-colour dictionary") as caught:
        PureDictionary.load(path)
    assert not os.path.exists(marker) and "\n" not in str(caught.value)
    np.load(path, allow_pickle=True)  # the bomb is live: NumPy itself would have run it
    assert os.path.exists(marker)


def test_pickle_hidden_in_npz_is_refused(tmp_path):
    marker = str(tmp_path / "owned")
    np.savez(tmp_path / "pure.npz", **{"1": np.array([Bomb(os.mkdir, marker)], dtype=object)})
    with pytest.raises(UserError, match="pure.npz"):
        PureDictionary.load(tmp_path / "pure.npz")
    assert not os.path.exists(marker)


def test_files_that_are_no_dictionary(tmp_path):
    np.savez(tmp_path / "class.npz", **{"29": np.zeros((1, 4, 4, 3), np.uint8)})
    with pytest.raises(UserError, match=r"class.npz: holds class 29; legal are 0\.\.28"):
        PureDictionary.load(tmp_path / "class.npz")
    with pytest.raises(UserError, match="class 200"):
        PureDictionary.load(original(tmp_path / "class.npy", {np.uint8(200): []}))
    np.savez(tmp_path / "float.npz", **{"1": np.zeros((1, 4, 4, 3))})
    np.save(tmp_path / "plain.npy", np.zeros(3))
    whole = original(tmp_path / "whole.npy", {np.uint8(1): [Image.new("RGB", (8, 8))]}).read_bytes()
    (tmp_path / "cut.npy").write_bytes(whole[:-40])
    (tmp_path / "pickle.npy").write_bytes(pickle.dumps({1: 2}))
    original(tmp_path / "mode.npy", {np.uint8(1): [Image.new("F", (8, 8))]})
    for name in ("float.npz", "plain.npy", "cut.npy", "pickle.npy", "mode.npy"):
        with pytest.raises(UserError, match=f"{name}: not a pure-colour dictionary"):
            PureDictionary.load(tmp_path / name)
    with pytest.raises(UserError, match="nowhere.npz: cannot be read"):
        PureDictionary.load(tmp_path / "nowhere.npz")
