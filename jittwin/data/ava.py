"""AVA (Murray et al. 2012, doi 10.1109/CVPR.2012.6247954): photographs, and the votes for each rating 1..10.

    <folder>/AVA.txt (or in AVA_Files/, AVA_dataset/)       <folder>/images/<id>.jpg (or directly in the folder)

AVA.txt has 15 space-separated integers per row: running number, image id, ten vote counts, two tags, challenge.
Pictures are read by jittwin.imaging, which turns those with an EXIF orientation upright; the original program does
not. A picture that cannot be decoded is reported and skipped, never replaced.
"""
import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

import numpy as np
from tqdm import tqdm

from jittwin import imaging
from jittwin.atomic import write_file
from jittwin.data.listing import Listing, few, list_folder
from jittwin.errors import UserError
from jittwin.text_files import lines_of, read_text

BINS = 10
SUFFIXES = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG")  # of several files of one id, the first is the picture
BAD_IDS = "bad_ids.txt"
MAX_BAD = 0.001  # largest fraction of undecodable pictures that training accepts
DECODING = 2  # raise it when pictures can be decoded that could not before, so that reports are made again
MOST_VOTES = 2 ** 24  # float32 holds all counts up to this one exactly
_SCAN_CHUNK = 64


class Scores(dict):
    """Image id (str) -> votes for the ratings 1..10, float32 (10,), in the file's order.

    Numbers of rows that are not used: short (fewer than 12 fields), malformed (votes that are not counts), unrated (no
    votes), repeated (an id given again; its last row is used). path, sha256: path and hash of the file.
    """
    path: str = ""
    sha256: str = ""
    short = malformed = unrated = repeated = 0


def read_scores(path) -> Scores:
    """Parse AVA.txt. UserError: it cannot be read, or fewer than half of its rows have AVA's form."""
    lines = lines_of(read_text(path, "AVA.txt, AVA's file of votes"))
    scores, ids, votes, filled = Scores(), [], [], 0
    for line in lines:
        fields = line.split(None, BINS + 2)
        filled += bool(fields)
        if 0 < len(fields) < BINS + 2:
            scores.short += 1
        elif fields:
            try:
                counts = list(map(int, fields[2:BINS + 2]))
            except ValueError:
                counts = [-1]
            if min(counts) < 0 or max(counts) > MOST_VOTES:
                scores.malformed += 1
            elif not any(counts):
                scores.unrated += 1
            else:
                ids.append(fields[1])
                votes.append(counts)
    if len(ids) * 2 < filled or not ids:
        raise UserError(f"{path}: not an AVA.txt: {len(ids)} of {filled} rows have the form 'number id' and ten vote "
                        "counts separated by blanks; give AVA's file of votes")
    scores.update(zip(ids, np.array(votes, np.float32)))
    scores.path, scores.sha256 = str(path), hashlib.sha256(Path(path).read_bytes()).hexdigest()
    scores.repeated = len(ids) - len(scores)
    return scores


def rating_fractions(votes: np.ndarray) -> np.ndarray:
    """Vote counts (..., 10) to the fraction of the votes for each rating, float32 (..., 10)."""
    votes = np.asarray(votes, np.float32)
    return votes / votes.sum(axis=-1, keepdims=True)


def mean_and_deviation(votes: np.ndarray) -> tuple[float, float]:
    """Mean rating and its population standard deviation of ten vote counts."""
    ratings, votes = np.arange(1, BINS + 1), np.asarray(votes, np.float64)
    mean = ratings @ votes / votes.sum()
    return float(mean), float(np.sqrt((ratings - mean) ** 2 @ votes / votes.sum()))


def by_id(listing: Listing) -> dict[str, str]:
    """The picture of each id, which is its file name without a suffix: by SUFFIXES, then by name, the first counts."""
    found = {}
    for name in sorted(listing.files, key=_rank):
        found.setdefault(PurePosixPath(name).stem, name)
    return found


def _rank(name: str) -> tuple:
    suffix = PurePosixPath(name).suffix
    return SUFFIXES.index(suffix) if suffix in SUFFIXES else len(SUFFIXES), name


class AvaIndex:
    """The rated pictures of a data folder, found with one listing of it.

    images, votes: the folder of pictures and AVA.txt, if they are not in their usual places inside `folder`. The
    attribute `ids` lists the ids with votes and a file, in AVA.txt's order; `missing` lists those with votes and no
    file. UserError: no such folder, no AVA.txt, or no picture that it rates.
    """

    def __init__(self, folder, images=None, votes=None):
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise UserError(f"{folder}: no such folder; give the folder with AVA.txt and images/")
        self.scores = read_scores(votes or self._votes())
        usual = self.folder / "images"
        self.images = Path(images) if images else usual if usual.is_dir() else self.folder
        if not self.images.is_dir():
            reason = "not a folder" if self.images.exists() else "no such folder"
            raise UserError(f"{self.images}: cannot be listed ({reason}); give the folder of the pictures")
        self.listing = list_folder(self.images)
        files = by_id(self.listing)
        self.files = {image: files[image] for image in self.scores if image in files}
        self.ids = list(self.files)
        self.missing = [image for image in self.scores if image not in self.files]
        if not self.ids:
            raise UserError(f"{self.images}: holds none of the {len(self.scores)} pictures that {self.scores.path} "
                            f"rates; they are expected as {self.missing[0]}.jpg and so on")

    def _votes(self) -> Path:
        places = (self.folder / part / "AVA.txt" for part in ("", "AVA_Files", "AVA_dataset"))
        found = next((place for place in places if place.is_file()), None)
        if not found:
            raise UserError(f"{self.folder}: no AVA data set; it needs AVA.txt, with the votes, and images/")
        return found

    def path(self, image: str) -> Path:
        """The file of an id of `ids`."""
        return self.images / self.files[image]

    def left_out(self) -> list[str]:
        """Messages about the rows of AVA.txt that are not used, and about rated pictures that have no file."""
        scores, lines = self.scores, []
        counts = {"too short": scores.short, "votes not counts": scores.malformed, "no votes": scores.unrated,
                  "repeated ids": scores.repeated}
        if any(counts.values()):
            lines.append(f"{scores.path}: rows not used: "
                         + ", ".join(f"{count} {reason}" for reason, count in counts.items() if count))
        lines += self.listing.notes
        used = set(self.files.values())
        if unused := [name for name in self.listing.files if name not in used]:
            lines.append(f"{self.images}: {len(unused)} pictures are not used, because {Path(scores.path).name} does "
                         f"not rate them or names another file of the same id: {few(sorted(unused))}")
        if self.missing:
            lines.append(f"{self.images}: {len(self.missing)} rated pictures have no file, such as {self.missing[0]}")
        return lines

    def content_hash(self) -> str:
        """SHA-256 of the names of the pictures and of DECODING; it tells whether a report is about this listing."""
        names = sorted(self.files.values())
        return hashlib.sha256("\n".join([f"decoding {DECODING}", *names]).encode(errors="surrogateescape")).hexdigest()


