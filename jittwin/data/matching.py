"""Matching of the names in a table with pictures."""
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from jittwin.data.listing import few
from jittwin.errors import UserError, did_you_mean
from jittwin.picture_formats import suffix_of

# Legal names of a column of pictures. The names of PKU-AIGIQA-4K and of EvalMuse are among them.
PICTURE_COLUMNS = ("picture", "image", "file", "filename", "path", "imagepath", "imgpath", "filepath", "imagename",
                   "img", "generatedimage", "name")
MOST_NEAREST = 3    # a message looks for the nearest of at most this many names


def match(path, names: Iterable[str], pictures: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """({picture: its name in the table}, names that match no picture).

    Names are compared with the pictures' relative paths, then with these without their suffixes, then with the bare
    file names, then with these without their suffixes; the first match counts. path: the file with the names.
    UserError: an ambiguous match.
    """
    found, rest = {}, dict.fromkeys(names)
    for key in (_same, _without_suffix, _file_name, lambda name: _without_suffix(_file_name(name))):
        pictures_of, names_of = _grouped(pictures, key), _grouped(rest, key)
        for picture in pictures:
            meant = names_of.get(key(picture), ())
            if picture in found or not meant:
                continue
            twins = pictures_of[key(picture)]
            if len(meant) > 1 or len(twins) > 1:
                one, others = (picture, meant) if len(meant) > 1 else (meant[0], twins)
                raise UserError(f"{path}: '{one}' could be any of {len(others)}: {few(others)}; write the "
                                "paths of the pictures from their folder on, such as sub/1.png")
            found[picture] = meant[0]
        for name in found.values():
            rest.pop(name, None)
    return found, list(rest)


def plain_name(name: str) -> str:
    """A path of a table with "/" between folders and without a leading "./"."""
    name = name.strip().replace("\\", "/")
    while name.startswith("./"):
        name = name[2:]
    return name


def strangers(names: Sequence[str], known: Iterable[str]) -> str:
    """The first of these names, each with the nearest of those that are there, for a message."""
    known = list(known)
    shown = [f"'{name}'{did_you_mean(name, known)}" for name in names[:MOST_NEAREST]]
    return ", ".join(shown) + (", ..." if len(names) > MOST_NEAREST else "")


def named(names: Iterable[str], known: Sequence[str]) -> int | None:
    """Index of the first of the known names among `names`; case, spaces, quotes, "_" and "-" do not matter."""
    plain = [name.strip().casefold().translate(dict.fromkeys(map(ord, ' "_-'))) for name in names]
    return next((plain.index(name) for name in known if name in plain), None)


def _same(name: str) -> str:
    return unicodedata.normalize("NFC", name)       # file systems differ in how they write an accent


def _file_name(name: str) -> str:
    return _same(name).rpartition("/")[2]


def _without_suffix(name: str) -> str:
    """The name without the suffix of a picture; another dot, as in v1.5, begins no suffix."""
    suffix = suffix_of(name)
    return _same(name)[:-len(suffix)] if suffix else _same(name)


def _grouped(names: Sequence[str], key: Callable[[str], str]) -> dict[str, list[str]]:
    groups = defaultdict(list)
    for name in names:
        groups[key(name)].append(name)
    return groups
