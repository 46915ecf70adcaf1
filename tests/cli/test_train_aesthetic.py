"""`jittwin train aesthetic` on both twins: kills, resumption, the original's checkpoints and command, mistakes."""
import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import stopping
from commands import BACKENDS, Command, run
from stopping import everything, stopped, trained_once
from tower import tower_shapes

from jittwin.data.synthetic.rated import write_mini_ava
from jittwin.models.aesthetic import AestheticConfig, trainable_keys
from jittwin.models.lora import LoraConfig
from jittwin.models.siglip import PRESETS
from jittwin.weights import read_metadata, read_weights

# 41 pictures, one of them damaged: 32 train in 8 batches, so an epoch has 2 steps of 3 batches and a weaker one of 2.
SMALL = {"preset": "tiny", "batch_size": 4, "accumulation": 3, "train_split": 0.8, "epochs": 3, "max_bad": 0.05,
         "save_every": 1, "lr": 0.01, "head_lr": 0.01, "workers": 2}
STEPS = 9


def train(backend: str, out, data, *options, **changes) -> list[str]:
    given = [part for key, value in {**SMALL, **changes}.items() for part in ("--set", f"{key}={value}")]
    return ["train", "aesthetic", "--backend", backend, "--out", str(out), "--data", str(data), *given,
            *map(str, options)]


@pytest.fixture(scope="module")
def ava(tmp_path_factory) -> Path:
    """Damaged scenes; the first picture of the shuffled list cannot be decoded."""
    folder = tmp_path_factory.mktemp("ava") / "mini"
    write_mini_ava(folder, 41, 64, 48, seed=3)
    ids = [line.split()[1] for line in (folder / "AVA.txt").read_text().splitlines()]
    np.random.RandomState(42).shuffle(ids)
    (folder / "images" / f"{ids[0]}.jpg").write_bytes(b"no picture")
    return folder


