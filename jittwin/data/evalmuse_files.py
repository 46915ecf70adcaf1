"""Files of EvalMuse-Structure beside its annotation: maps that were drawn before, the original's pickles, negatives.

Maps are kept as <name>.npz, a compressed uint8 (h, w) for each picture, beside <name>.json with prompts and votes. The
original keeps the same in train_info.pkl: {picture: {"heat_map": uint8 (512, 512), "prompt": text, "score": vote}}.
"""
import json
import pickle
import random
import threading
import zipfile
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from jittwin import imaging
from jittwin.atomic import atomic_write, write_file
from jittwin.data.evalmuse import BEST, WORST, EvalMuse, Problem, Sample, listed, read_entries, to_score, to_vote
from jittwin.data.landscape import each
from jittwin.data.matching import few, strangers
from jittwin.data.submission import key_of, read_submission
from jittwin.data.table import split_rows
from jittwin.errors import UserError, reason
from jittwin.text_files import lines_of, read_text
from jittwin.weights.content import read_pickle

STORED_SIDE = 512               # of the original's maps
HEAT, PROMPT, VOTE = "heat_map", "prompt", "score"
PICKLE, NEGATIVES_PICKLE = "train_info.pkl", "flick30k_negative_dataset.pkl"     # the original's names
NEGATIVES, CAPTIONS = "flickr30k", ("captions.txt", "captions.csv", "results.csv")
Map = tuple[Sample, np.ndarray]


def maps(samples: Sequence[Sample], side: int | None = None) -> Iterable[Map]:
    """Each sample that somebody marked, with its map uint8 (h, w): of the picture's size, or resized to a square.

    UserError: a picture that cannot be decoded.
    """
    def drawn(sample):
        levels = sample.draw(sample.read().shape[:2])
        return sample, levels if side is None else imaging.resize_levels(levels, (side, side))

    return each(drawn, [sample for sample in samples if sample.draw], "drawing maps")


