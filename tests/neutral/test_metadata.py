"""Pictures whose metadata are broken, huge or misleading, and label maps of lossy formats."""
import io
import random
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from jittwin import imaging
from jittwin.classes import CLASS_NUMBER, ignoring
from jittwin.cli import main
from jittwin.data.landscape import LandscapeDataset
from jittwin.data.pure import PureDictionary
from jittwin.errors import UserError
from jittwin.picture_formats import turned, without_metadata

pytestmark = pytest.mark.filterwarnings("ignore")      # Pillow's, about metadata
PICTURE = np.kron(np.random.default_rng(0).integers(0, 256, (6, 10, 3), np.uint8), np.ones((4, 4, 1), np.uint8))
FORMATS = {"JPEG": {"quality": 95}, "PNG": {}, "WEBP": {"lossless": True}, "TIFF": {}, "AVIF": {"quality": 90}}
ORIENTATION = 0x0112


def encoded(form, picture=PICTURE, **options):
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, form, **FORMATS.get(form, {}), **options)
    return stream.getvalue()


def decode(content):
    return imaging.decode_image(io.BytesIO(content), "picture")


def shown(picture, orientation):
    """The picture as a viewer shows it, by the meaning of the tag: which side of the picture is row 0, and column 0."""
    upside, mirrored = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    turned = picture.transpose(1, 0, 2) if orientation > 4 else picture
    if orientation > 4:     # 5: left, top; 6: right, top; 7: right, bottom; 8: left, bottom
        return turned[::-1 if orientation in (7, 8) else 1, ::-1 if orientation in (6, 7) else 1]
    return turned[::-1 if upside else 1, ::-1 if mirrored else 1]


def exif_bytes(entries, extra=b"", order="<"):
    """EXIF data of (tag, type, count, value)."""
    start = (b"II*\0\x08\0\0\0" if order == "<" else b"MM\0*\0\0\0\x08") + struct.pack(f"{order}H", len(entries))
    return start + b"".join(struct.pack(f"{order}HHII", *entry) for entry in entries) + bytes(4) + extra


BROKEN = {
    "resolution as text": exif_bytes([(ORIENTATION, 3, 1, 6), (0x011A, 2, 3, 0x3237)]),
    "model as ratio": exif_bytes([(0x0110, 5, 1, 38), (ORIENTATION, 3, 1, 6)], struct.pack("<II", 1, 1)),
    "negative pointer": exif_bytes([(ORIENTATION, 3, 1, 6), (0x8825, 9, 1, 0xFFFFFFF0)]),
    "pointer beyond the end": exif_bytes([(ORIENTATION, 3, 1, 6), (0x8769, 4, 1, 1 << 30)]),
    "pointer to itself": exif_bytes([(ORIENTATION, 3, 1, 6), (0x8769, 4, 1, 8)]),
    "ratio by zero": exif_bytes([(ORIENTATION, 3, 1, 6), (0x011A, 5, 1, 38)], bytes(8)),
    "unknown type": exif_bytes([(ORIENTATION, 3, 1, 6), (0x9286, 200, 9, 1)]),
    "count beyond the end": exif_bytes([(ORIENTATION, 3, 1, 6), (0x927C, 7, 1 << 28, 60)]),
    "maker as numbers": exif_bytes([(0x010F, 4, 1, 7), (ORIENTATION, 3, 1, 6)]),
    "date as doubles": exif_bytes([(ORIENTATION, 3, 1, 6), (0x0132, 12, 2, 44)], bytes(16)),
}


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("name", BROKEN)
def test_broken_exif_leaves_pixels_and_orientation(form, name):
    exif = BROKEN[name]
    content = encoded(form, exif=b"Exif\0\0" + exif if form == "JPEG" else exif)
    expected = shown(decode(encoded(form)), 6)
    np.testing.assert_array_equal(decode(content), expected)
    assert imaging.image_size(io.BytesIO(content)) == expected.shape[:2]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_of_every_format(tmp_path, form, orientation):
    for picture in (PICTURE, PICTURE[..., 0]):
        exif = Image.Exif()         # anew, because saving an AVIF takes the orientation out of it
        exif[ORIENTATION] = orientation
        content, expected = encoded(form, picture, exif=exif), shown(decode(encoded(form, picture)), orientation)
        (tmp_path / "picture").write_bytes(content)
        np.testing.assert_array_equal(decode(content), expected)
        np.testing.assert_array_equal(imaging.decode_image(tmp_path / "picture"), expected)
        assert imaging.image_size(tmp_path / "picture") == expected.shape[:2]


