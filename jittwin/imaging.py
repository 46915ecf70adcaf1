"""Pictures and label maps: decoding, resizing, saving, contact sheets.

How files become arrays:
- A picture is turned upright by its EXIF tag and becomes RGB. Grey is repeated, palettes are
  resolved, alpha is dropped, 16-bit samples keep their high byte.
- A label map has grey values, palette *indices*, or RGB with three identical channels.
  Labels are never rotated, and alpha is ignored. Lossy formats are refused, because they change labels.
- Metadata that cannot be read never hide pixels that can.
"""
import io
import warnings
from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from jittwin.atomic import write_file
from jittwin.errors import UserError
from jittwin.file_kinds import HEAD
from jittwin.picture_formats import RAW, decoded, loss, obstacle, suffix_of, without_metadata

MOST_PIXELS = 178_956_970       # of a picture, unless `limit_pixels` says otherwise; Pillow's own limit
_SUFFIXES = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG"}
_EXIF_ORIENTATION, _QUARTER_TURNS = 0x0112, (5, 6, 7, 8)
_TURNS = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
          5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
          8: Image.Transpose.ROTATE_90}
_LOSS_HEAD = 1 << 16            # bytes of a file's beginning that tell whether its compression is lossy
_most_pixels = MOST_PIXELS
T = TypeVar("T")


def limit_pixels(most: int) -> None:
    """Let pictures have at most this many pixels, in this process; Pillow's own limit and its warnings end."""
    global _most_pixels
    _most_pixels, Image.MAX_IMAGE_PIXELS = most, None
    warnings.filterwarnings("ignore", module=r"PIL\.")      # they are about metadata, which nothing here uses


@contextmanager
def _reading(name, file=None):
    """In this context any error of Pillow becomes a UserError of one line. file: the path or stream, if there is one.
    """
    try:
        yield
    except UserError:
        raise
    except Image.DecompressionBombError as error:
        raise UserError(f"{name}: {error}; make it smaller, or raise the limit (--max-pixels)") from error
    except MemoryError as error:
        raise UserError(f"{name}: cannot be read (the memory does not suffice); make it smaller") from error
    except Exception as error:  # Pillow's readers raise nearly anything on damaged bytes
        reason = getattr(error, "strerror", None) or ("damaged" if file is None else obstacle(_start(file), str(name)))
        # Where Pillow has found out what the file is, it says what is wrong with it.
        if reason.startswith("damaged") and not isinstance(error, Image.UnidentifiedImageError) and str(error):
            reason = f"{reason}: {' '.join(str(error).split())[:160]}"
        raise UserError(f"{name}: cannot be read ({reason}); replace the file or remove it") from error


@contextmanager
def _opened(file, name, admit: Callable[[int], None]):
    """The lazily opened Pillow image of a path or stream. UserError: it cannot be read, or is too large.

    admit: see decode_image.
    """
    with _reading(name, file):
        if suffix_of(str(name)) in RAW:
            raise Image.UnidentifiedImageError
        # As a stream, because Pillow maps a file with a name into memory and then scrambles grey TIFFs that it turns.
        stream = nullcontext(file) if hasattr(file, "read") else open(file, "rb")
        with stream as opened, Image.open(opened, formats=decoded()) as image:
            width, height = image.size
            if width * height > _most_pixels:
                raise UserError(f"{name}: has {width}x{height} pixels, {width * height:,} and more than the limit of "
                                f"{_most_pixels:,}; make it smaller, or raise the limit with --max-pixels")
            admit(width * height)
            if image.format == "TIFF":      # Pillow reads all EXIF data of a TIFF to turn it
                image.getexif = lambda read=image.getexif, tags=image.tag_v2: _readable_exif(read, tags)
            yield image


def _start(file, size: int = HEAD) -> bytes:
    """The first bytes of a path or stream, as far as it can be read."""
    try:
        if hasattr(file, "read"):
            file.seek(0)
            return file.read(size)
        with open(file, "rb") as stream:
            return stream.read(size)
    except (OSError, ValueError):
        return b""


