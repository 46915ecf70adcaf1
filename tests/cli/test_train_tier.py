"""`jittwin train tier` on both twins: kills, resumption, the original's file and command, mistakes."""
import json
import signal
from pathlib import Path

import numpy as np
import pytest
from commands import BACKENDS, run
from stopping import everything, log, stopped, trained_once

from jittwin.data.synthetic.prompted import write_mini_aigiqa4k
from jittwin.weights import read_content, read_metadata, read_weights

# 30 of 40 pictures train in 4 batches, the last of them smaller.
SMALL = {"preset": "tiny", "mode": "pr", "batch_size": 8, "epochs": 3, "lr": 2e-3, "save_every": 1, "workers": 2,
         "log_every": 1}


def train(backend: str, out, data, *options, **changes) -> list[str]:
    given = [part for key, value in {**SMALL, **changes}.items() for part in ("--set", f"{key}={value}")]
    return ["train", "tier", "--backend", backend, "--out", str(out), "--data", str(data), *given, *map(str, options)]


@pytest.fixture(scope="module")
def mini(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("aigiqa4k") / "mini"
    write_mini_aigiqa4k(folder, 40, 96, 72, seed=1)
    return folder


@pytest.fixture(scope="module")
def finished(mini, tmp_path_factory):
    """finished(backend): an uninterrupted run. Never write to it."""
    return trained_once(lambda backend, folder: train(backend, folder, mini), tmp_path_factory)


@pytest.fixture(params=BACKENDS)
def backend(request) -> str:
    return request.param


@pytest.fixture
def whole(backend, finished) -> Path:
    return finished(backend)


def test_run_directory(whole):
    names = {path.name for path in whole.iterdir() if not path.name.startswith("events.")}
    assert names == {"config.yaml", "log.jsonl", "samples", "checkpoints", "latest", "best.json", "best_model.pt",
                     "results.json", "TIER-4K.log", "tokenizer.json"}
    state = json.loads((whole / "checkpoints/3/state.json").read_text())
    assert set(state["inputs"]) == {"annotation.xlsx", "vocabulary"} and state["global_step"] == 12
    best = json.loads((whole / "best.json").read_text())["srcc"]
    measures = [line for line in log(whole) if "held_out/srcc" in line]
    values = [line["held_out/srcc"] for line in measures]
    assert best == {"checkpoint": str(int(np.argmax(values)) + 1), "score": max(values)} and max(values) > 0
    # The newest and the best checkpoint stay, optimizer state with the newest alone.
    assert {path.name for path in (whole / "checkpoints").iterdir()} == {"3", best["checkpoint"]}
    results = json.loads((whole / "results.json").read_text())
    assert results["selected"]["srcc"] == best["score"] and results["maxima"]["srcc"]["value"] == max(values)
    assert results["maxima"]["plcc"]["value"] == max(line["held_out/plcc"] for line in measures)
    lines = (whole / "TIER-4K.log").read_text().splitlines()
    assert [line for line in lines if line.startswith("Epoch")] == ["Epoch: 0", "Epoch: 1", "Epoch: 2"]
    assert f"test spearmanr_correlation: {values[-1]}, " in "".join(lines)
    metadata = read_metadata(whole / "checkpoints/3/model.safetensors")
    assert (metadata["model"], metadata["column"], metadata["config"]["mode"]) == ("tier", "MOS_q", "pr")


def test_the_best_model_in_the_original_form(whole):
    best = json.loads((whole / "best.json").read_text())["srcc"]
    found = read_content(whole / "best_model.pt")
    assert list(found) == ["epoch", "encoder", "regressor", "optimizer", "rho_best"]
    assert (found["epoch"], found["rho_best"]) == (int(best["checkpoint"]) - 1, best["score"])
    arrays = read_weights(whole / f"checkpoints/{best['checkpoint']}/model.safetensors")
    named = {f"{part}.{key}": array for part in ("encoder", "regressor") for key, array in found[part].items()}
    assert {key: array.tobytes() for key, array in named.items() if "num_batches_tracked" not in key} == {
        key: array.tobytes() for key, array in arrays.items()}


def test_killed_and_resumed_equals_uninterrupted(whole, backend, mini, tmp_path):
    """Killed in the middle of an epoch, whose predictions so far count for its measures."""
    folder = tmp_path / "run"
    assert stopped(train(backend, folder, mini), folder, "2.2", signal.SIGKILL) == -signal.SIGKILL
    run(["train", "tier", "--out", folder, "--resume"], backend=backend)[0].ok()
    found, expected = everything(folder), everything(whole)
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []


def test_going_on_from_the_best_model(whole, backend, mini, tmp_path):
    """In a folder that holds nothing else; the best epoch is not the last."""
    folder = tmp_path / "run"
    done = run(train(backend, folder, mini, "--continue", whole / "best_model.pt"))[0].ok()
    for name in ("checkpoints/3/model.safetensors", "checkpoints/3/optimizer.safetensors", "best_model.pt", "best.json"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes(), name
    found, expected = log(folder), log(whole)
    assert found == expected[-len(found):] and len(found) == 5
    assert "selected by the SRCC of the test set: epoch 2: SRCC" in done.err


def test_the_twins_train_alike(finished):
    """Dropout included: both draw the same masks."""
    ours, theirs = ([line["MSE"] for line in log(finished(backend)) if "MSE" in line] for backend in BACKENDS)
    assert ours == pytest.approx(theirs, rel=2e-3) and ours[:3] == pytest.approx(theirs[:3], rel=1e-5)


def test_mistakes(mini, finished, tmp_path):
    backend, out = "torch", tmp_path / "run"
    cases = [
        (train(backend, out, mini, preset="reference"), "image_weights is missing: set image_weights=PATH"),
        (train(backend, out, mini, mode="fr"), "mode=fr needs an image prompt for every picture"),
        (train(backend, out, mini, padding="512"), "padding=512: this text encoder reads at most 64 tokens"),
        (train(backend, out, mini, image_weights="/nowhere"), "/nowhere: not found"),
        (train(backend, out, tmp_path / "nowhere"), "nowhere: no such folder"),
        (train(backend, out, mini, "--continue", mini / "All" / "MJ_0000_00.jpg"), "no checkpoint"),
        (train(backend, out, mini, "--continue", finished(backend) / "best_model.pt", mode="fr", subset="I2I"),
         "best_model.pt, model: the weights do not fit the model")]
    for (command, message), done in zip(cases, run(*(command for command, _ in cases))):
        assert message in done.one_line()
    assert not out.exists()