def random_exif(draw):
    entries = sorted((draw.choice([0x010F, 0x0110, 0x011A, 0x0128, 0x0132, 0x8769, 0x8825, 0x9286, 0x927C, 0xA005]),
                      draw.randrange(14), draw.choice([0, 1, 2, 3, 1 << 20]), draw.randrange(1 << 32))
                     for _ in range(draw.randrange(1, 6)))
    if draw.random() < 0.7:
        entries = sorted([*entries, (ORIENTATION, draw.choice([1, 2, 3, 4]), 1, draw.randrange(10))])
    exif = exif_bytes(entries, draw.randbytes(draw.randrange(40)))
    return exif[:draw.randrange(len(exif))] if draw.random() < 0.3 else exif


def random_tiff(draw):
    """A TIFF, some of whose tags about cameras and texts have another type, length and place."""
    exif = Image.Exif()
    exif[ORIENTATION], exif[0x010F], exif[0x0110], exif[0x9286] = draw.randrange(1, 9), "maker", "model", b"comment"
    content = bytearray(encoded("TIFF", exif=exif))
    start = struct.unpack("<I", content[4:8])[0]
    for at in range(start + 2, start + 2 + 12 * struct.unpack("<H", content[start:start + 2])[0], 12):
        if struct.unpack("<H", content[at:at + 2])[0] in (0x010F, 0x0110, 0x9286) and draw.random() < 0.7:
            content[at + 2:at + 12] = struct.pack("<HII", draw.randrange(14), draw.choice([1, 2, 1 << 20]),
                                                  draw.randrange(1 << 32))
    return bytes(content)


@pytest.mark.parametrize("form", FORMATS)
def test_generated_exif_never_hides_pixels(form):
    plain = decode(encoded(form))
    turns = [shown(plain, orientation) for orientation in range(1, 9)]
    for seed in range(100):
        draw = random.Random(seed)
        try:
            content = random_tiff(draw) if form == "TIFF" else encoded(
                form, exif=b"Exif\0\0" * (form == "JPEG") + random_exif(draw))
        except Exception:       # Pillow does not write all of them
            continue
        seen = decode(content)
        assert any(np.array_equal(seen, turn) for turn in turns), seed
        assert imaging.image_size(io.BytesIO(content)) == seen.shape[:2], seed


def chunk(kind, body, checksum=None):
    checksum = zlib.crc32(kind + body) if checksum is None else checksum
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)


def with_chunks(content, *chunks):
    """A PNG with further chunks after its header."""
    return content[:33] + b"".join(chunks) + content[33:]


HUGE = zlib.compress(b"x" * (3 << 20))
CHUNKS = {
    "long compressed text": chunk(b"zTXt", b"workflow\0\0" + HUGE),
    "long international text": chunk(b"iTXt", b"workflow\0\1\0\0\0" + HUGE),
    "wrong checksum": chunk(b"tEXt", b"a\0b", checksum=1), "long profile": chunk(b"iCCP", b"icc\0\0" + HUGE),
    "damaged time": chunk(b"tIME", b"", checksum=5), "damaged text": chunk(b"iTXt", b"a", checksum=7),
    "damaged resolution": chunk(b"pHYs", b"12"), "damaged gamma": chunk(b"gAMA", b""),
    "damaged colours": chunk(b"cHRM", b"123", checksum=0), "damaged background": chunk(b"bKGD", b"", checksum=0),
    "long XMP": chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + HUGE)}