def _readable_exif(read: Callable[[], Image.Exif], tags) -> Image.Exif:
    """What `read` returns; where that fails, EXIF data that tell the orientation in a TIFF's `tags` alone."""
    try:
        found = read()
        for key in found:
            found.get_ifd(key) if key in (0x8769, 0x8825, 0xA005) else found[key]
        return found
    except Exception:       # Pillow raises nearly anything on damaged EXIF
        found, turned = Image.Exif(), tags.get(_EXIF_ORIENTATION)
        if turned in _TURNS:
            found[_EXIF_ORIENTATION] = turned
        return found


def _read(file, name, work: Callable[[Image.Image], T], admit: Callable[[int], None] = lambda pixels: None) -> T:
    """`work` of the opened image; if that fails, of the same picture without its metadata. UserError: that fails too.
    """
    name = name or file
    try:
        with _opened(file, name, admit) as image:
            return work(image)
    except UserError as error:
        plain = without_metadata(_start(file, -1))
        if plain is None:
            raise
        stream = io.BytesIO(plain)
        try:
            with _opened(stream, name, admit) as image:
                return work(image)
        except UserError:
            raise error from error.__cause__


def _orientation(image: Image.Image) -> int:
    """How a picture has yet to be turned, 1 to 8; 1 where its EXIF data cannot be read. It is loaded if need be."""
    try:
        return image.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:       # Pillow raises nearly anything on damaged EXIF
        return 1


def image_size(path) -> tuple[int, int]:
    """(height, width) of the upright picture, from the file's header alone where that tells it.

    UserError: it cannot be read; of a PNG also where its pixels cannot.
    """
    return _read(path, None, _upright_size)


def _upright_size(image: Image.Image) -> tuple[int, int]:
    width, height = image.size
    if image.format == "PNG" and "exif" not in image.info:
        image.load()            # EXIF data may follow the pixels
    # Pillow gives the upright size of a TIFF.
    return (width, height) if image.format != "TIFF" and _orientation(image) in _QUARTER_TURNS else (height, width)


def check_sides(what, shape: tuple[int, int], multiple: int, made_by: str) -> None:
    """UserError if a side of `shape` (H, W) is not a multiple. what: the object of that size. made_by: its settings."""
    if any(side < multiple or side % multiple for side in shape):
        raise UserError(f"{what}: {shape[1]}x{shape[0]} pixels (width x height, from {made_by}); both must "
                        f"be multiples of {multiple}, such as 512x384; change the width or the proportions")


def decode_image(file, name: str | None = None, admit: Callable[[int], None] = lambda pixels: None) -> np.ndarray:
    """uint8 (H, W, 3) RGB of any file Pillow reads. Raises UserError naming a damaged file.

    file: a path, or a stream, which messages then call `name`. admit: called with the number of pixels before any is
    decoded; it may wait until there is room for them.
    """
    return _read(file, name, lambda image: _pixels(image, name or file), admit)


def rgb(image: Image.Image, name) -> np.ndarray:
    """uint8 (H, W, 3) of a picture that Pillow opened or made. UserError, which calls it `name`: damaged, or mode F."""
    with _reading(name):
        return _pixels(image, name)


def _pixels(image, name):
    if image.mode == "F":
        raise UserError(f"{name}: floating-point samples have no fixed range; save as 8- or 16-bit PNG")
    image.load()
    turn = _TURNS.get(_orientation(image))
    if image.mode.startswith("I"):
        image = Image.fromarray((np.clip(np.asarray(image), 0, 65535) >> 8).astype(np.uint8))
    if image.mode != "RGB":
        image = image.convert("RGB")
    return np.array(image if turn is None else image.transpose(turn))


