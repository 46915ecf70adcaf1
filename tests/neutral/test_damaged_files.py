"""Damaged files of every kind that people give: each is one line, or is read as it was before.

Damage is drawn: cut, flipped, doubled, mixed up, sent through a text mode, another encoding or an archive. The test runs
a sample; `python tests/neutral/test_damaged_files.py 2000` runs more.
"""
import base64
import contextlib
import gzip
import io
import json
import pickle
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from PIL import Image

from jittwin import cli
from jittwin.checkpoints.adapters import read_adapter
from jittwin.commands.select import read_aesthetic
from jittwin.config import resolve
from jittwin.data.ava import read_scores
from jittwin.data.ava_split import read_ids
from jittwin.data.evalmuse import Sample, read_entries
from jittwin.data.evalmuse_files import read_captions, read_maps, write_maps
from jittwin.data.landscape import read_removal_list
from jittwin.data.prompts import read_prompts
from jittwin.data.pure import PureDictionary
from jittwin.data.submission import read_submission
from jittwin.data.table import read_table, write_sheet
from jittwin.data.votes import read_votes
from jittwin.errors import UserError
from jittwin.metrics.fid.statistics import Statistics, read_statistics, write_pair, write_statistics
from jittwin.models.apf_gan import ModelConfig
from jittwin.models.apf_gan_keys import expected_keys
from jittwin.tasks import aesthetic_files, tier_files
from jittwin.tasks.apf_gan import Config
from jittwin.text import load_tokenizer
from jittwin.weights import (
    content_hash,
    open_weights,
    read_content,
    read_metadata,
    read_weights,
    write_content,
    write_weights,
)
from jittwin.weights.hub import open_hub
from jittwin.weights.initial import initial_weights

SAMPLE = 200
SLOW = 10       # seconds that no file may take


@dataclass(frozen=True)
class Kind:
    """name: of the file. write: writes a good one to a path. readers: functions of the path, all of which are tried.
    exact: whether the format has checksums, so that what is read must be what was written.
    """
    name: str
    write: Callable[[Path], None]
    readers: tuple[Callable[[Path], object], ...]
    exact: bool = False


def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {"conv.weight": rng.standard_normal((4, 3, 3, 3)).astype(np.float32), "conv.bias": rng.standard_normal(4),
            "steps": np.array(7, np.int64), "half": rng.standard_normal(5).astype(np.float16)}


def network(path: Path) -> None:
    write_weights(path, initial_weights("apf_gan", expected_keys("apf_gan.encoder", ModelConfig(ngf=1))),
                  {"config": {"ngf": 1}})


def converted(path: Path) -> object:
    """What `jittwin convert` writes; a UserError with what it says."""
    out = path.with_name("out.safetensors")
    out.unlink(missing_ok=True)
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO())):
        status = cli.main(["convert", str(path), str(out), "--model", "apf_gan.encoder"])
    lines = [line for line in said.getvalue().splitlines() if line.startswith("jittwin: ")]
    if status:
        assert status == 2 and len(lines) == 1 and not out.exists(), said.getvalue()
        raise UserError(lines[0])
    return read_weights(out)


def as_arrays(path: Path) -> object:
    return read_weights(path)


def opened(path: Path) -> object:
    return dict(open_weights(path))


def adapter_file(path: Path) -> None:
    state = {"vision_model.base_model.model.encoder.layers.0.mlp.fc1.lora_A.default.weight": np.ones((2, 4), np.float32)}
    write_content(path, {"config": {"lora_r": 2, "lora_alpha": 4}, "state_dict": state, "epoch": 3})


def original_checkpoint(path: Path) -> None:
    """Of the aesthetic training script; the other reader tells that it is none of its own."""
    weights = {"aesthetic_head.mlp.0.weight": np.ones((2, 4), np.float32), "a.lora_A.w": np.ones(3, np.float32)}
    state = {0: {"step": np.array(3, np.float32), "exp_avg": np.ones(3, np.float32), "exp_avg_sq": np.ones(3, np.float32)}}
    write_content(path, {
        "epoch": 0, "global_step": 3, "model_state_dict": weights, "metrics": {"emd": 0.5}, "best_emd": 0.5,
        "optimizer_state_dict": {"state": state, "param_groups": [{"params": [0]}, {"params": [1]}]},
        "train_config": {"lora_r": 2, "lora_alpha": 4}})


def statistics() -> Statistics:
    return Statistics(np.arange(4.0), np.eye(4), 9)


def maps(path: Path) -> None:
    Image.new("RGB", (3, 2)).save(path.with_name("1.png"))
    write_maps(path, [(Sample("1.png", None, "a cat", 0.5), np.ones((2, 3), np.uint8))])


def pickled(content: object) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(pickle.dumps(content, 4)) and None


