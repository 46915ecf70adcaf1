"""`jittwin train` on both twins: the run directory, the loss tables, phases, going back and resuming."""
import json
import math
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from commands import BACKENDS, ENVIRONMENT, ROOT, run, train
from PIL import Image

from jittwin.data.pure import PureDictionary
from jittwin.weights import read_metadata, read_weights, write_weights

LOSSES = ["GAN", "GAN_Feat", "D_Fake", "D_real"]
LOW_RATE = 1e-5


def log(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def contents(folder: Path, *patterns: str) -> dict[str, bytes]:
    """Files by their path in the folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes()
            for pattern in patterns for path in folder.rglob(pattern) if path.is_file()}


def everything(folder: Path) -> dict[str, bytes]:
    """All of a run but the TensorBoard events, which hold times."""
    files = contents(folder, "*")
    return {name: data for name, data in files.items() if not name.startswith("events.")}


def assert_equal(found: dict[str, bytes], expected: dict[str, bytes]) -> None:
    assert found.keys() == expected.keys() and expected
    different = [name for name in expected if found[name] != expected[name]]
    assert not different


def assert_close(first: list[dict], second: list[dict]) -> None:
    """Loss tables of a run at LOW_RATE: equal but for rounding at first, then as close as Adam's steps leave them.

    PyTorch differs from itself by up to 2e-3 after eight steps when it may not use the processor's vectors.
    """
    for a, b in zip(first, second, strict=True):
        tolerance = dict(rel=1e-2, abs=10 * LOW_RATE) if a["step"] else dict(rel=1e-5, abs=1e-7)
        assert [a[name] for name in LOSSES] == pytest.approx([b[name] for name in LOSSES], **tolerance)


@pytest.mark.parametrize("backend", BACKENDS)
def test_run_directory(backend, finished, data):
    folder = finished(backend)
    names = {path.name for path in folder.iterdir() if not path.name.startswith("events.out.tfevents")}
    assert names == {"config.yaml", "log.jsonl", "samples", "checkpoints", "latest", "pure_img.npz"}
    assert len(list(folder.glob("events.out.tfevents*"))) == 1
    assert [(line["phase"], line["epoch"], line["step"]) for line in log(folder)] == [
        (phase, epoch, step) for step, (phase, epoch) in enumerate(
            [("pretrain", epoch) for epoch in (1, 1, 2, 2, 3, 3)] + [("finetune", 4)] * 2)]
    assert all(list(line)[3:] == LOSSES and all(map(math.isfinite, list(line.values())[3:])) for line in log(folder))
    assert yaml.safe_load((folder / "config.yaml").read_text())["crop_size"] == 192
    assert (folder / "latest").read_text() == "4\n"
    assert {path.name for path in (folder / "samples").iterdir()} == {f"{epoch}.png" for epoch in (1, 2, 3, 4)}
    for picture in (folder / "samples").iterdir():
        width, height = Image.open(picture).size
        assert width > 3 * 192 and height > 4 * 64      # four rows of label | photograph | generated
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"1", "2", "3", "4"}
    for checkpoint in (folder / "checkpoints").iterdir():
        assert {path.name for path in checkpoint.iterdir()} == {
            "E.safetensors", "G.safetensors", "D.safetensors", "optimizer.safetensors", "state.json"}
    state = json.loads((folder / "checkpoints/4/state.json").read_text())
    assert (state["global_step"], state["backend"], state["data"]) == (8, backend, str(data))


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_training_leaves_for_generation(backend, finished):
    folder = finished(backend)
    first, last = (read_weights(folder / f"checkpoints/{epoch}/G.safetensors") for epoch in (1, 4))
    assert any(key.startswith("inter_conv_img.") for key in first)
    assert not any(key.startswith("inter_conv_img.") for key in last)
    assert any(".seg_noise_var." in key for key in last) and not any(".seg_noise_var." in key for key in first)
    metadata = read_metadata(folder / "checkpoints/4/G.safetensors")
    assert metadata["model"] == "apf_gan" and metadata["config"]["phase"] == "finetune"
    pure = PureDictionary.load(folder / "pure_img.npz")
    assert {label: [p.shape for p in found] for label, found in pure.images.items()} == {1: [(64, 192, 3)]}


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    """Both twins through every stage, fades and phase 2 included, so slowly that rounding does not grow."""
    folders = {backend: tmp_path_factory.mktemp("stages") / backend for backend in BACKENDS}
    for backend, folder in folders.items():
        run(train(backend, folder, pg_niter=12, pretrain_epochs=12, epochs=14, lr=1e-8, noise="shared",
                  ema=0.9, save_epochs=14))[0].ok()
    return folders


def test_loss_tables_agree_in_every_stage(stages):
    jittor, torch = (log(stages[backend]) for backend in BACKENDS)
    assert len(jittor) == len(torch) == 14
    for a, b in zip(jittor, torch):
        assert [a[key] for key in ("phase", "epoch", "step")] == [b[key] for key in ("phase", "epoch", "step")]
        for name in LOSSES:
            assert a[name] == pytest.approx(b[name], rel=1e-5, abs=1e-6), (a, b)


def test_loss_tables_stay_close_while_the_weights_move(data, tmp_path):
    """The last biases of D have a gradient of exactly zero at first, whose rounding Adam turns into steps."""
    for backend in BACKENDS:
        run(train(backend, tmp_path / backend, "--data", data, noise="shared", lr=LOW_RATE))[0].ok()
    jittor, torch = (log(tmp_path / backend) for backend in BACKENDS)
    assert jittor[-1]["GAN_Feat"] > 3 * jittor[0]["GAN_Feat"]
    assert_close(jittor, torch)


@pytest.mark.parametrize("backend", BACKENDS)
def test_averaged_weights_are_kept(backend, stages):
    checkpoint = stages[backend] / "checkpoints/14"
    for name in ("E", "G"):
        now, averaged = (read_weights(checkpoint / f"{name}{kind}.safetensors") for kind in ("", ".ema"))
        assert list(now) == list(averaged) and any((now[key] != averaged[key]).any() for key in now)
    assert not (checkpoint / "D.ema.safetensors").exists()


def start(command: list[str]) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-m", "jittwin", *command], cwd=ROOT, env=ENVIRONMENT,
                            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def kill_after(command: list[str], folder: Path, checkpoint: str) -> None:
    """Run a training command until `latest` names the checkpoint, then SIGKILL."""
    process = start(command)
    latest, deadline = folder / "latest", time.monotonic() + 600
    while not (latest.exists() and latest.read_text().strip() == checkpoint):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.002)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    process.stderr.close()
    assert (folder / "checkpoints" / latest.read_text().strip() / "state.json").exists()


@pytest.mark.parametrize("backend", BACKENDS)
def test_killed_in_both_phases_and_resumed_equals_uninterrupted(backend, finished, data, tmp_path):
    folder = tmp_path / "run"
    kill_after(train(backend, folder, "--data", data, save_every=1), folder, "1.1")
    resume = ["train", "--out", str(folder), "--resume"]
    kill_after(resume, folder, "4.1")
    run(resume, backend=backend)[0].ok()
    assert_equal(everything(folder), everything(finished(backend)))


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_interrupt_saves_and_resumes(backend, finished, data, tmp_path):
    folder = tmp_path / "run"
    process = start(train(backend, folder, "--data", data))
    while not (folder / "log.jsonl").exists() or not log(folder):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    message = process.communicate(timeout=300)[1]
    assert process.returncode == 130 and "go on with --resume" in message and "Traceback" not in message
    run(["train", "--out", folder, "--resume"], backend=backend)[0].ok()
    for name in ("checkpoints/4", "samples"):
        whole = contents(finished(backend) / name, "*.safetensors", "*.png")
        assert_equal(contents(folder / name, "*.safetensors", "*.png"), whole)
    assert (folder / "log.jsonl").read_bytes() == (finished(backend) / "log.jsonl").read_bytes()


@pytest.mark.parametrize("backend", BACKENDS)
def test_going_back_to_an_epoch(backend, finished, tmp_path):
    same, other = tmp_path / "same", tmp_path / "other"
    for folder in (same, other):
        shutil.copytree(finished(backend), folder)
    for done in run(["train", "--out", same, "--continue", 3],
                    ["train", "--out", other, "--continue", 2, "--set", "lr=1e-4", "--set", "epochs=5"],
                    backend=backend):
        done.ok()
    assert_equal(everything(same), everything(finished(backend)))
    before, after = log(finished(backend)), log(other)
    assert after[:4] == before[:4] and after[5] != before[5]
    assert (len(after), (other / "latest").read_text()) == (10, "5\n")
    assert yaml.safe_load((other / "config.yaml").read_text())["lr"] == 1e-4


@pytest.mark.parametrize("backend", BACKENDS)
def test_phase_2_alone_repeats_phase_2_of_both(backend, finished, data, tmp_path):
    """From a checkpoint folder, and from the original's files of another framework's format."""
    end, whole = finished(backend) / "checkpoints/3", log(finished(backend))[6:]
    for name in "EGD":
        write_weights(tmp_path / f"3_net_{name}.pkl", read_weights(end / f"{name}.safetensors"))
    starts = {"folder": end, "prefix": tmp_path / "3"}
    runs = run(*(train(backend, tmp_path / name, "--data", data, phase=2, start_weights=start)
                 for name, start in starts.items()))
    for name, done in zip(starts, runs, strict=True):
        done.ok()
        lines = log(tmp_path / name)
        assert [line | {"step": 0} for line in lines] == [line | {"step": 0} for line in whole]
        assert_equal(contents(tmp_path / name / "checkpoints/4", "*.safetensors"),
                     contents(finished(backend) / "checkpoints/4", "*.safetensors"))


@pytest.mark.parametrize("backend", BACKENDS)
def test_settings_precedence(backend, tmp_path):
    """Defaults < preset < file < --set; the file is written back resolved."""
    file = tmp_path / "settings.yaml"
    file.write_text("lr: 3e-4\nbatch_size: 3\nseed: 5\nsemantics: repaired\n")
    command = train(backend, tmp_path / "run", "--config", file, "--set", "seed=6", "--set", "semantics.adam=jittor",
                    "--set", "max_steps=1")
    printed = run(command)[0].ok().err.splitlines()     # a step that takes a second shows a bar, which is printed last
    assert any(line.endswith("finished after 1 steps, checkpoint 1") for line in printed)
    written = yaml.safe_load((tmp_path / "run/config.yaml").read_text())
    assert [written[key] for key in ("lr", "batch_size", "seed", "ngf", "beta2")] == [3e-4, 2, 6, 8, 0.9]
    assert (written["semantics"]["adam"], written["semantics"]["warm_start"]) == ("jittor", "copy")


def test_accumulation(tmp_path, data):
    """A step of two batches of two: one line per step, the mean of both; the twins agree."""
    for backend in BACKENDS:
        run(train(backend, tmp_path / backend, "--data", data, accumulation=2, noise="shared", lr=LOW_RATE,
                  max_steps=3))[0].ok()
    jittor, torch = (log(tmp_path / backend) for backend in BACKENDS)
    assert [(line["epoch"], line["step"]) for line in jittor] == [(1, 0), (2, 1), (3, 2)]
    assert_close(jittor, torch)


@pytest.mark.parametrize("backend", BACKENDS)
def test_untrained_perceptual_losses_are_marked(backend, finished, data, tmp_path):
    """Full-size networks; Inception needs larger pictures than the other tests use."""
    common = dict(random_perceptual="true", max_steps=1)
    first, second = run(
        train(backend, tmp_path / "1", "--data", data, phase=1, **common),
        train(backend, tmp_path / "2", phase=2, start_weights=finished(backend) / "checkpoints/3", crop_size=128,
              aspect_ratio=1, load_size=144, **common))
    first.ok(), second.ok()
    (vgg,), (inception,) = log(tmp_path / "1"), log(tmp_path / "2")
    assert vgg["VGG(random)"] > 0 and inception["Inception(random)"] > 0
    assert len(vgg) == len(inception) == 3 + len(LOSSES) + 1
    for folder, name in (("1/checkpoints/1.1", "VGG(random)"), ("2/checkpoints/4", "Inception(random)")):
        assert name in str(read_metadata(tmp_path / folder / "G.safetensors")["perceptual"])