def decode_label(path, classes: np.ndarray | None = None) -> np.ndarray:
    """uint8 (H, W) of a grey, palette or three-equal-channel label file. Raises UserError otherwise.

    classes: what each value becomes, uint8 (256,), see jittwin.classes.ignoring; None keeps the values.
    """
    values, mode, lossy = _read(path, None, lambda image: (
        np.asarray(_as_stored(image)), image.mode, loss(image, _start(path, _LOSS_HEAD))))
    if lossy:
        raise UserError(f"{path}: {lossy} changes class numbers when it is saved, so its labels are not those that "
                        "were drawn; save the label maps again from their source, as 8-bit grey PNG")
    if values.ndim == 3:
        colours = values[..., :3] if mode.startswith("RGB") else values[..., :1]
        if mode not in ("RGB", "RGBA", "LA", "PA") or (colours != colours[..., :1]).any():
            raise UserError(f"{path}: a label map needs one channel or three identical ones, this is {mode} "
                            "with other content; save class numbers as an 8-bit grey PNG")
        values = colours[..., 0]
    if mode == "F" or values.min() < 0 or values.max() > 255:
        raise UserError(f"{path}: label values {values.min()}..{values.max()} do not fit 8 bits; "
                        "save class numbers as an 8-bit grey PNG")
    return values.astype(np.uint8) if classes is None else classes[values]


def _as_stored(image: Image.Image) -> Image.Image:
    """The image, turned back where Pillow has turned it, which it does with a TIFF."""
    turned = image.tag_v2.get(_EXIF_ORIENTATION) if image.format == "TIFF" else None
    image.load()
    return image.transpose(_TURNS[{6: 8, 8: 6}.get(turned, turned)]) if turned in _TURNS else image


def resize_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """uint8 (H, W, 3) to uint8 (*size, 3), Pillow bicubic (antialiased when shrinking)."""
    return _resize(image, size, Image.Resampling.BICUBIC)