@pytest.fixture(scope="module", params=BACKENDS)
def backend(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def finished(ava, tmp_path_factory):
    """finished(backend): an uninterrupted run. Never write to it."""
    return trained_once(lambda backend, folder: train(backend, folder, ava), tmp_path_factory)


@pytest.fixture
def whole(backend, finished) -> Path:
    return finished(backend)


def log(folder: Path, measured: bool) -> list[dict]:
    return [line for line in stopping.log(folder) if ("EMD" in line) != measured]


def test_run_directory(whole, ava):
    names = {path.name for path in whole.iterdir() if not path.name.startswith("events.")}
    assert names == {"config.yaml", "log.jsonl", "samples", "checkpoints", "latest", "best.json", "best_lora.pth",
                     "final_lora.pth", "checkpoint_latest.pth", "dataset_split.json", "bad_ids.txt",
                     *(f"checkpoint_epoch_{epoch}.pth" for epoch in (1, 2, 3))}
    weights = read_weights(whole / "checkpoints/3/model.safetensors")
    trained = trainable_keys(AestheticConfig(PRESETS["tiny"], LoraConfig(4, 8)), tower_shapes(PRESETS["tiny"]))
    assert {key: array.shape for key, array in weights.items()} == trained     # nothing that is frozen
    metadata = read_metadata(whole / "checkpoints/3/model.safetensors")
    assert metadata["adapter"]["model_name"] == "random:tiny:42" and metadata["adapter"]["lora_r"] == 4
    split = json.loads((whole / "dataset_split.json").read_text())
    assert (len(split["train_ids"]), len(split["test_ids"])) == (32, 9)
    assert (whole / "bad_ids.txt").read_text().count("\n") == 2
    state = json.loads((whole / "checkpoints/3/state.json").read_text())
    assert set(state["inputs"]) == {"AVA.txt"} and state["global_step"] == STEPS


def test_the_loss_falls_and_the_best_epoch_is_kept(whole):
    losses, measures = [line["EMD"] for line in log(whole, False)], log(whole, True)
    assert len(losses) == STEPS and np.mean(losses[-3:]) < 0.9 * np.mean(losses[:3])
    emds = [line["held_out/emd"] for line in measures]
    assert measures[0]["held_out/floor_emd"] == measures[2]["held_out/floor_emd"]
    best = json.loads((whole / "best.json").read_text())
    assert best["emd"] == {"checkpoint": str(int(np.argmin(emds)) + 1), "score": min(emds)} and "srcc" in best
    state = json.loads((whole / f"checkpoints/{best['emd']['checkpoint']}/state.json").read_text())
    assert state["measures"]["emd"] == min(emds)


def test_stopped_and_resumed_equals_uninterrupted(whole, backend, ava, tmp_path):
    """Interrupted in the middle of an epoch, or killed; where does not depend on the twin."""
    how, status = {"jittor": (signal.SIGINT, 130), "torch": (signal.SIGKILL, -signal.SIGKILL)}[backend]
    folder = tmp_path / "run"
    assert stopped(train(backend, folder, ava), folder, "2.1", how) == status
    run(["train", "aesthetic", "--out", folder, "--resume"], backend=backend)[0].ok()
    found, expected = everything(folder), everything(whole)
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []


def test_the_originals_checkpoint_is_resumed_exactly(whole, backend, ava, tmp_path):
    """By `--continue FILE` and by the original's command, in folders that hold nothing but such a file.

    Gradient checkpointing changes nothing either.
    """
    first, second = tmp_path / "first", tmp_path / "second"
    second.mkdir()
    shutil.copy(whole / "checkpoint_epoch_1.pth", second / "checkpoint_latest.pth")
    flags = ["--image_dir", ava / "images", "--ava_txt_path", ava / "AVA.txt", "--lora_r", 4, "--lora_alpha", 8,
             "--batch_size", 4, "--accum_steps", 3, "--train_split", 0.8, "--num_epochs", 3, "--learning_rate", 0.01,
             "--mlp_learning_rate", 0.01, "--dtype", "float32", "--save_dir", second, "--device", "cpu",
             "--set", "random_model=true", "--set", "architecture=tiny", "--set", "max_bad=0.05"]
    mismatch = train(backend, tmp_path / "other", ava, "--continue", whole / "checkpoint_epoch_1.pth", lora_r=8)
    done = run(train(backend, first, ava, "--continue", whole / "checkpoint_epoch_1.pth", gradient_checkpointing=True),
               ["train_aesthetic_lora.py", "--backend", backend, *flags], mismatch)
    for ended, folder in zip(done, (first, second)):
        ended.ok()
        for name in ("checkpoints/3/model.safetensors", "checkpoints/3/optimizer.safetensors", "final_lora.pth",
                     "best_lora.pth", "dataset_split.json"):
            assert (folder / name).read_bytes() == (whole / name).read_bytes(), name
        assert log(folder, True) == log(whole, True)[1:]
    assert "was trained with lora_r=4, this run has lora_r=8: set lora_r=4" in done[2].one_line()


def test_the_twins_train_alike(finished):
    """Dropout included: both draw the same masks."""
    for a, b in zip(*(log(finished(backend), False) for backend in BACKENDS), strict=True):
        assert a["EMD"] == pytest.approx(b["EMD"], rel=2e-4)


def test_mistakes(ava, finished, tmp_path):
    backend, out = "jittor", tmp_path / "run"
    whole = finished(backend)
    cases = [
        (train(backend, out, ava, preset="reference"), "model is missing: set model=FOLDER"),
        (train(backend, out, ava, random_model="false", model="/nowhere"), "/nowhere: not found; give a weights file, or a hub folder"),
        (train(backend, out, tmp_path / "nowhere"), "nowhere: no such folder"),
        (train(backend, out, ava, precision="float16"), "precision=float16 cannot be trained with"),
        (train(backend, out, ava, "--continue", "missing.pth"), "missing.pth"),
        (train(backend, out, ava, "--continue", whole / "best_lora.pth"), "not a checkpoint of the aesthetic training"),
        (train(backend, whole, ava), "already holds a run"),
        (["train_aesthetic_lora.py"], "--image_dir is missing")]
    for (command, message), done in zip(cases, run(*(command for command, _ in cases))):
        assert message in done.one_line()
    assert not out.exists()
    done = run(train(backend, out, ava, max_bad=0.001))[0]
    assert "1 of 41 pictures" in done.one_line() and (out / "bad_ids.txt").exists()


def test_a_full_disk_loses_nothing(tmp_path):
    """At any call: in the checkpoint, best.json or the original's files of an epoch. On the built-in data."""
    def command(folder, *more):
        return ["train", "aesthetic", "--backend", "jittor", "--out", str(tmp_path / folder), "--set", "preset=tiny",
                "--set", "epochs=2", "--set", "synthetic_images=40", *more]

    places = (9, 18, 24, 36)
    done = run(command("whole"), *(one for place in places for one in (
        Command(command(f"full{place}"), disk_full_after=place), command(f"full{place}", "--resume"))))
    assert "the disk is full; nothing was saved yet" in done[1].err
    assert "the disk is full; checkpoint 2 is intact" in done[-2].err
    for place, full, resumed in zip(places, done[1::2], done[2::2], strict=True):
        assert full.status == 2 and resumed.status == 0, (full, resumed)
        assert everything(tmp_path / f"full{place}") == everything(tmp_path / "whole")