@pytest.mark.parametrize("name", CHUNKS)
def test_chunks_of_a_png_that_are_no_pixels(name):
    np.testing.assert_array_equal(decode(with_chunks(encoded("PNG"), CHUNKS[name])), PICTURE)


def test_many_long_texts_of_a_png():
    info = PngInfo()
    for number in range(70):        # more together than Pillow takes
        info.add_itxt(f"graph{number}", "x" * (1 << 20), zip=True)
    np.testing.assert_array_equal(decode(encoded("PNG", pnginfo=info)), PICTURE)


def test_the_size_of_a_damaged_png_is_an_error():
    """Its pixels are read for the EXIF data that may follow them, so training finds it before it starts."""
    with pytest.raises(UserError, match="cannot be read"):
        imaging.image_size(io.BytesIO(encoded("PNG")[:-60]))


def test_a_long_text_keeps_the_orientation():
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    content = with_chunks(encoded("PNG", exif=exif), CHUNKS["long compressed text"])
    np.testing.assert_array_equal(decode(content), shown(PICTURE, 6))
    assert imaging.image_size(io.BytesIO(content)) == (40, 24)


def test_generated_segments_of_a_jpeg():
    plain = encoded("JPEG")
    expected = decode(plain)
    names = [b"", b"Exif\0\0", b"MPF\0", b"Photoshop 3.0\0", b"ICC_PROFILE\0", b"http://ns.adobe.com/xap/1.0/\0", b"JFIF",
             b"FPXR\0"]
    for seed in range(150):
        draw = random.Random(seed)
        segments = b""
        for _ in range(draw.randrange(1, 4)):
            body = draw.choice(names) + draw.randbytes(draw.choice([0, 1, 2, 5, 30]))
            marker = draw.choice([0xE0, 0xE1, 0xE1, 0xE2, 0xE2, 0xED, 0xED, 0xE5, 0xFE])
            segments += bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body
        seen = decode(plain[:2] + segments + plain[2:])
        assert seen.shape in ((24, 40, 3), (40, 24, 3)) and seen.sum() == expected.sum(), seed


def test_what_is_left_without_metadata():
    exif = Image.Exif()
    exif[ORIENTATION], exif[0x010F] = 8, "maker"
    for form in ("JPEG", "PNG", "TIFF"):
        content = encoded(form, exif=exif)
        plain = without_metadata(content)
        with Image.open(io.BytesIO(content)) as before, Image.open(io.BytesIO(plain)) as after:
            assert before.getexif()[0x010F] == "maker" and 0x010F not in after.getexif()
        np.testing.assert_array_equal(decode(plain), shown(decode(encoded(form)), 8))
    assert without_metadata(encoded("WEBP")) is None
    assert [turned(data) for data in (exif.tobytes(), b"", b"Exif\0\0II*\0", b"nothing")] == [8, 1, 1, 1]


def test_damaged_pixels_stay_an_error_and_say_so():
    """Whatever else is wrong with the file."""
    damaged = with_chunks(encoded("PNG"), CHUNKS["long compressed text"])
    for content, message in ((damaged[:-60], "damaged PNG: "), (encoded("JPEG")[:-30], "truncated")):
        with pytest.raises(UserError, match=f"picture: cannot be read .*{message}"):
            decode(content)


def test_generated_damage_is_one_line_or_a_picture():
    """2,000 files of five formats with bytes changed, removed or repeated."""
    whole = {form: encoded(form) for form in FORMATS}
    for seed in range(2000):
        draw = random.Random(seed)
        content = bytearray(whole[draw.choice(sorted(whole))])
        for _ in range(draw.randrange(1, 6)):
            at = draw.randrange(len(content))
            end = at + draw.choice([1, 1, 4, 40])
            content[at:end] = draw.choice([draw.randbytes(end - at), b"", bytes(content[at:end]) * 2, bytes(end - at)])
            if not content:
                break
        for read in (decode, lambda data: imaging.image_size(io.BytesIO(data))):
            try:
                read(bytes(content))
            except UserError as error:
                assert "\n" not in str(error) and len(str(error)) < 400, seed


