"""`jittwin train distortion` on both twins: kills, resumption, what a run leaves, mistakes."""
import json
import signal
from pathlib import Path

import pytest
from commands import BACKENDS, run
from stopping import everything, log, stopped, trained_once

from jittwin.data.submission import read_submission
from jittwin.data.synthetic.distorted import write_mini_evalmuse
from jittwin.weights import read_metadata

# 11 of 15 pictures are trained on: two batches in the warm-up, then three in each of two epochs.
SMALL = {"preset": "tiny", "warmup_batch_size": 6, "batch_size": 4, "val_split": 4, "epochs": 2, "lr": 1e-3,
         "save_epochs": 1, "save_every": 1, "workers": 2, "ema": 0.9}


def train(backend: str, out, data, *options, **changes) -> list[str]:
    given = [part for key, value in {**SMALL, **changes}.items() for part in ("--set", f"{key}={value}")]
    return ["train", "distortion", "--backend", backend, "--out", str(out), "--data", str(data), *given,
            *map(str, options)]


@pytest.fixture(scope="module")
def mini(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("evalmuse") / "mini"
    write_mini_evalmuse(folder, 15, 120, 96, seed=1)
    return folder


@pytest.fixture(scope="module")
def finished(mini, tmp_path_factory):
    """finished(backend): an uninterrupted run. Never write to it."""
    return trained_once(lambda backend, folder: train(backend, folder, mini), tmp_path_factory)


@pytest.fixture(params=BACKENDS)
def backend(request) -> str:
    return request.param


def test_run_directory(finished, backend):
    whole = finished(backend)
    names = {path.name for path in whole.iterdir() if not path.name.startswith("events.")}
    assert names == {"config.yaml", "log.jsonl", "samples", "checkpoints", "latest", "best.json", "tokenizer.json"}
    state = json.loads((whole / "checkpoints/3/state.json").read_text())
    assert set(state["inputs"]) == {"train_info.json", "vocabulary"} and state["global_step"] == 8
    best = json.loads((whole / "best.json").read_text())["final"]
    values = [line["held_out/final"] for line in log(whole) if "held_out/final" in line]
    assert best["score"] == max(values) and len(values) == 3
    assert {path.name for path in (whole / "checkpoints").iterdir()} == {"3", best["checkpoint"]}
    about = read_metadata(whole / "checkpoints/3/model.ema.safetensors")
    assert about["model"] == "distortion" and about["config"]["text_mode"] == "fast"
    assert [line["phase"] for line in log(whole) if "mask_dice" in line] == ["warm-up"] * 2 + ["main"] * 6


@pytest.mark.parametrize("where", ["1.1", "2.2"])
def test_killed_and_resumed_equals_uninterrupted(finished, backend, mini, tmp_path, where):
    """Killed in the warm-up, with fewer parameters in the optimizer, and in the main stage."""
    folder = tmp_path / "run"
    assert stopped(train(backend, folder, mini), folder, where, signal.SIGKILL) == -signal.SIGKILL
    run(["train", "distortion", "--out", folder, "--resume"], backend=backend)[0].ok()
    found, expected = everything(folder), everything(finished(backend))
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []


def test_the_twins_train_alike(finished):
    """Dropout included: both draw the same masks."""
    ours, theirs = ([line["mask_dice"] + line["score_mse"] for line in log(finished(backend)) if "mask_dice" in line]
                    for backend in BACKENDS)
    assert ours == pytest.approx(theirs, rel=0.1) and ours[:3] == pytest.approx(theirs[:3], rel=1e-4)


def test_mistakes(mini, tmp_path):
    backend, out = "torch", tmp_path / "run"
    (tmp_path / "hostile.pkl").write_bytes(b"cposix\nsystem\n(S'true'\ntR.")
    cases = [
        (train(backend, out, mini, preset="reference"), "trunk is missing: set trunk=FOLDER"),
        (train(backend, out, mini, batch_size=1), "batch_size=1 must be at least 2: the heads normalise over a batch"),
        (train(backend, out, mini, lora_rank=2), "warmup_epochs=1 with lora_rank=2 needs a trained detector: set weights="),
        (train(backend, out, mini, size="base", side=768, text_mode="reference", text_length=448, head_width=32),
         "text_length is 448; legal: 2 to 447"),
        (train(backend, out, mini, text_mode="reference", text_length=40),
         "text_mode=reference cuts none below 1024, and this trunk has 118 positions beside the 10 of a picture"),
        (train(backend, out, mini, side=100), "image_size is 100; legal: multiples of 32"),
        (train(backend, out, mini, mask_loss="dise"), "mask_loss=dise: 'dise' is no term"),
        (train(backend, out, mini, mask_loss="bce", mask_head="concat_cls"), "the term bce needs one logit"),
        (train(backend, out, mini, precision="half"), "precision=half cannot be trained with"),
        (train(backend, out, mini, unfreeze="decoder"), "unfreeze=decoder: no parameter has such a name"),
        (train(backend, out, mini, val_split=15), "15 pictures to hold out of 15: choose 0 to 14"),
        (train(backend, out, mini, val_split=14), "1 picture is left to train on"),
        (train(backend, out, mini, random_model="false", trunk="/nowhere"), "/nowhere: not found"),
        (train(backend, out, mini, val_split=0, pseudo_labels=tmp_path / "hostile.pkl"), "refused"),
        (train(backend, out, tmp_path / "nowhere"), "nowhere: no such folder")]
    for (command, message), done in zip(cases, run(*(command for command, _ in cases))):
        assert message in done.one_line()
    assert not out.exists()


# The original's README commands at a size that takes seconds; --set and --epoch shorten them.
README = ("--negative_num 0 --val_split 0 --accumulate_step 1 --lr 1e-4 --val_iter -1 --save_iter 5 --mask_loss dice-mse "
          "--model florence2 --input_size 768 --mask_size 768 --mode train --fp16 --score_head linear --mask_head concat "
          "--unfreeze_params all --batch_size_warmup 32").split()
FULL = "--experiment_name full --epoch 2 --batch_size 4 --score_loss mse-plcc-srcc --warmup_epoch 1 --lora_rank 0".split()
LORA = "--experiment_name lora --epoch 2 --batch_size 3 --score_loss mse --warmup_epoch 0 --lora_rank 8".split()
TINY = [part for setting in ("random_model=true", "size=tiny", "side=96", "head_width=64", "text_mode=fast", "workers=2")
        for part in ("--set", setting)]


def test_the_original_commands(mini, backend, tmp_path):
    """Both trainings, predictions of another part by either, and their mean."""
    root = tmp_path / "data"
    write_mini_evalmuse(root, 8, 120, 96, seed=2)
    (root / "test" / "images").mkdir(parents=True)
    entries = json.loads((root / "train" / "train_info.json").read_text())
    chosen = list(entries)[:3]
    for name in chosen:
        (root / "test" / "images" / f"{name}.jpg").write_bytes((root / "train" / "images" / f"{name}.jpg").read_bytes())
    (root / "test" / "test_info.json").write_text(json.dumps(
        {name: {"prompt_en": entries[name]["prompt_en"]} for name in chosen}))
    common = ["--data_path", str(root), "--backend", backend, *TINY]
    for done in run(["train_accelerate.py", *README, *FULL, *common], ["train_accelerate.py", *README, *LORA, *common],
                    cwd=tmp_path):
        assert "--fp16: as in the original, it changes nothing" in done.ok().err
    for name in ("full", "lora"):
        folder = tmp_path / "exp" / "experiments" / name
        run(["evaluate.py", folder / "config.yaml", "--root", root, "--backend", backend], cwd=tmp_path)[0].ok()
        assert (folder / "merged.safetensors").exists() == (name == "lora")
    written = {path.name for path in (tmp_path / "submit" / "test").iterdir()}
    assert written == {f"experiments_{name}_thre90{end}" for name in ("full", "lora") for end in (".pkl", "_raw.pkl", "_vis")}
    run(["adjust_outputs.py", "--pkl_root", tmp_path / "submit" / "test"], cwd=tmp_path)[0].ok()
    raw, final = (read_submission(tmp_path / "submit" / "test" / name) for name in ("merged.pkl", "merged_thre90.pkl"))
    assert set(raw) == set(final) == set(chosen)
    assert all(0 < each.score < 1 and each.area.shape == (96, 96) for each in raw.values())
    assert all(((raw[name].area > 90) == final[name].area).all() for name in raw)