def scan(index: AvaIndex, workers: int = 0) -> dict[str, str]:
    """Decode every picture; returns id -> reason of those that fail. workers: threads, 0 for one per CPU."""
    def failures(images):
        found = {}
        for image in images:
            try:
                imaging.decode_image(index.path(image))
            except UserError as error:
                found[image] = str(error)
        return found

    chunks = [index.ids[at:at + _SCAN_CHUNK] for at in range(0, len(index.ids), _SCAN_CHUNK)]
    bad = {}
    with (ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool,
          tqdm(desc="decoding pictures", total=len(index.ids), delay=2, disable=None, leave=False) as bar):
        try:
            for images, found in zip(chunks, pool.map(failures, chunks)):
                bad.update(found)
                bar.update(len(images))
        finally:
            pool.shutdown(cancel_futures=True)
    return bad


def write_bad_ids(path, index: AvaIndex, bad: dict[str, str]) -> None:
    """Write the report: a line about what was scanned, then one id per line with the reason after a '#'."""
    lines = [f"# {len(bad)} of {len(index.ids)} pictures cannot be decoded; listing {index.content_hash()}"]
    write_file(path, "\n".join(lines + [f"{image}  # {' '.join(why.split())}" for image, why in bad.items()]) + "\n")


def read_bad_ids(path, index: AvaIndex) -> dict[str, str] | None:
    """The report's id -> reason; None if there is no report, or it is about other files."""
    try:
        head, *rows = Path(path).read_text(encoding="utf-8").splitlines() or [""]
    except (OSError, UnicodeDecodeError):
        return None
    if not head.endswith(index.content_hash()):
        return None
    return {image.strip(): why.strip() for image, _, why in (row.partition("#") for row in rows)}


def bad_ids(index: AvaIndex, folder, max_bad: float = MAX_BAD, workers: int = 0) -> dict[str, str]:
    """Id -> reason of the pictures that cannot be decoded, from bad_ids.txt or, if there is none, from a scan.

    bad_ids.txt is looked for in the data folder and in `folder`; one about other file names is not used. The scan
    writes its report to `folder`. UserError when more than the fraction `max_bad` of the pictures cannot be decoded.
    """
    reports = [Path(place) / BAD_IDS for place in (index.folder, folder)]
    known = next((bad for report in reports if (bad := read_bad_ids(report, index)) is not None), None)
    if known is None:
        known = scan(index, workers)
        reports[1].parent.mkdir(parents=True, exist_ok=True)
        write_bad_ids(reports[1], index, known)
    check_bad_fraction(index, known, max_bad)
    return known


def check_bad_fraction(index: AvaIndex, bad: dict[str, str], max_bad: float = MAX_BAD) -> None:
    """UserError when more than the fraction `max_bad` of the index's pictures is in `bad`."""
    fraction = len(bad) / len(index.ids)
    if fraction > max_bad:
        raise UserError(f"{index.path(next(iter(bad)))}: cannot be decoded, like {len(bad)} of {len(index.ids)} "
                        f"pictures ({fraction:.2%}, at most {max_bad:.2%} accepted): see {BAD_IDS}; replace the files "
                        f"and delete {BAD_IDS}, or raise max_bad")


class AvaDataset:
    """Samples for a list of ids: the prepared picture and the distribution of its votes; nothing is random.

    prepare: a function from a picture uint8 (H, W, 3) to the network's input float32 (3, S, S). UserError: no ids.
    """

    def __init__(self, ids, scores: Scores, index: AvaIndex, prepare: Callable[[np.ndarray], np.ndarray]):
        if not ids:
            raise UserError(f"{index.folder}: no picture is left in this part of the split; use more pictures")
        self.names, self.scores, self.index, self.prepare = list(ids), scores, index, prepare

    def __len__(self) -> int:
        return len(self.names)

    def target(self, index: int) -> np.ndarray:
        """The votes' distribution, float32 (10,); the picture is not decoded."""
        return rating_fractions(self.scores[self.names[index]])

    def get(self, index: int, draws=None) -> dict:
        """dict(pixels float32 (3, S, S), target float32 (10,), name). UserError: undecodable picture."""
        name = self.names[index]
        pixels = self.prepare(imaging.decode_image(self.index.path(name)))
        return {"pixels": pixels, "target": self.target(index), "name": name}