# ---- the limit of pixels ----------------------------------------------------------------

@pytest.fixture
def restored(monkeypatch):
    monkeypatch.setattr(imaging, "_most_pixels", imaging.MOST_PIXELS)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)


def test_a_limit_of_pixels_of_our_own(restored):
    huge = with_size(30_000, 7_000)
    with pytest.raises(UserError, match="--max-pixels"):      # Pillow's own, where no command has set ours
        decode(huge)
    imaging.limit_pixels(1000)
    assert decode(encoded("PNG")).shape == (24, 40, 3)
    with pytest.raises(UserError, match=r"has 41x25 pixels, 1,025 and more than the limit of 1,000.*--max-pixels"):
        decode(encoded("PNG", np.zeros((25, 41, 3), np.uint8)))
    imaging.limit_pixels(300_000_000)
    assert imaging.image_size(io.BytesIO(with_size(30_000, 7_000, turned=True))) == (7_000, 30_000)


def with_size(width, height, turned=False):
    """A PNG that says it has this size; turned: and that it is upright, so that its header alone tells the size."""
    exif = Image.Exif()
    exif[ORIENTATION] = 1
    content = encoded("PNG", exif=exif) if turned else encoded("PNG")
    return content[:8] + chunk(b"IHDR", struct.pack(">II", width, height) + content[24:29]) + content[33:]


def test_the_flag_of_the_limit(tmp_path, restored, capsys):
    (tmp_path / "a.png").write_bytes(encoded("PNG"))
    arguments = ["assess", str(tmp_path), "--random-weights", "--backend", "torch", "--max-pixels"]
    assert main([*arguments, "0"]) == 2 and "--max-pixels 0: must be at least 1" in capsys.readouterr().err


# ---- label maps -------------------------------------------------------------------------

LABEL = np.kron(np.random.default_rng(1).integers(0, 29, (6, 8), np.uint8), np.ones((8, 8), np.uint8))


@pytest.mark.parametrize("form, name, options", [
    ("JPEG", "JPEG", {"quality": 100}), ("JPEG", "JPEG", {"quality": 75}), ("WEBP", "lossy WebP", {"lossless": False}),
    ("JPEG2000", "lossy JPEG 2000", {"irreversible": True}), ("AVIF", "AVIF", {"quality": 100}),
    ("TIFF", "JPEG", {"compression": "jpeg"})])
@pytest.mark.parametrize("suffix", ["", ".png"])
def test_lossy_label_maps_are_refused_whatever_their_name(tmp_path, form, name, options, suffix):
    path, label = tmp_path / f"labels{suffix}", np.dstack([LABEL] * 3) if form in ("WEBP", "AVIF") else LABEL
    Image.fromarray(label).save(path, form, **options)
    with pytest.raises(UserError, match=f"labels{suffix}: {name} changes class numbers .*8-bit grey PNG"):
        imaging.decode_label(path)


