import resource
import signal

import numpy as np
import pytest
from PIL import Image

from jittwin import imaging
from jittwin.classes import CLASS_NAMES, PALETTE, colour_label
from jittwin.errors import UserError

RAMP = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3) * 3
NOISE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)


def saved(path, image, **options):
    image.save(path, **options)
    return path


def test_rgb_and_grey_pictures(tmp_path):
    assert (imaging.decode_image(saved(tmp_path / "a.png", Image.fromarray(RAMP))) == RAMP).all()
    grey = imaging.decode_image(saved(tmp_path / "g.png", Image.fromarray(RAMP[..., 0])))
    assert (grey == RAMP[..., :1]).all() and grey.shape == (4, 6, 3)


def test_alpha_is_dropped(tmp_path):
    rgba = np.dstack([RAMP, np.full((4, 6), 7, np.uint8)])
    assert (imaging.decode_image(saved(tmp_path / "a.png", Image.fromarray(rgba))) == RAMP).all()


def test_palette_picture_gives_its_colours(tmp_path):
    image = Image.fromarray(np.array([[0, 1], [1, 0]], np.uint8), "P")
    image.putpalette([10, 20, 30, 200, 100, 50])
    decoded = imaging.decode_image(saved(tmp_path / "p.png", image))
    assert decoded.tolist() == [[[10, 20, 30], [200, 100, 50]], [[200, 100, 50], [10, 20, 30]]]


def test_sixteen_bits_keep_the_high_byte(tmp_path):
    deep = Image.fromarray(np.array([[0, 255, 256], [32768, 65280, 65535]], np.uint16))
    decoded = imaging.decode_image(saved(tmp_path / "d.png", deep))
    assert decoded[..., 1].tolist() == [[0, 0, 1], [128, 255, 255]]


def test_exif_turns_the_picture_and_its_reported_size(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # "rotate a quarter clockwise to show"
    path = saved(tmp_path / "r.png", Image.fromarray(RAMP), exif=exif)
    assert (imaging.decode_image(path) == np.rot90(RAMP, -1)).all()
    assert imaging.image_size(path) == (6, 4)
    assert imaging.image_size(saved(tmp_path / "u.png", Image.fromarray(RAMP))) == (4, 6)


LABEL = np.array([[0, 28, 5], [7, 7, 200]], np.uint8)


def test_label_files_of_every_kind(tmp_path):
    palette = Image.fromarray(LABEL, "P")
    palette.putpalette(list(range(255, -1, -1)) * 3)
    kinds = {"grey": Image.fromarray(LABEL), "palette": palette,
             "rgb": Image.fromarray(np.dstack([LABEL] * 3)),
             "deep": Image.fromarray(LABEL.astype(np.uint16)),
             "rgba": Image.fromarray(np.dstack([LABEL] * 3 + [255 - LABEL]))}
    for kind, image in kinds.items():
        label = imaging.decode_label(saved(tmp_path / f"{kind}.png", image))
        assert label.dtype == np.uint8 and (label == LABEL).all(), kind


def test_labels_that_cannot_be_read_as_classes(tmp_path):
    coloured = np.dstack([LABEL, LABEL, LABEL + 1])
    with pytest.raises(UserError, match="c.png.*identical"):
        imaging.decode_label(saved(tmp_path / "c.png", Image.fromarray(coloured)))
    with pytest.raises(UserError, match="w.png.*300"):
        imaging.decode_label(saved(tmp_path / "w.png", Image.fromarray(np.full((2, 2), 300, np.uint16))))


@pytest.mark.parametrize("content", [b"", b"hello", "cut png", "cut jpg", "bad png"])
def test_damaged_files_give_one_line_with_their_name(tmp_path, content):
    path = tmp_path / "broken.png"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        noise = Image.fromarray(NOISE)
        noise.save(path, "JPEG" if "jpg" in content else "PNG")
        data = bytearray(path.read_bytes())
        damaged = data[:len(data) // 2] if "cut" in content else data[:200] + b"\0" * 300 + data[500:]
        path.write_bytes(damaged)
    for decode in (imaging.decode_image, imaging.decode_label):
        with pytest.raises(UserError) as caught:
            decode(path)
        assert "broken.png" in str(caught.value) and "\n" not in str(caught.value)


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match="nothing.png.*No such file"):
        imaging.decode_image(tmp_path / "nothing.png")


def test_resizing_is_pillow_bicubic_and_nearest():
    image = np.random.default_rng(1).integers(0, 256, (13, 17, 3), dtype=np.uint8)
    assert (imaging.resize_image(image, (7, 9)) == np.asarray(Image.fromarray(image).resize((9, 7), 3))).all()
    corners = imaging.resize_label(np.array([[1, 2], [3, 4]], np.uint8), (4, 4))
    assert corners.tolist() == [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]]


