"""What a file is that should have been another one, told by its first bytes, and which file to take instead.

Downloads go wrong in a few ways: a pointer or a web page is saved in place of the file, an archive is not unpacked, a
file of another program has the suffix that was looked for.
"""
import os
import zipfile
from pathlib import Path

HEAD = 512      # bytes of a file's beginning that tell its kind
LFS = b"version https://git-lfs"
# (bytes that a file begins with, what it is, what to do). The first that fits counts.
_STARTS = (
    (LFS, "a pointer of git LFS in place of the file itself",
     "run git lfs pull in its folder, or fetch it again"),
    (b"/annex/objects/", "a pointer of git-annex in place of the file itself", "run git annex get in its folder"),
    (b"../.git/annex/", "a pointer of git-annex in place of the file itself", "run git annex get in its folder"),
    (b"outs:\n- md5:", "a pointer of DVC in place of the file itself", "run dvc pull in its folder"),
    (b"\0\x05\x16\x07", "a companion file of macOS, whose name begins with ._", "give the file without ._"),
    (b"L\0\0\0\x01\x14\x02\0", "a shortcut of Windows", "give the file that it leads to"),
    (b"[InternetShortcut]", "a link to a web page", "fetch the file that the page offers"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, Keras's form", "give a safetensors, PyTorch or Jittor file of the model"),
    (b"\x93NUMPY", "a single NumPy array (.npy)", "give a file of named arrays, such as .npz or .safetensors"),
    (b"\x1f\x8b", "a gzip archive", "unpack it (tar -xzf, or gunzip) and give the file in it"),
    (b"BZh91AY&SY", "a bzip2 archive", "unpack it and give the file in it"),
    (b"\xfd7zXZ\0", "an xz archive", "unpack it (tar -xJf, or unxz) and give the file in it"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive", "unpack it and give the file in it"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it and give the file in it"),
    (b"Rar!\x1a\x07", "a RAR archive", "unpack it and give the file in it"),
    (b"%PDF-", "a PDF document", ""),
    (b"\x7fELF", "a program or library of Linux", ""),
    (b"\xff\xd8\xff", "a JPEG picture", ""),
    (b"\x89PNG\r\n\x1a\n", "a PNG picture", ""),
    (b"GIF87a", "a GIF picture", ""),
    (b"GIF89a", "a GIF picture", ""),
    (b"II*\0", "a TIFF picture", ""),
    (b"MM\0*", "a TIFF picture", ""),
    (b"SQLite format 3\0", "an SQLite database", ""),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "a file of an old Microsoft Office (.xls, .doc)", "save it in the new form"),
)
_PAGE = (b"<!doctype", b"<html", b"<head", b"<?xml", b"<script", b"<body", b"<error", b"<!--")
_CODE = (b"import ", b"from ", b"#!", b"# ", b'"""', b"def ", b"class ")
TRUNCATED = "the download is unfinished: fetch it again"


def other_content(head: bytes) -> str:
    """"is a …; …" for a file that begins with these HEAD bytes and is nothing that is read here; "" for any other.

    The kind is told and, where there is one, the way to the file that is wanted.
    """
    for start, what, advice in _STARTS:
        if head.startswith(start):
            return _told(what, advice)
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text[:16].lower().startswith(_PAGE):
        return _told("a web page in place of the file itself", "fetch the file again, by its download link")
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return _told("a WebP picture", "")
    if head[:4] == b"GGUF" and head[5:8] == bytes(3):
        return _told("a GGUF file, llama.cpp's form of a model", "give the safetensors or PyTorch file it was made of")
    if head[4:8] == b"TFL3":
        return _told("a TensorFlow Lite model", "give a safetensors, PyTorch or Jittor file of the model")
    if head[:3] == bytes(3) and head[4:8] == b"ftyp":
        return _told("a picture or film (HEIC, AVIF, MP4)", "")
    if head[:2] == b"BM" and head[6:10] == bytes(4):
        return _told("a BMP picture", "")
    if head[257:262] == b"ustar":
        return _told("a tar archive", "unpack it (tar -xf) and give the file in it")
    if head[:1] == b"\x08" and head[1:2] < b"\x14" and head[2:3] in (b"\x12", b"\x1a", b"\x22", b"\x3a"):
        return _told("an ONNX graph", "give the weights that it was exported from")
    if len(head) >= 16 and not head.strip(b"\0"):
        return _told("nothing but zero bytes", "the copy or download failed: fetch it again")
    return ""


def is_code(head: bytes) -> bool:
    """Whether the first bytes are those of a Python or shell program."""
    return head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(_CODE)


def _told(what: str, advice: str) -> str:
    return f"is {what}" + (f"; {advice}" if advice else "")


def unpacked(path: str | os.PathLike) -> str:
    """What is wrong with a folder that is given where a file is wanted, for a message.

    Safari and Archive Utility unpack a PyTorch file, which is a zip archive, when it is downloaded or opened.
    """
    if is_unpacked(path):
        return ("is a folder, into which a PyTorch file was unpacked; fetch the file again, without unpacking it (in "
                "Safari: switch off 'Open safe files')")
    return "is a folder; give a file"


def is_unpacked(folder: str | os.PathLike) -> bool:
    """Whether a folder is what an unpacked PyTorch file leaves."""
    return any(next(Path(folder).glob(pattern), None) for pattern in ("data.pkl", "*/data.pkl"))


def no_pictures(path: str | os.PathLike) -> str:
    """"; it holds weights …" for a file that is given where pictures are wanted; "" if it cannot be told."""
    try:
        with open(path, "rb") as stream:
            head = stream.read(HEAD)
        names = zipfile.ZipFile(path).namelist() if head.startswith(b"PK") else []
    except (OSError, ValueError, zipfile.BadZipFile):
        return ""
    if head[:1] == b"\x80" or head[5:9] == b"\0\0\0{" or any(name.endswith("data.pkl") for name in names):
        return "; it holds weights: give pictures here, and the weights by their option"
    told = other_content(head)
    return f"; it {told}" if told and "picture" not in told else ""