def resize_label(label: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """uint8 (H, W) to uint8 `size`, Pillow nearest."""
    return _resize(label, size, Image.Resampling.NEAREST)


def _resize(array, size, method):
    if array.shape[:2] == tuple(size):
        return array
    return np.array(Image.fromarray(array).resize((size[1], size[0]), method))


def resize_levels(levels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A map uint8 (H, W) to uint8 `size`, bilinear with half-pixel centres and without antialiasing.

    It rounds as OpenCV's resize, to which it is equal bit for bit: weights are multiples of 1/2048, and what each of
    two rows adds loses what is below a quarter. Half the size in both directions is the mean of four pixels.
    """
    (height, width), (new_height, new_width) = levels.shape, size
    values = levels.astype(np.int32)
    if (height, width) == (new_height, new_width):
        return levels
    if (height, width) == (2 * new_height, 2 * new_width):
        return (values.reshape(new_height, 2, new_width, 2).sum((1, 3)) + 2 >> 2).astype(np.uint8)
    left, right, across = _neighbours(width, new_width)
    # Beyond the last column there is nothing to add; beyond the last row it is added in two parts.
    across = np.where(left == right, 0, across)
    columns = values.take(left, 1) * (_UNIT - across) + values.take(right, 1) * across >> 4
    top, below, down = _neighbours(height, new_height)
    down = down[:, None]
    rows = (columns.take(top, 0) * (_UNIT - down) >> 16) + (columns.take(below, 0) * down >> 16)
    return np.clip(rows + 2 >> 2, 0, 255).astype(np.uint8)


_UNIT = 2048    # weight 1 of a neighbour


def _neighbours(old: int, new: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each of `new` positions (lower neighbour, upper neighbour, weight of the upper one) among `old`."""
    at = ((np.arange(new) + 0.5) * (old / new) - 0.5).astype(np.float32)
    first = np.floor(at)
    weight = np.rint((at - first) * np.float32(_UNIT)).astype(np.int32)
    first = first.astype(np.int64)
    return np.clip(first, 0, old - 1), np.clip(first + 1, 0, old - 1), weight


def to_unit_range(image: np.ndarray) -> np.ndarray:
    """uint8 (H, W, 3) to float32 (3, H, W) in [-1, 1]."""
    scaled = image.astype(np.float32) / np.float32(255)
    return np.ascontiguousarray(((scaled - np.float32(0.5)) / np.float32(0.5)).transpose(2, 0, 1))


def to_uint8(image: np.ndarray) -> np.ndarray:
    """float (3, H, W) in [-1, 1] to uint8 (H, W, 3), truncated like APF-GAN; NaN becomes black."""
    unit = (np.asarray(image, np.float32).transpose(1, 2, 0) + np.float32(1)) / np.float32(2)
    return np.clip(np.nan_to_num(unit * np.float32(255)), 0, 255).astype(np.uint8)


def format_of(path) -> str:
    """Pillow's name of the format that the suffix of `path` stands for. UserError: neither JPEG nor PNG."""
    suffix = Path(path).suffix.lower()
    if suffix not in _SUFFIXES:
        raise UserError(f"{path}: cannot save pictures as '{suffix}'; use .jpg, .jpeg or .png")
    return _SUFFIXES[suffix]


def save_image(path, image: np.ndarray, quality: int = 75) -> None:
    """Save uint8 (H, W, 3) or (H, W) atomically as JPEG (.jpg, .jpeg) or PNG (.png, ignores quality)."""
    encoded = io.BytesIO()
    Image.fromarray(image).save(encoded, format_of(path), quality=quality)
    write_file(path, encoded.getvalue())


def jet(levels: np.ndarray) -> np.ndarray:
    """A map uint8 (H, W) in the colours called jet, from blue over green to red: uint8 (H, W, 3)."""
    values = levels.astype(np.int64)[..., None]
    return np.clip(382 - np.abs(4 * values - 255 * np.array((3, 2, 1))), 0, 255).astype(np.uint8)


def heat_overlay(image: np.ndarray, levels: np.ndarray, share: float = 0.5) -> np.ndarray:
    """A picture uint8 (H, W, 3) mixed with `share` of the jet colours of its map uint8 (h, w), which is resized."""
    warm = jet(resize_levels(levels, image.shape[:2])).astype(np.float32)
    return np.rint((1 - share) * image + share * warm).astype(np.uint8)


def captioned(image: np.ndarray, text: str, side: int = 160) -> np.ndarray:
    """uint8 (H, W, 3) as a square of `side` pixels with a line of text below."""
    cell = Image.new("RGB", (side, side + 20), "white")
    cell.paste(Image.fromarray(resize_image(image, (side, side))), (0, 0))
    ImageDraw.Draw(cell).text((2, side + 2), text, fill="black", font=ImageFont.load_default(size=13))
    return np.array(cell)


def grid(rows, gap: int = 4, captions=None) -> np.ndarray:
    """A contact sheet, uint8 (H, W, 3) on white.

    rows: lists of uint8 (h, w, 3) cells, top-left aligned in columns as wide as their widest
    cell. captions: one text per column, written above it.
    """
    heights = [max(cell.shape[0] for cell in row) for row in rows]
    columns = max(map(len, rows))
    widths = [max(row[i].shape[1] for row in rows if i < len(row)) for i in range(columns)]
    font = ImageFont.load_default(size=14)
    head = 18 + gap if captions else gap
    size = sum(widths) + gap * (columns + 1), head + sum(heights) + gap * len(rows)
    sheet = Image.new("RGB", size, "white")
    lefts = np.cumsum([gap] + [width + gap for width in widths])
    tops = np.cumsum([head] + [height + gap for height in heights])
    for row, top in zip(rows, tops):
        for cell, left in zip(row, lefts):
            sheet.paste(Image.fromarray(cell), (int(left), int(top)))
    for caption, left, width in zip(captions or (), lefts, widths):
        while caption and font.getlength(caption) > width:
            caption = caption[:-1]
        ImageDraw.Draw(sheet).text((int(left), gap // 2), caption, fill="black", font=font)
    return np.array(sheet)