def text(content: str) -> Callable[[Path], None]:
    return lambda path: path.write_text(content, encoding="utf-8") and None


def hub(path: Path) -> None:
    path.write_text(json.dumps({"model_type": "siglip", "vision_config": {"hidden_size": 32, "image_size": 32}}))
    write_weights(path.with_name("model.safetensors"), arrays())


NAMES = [f"{n}.png" for n in range(8)]
PROMPTS = "\n".join(f'{name},"a cat, number {n}, 山"' for n, name in enumerate(NAMES))
AREA = np.ones((2, 3), np.uint8)
INDEX = json.dumps({"metadata": {}, "weight_map": {"a": "s.safetensors", "b": "s.safetensors"}})
READ = as_arrays, opened
KINDS = (
    Kind("a.safetensors", lambda path: write_weights(path, arrays(), {"model": "m"}), (as_arrays,), exact=True),
    Kind("b.safetensors", lambda path: write_weights(path, arrays(), {"model": "m"}), (opened, read_metadata)),
    Kind("a.pth", lambda path: write_weights(path, arrays()), READ, exact=True),
    Kind("a.npz", lambda path: write_weights(path, arrays()), READ, exact=True),
    Kind("a.pkl", lambda path: write_weights(path, arrays()), READ, exact=True),
    Kind("plain.pkl", pickled({"epoch": 3, "state_dict": arrays()}), READ),
    Kind("E.safetensors", network, (converted,), exact=True), Kind("E.pkl", network, (converted,), exact=True), Kind("E.pth", network, (converted,), exact=True),
    Kind("best_lora.pth", adapter_file, (read_adapter, read_content)),
    Kind("m.safetensors.index.json", text(INDEX), (opened, read_metadata)),
    Kind("config.json", hub, (lambda path: open_hub(path.parent).config,)),
    Kind("config.yaml", text("preset: tiny\nseed: 3\nsemantics:\n  adam: torch\n"),
         (lambda path: resolve(Config, yaml_path=path),)),
    Kind("epochs.csv", text("epoch,aesthetic\n1,5.5\n2,6\n"), (lambda path: read_aesthetic(str(path), ["1", "2"]),)),
    Kind("checkpoint_epoch_1.pth", original_checkpoint, (aesthetic_files.read_other, tier_files.read_other)),
    Kind("statistics.npz", lambda path: write_statistics(path, statistics()), (read_statistics,)),
    Kind("mean_m.npy", lambda path: write_pair(path.with_name("mean"), statistics()), (read_statistics,)),
    Kind("pure.npz", lambda path: PureDictionary({3: [np.zeros((2, 3, 3), np.uint8)]}).save(path), (PureDictionary.load,)),
    Kind("maps.npz", maps, (lambda path: [sample.draw((2, 3)) for sample in read_maps(path, path.parent)],)),
    Kind("submission.pkl", pickled({"1": {"score": 0.5, "pred_area": AREA}}), (read_submission,)),
    Kind("p.csv", text(PROMPTS), (read_prompts, read_table)), Kind("p.tsv", text(PROMPTS), (read_prompts,)),
    Kind("p.json", text(json.dumps(dict.fromkeys(NAMES, "a cat"))), (read_prompts, read_entries)),
    Kind("p.jsonl", text("\n".join(json.dumps({"image": name, "prompt": "x"}) for name in NAMES)), (read_prompts,)),
    Kind("p.xlsx", lambda path: write_sheet(path, ("picture", "prompt"), [(name, "x") for name in NAMES]),
         (read_prompts, read_table)),
    Kind("v.csv", text("picture,mos\n" + "\n".join(f"{name},{n}" for n, name in enumerate(NAMES))),
         (lambda path: read_votes(path, "mos"),)),
    Kind("captions.txt", text("image,caption\n" + PROMPTS), (read_captions,)),
    Kind("AVA.txt", text("\n".join(f"{n} {n + 100} 1 2 3 4 5 4 3 2 1 0 0 0 7" for n in range(9))), (read_scores,)),
    Kind("ids.jpgl", text("\n".join(str(n + 100) for n in range(9))), (read_ids,)),
    Kind("removed.txt", text("\n".join(NAMES)), (lambda path: read_removal_list(path, NAMES),)),
    Kind("vocab.txt", text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "cat"])),
         (lambda path: load_tokenizer(path.parent, "bert"),)))

