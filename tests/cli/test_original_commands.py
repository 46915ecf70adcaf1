"""The original projects' commands on a small run: the first phase, fine-tuning from either kind of files, testing."""
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from commands import BACKENDS, run
from PIL import Image

from jittwin.backend import load_backend
from jittwin.metrics.fid.inception import CLASSES, WIDTH
from jittwin.metrics.fid.statistics import read_statistics
from jittwin.weights import read_weights, write_weights
from jittwin.weights.initial import initial_weights

# The published command lines, at a size that takes seconds.
SIZES = ["--ngf=8", "--ndf=8", "--load_size=216", "--crop_size=192", "--aspect_ratio=3", "--batchSize=2",
         "--pg_niter=3", "--pg_strategy=1", "--num_D=4", "--print_freq=2", "--remove_hard_imgs=False"]
TUNING = ["--diff_aug=color,crop,translation", "--inception_loss", "--use_seg_noise", "--continue_train"]


def log(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module", params=BACKENDS)
def backend(request):
    return request.param


@pytest.fixture(scope="module")
def phases(backend, data, tmp_path_factory):
    """The folder in which both phases were trained, with the original's defaults for names."""
    folder, common = tmp_path_factory.mktemp("scripts"), [f"--input_path={data}", "--backend", backend, *SIZES]
    for done in run(["train_phase.py", *common, "--niter=3", "--save_epoch_freq=1"],
                    ["train_phase.py", *common, *TUNING, "--niter=4", "--which_epoch=3"], cwd=folder):
        done.ok()
    return folder


def test_both_phases(phases):
    lines = log(phases / "checkpoints/label2img")
    assert [(line["phase"], line["epoch"]) for line in lines] == [
        *(("pretrain", epoch) for epoch in (1, 1, 2, 2, 3, 3)), ("finetune", 4), ("finetune", 4)]
    start = json.loads((phases / "checkpoints/label2img/checkpoints/3/state.json").read_text())
    assert (start["phase"], start["epoch_done"]) == ("pretrain", True)


def test_fine_tuning_from_the_original_files_is_the_same(phases, backend, data):
    """WHICH_EPOCH_net_{E,G,D}.pkl in the folder of that name."""
    run_folder, other = phases / "checkpoints/label2img", phases / "checkpoints/other"
    other.mkdir()
    for name in "EGD":
        write_weights(other / f"3_net_{name}.pkl", read_weights(run_folder / f"checkpoints/3/{name}.safetensors"))
    run(["train_phase.py", f"--input_path={data}", "--name=other", "--backend", backend, *SIZES, *TUNING,
         "--niter=4", "--which_epoch=3"], cwd=phases)[0].ok()
    assert [line | {"step": 0} for line in log(other)] == [line | {"step": 0} for line in log(run_folder)[6:]]


def test_fine_tuning_goes_on(phases, backend, data):
    """From its own newest checkpoint, which no longer says where the first phase ended."""
    run(["train_phase.py", f"--input_path={data}", "--backend", backend, *SIZES, *TUNING, "--niter=5"],
        cwd=phases)[0].ok()
    assert [(line["phase"], line["epoch"]) for line in log(phases / "checkpoints/label2img")][6:] == [
        ("finetune", 4), ("finetune", 4), ("finetune", 5), ("finetune", 5)]


def test_generating(phases, backend, labels):
    """With and without the dictionary; --batchSize changes nothing; a seed is drawn and told, and what is in the way."""
    stale = phases / "c/older/picture.png"
    stale.parent.mkdir(parents=True)
    stale.touch()
    common = [f"--input_path={labels}", "--backend", backend, "--which_epoch=4"]
    fixed, batched, drawn = run(
        ["test_phase.py", *common, "--seed=7", "--out_path=a"],
        ["test_phase.py", *common, "--seed=7", "--out_path=b", "--batchSize=3", "--use_pure=False"],
        ["test_phase.py", *common, "--out_path=c"], cwd=phases)
    assert "seed 7\n" in fixed.ok().err and "used up" in fixed.err
    assert "used up" not in batched.ok().err and "seed " in drawn.ok().err
    assert "already there" not in batched.err and "c/older/picture.png: already there, and not made from a label" in drawn.err
    shutil.rmtree(stale.parent)
    a, b, c = ({path.name: np.asarray(Image.open(path)).astype(int) for path in (phases / name).iterdir()}
               for name in "abc")
    assert set(a) == set(b) == set(c) == {f"{path.stem}.jpg" for path in labels.iterdir()}
    assert np.abs(a["scene_2.jpg"] - b["scene_2.jpg"]).max() <= 2
    assert np.abs(a["sky_1.jpg"] - b["sky_1.jpg"]).max() > 20      # a photograph


def test_averaging_measuring_and_choosing(phases, backend, data, labels):
    """merge_ckpt.py, fid.py in either form, test.py."""
    folder, pictures = "checkpoints/label2img", data / "imgs"
    network = ["--random-weights", "--backend", backend]
    merged, measured, pure, chosen, stale = run(
        ["merge_ckpt.py", folder, "4", "5"],
        ["fid.py", pictures, labels, folder, "4-5", "99", *network],
        ["fid.py", pictures, labels, folder, "True", "5", "4", *network],
        ["test.py", "--train_path", pictures, "--input_path", labels, "--seeds", "2", "--which_epoch", "4", *network],
        ["fid.py", pictures, data / "labels", folder, "4", *network], cwd=phases)
    merged.ok()
    for name in "EG":
        average = read_weights(phases / folder / f"avg_4_5_net_{name}.pkl")
        parts = [read_weights(phases / folder / f"checkpoints/{epoch}/{name}.safetensors") for epoch in "45"]
        for key, value in average.items():
            assert value.dtype == np.float64
            np.testing.assert_array_equal(value, (parts[0][key].astype(np.float64) + parts[1][key]) / 2)
    lines = [line for line in measured.ok().out.splitlines() if "  fid:  " in line]
    assert [line.split("  fid:  ")[0] for line in lines] == [f"{folder}/{name}" for name in ("4", "5")]
    assert "fid:" in pure.ok().out
    # The pictures of the measurements before are in the way of a choice among seeds.
    assert chosen.status == 2 and "holds pictures already" in chosen.err
    assert stale.status == 2 and "the picture of no label map" in stale.err
    made = next((phases / "results").glob("*.jpg"))
    shutil.copy(made, phases / f"results/{made.stem}.png")      # of the same name, but not written again
    again, = run(["fid.py", pictures, labels, folder, "4", *network], cwd=phases)
    assert again.status == 2 and f"{made.stem}.png exists already" in again.err
    shutil.rmtree(phases / "results")
    run(["test.py", "--train_path", pictures, "--input_path", labels, "--seeds", "2", "--seed", "3", "--which_epoch", "4",
         *network], cwd=phases)[0].ok()
    values = [line.split("\t") for line in (phases / "temp_jittor.txt").read_text().splitlines()]
    assert [seed for seed, _ in values] == ["3", "4"]
    assert len(list((phases / "results").glob("*.jpg"))) == 5


def test_both_phases_in_one_command_need_the_published_sizes(data, tmp_path):
    done, = run(["train.py", f"--input_path={data}", "--remove_hard_imgs=False"], cwd=tmp_path)
    assert "too low for a crop 384 high" in done.err and "no FID statistics" in done.err
    assert done.status == 2 and not list(tmp_path.iterdir())


def test_both_phases_in_one_command_and_a_run_in_the_way(data, tmp_path):
    """The advice names what there is: the original's command has no --resume."""
    (tmp_path / "checkpoints/label2img").mkdir(parents=True)
    (tmp_path / "checkpoints/label2img/latest").write_text("3\n")
    done, = run(["train.py", f"--input_path={data}", "--remove_hard_imgs=False"], cwd=tmp_path)
    assert "go on with jittwin train --resume --out checkpoints/label2img, or pass another --name" in done.one_line()


def test_statistics_of_the_training_pictures(data, tmp_path):
    """Before training, by the weights in the original's place; fid.py measures to them, and not to its TRAIN_IMGS."""
    shapes = load_backend("torch").state_shapes("inception_fid", None) | {"fc.weight": (CLASSES, WIDTH)}
    (tmp_path / "util").mkdir()
    write_weights(tmp_path / "util/net_params.pkl", initial_weights("inception_fid", shapes))
    weights = ["--weights", tmp_path / "util/net_params.pkl"]
    for backend in BACKENDS:
        folder = tmp_path / backend / "label2img"
        trained, saved, measured = run(
            ["train.py", f"--input_path={data}", "--remove_hard_imgs=False", f"--checkpoints_dir={tmp_path / backend}",
             "--backend", backend],
            ["fid", data / "imgs", folder / "train_fid_m.npy", "--mode", "apf-gan", *weights, "--backend", backend,
             "--no-cache", "--save-stats", tmp_path / "again.npz"],
            ["fid.py", "nowhere", "nowhere", folder, "99", "--backend", backend], cwd=tmp_path)
        assert "too low for a crop 384 high" in trained.err and "no FID statistics" not in trained.err
        assert abs(float(saved.ok().out.split()[1])) < 1e-6 and "does not tell its mode" in saved.err
        measured.ok()
        again, pair = (read_statistics(path) for path in (tmp_path / "again.npz", folder / "train_fid_s.npy"))
        # With one thread, PyTorch on AVX-512 rounds some features differently in the two commands.
        largest = np.abs(again.covariance).max()
        np.testing.assert_allclose(pair.covariance, again.covariance, atol=1e-5 * largest)
        assert pair.mean.shape == (WIDTH,) and {path.name for path in folder.iterdir()} == {
            "train_fid_m.npy", "train_fid_s.npy"}