def test_ranges_and_truncation():
    image = np.array([[[0, 51, 255]]], np.uint8)
    unit = imaging.to_unit_range(image)
    assert unit.dtype == np.float32 and unit.shape == (3, 1, 1)
    np.testing.assert_allclose(unit.ravel(), [-1, -0.6, 1], atol=1e-6)
    values = np.array([-1, 0, 1, 0.999, -2, 2, np.nan], np.float32).reshape(1, 1, -1).repeat(3, 0)
    # 127.5 becomes 127, 254.87 becomes 254
    assert imaging.to_uint8(values)[0, :, 0].tolist() == [0, 127, 255, 254, 0, 255, 0]


def test_saving_jpeg_and_png(tmp_path):
    smooth = np.tile(np.arange(0, 256, 4, dtype=np.uint8)[None, :, None], (64, 1, 3))
    imaging.save_image(tmp_path / "a.jpg", smooth)
    imaging.save_image(tmp_path / "a.png", smooth)
    Image.fromarray(smooth).save(tmp_path / "b.jpg")  # Pillow's default is the published quality
    assert (tmp_path / "a.jpg").read_bytes() == (tmp_path / "b.jpg").read_bytes()
    assert (imaging.decode_image(tmp_path / "a.png") == smooth).all()
    with pytest.raises(UserError, match="gif.*png"):
        imaging.save_image(tmp_path / "a.gif", smooth)


def test_full_disk_keeps_the_old_file_and_leaves_no_crumbs(tmp_path):
    path = tmp_path / "a.png"
    imaging.save_image(path, RAMP)
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # the write stops half way, like a full disk
    try:
        with pytest.raises(UserError, match="a.png.*cannot be written"):
            imaging.save_image(path, NOISE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_class_colours():
    assert len(CLASS_NAMES) == len(set(CLASS_NAMES)) == len(PALETTE) == 29
    assert [CLASS_NAMES[i] for i in (0, 1, 14, 20, 28)] == "mountain sky person lake other".split()
    distances = np.abs(PALETTE[:, None].astype(int) - PALETTE).sum(-1) + 1000 * np.eye(29)
    assert distances.min() >= 40
    sky, grass = colour_label(np.array([[1, 12, 255]], np.uint8))[0, :2].astype(int)
    assert sky.argmax() == 2 and grass.argmax() == 1
    assert not colour_label(np.array([[255]], np.uint8)).any()


def test_grid_places_cells_in_columns():
    red, blue = np.zeros((5, 4, 3), np.uint8), np.zeros((3, 8, 3), np.uint8)
    red[..., 0], blue[..., 2] = 255, 255
    sheet = imaging.grid([[red, blue], [blue]], gap=2)
    assert sheet.shape == (2 + 5 + 2 + 3 + 2, 2 + 8 + 2 + 8 + 2, 3)
    assert (sheet[2:7, 2:6] == red).all() and (sheet[2:5, 12:20] == blue).all()
    assert (sheet[9:12, 2:10] == blue).all()
    assert (sheet[:2] == 255).all() and (sheet[:, :2] == 255).all()
    captioned = imaging.grid([[red, blue], [blue]], gap=2, captions=["a very long caption", "b"])
    assert captioned.shape[0] > sheet.shape[0] and captioned.shape[1] == sheet.shape[1]
    assert (captioned[:18] < 128).any() and (captioned[:18, 10:12] == 255).all()
