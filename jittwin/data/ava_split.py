"""The split of AVA into training, validation and test set, made once and kept in dataset_split.json.

The validation set chooses the best epoch; results are reported on the test set.

random      the original program's split: ids are shuffled by NumPy's legacy shuffle, the first int(train_split * N)
            are the training set, and the rest is both validation and test set
lists       two files of ids, for training and test set; the test set is also the validation set
official    AVA's generic_test.jpgl is the test set; 5 % of all other pictures are the validation set
three-way   the training set of random; the rest is halved into validation and test set
"""
import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from jittwin.atomic import write_file
from jittwin.data.ava import SUFFIXES, AvaIndex
from jittwin.data.matching import plain_name, strangers
from jittwin.errors import UserError, choose_from
from jittwin.text_files import read_lines

MODES = ("random", "lists", "official", "three-way")
SCHEMA_VERSION = 1
VALIDATION_FRACTION = 0.05
LISTS = "aesthetics_image_lists"
TRAIN_LIST, TEST_LIST = "generic_ls_train.jpgl", "generic_test.jpgl"


@dataclass(frozen=True)
class Split:
    """Three lists of ids. val_ids is the object test_ids where one set is both. settings: arguments of make_split."""
    train_ids: list[str]
    val_ids: list[str]
    test_ids: list[str]
    settings: dict

    def without(self, bad) -> "Split":
        """The split without the ids in `bad`. UserError when one of the sets becomes empty."""
        parts = {}
        for name in ("train_ids", "val_ids", "test_ids"):
            parts[name] = [image for image in getattr(self, name) if image not in bad]
            if not parts[name]:
                excluded = len(getattr(self, name))
                without = f", without {excluded} excluded ids" if excluded else ""
                raise UserError(f"split {self.settings['mode']}: {name} is empty{without}; use more pictures "
                                "or another split")
        if self.val_ids is self.test_ids:
            parts["val_ids"] = parts["test_ids"]
        return replace(self, **parts)


def shuffled(ids: list[str], seed: int) -> list[str]:
    """`ids` in the order that np.random.seed(seed); np.random.shuffle(ids) gives, without touching global state."""
    ids = list(ids)
    np.random.RandomState(seed).shuffle(ids)
    return ids


def read_ids(path) -> list[str]:
    """The ids of a list file, one per line, with or without the suffix .jpg. UserError: unreadable or empty."""
    lines = read_lines(path, "a text file with one id per line")
    ids = list(dict.fromkeys(_id_of(line) for line in lines))
    if not ids:
        raise UserError(f"{path}: holds no ids; give a text file with one id per line")
    return ids


def _id_of(line: str) -> str:
    """The id that a line of a list names, which may be a path, and may have a suffix."""
    name = plain_name(line).rpartition("/")[2]
    return name.removesuffix(next((suffix for suffix in SUFFIXES if name.endswith(suffix)), ""))


