"""Sets of pictures: what belongs to one, in which order, and how a picture is prepared in each mode."""
import io
import threading
import time
import zipfile

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from scipy import ndimage

from jittwin.data import pictures
from jittwin.data.pictures import ImageSet, grouped, other_pictures, prepared
from jittwin.errors import UserError
from jittwin.metrics.fid.preparation import MODES, find_mode


def picture(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def png(array):
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "set"
    (root / "deep/er").mkdir(parents=True)
    for number, name in enumerate(["10.png", "2.png", "deep/er/1.PNG"]):
        (root / name).write_bytes(png(picture(6, 8 + number, number)))
    (root / "notes.txt").write_text("no picture")
    return root


def test_a_folder_with_subfolders_in_natural_order(folder):
    images = ImageSet(folder)
    assert images.names == ["2.png", "10.png", "deep/er/1.PNG"]
    np.testing.assert_array_equal(images.decode(0), picture(6, 9, 1))


def test_a_zip_file_and_a_list_are_the_same_pictures(folder, tmp_path):
    archive = tmp_path / "set.zip"
    with zipfile.ZipFile(archive, "w") as z:
        for name in ("10.png", "2.png", "deep/er/1.PNG", "notes.txt"):
            z.write(folder / name, name)
    sets = [ImageSet(folder), ImageSet(archive), ImageSet([folder / n for n in ("deep/er/1.PNG", "10.png", "2.png")])]
    assert sets[0].content_hash() == sets[1].content_hash()
    for images in sets:
        assert [images.decode(i).shape[1] for i in range(3)] == [9, 8, 10]


def test_the_content_hash_follows_contents_and_names(folder):
    before = ImageSet(folder).content_hash()
    assert ImageSet(folder).content_hash() == before
    (folder / "2.png").rename(folder / "3.png")
    renamed = ImageSet(folder).content_hash()
    (folder / "3.png").write_bytes(png(picture(6, 9, 5)))
    assert len({before, renamed, ImageSet(folder).content_hash()}) == 3


def test_the_content_hash_reads_each_picture_once(folder, monkeypatch):
    images, read = ImageSet(folder), []
    monkeypatch.setattr(ImageSet, "read", lambda self, index: read.append(index) or b"picture")
    assert images.content_hash() == images.content_hash() and read == [0, 1, 2]


def test_pictures_in_the_way(folder):
    assert other_pictures(folder, ["10.png", "1.PNG"]) == [folder / "2.png", folder / "deep/er/1.PNG"]
    assert not other_pictures(folder / "absent", [])


def test_nothing_to_read_is_told(tmp_path):
    with pytest.raises(UserError, match="no such folder or zip file"):
        ImageSet(tmp_path / "absent")
    with pytest.raises(UserError, match="holds no picture"):
        ImageSet(tmp_path)


@pytest.mark.parametrize("workers", [1, 3])
def test_order_and_batches_do_not_depend_on_the_workers(folder, workers):
    for number in range(20):
        (folder / f"a{number}.png").write_bytes(png(picture(6, 8 + number % 2, number)))
    images = ImageSet(folder)
    items = list(prepared(images, lambda image: image.copy(), workers))
    assert [index for index, _ in items] == list(range(23))
    seen, sizes = [], []
    for some in grouped(iter(items), 4):
        sizes.append(len(some))
        for index, image in some:
            seen.append(index)
            np.testing.assert_array_equal(image, images.decode(index))
    assert seen == list(range(23)) and sizes == [4] * 5 + [3]


def test_a_damaged_picture_is_named_or_counted(folder):
    (folder / "5.png").write_bytes(png(picture(6, 8))[:60])
    images, bad = ImageSet(folder), []
    with pytest.raises(UserError, match="5.png: cannot be read"):
        list(prepared(images, np.copy))
    assert [index for index, _ in prepared(images, np.copy, on_error=bad.append)] == [0, 2, 3]
    assert len(bad) == 1


def test_a_damaged_member_of_a_zip_file(folder, tmp_path):
    """Of damaged data, and encrypted."""
    archive = tmp_path / "set.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as z:
        for name in ("10.png", "2.png", "deep/er/1.PNG"):
            z.write(folder / name, name)
        second = z.infolist()[1]
    good = bytearray(archive.read_bytes())
    data, listed = second.header_offset + 30 + len("2.png"), good.rindex(b"PK\x01\x02", 0, good.rindex(b"PK\x01\x02"))
    for changes, message in (({data: 255, data + 1: 255}, "decompressing"),
                             ({second.header_offset + 6: 1, listed + 8: 1}, "encrypted")):
        damaged = good[:]
        for at, value in changes.items():
            damaged[at] = value
        archive.write_bytes(damaged)
        images, bad = ImageSet(archive), []
        assert images.content_hash() != ImageSet(folder).content_hash()
        with pytest.raises(UserError, match=f"set.zip/2.png: cannot be read .*{message}"):
            list(prepared(images, np.copy))
        assert [index for index, _ in prepared(images, np.copy, on_error=bad.append)] == [1, 2] and len(bad) == 1


def test_a_zip_file_is_opened_once_for_all_its_pictures(folder, tmp_path, monkeypatch):
    """Its table of contents has a line for each of them: read for each of them, ten thousand take minutes."""
    archive, opened = tmp_path / "set.zip", []
    with zipfile.ZipFile(archive, "w") as z:
        for name in ("10.png", "2.png", "deep/er/1.PNG"):
            z.write(folder / name, name)
    real = zipfile.ZipFile
    monkeypatch.setattr(zipfile, "ZipFile", lambda *args: opened.append(args) or real(*args))
    images = ImageSet(archive)
    assert [index for index, _ in prepared(images, np.copy, workers=4)] == [0, 1, 2] and len(opened) == 1


def test_a_zip_file_with_a_damaged_table_of_contents(folder, tmp_path):
    archive = tmp_path / "set.zip"
    with zipfile.ZipFile(archive, "w") as z:
        z.write(folder / "2.png", "2.png")
    content = bytearray(archive.read_bytes())
    content[content.rindex(b"PK\x01\x02")] = 0
    archive.write_bytes(content)
    with pytest.raises(UserError, match="set.zip: cannot be read .*make the zip file again"):
        ImageSet(archive)


def test_published_resize_has_its_golden_values():
    def pattern(height, width):
        y, x, c = np.mgrid[:height, :width, :3]
        return ((3 * y + 5 * x + 40 * c) % 256).astype(np.uint8)

    for size, first, middle in (((768, 1024), (12.1961, 52.1961, 92.1961), (138.5, 178.5, 218.4993)),
                                ((384, 512), (3.78772, 43.78772, 83.78772), (67.25, 107.25, 147.25))):
        seen = MODES["apf-gan"].prepare(pattern(*size)) * 255
        assert seen.shape == (3, 256, 256) and seen.dtype == np.float32
        np.testing.assert_allclose(seen[:, 0, 0], first, atol=1e-4)
        np.testing.assert_allclose(seen[:, 128, 128], middle, atol=1e-4)


def test_clean_resize_is_pillows_bicubic_without_rounding():
    image = picture(40, 700) // 2 + 64      # far enough from 0 and 255 that nothing is cut off
    seen = MODES["clean"].prepare(image)
    assert seen.shape == (3, 299, 299)
    rounded = np.asarray(Image.fromarray(image).resize((299, 299), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
    # Pillow's own result for 8 bits is rounded after either axis.
    assert np.abs(seen * 256 - rounded).max() < 1.5
    assert np.abs(seen * 256 - np.round(seen * 256)).max() > 0.3 and seen.min() >= 0 and seen.max() <= 1


def test_clean_has_the_scale_of_samples_of_clean_fid():
    """(v - 128) / 128 where the network sees it, 2x - 1; also of pictures that need no resizing."""
    image = picture(299, 299)
    seen = 2 * MODES["clean"].prepare(image).astype(np.float64) - 1
    np.testing.assert_array_equal(seen, (image.transpose(2, 0, 1).astype(np.float64) - 128) / 128)


def test_pytorch_fid_leaves_pixels_as_they_are():
    image = picture(5, 7)
    np.testing.assert_array_equal(MODES["pytorch-fid"].prepare(image), (image / np.float32(255)).transpose(2, 0, 1))


@pytest.mark.parametrize("most", [1, 100, 250, 100_000])
def test_large_pictures_are_decoded_a_few_at_a_time(folder, monkeypatch, most):
    """And one that is larger than the room is decoded alone, also where a first attempt has failed."""
    for number in range(12):
        (folder / f"a{number}.png").write_bytes(png(picture(5 + number % 3, 10, number)))
    info = PngInfo()
    info.add_text("graph", "x" * 2_000_000, zip=True)       # is decoded in the second attempt
    Image.fromarray(picture(9, 9)).save(folder / "text.png", pnginfo=info)
    (folder / "damaged.png").write_bytes(png(picture(8, 8))[:60])
    room, images, bad, largest, lock = pictures.Room(most), ImageSet(folder), [], [0], threading.Lock()
    monkeypatch.setattr(pictures, "Room", lambda: room)

    def prepare(image):
        time.sleep(0.002)
        with lock:
            largest[0] = max(largest[0], room.inside)
            assert room.inside >= image.shape[0] * image.shape[1]
        return image

    found = [index for index, _ in prepared(images, prepare, workers=5, on_error=bad.append)]
    assert len(found) == 16 and len(bad) == 1 and room.inside == 0
    assert largest[0] <= max(most, 81) and (most < 1000 or largest[0] > 81)


@pytest.mark.parametrize("mode", MODES)
def test_what_is_kept_of_a_picture_is_small(mode):
    """However large it is: 12 megapixels are 144 MB as float32."""
    kept = MODES[mode].keep(np.zeros((1500, 8000, 3), np.uint8))
    size = kept.nbytes if isinstance(kept, np.ndarray) else kept.pixels.nbytes + kept.rows.nbytes + kept.columns.nbytes
    assert size < 1.2e6


def linear(image, side=299):
    """Bilinear resizing of float32 (3, H, W) with half-pixel centres, in float64."""
    for axis in (1, 2):
        at = np.maximum((np.arange(side) + 0.5) * image.shape[axis] / side - 0.5, 0)
        low = np.floor(at).astype(int)
        high, part = np.minimum(low + 1, image.shape[axis] - 1), (at - low)[:, None if axis == 1 else Ellipsis]
        image = image.take(low, axis) * (1 - part) + image.take(high, axis) * part
    return image


@pytest.mark.parametrize("size", [(40, 30), (700, 599), (598, 3000), (1196, 597), (2001, 7)])
def test_resizing_reads_no_pixel_that_is_not_kept(size):
    image, mode = picture(*size), MODES["pytorch-fid"]
    kept, whole = mode.keep(image), np.full((3, *size), np.nan, np.float32)
    if isinstance(kept, np.ndarray):
        whole[:] = kept
    else:
        whole[:, kept.rows[:, None], kept.columns] = kept.pixels.transpose(2, 0, 1) / np.float32(255)
    np.testing.assert_array_equal(linear(whole), linear(mode.prepare(image)))


@pytest.mark.parametrize("size", [(256, 256), (40, 30), (300, 700), (1100, 255), (513, 512), (2000, 257)])
def test_blurring_only_what_is_read_changes_no_bit(size):
    image, factors = picture(*size).astype(np.float32), np.array(size) / 256
    plain = [ndimage.zoom(ndimage.gaussian_filter(plane, np.maximum(0, (factors - 1) / 2), mode="mirror"), 1 / factors,
                          order=1, mode="mirror", grid_mode=True) for plane in image.transpose(2, 0, 1)]
    expected = np.clip(np.stack(plain), image.min(), image.max()) / np.float32(255)
    np.testing.assert_array_equal(MODES["apf-gan"].prepare(picture(*size)), expected)


def test_an_unknown_mode_names_the_nearest():
    with pytest.raises(UserError, match="did you mean 'clean'"):
        find_mode("clena")