@pytest.mark.parametrize("form, options", [
    ("PNG", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("BMP", {}), ("PPM", {}), ("TGA", {}),
    ("WEBP", {"lossless": True}), ("JPEG2000", {"irreversible": False})])
def test_lossless_label_maps_keep_every_class(tmp_path, form, options):
    path = tmp_path / "labels.png"
    Image.fromarray(np.dstack([LABEL] * 3) if form == "WEBP" else LABEL).save(path, form, **options)
    np.testing.assert_array_equal(imaging.decode_label(path), LABEL)


@pytest.mark.parametrize("form", ["TIFF", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_label_maps_are_never_turned(tmp_path, form, orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path = tmp_path / "labels"
    Image.fromarray(np.dstack([LABEL] * 3) if form == "WEBP" else LABEL).save(path, form, exif=exif, **FORMATS[form])
    np.testing.assert_array_equal(imaging.decode_label(path), LABEL)


@pytest.mark.parametrize("seed", range(10))
def test_generated_label_maps_are_kept_or_refused(tmp_path, seed):
    draw = random.Random(seed)
    form, options = draw.choice([("PNG", {}), ("JPEG", {"quality": draw.randrange(30, 101)}), ("TIFF", {}),
                                 ("WEBP", {"quality": draw.randrange(101)}), ("WEBP", {"lossless": True}),
                                 ("JPEG2000", {"irreversible": draw.random() < 0.5})])
    label = np.random.default_rng(seed).integers(0, 29, (draw.randrange(33, 80), draw.randrange(33, 80)), np.uint8)
    path = tmp_path / f"map{draw.choice(['.png', '.jpg', ''])}"
    Image.fromarray(np.dstack([label] * 3) if form == "WEBP" else label).save(path, form, **options)
    try:
        seen = imaging.decode_label(path)
    except UserError as error:
        assert "changes class numbers" in str(error) and form != "PNG"
    else:
        np.testing.assert_array_equal(seen, label)


def test_ignored_values_become_classes():
    table = ignoring("255=other, 254=sky,200=3")
    assert table[[255, 254, 200, 0, 28]].tolist() == [28, CLASS_NUMBER["sky"], 3, 0, 28]
    assert ignoring(None) is None


@pytest.mark.parametrize("text, message", [
    ("255", "'255' is not VALUE=CLASS"), ("256=other", "'256=other' is not"), ("255=othr", "did you mean 'other'"),
    ("255=29", "no class '29'"), ("255=1,255=2", "named once"), ("", "is not VALUE=CLASS"), ("-1=sky", "is not"),
    ("x=sky", "is not")])
def test_mistakes_about_ignored_values(text, message):
    with pytest.raises(UserError, match=message):
        ignoring(text)


def landscape(root, label):
    for folder, image, name in (("imgs", np.zeros((*label.shape, 3), np.uint8), "1.jpg"), ("labels", label, "1.png")):
        (root / folder).mkdir(parents=True)
        Image.fromarray(image).save(root / folder / name)
    return root


def test_a_data_set_with_an_ignore_label(tmp_path, capsys):
    label = np.full((429, 572), 255, np.uint8)
    folder = landscape(tmp_path / "set", label)
    with pytest.raises(UserError, match="holds label 255; .*--ignore 255=other"):
        LandscapeDataset(folder)
    for train in (True, False):
        data = LandscapeDataset(folder, train, ignore="255=water", crop_size=512)
        with pytest.raises(UserError, match="holds label 255"):
            LandscapeDataset(folder, train, ignore="254=other", crop_size=512)
    assert (data.get(0)["label"] == CLASS_NUMBER["water"]).all()
    assert list(PureDictionary.build(folder, ignore="255=water").images) == [CLASS_NUMBER["water"]]
    assert main(["prepare", "landscape", str(folder)]) == 2
    assert main(["prepare", "landscape", str(folder), "--ignore", "255=other"]) == 0
    assert "1 pairs of picture and label map, ready for training" in capsys.readouterr().out
    assert main(["prepare", "ava", str(folder), "--ignore", "255=other"]) == 2
    assert main(["train", "tier", "--ignore", "255=other", "--backend", "torch"]) == 2


def test_prepare_decodes_the_pictures_that_training_decodes(tmp_path, capsys):
    folder = landscape(tmp_path / "set", np.zeros((429, 572), np.uint8))
    content = (folder / "imgs/1.jpg").read_bytes()
    (folder / "imgs/1.jpg").write_bytes(content[:-200])
    assert main(["prepare", "landscape", str(folder)]) == 2
    assert "imgs/1.jpg: cannot be read (damaged JPEG: " in capsys.readouterr().err