OTHERS = [b"", b"\0" * 200, b"<!DOCTYPE html><html>", b"version https://git-lfs.github.com/spec/v1\n", b"PK\x03\x04",
          b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", b"\x80\x04}q.", b"\x80\x02cos\nsystem\n(S'false'\ntR.", b"{}", b"[]", b"{", b"null",
          b"\xff\xfe", b"\xef\xbb\xbf", b"\xff\xfe\0\0", b"GGUF\x03\0\0\0", b"\x93NUMPY\x01\0", b"(", b"c", b"}", b".", b"I1\n."]


def damaged(rng: random.Random, content: bytes) -> bytes:
    """The content, damaged in one to three ways."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        size = len(content)
        at, end = sorted((rng.randint(0, size), rng.randint(0, size)))
        content = rng.choice((
            lambda: content[:at], lambda: content[at:], lambda: content[:at] + content[end:],
            lambda: content[:at] + bytes(end - at) + content[end:],
            lambda: content[:at] + rng.randbytes(rng.randint(1, 30)) + content[at:],
            lambda: content[:end] + content[at:], lambda: content + content, lambda: content + rng.randbytes(9),
            lambda: content[end:] + content[at:end] + content[:at], lambda: flipped(rng, content, 1),
            lambda: flipped(rng, content, 1), lambda: flipped(rng, content, 20), lambda: flipped(rng, content[:200], 2) + content[200:],
            lambda: content.replace(b"\n", b"\r\n"), lambda: content.replace(b"\r\n", b"\n"), lambda: content.replace(b"\0", b""),
            lambda: content.decode("latin-1").encode("utf-8"), lambda: content.decode("utf-8", "replace").encode(),
            lambda: content.decode("latin-1").encode("utf-16"), lambda: content.decode("latin-1").encode("utf-16-le"),
            lambda: base64.encodebytes(content), lambda: gzip.compress(content, 1, mtime=0), lambda: rng.choice(OTHERS),
            lambda: rng.choice(OTHERS) + content, lambda: content.swapcase(), lambda: content[::-1]))()
    return content


def flipped(rng: random.Random, content: bytes, count: int) -> bytes:
    found = bytearray(content)
    for _ in range(count if content else 0):
        found[rng.randrange(len(found))] ^= 1 << rng.randrange(8)
    return bytes(found)


def examine(seed: int, folder: Path) -> str:
    """Damage a file and read it in every way; returns "told", "read" or both. AssertionError: a fault of the product."""
    rng = random.Random(seed)
    kind = KINDS[seed % len(KINDS)]
    path = folder / kind.name
    kind.write(path)
    good = path.read_bytes()
    truth = content_hash(kind.readers[0](path)) if kind.exact else None
    path.write_bytes(damaged(rng, good))
    outcomes = set()
    for read in kind.readers:
        started, limit = time.monotonic(), sys.getrecursionlimit()
        try:
            found = read(path)
        except UserError as error:
            message = str(error)
            assert "\n" not in message and str(folder) in message and len(message) < 2000, (seed, message)
            outcomes.add("told")
        else:
            assert truth is None or content_hash(found) == truth, (seed, kind.name, "read as something else")
            outcomes.add("read")
        assert time.monotonic() - started < SLOW and sys.getrecursionlimit() == limit, seed
    return " and ".join(sorted(outcomes))


def events(seeds, folder: Path) -> tuple[Counter, list[str]]:
    """What became of each file, and what Python was asked to run meanwhile."""
    ran = []

    def watch(event, arguments):
        if event in ("os.system", "subprocess.Popen", "exec", "socket.connect", "os.exec", "os.posix_spawn"):
            if event != "exec" or arguments[0].co_filename.startswith("<"):     # other files are modules of Python
                ran.append(f"{event} {str(arguments)[:80]}")

    examine(0, folder), examine(KINDS.index(next(k for k in KINDS if k.name == "E.pkl")), folder)    # imports what is lazy
    for seed in range(len(KINDS)):
        examine(seed, folder)
    if not WATCHES:
        sys.addaudithook(lambda *event: [each(*event) for each in WATCHES])
    WATCHES.append(watch)
    try:
        return Counter(examine(seed, folder) for seed in seeds), ran
    finally:
        WATCHES.remove(watch)


WATCHES = []


@pytest.mark.parametrize("part", range(4))
def test_a_damaged_file_is_told_or_read_as_before_and_runs_nothing(tmp_path, part):
    found, ran = events(range(part, SAMPLE, 4), tmp_path)
    assert not ran and found["told"] > SAMPLE // 8


def test_every_kind_is_read_when_it_is_whole(tmp_path):
    """The control: without damage nothing is told, except of the adapter and of a table without header."""
    for kind in KINDS:
        kind.write(tmp_path / kind.name)
        if kind.name == "m.safetensors.index.json":
            write_weights(tmp_path / "s.safetensors", {"a": np.ones(1), "b": np.ones(2)})
        for read in kind.readers:
            if read not in (read_adapter, tier_files.read_other) and kind.name not in ("p.csv", "p.tsv"):
                read(tmp_path / kind.name)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        first, last = (0, *map(int, sys.argv[1:] or [SAMPLE]))[-2:]
        counts, asked = events(range(first, last), Path(place))
        print(dict(counts), "ran:", asked or "nothing")