def make_split(index: AvaIndex, mode: str = "random", train_split: float = 0.9, seed: int = 42,
               max_samples: int | None = None, train_list=None, test_list=None) -> Split:
    """The split of the index's ids. Undecodable pictures are included, so that the shuffle equals the original's.

    train_split: fraction of the pictures that random and three-way train on. max_samples: use only this many ids, the
    first ones; of a list of test ids, a fifth of this number. train_list, test_list: files of ids, by default AVA's own
    beside AVA.txt. UserError: unknown mode, an empty set, a list of other pictures, an id in both lists.
    """
    if mode not in MODES:
        raise UserError(f"split={mode}{choose_from(mode, MODES)}")
    if not 0 < train_split < 1:
        raise UserError(f"train_split={train_split}: must be between 0 and 1, the fraction of pictures to train on")
    if not 0 <= seed < 2 ** 32:
        raise UserError(f"seed={seed}: must be from 0 to {2 ** 32 - 1}, the seeds of NumPy's legacy shuffle")
    if max_samples is not None and max_samples < 1:
        raise UserError(f"max_samples={max_samples}: must be at least 1, or none")
    settings = {"mode": mode, "train_split": train_split, "seed": seed, "max_samples": max_samples}
    if mode in ("random", "three-way"):
        order = shuffled(index.ids[:max_samples], seed)
        train, rest = _cut(order, int(train_split * len(order)))
        val, test = _cut(rest, len(rest) // 2) if mode == "three-way" else (rest, rest)
    else:
        test_path = _list_path(index, test_list, TEST_LIST, "test_list")
        test, settings["test_list_sha256"] = _present(index, test_path, max_samples and max_samples // 5)
        val = test
        if mode == "lists":
            train_path = _list_path(index, train_list, TRAIN_LIST, "train_list")
            train, settings["train_list_sha256"] = _present(index, train_path, max_samples)
            both = set(train) & set(test)
            if both:
                raise UserError(f"{train_path} and {test_path}: {len(both)} ids are in both, such as {min(both)}; "
                                "remove them from one")
        else:
            listed = set(read_ids(test_path))
            pool = shuffled([image for image in index.ids if image not in listed][:max_samples], seed)
            train, val = _cut(pool, len(pool) - int(VALIDATION_FRACTION * len(pool)))
    return Split(train, val, test, settings).without(())


def _cut(ids, at):
    return ids[:at], ids[at:]


def _list_path(index, given, name, option) -> Path:
    path = Path(given) if given else Path(index.scores.path).parent / LISTS / name
    if not given and not path.is_file():
        raise UserError(f"{path}: no such file; set {option} to AVA's {name}")
    return path


def _present(index, path, limit):
    """(ids of the list that have votes and a file, at most `limit`; hash of the whole list)."""
    listed = read_ids(path)
    if unknown := [image for image in listed if image not in index.scores]:
        raise UserError(f"{path}: {len(unknown)} of its {len(listed)} ids are not rated in {index.scores.path}: "
                        f"{strangers(unknown, index.scores)}; correct or remove them")
    ids = [image for image in listed if image in index.files]
    if not ids:
        raise UserError(f"{path}: none of its {len(listed)} ids, such as {listed[0]}, has votes and a picture in "
                        f"{index.folder}; give lists of this data set")
    return ids[:limit], sha256_of(listed)


def sha256_of(ids) -> str:
    """SHA-256 of the sorted ids, one per line."""
    return hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()


def write_split(path, split: Split, index: AvaIndex) -> None:
    """Write dataset_split.json: the original's four keys, then the values that open_split checks."""
    content = {"train_ids": split.train_ids, "test_ids": split.test_ids, "train_split": split.settings["train_split"],
               "seed": split.settings["seed"], "schema_version": SCHEMA_VERSION}
    if split.val_ids is not split.test_ids:
        content["val_ids"] = split.val_ids
    content |= {"settings": split.settings, "ids_sha256": _hashes(split), "votes_sha256": index.scores.sha256}
    write_file(path, json.dumps(content))


def open_split(path, index: AvaIndex, **options) -> Split:
    """The split stored at `path` if there is one, else `make_split(index, **options)`, which is then stored there.

    A stored split is used only if its hashes are right and its votes, pictures and options are the same; a split of
    the original program has no hashes and is used if its ids are those of this data. UserError otherwise: a split is
    never replaced, because a run could then be tested on pictures that it was trained on.
    """
    wanted = make_split(index, **options)
    if not Path(path).exists():
        write_split(path, wanted, index)
        return wanted
    kept, content = _read(path)
    differences = [f"{key} was {was}, is {wanted.settings.get(key)}"
                   for key, was in kept.settings.items() if was != wanted.settings.get(key)]
    if content.get("votes_sha256", index.scores.sha256) != index.scores.sha256:
        differences.append(f"{index.scores.path} had other content")
    if content.get("ids_sha256", _hashes(kept)) != _hashes(kept):
        differences.append("its ids are not those it was written with")
    if set(_all(kept)) != set(_all(wanted)):
        differences.append(f"its {len(_all(kept))} ids are not the {len(_all(wanted))} of this data")
    if differences:
        raise UserError(f"{path}: a split of other data or settings ({'; '.join(differences)}); restore them, "
                        "or start a new run in another folder")
    return replace(kept, settings=wanted.settings)


def _parts(split: Split) -> dict[str, list[str]]:
    parts = {"train": split.train_ids, "val": split.val_ids, "test": split.test_ids}
    return {name: ids for name, ids in parts.items() if name != "val" or ids is not split.test_ids}


def _all(split: Split) -> list[str]:
    return [image for ids in _parts(split).values() for image in ids]


def _hashes(split: Split) -> dict[str, str]:
    return {name: sha256_of(ids) for name, ids in _parts(split).items()}


def _read(path) -> tuple[Split, dict]:
    """(split, content) of a file; the split of an original file has only the settings that the file states."""
    try:
        content = json.loads(Path(path).read_bytes())
        train, test = content["train_ids"], content["test_ids"]
        version = content.get("schema_version", SCHEMA_VERSION)
        if version != SCHEMA_VERSION:
            raise ValueError(f"schema_version {version}, this program knows {SCHEMA_VERSION}")
        settings = (dict(content["settings"]) if "schema_version" in content else
                    {"mode": "random", "train_split": content["train_split"], "seed": content["seed"]})
        split = Split(train, content.get("val_ids", test), test, settings)
        if not all(isinstance(part, list) and all(isinstance(image, str) for image in part)
                   for part in _parts(split).values()):
            raise ValueError("its ids are not lists of strings")
        if len(set(_all(split))) != len(_all(split)):
            raise ValueError("an id is in it twice")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else error
        raise UserError(f"{path}: not a split of a data set ({reason}); restore it, or delete it to make a new one "
                        "if nothing was trained with it") from error
    return split, content
