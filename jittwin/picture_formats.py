"""Formats of picture files: which the installed Pillow decodes, how a file is recognised, what its metadata are.

A format has Pillow's name, such as "JPEG2000". Suffixes are in lower case and begin with a dot.
"""
import importlib
import struct
import zlib
from collections.abc import Callable
from functools import cache

from PIL import Image

from jittwin.file_kinds import HEAD, other_content

# Formats that Pillow lists but does not decode by itself: they need a program of another project, or a handler.
_OTHERS = ("BUFR", "EPS", "FPX", "GRIB", "HDF5", "IPTC", "MIC", "MPEG", "WMF")
# By format: module and package of the plug-in of Pillow that decodes it, and suffixes.
PLUGINS = {"HEIF": ("pillow_heif", "pillow-heif", (".heic", ".heif", ".hif", ".heics")),
           "JXL": ("pillow_jxl", "pillow-jxl-plugin", (".jxl",)),
           "AVIF": ("pillow_avif", "pillow-avif-plugin", (".avif", ".avifs"))}
# Raw data of cameras. Pillow takes most of them for TIFF and would show their small preview.
RAW = (".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".kdc", ".mef", ".mrw", ".nef", ".nrw", ".orf",
       ".pef", ".raf", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f")
_STARTS = {b"\xff\xd8\xff": "JPEG", b"\x89PNG\r\n\x1a\n": "PNG", b"GIF87a": "GIF", b"GIF89a": "GIF", b"II*\0": "TIFF",
           b"MM\0*": "TIFF", b"\0\0\0\x0cjP  \r\n\x87\n": "JPEG2000", b"\xff\x4f\xff\x51": "JPEG2000", b"8BPS": "PSD",
           b"qoif": "QOI", b"\0\0\0\x0cJXL \r\n\x87\n": "JXL", b"\xff\x0a": "JXL"}
_BRANDS = {b"avif": "AVIF", b"avis": "AVIF", **dict.fromkeys(
    (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"), "HEIF")}
# Tags of TIFF that name authors, devices and times, or hold profiles and lists of other metadata.
_BESIDES = {270, 271, 272, 282, 283, 285, 296, 305, 306, 315, 316, 700, 33432, 33723, 34377, 34665, 34675, 34853, 37500,
            37510, 40965}
_LONGEST_TEXT = 1 << 20     # Pillow refuses a text of a PNG file that is longer


@cache
def decoded() -> tuple[str, ...]:
    """The formats that Pillow decodes here, with those of installed plug-ins that programs have to load."""
    Image.init()
    for name, (module, *_) in PLUGINS.items():
        if name not in Image.OPEN:
            try:
                plugin = importlib.import_module(module)
            except ImportError:
                continue
            getattr(plugin, "register_heif_opener", lambda: None)()     # the other plug-ins register themselves
    return tuple(name for name in Image.ID if name in Image.OPEN and name not in _OTHERS)


@cache
def suffixes() -> frozenset[str]:
    """The suffixes of pictures, also of those that need a plug-in or another program to be decoded."""
    formats = decoded()
    own = {suffix for suffix, name in Image.registered_extensions().items() if name in formats}
    return frozenset({*own, ".mpo", *RAW, *(suffix for *_, some in PLUGINS.values() for suffix in some)})


def suffix_of(name: str) -> str:
    """The picture's suffix that a name ends with, in lower case; "" if it has none. In v1.5 ".5" is none."""
    end = name[name.rfind("."):].lower() if "." in name else ""
    return end if end in suffixes() else ""


def format_of(head: bytes) -> str | None:
    """The format of a picture that begins with these HEAD bytes; None if they tell no picture."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[:2] == b"BM" and head[6:10] == bytes(4):
        return "BMP"
    if head[4:8] == b"ftyp":
        size = int.from_bytes(head[:4], "big")
        brands = [head[at:at + 4] for at in (8, *range(16, min(size, len(head)), 4))]
        if "AVIF" in (found := [_BRANDS[brand] for brand in brands if brand in _BRANDS]):
            return "AVIF"
        return found[0] if found else None
    return next((name for start, name in _STARTS.items() if head.startswith(start)), None)


def obstacle(head: bytes, name: str) -> str:
    """Why Pillow opens no picture in a file of this beginning and name, for a message."""
    found, suffix = format_of(head), suffix_of(name)
    if found is None and head[4:8] == b"ftyp":
        found = next((form for form, (*_, some) in PLUGINS.items() if suffix in some), None)
    if not head:
        return "it is empty"
    if suffix in RAW:
        return "raw data of a camera; save it as PNG or JPEG in a raw converter"
    if found in PLUGINS and found not in decoded():
        shown = "HEIC" if found == "HEIF" else found        # the name that its users know
        return f"{shown}, which the installed Pillow does not decode; pip install {PLUGINS[found][1]} and it does"
    if found:
        return f"damaged {found}"
    return f"it {stranger}" if (stranger := other_content(head)) else "not a picture, or damaged"


def loss(image: Image.Image, head: bytes) -> str | None:
    """The name of the lossy compression of an opened picture; None if every sample is as it was saved.

    AVIF and HEIF do not tell whether they are lossless, so they count as lossy.
    """
    if image.format in ("JPEG", "MPO"):
        return "JPEG"
    if image.format == "WEBP":
        return None if b"VP8L" in head else "lossy WebP"
    if image.format == "JPEG2000":
        # The byte after the marker's 12 others: 0 for the wavelet that rounds, 1 for the reversible one.
        at = head.find(b"\xff\x52")
        return "lossy JPEG 2000" if 0 <= at < len(head) - 13 and head[at + 13] == 0 else None
    if image.format == "TIFF":
        return "JPEG" if "jpeg" in str(image.info.get("compression")) else None
    return image.format if image.format in PLUGINS else None


def without_metadata(content: bytes) -> bytes | None:
    """A JPEG, PNG, TIFF or AVIF file without what does not concern its pixels, except how it is turned.

    None for other formats. From where on a file's parts cannot be told apart it is left as it is.
    """
    strip: dict[str, Callable[[bytes], bytes]] = {"JPEG": _plain_jpeg, "PNG": _plain_png, "AVIF": _plain_avif,
                                                  "TIFF": _plain_tiff}
    found = format_of(content[:HEAD])
    return strip[found](content) if found in strip else None


def turned(exif: bytes) -> int:
    """The orientation, 1 to 8, that EXIF data tell; 1 where they cannot be read."""
    try:
        found = Image.Exif()
        found.load(exif)
        value = int(found.get(0x0112, 1))
    except Exception:   # Pillow raises nearly anything on damaged EXIF
        return 1
    return value if 1 <= value <= 8 else 1


def _only_turned(exif: bytes) -> bytes:
    """EXIF data that hold nothing but the orientation of others."""
    found = Image.Exif()
    found[0x0112] = turned(exif)
    return found.tobytes()


def _plain_jpeg(content: bytes) -> bytes:
    parts, at = [content[:2]], 2
    while content[at:at + 1] == b"\xff" and at + 4 <= len(content):
        marker, size = content[at + 1], int.from_bytes(content[at + 2:at + 4], "big")
        if marker == 0xFF:          # fill bytes may stand before a marker
            at += 1
            continue
        if marker == 0xDA or size < 2:      # the pixels begin
            break
        body = content[at + 4:at + 2 + size]
        if marker == 0xE1 and body.startswith(b"Exif\0\0"):
            exif = _only_turned(body)
            parts.append(b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif)
        # The colours depend on the segments of JFIF and Adobe.
        elif not (0xE0 <= marker <= 0xEF or marker == 0xFE) or marker == 0xE0 and len(body) >= 14 or (
                marker == 0xEE and len(body) >= 12):
            parts.append(content[at:at + 2 + size])
        at += 2 + size
    return b"".join([*parts, content[at:]])


def _plain_png(content: bytes) -> bytes:
    parts, at = [content[:8]], 8
    while at + 12 <= len(content):
        size, kind = int.from_bytes(content[at:at + 4], "big"), content[at + 4:at + 8]
        body, end = content[at + 8:at + 8 + size], at + 12 + size
        if kind == b"eXIf":
            body = _only_turned(body)
            parts.append(struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)))
        # A capital letter begins the name of a part that decoding needs; tRNS makes a palette's colours transparent.
        elif kind[:1].isupper() or kind == b"tRNS" or (
                body.startswith(b"XML:com.adobe.xmp\0\0") and size < _LONGEST_TEXT
                and content[end - 4:end] == struct.pack(">I", zlib.crc32(kind + body))):
            parts.append(content[at:end])
        at = end
    return b"".join([*parts, content[at:]])


def _plain_avif(content: bytes) -> bytes:
    """EXIF data begin with a byte order and the place of a list, whose length, the next number, becomes 0."""
    for start in (b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08"):
        if (at := content.find(start)) >= 0:
            content = content[:at + 8] + b"\0\0" + content[at + 10:]
    return content


def _plain_tiff(content: bytes) -> bytes:
    order = "little" if content[:1] == b"I" else "big"
    start = int.from_bytes(content[4:8], order)         # of the first picture's list of tags, 12 bytes each
    end = start + 2 + 12 * int.from_bytes(content[start:start + 2], order)
    tags = [content[at:at + 12] for at in range(start + 2, min(end, len(content) - 11), 12)]
    kept = [tag for tag in tags if int.from_bytes(tag[:2], order) not in _BESIDES]
    shorter = len(kept).to_bytes(2, order) + b"".join(kept) + bytes(4)      # no further picture
    return content[:start] + shorter + content[start + len(shorter):]