def write_maps(path, found: Iterable[Map]) -> int:
    """Write maps to `path`, a .npz, and what belongs to them to the .json beside it; returns how many there are."""
    path, about = Path(path), {}
    with atomic_write(path) as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for sample, levels in found:
            with archive.open(f"{sample.name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, levels, allow_pickle=False)
            about[sample.name] = {PROMPT: sample.prompt, VOTE: to_vote(sample.score)}
    write_file(path.with_suffix(".json"), json.dumps(about, ensure_ascii=False, indent=1) + "\n")
    return len(about)


class _Archive:
    """The maps of a .npz, each read when it is asked for, by any thread."""

    def __init__(self, path: Path):
        self.path, self.lock = path, threading.Lock()
        try:
            self.archive = np.load(path, allow_pickle=False)
            self.names = set(self.archive.files)
        except Exception as error:      # NumPy and zipfile raise nearly anything on damaged files
            raise UserError(f"{path}: no .npz of maps ({reason(error)}); write it again") from error

    def map(self, name: str, shape: tuple[int, int]) -> np.ndarray:
        try:
            with self.lock:
                levels = self.archive[name]
        except Exception as error:
            raise UserError(f"{self.path}: the map of {name} cannot be read ({reason(error)}); write the file "
                            "again") from error
        return checked_map(levels, f"{self.path}: the map of {name}")


def checked_map(levels, what: str) -> np.ndarray:
    """UserError, which calls it `what`: anything but uint8 (h, w)."""
    if not isinstance(levels, np.ndarray) or levels.dtype != np.uint8 or levels.ndim != 2 or not levels.size:
        seen = f"{levels.dtype} {levels.shape}" if isinstance(levels, np.ndarray) else type(levels).__name__
        raise UserError(f"{what} is {seen}; it must be uint8 (h, w)")
    return levels


def read_maps(path, images) -> list[Sample]:
    """The samples of `write_maps`. images: the folder of the pictures. UserError: damage, a picture that is missing."""
    path = Path(path)
    about, archive = read_entries(path.with_suffix(".json")), _Archive(path)
    if about.keys() != archive.names:
        differing = sorted(about.keys() ^ archive.names)
        raise UserError(f"{path}: {len(differing)} pictures are not in both this file and {path.stem}.json: "
                        f"{few(differing)}; write the two again")
    return _samples(path, {name: (entry, partial(archive.map, name)) for name, entry in about.items()}, Path(images))


def _samples(path: Path, entries: dict, images: Path) -> list[Sample]:
    """Samples of {name: ({"prompt", "score"}, draw)}."""
    (there, _), found = listed(images), []
    if missing := [name for name in entries if name not in there]:
        raise UserError(f"{images}: {len(missing)} of {len(entries)} pictures that {path} names are not there: "
                        f"{few(missing)}; restore them")
    for name, (entry, draw) in entries.items():
        prompt, vote = (entry.get(PROMPT), entry.get(VOTE)) if isinstance(entry, dict) else (None, None)
        if not isinstance(prompt, str) or isinstance(vote, bool) or not isinstance(vote, (int, float)) or not (
                WORST <= vote <= BEST):
            raise UserError(f"{path}: the entry {name!r:.60} needs a text as {PROMPT!r} and a vote from 1 to 5 as "
                            f"{VOTE!r}; write the file again")
        found.append(Sample(name, partial(imaging.decode_image, there[name]), prompt, to_score(vote), draw))
    return found


def write_pickle(path, found: Iterable[Map]) -> int:
    """Write the original's train_info.pkl; returns how many pictures it has."""
    content = {sample.name: {HEAT: levels, PROMPT: sample.prompt, VOTE: to_vote(sample.score)}
               for sample, levels in found}
    with atomic_write(path) as stream:
        pickle.dump(content, stream, protocol=4)
    return len(content)


def read_train_pickle(path, images) -> list[Sample]:
    """The samples of the original's train_info.pkl; nothing in it is executed. UserError: hostile, or another form."""
    path, content = Path(path), read_pickle(path)
    if not isinstance(content, dict) or not all(isinstance(name, str) and isinstance(entry, dict)
                                                for name, entry in content.items()):
        raise UserError(f"{path}: holds no dictionary of pictures with {HEAT}, {PROMPT} and {VOTE}; give the "
                        f"original's {PICKLE}")
    stored = {name: checked_map(entry.get(HEAT), f"{path}: the {HEAT} of {name!r:.60}")
              for name, entry in content.items()}
    return _samples(path, {name: (entry, partial(_kept, stored[name])) for name, entry in content.items()},
                    Path(images))


def _kept(levels: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    return levels


def stored_maps(folder) -> Path | None:
    """The file of maps that takes the place of the annotation of the training part, None if that is there."""
    folder = Path(folder)
    if (folder / "train" / "train_info.json").exists():
        return None
    return next((path for path in (folder / "train" / "maps.npz", folder / PICKLE) if path.exists()), None)


def open_training(folder) -> tuple[list[Sample], list[Problem], tuple[str, ...]]:
    """(samples, problems, notes) of the training part: from its annotation, else from maps drawn before.

    Maps are those of <folder>/train/maps.npz, or of the original's <folder>/train_info.pkl. UserError: none of them.
    """
    if path := stored_maps(folder):
        read = read_train_pickle if path.name == PICKLE else read_maps
        return read(path, Path(folder) / "train" / "images"), [], (
            f"{path}: its maps are used, since there is no train_info.json",)
    data = EvalMuse(folder)
    return data.samples, data.problems, data.notes


def _clean(shape: tuple[int, int]) -> np.ndarray:
    return np.zeros(shape, np.uint8)


def negatives(folder, count: int, seed: int = 0) -> list[Sample]:
    """`count` photographs of Flickr30k without distortion and with the best vote, drawn by `seed`.

    They lie in <folder>/flickr30k with a table of captions, of which the first of each photograph is its prompt, or are
    listed in the original's pickle. UserError: neither, fewer photographs, a photograph that is missing.
    """
    images = Path(folder) / NEGATIVES
    table = next((images / name for name in CAPTIONS if (images / name).is_file()), None)
    if table is None and not (Path(folder) / NEGATIVES_PICKLE).is_file():
        raise UserError(f"{images}: holds no captions ({', '.join(CAPTIONS)}); put Flickr30k's table of image and "
                        f"caption there, or {NEGATIVES_PICKLE} into {folder}")
    captions = read_captions(table) if table else {
        sample.name: sample.prompt for sample in read_train_pickle(Path(folder) / NEGATIVES_PICKLE, images)}
    if not 0 <= count <= len(captions):
        raise UserError(f"{table or NEGATIVES_PICKLE}: {count} photographs without distortion are asked for, and it "
                        f"names {len(captions)}; ask for fewer")
    names = list(captions)
    random.Random(seed).shuffle(names)
    there, _ = listed(images)
    if missing := [name for name in names[:count] if name not in there]:
        raise UserError(f"{images}: {len(missing)} of {count} photographs are not there: {few(missing)}; restore them")
    return [Sample(name, partial(imaging.decode_image, there[name]), captions[name], 1.0, _clean)
            for name in names[:count]]


def read_captions(path) -> dict[str, str]:
    """The first caption of each photograph in a table of image and caption with a header; commas may be unquoted.

    UserError: no such table.
    """
    path, found = Path(path), {}
    text = read_text(path, "a table of captions")
    delimiter = "|" if "|" in lines_of(text + "\n")[0] else ","
    for number, (place, cells) in enumerate(split_rows(path, text, delimiter)):
        if not number:
            continue
        # Kaggle's results.csv has the number of the caption between the two.
        numbered = len(cells) > 2 and delimiter == "|"
        caption = delimiter.join(cells[2 if numbered else 1:]).strip()
        if len(cells) < 2 or not caption:
            raise UserError(f"{path}: {place} has no caption; write image and caption")
        found.setdefault(cells[0].strip(), caption)
    if not found:
        raise UserError(f"{path}: names no photographs; write a header, and image and caption in each line")
    return found


def pseudo_labels(path, folder, part: str = "val") -> list[Sample]:
    """The pictures of a part without votes, with the predictions of a submission in place of people's.

    UserError: a picture without a prediction, a prediction without a picture, or what read_submission says.
    """
    predictions, found = read_submission(path), []
    samples = EvalMuse(folder, part).samples
    if missing := [sample.name for sample in samples if key_of(sample.name) not in predictions]:
        raise UserError(f"{path}: predicts nothing for {len(missing)} of the {len(samples)} pictures in "
                        f"{Path(folder) / part}: {few(missing)}; predict them as well")
    names = [key_of(sample.name) for sample in samples]
    if unknown := [name for name in predictions if name not in set(names)]:
        raise UserError(f"{path}: predicts {len(unknown)} pictures that are not in {Path(folder) / part}: "
                        f"{strangers(unknown, names)}; give the predictions for this part")
    for sample in samples:
        prediction = predictions[key_of(sample.name)]
        if not 0 <= prediction.score <= 1:
            raise UserError(f"{path}: the score of {sample.name} is {prediction.score:g}; legal: 0 to 1")
        found.append(Sample(sample.name, sample.read, sample.prompt, prediction.score,
                            partial(_kept, (prediction.area > 0).astype(np.uint8) * np.uint8(255))))
    return found
