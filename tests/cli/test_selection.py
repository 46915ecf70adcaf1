"""Selecting, averaging and choosing seeds, on a small run of either backend."""
import csv
import json
import shutil

import numpy as np
import pytest
from commands import BACKENDS, Command, run, train

from jittwin.backend import load_backend
from jittwin.classes import CLASS_NUMBER, CLASSES
from jittwin.models.segformer import preset
from jittwin.weights import read_metadata, read_weights, write_weights
from jittwin.weights.initial import initial_weights

FID = ["--random-weights", "--mode", "clean"]


@pytest.fixture(scope="module")
def place(tmp_path_factory, data):
    """A folder with a run of PyTorch whose epochs 4 to 6 are fine-tuning: the same keys throughout."""
    root = tmp_path_factory.mktemp("selection")
    run(train("torch", root / "run", "--data", data, epochs=6))[0].ok()
    return root


@pytest.fixture(scope="module")
def results(place, labels, data):
    pictures = data / "imgs"
    found = {}
    for backend in BACKENDS:
        use = [*FID, "--labels", labels, "--reference", pictures, "--backend", backend, "--no-cache"]
        out = place / backend
        left = out / "best/.seed_1.0123456789ab.tmp/scene_2.jpg"      # of a choice that was killed
        left.parent.mkdir(parents=True)
        left.touch()
        found[backend] = run(
            ["select", place / "run", "--epochs", "5-6", "--out", out, "--batch", "3", *use],
            ["select", place / "run", "--epochs", "4-6", "--out", out, *use],
            ["select", place / "run", "--out", out, "--seed", "1", *use],
            ["merge", place / "run", "--epochs", "4-6", "--method", "soup", "--out", out / "soup", *use],
            ["generate", "--weights", place / "run", "--labels", labels, "--out", out / "best", "--seeds", "3",
             "--reference", pictures, "--backend", backend, *FID],
            ["generate", "--weights", place / "run", "--labels", labels, "--out", out / "best", "--seeds", "3",
             "--reference", pictures, "--backend", backend, "--format", "png", *FID])
    return found


def rows(path):
    with open(path) as stream:
        return list(csv.DictReader(stream))


@pytest.mark.parametrize("backend", BACKENDS)
def test_selection_ranks_and_goes_on(results, place, backend):
    """With another batch too, which moves the last digits of the reference."""
    first, second, other_seed = results[backend][:3]
    assert first.ok().out.count("(random weights)") == 2
    assert all(line.endswith("(random weights)") for line in first.err.splitlines() if line.startswith(("5:", "6:")))
    ranked = rows(place / backend / "select.csv")
    values = [float(row["fid"]) for row in ranked]
    assert values == sorted(values) and {row["epoch"] for row in ranked} == {"4", "5", "6"}
    record = json.loads((place / backend / "select.json").read_text())["rows"]
    assert list(record) == ["5", "6", "4"]      # the second call measured the missing one alone
    assert f"best: {place / 'run/checkpoints' / ranked[0]['epoch']}" in second.ok().out
    assert other_seed.status == 2 and "another seed" in other_seed.err
    assert (place / backend / "select.svg").read_text().startswith("<svg")


def test_both_backends_rank_alike(results, place):
    jittor, torch = (json.loads((place / b / "select.json").read_text())["rows"] for b in BACKENDS)
    for epoch in torch:
        # One grey level in a picture, which JPEG spreads, is all the twins may differ in.
        assert jittor[epoch]["fid"] == pytest.approx(torch[epoch]["fid"], rel=1e-2)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_soup_is_the_mean_of_what_it_kept(results, place, backend):
    done = results[backend][3].ok()
    assert done.out.count("(random weights)") == 2 * 3
    kept = [line.split(":")[0] for line in done.out.splitlines() if line.endswith("kept")]
    assert 1 <= len(kept) <= 3
    merged = read_weights(place / backend / "soup/G.safetensors")
    parts = [read_weights(f"{folder}/G.safetensors") for folder in kept]
    for key, value in merged.items():
        np.testing.assert_allclose(value, np.mean([p[key].astype(np.float64) for p in parts], 0), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_best_seed_is_the_one_whose_pictures_remain(results, place, backend):
    done, again = results[backend][4:]
    table = rows(place / backend / "best/seeds.csv")
    assert [row["seed"] for row in table] == ["0", "1", "2"]
    assert {row["weights"] for row in table} == {"random"}
    best = min(table, key=lambda row: float(row["fid"]))
    assert [row["seed"] for row in table if row["chosen"]] == [best["seed"]]
    assert f"best: seed {best['seed']}" in done.ok().out
    assert len(list((place / backend / "best").glob("*.jpg"))) == 5
    assert not list((place / backend / "best").glob(".seed*"))
    assert again.status == 2 and "holds pictures already (scene_10.jpg)" in again.err


def test_merging_files_of_any_kind(place, labels):
    checkpoints = [place / "run/checkpoints" / epoch for epoch in "56"]
    done = run(["merge", *checkpoints, "--out", place / "avg_5_6", "--format", ".pkl", "--dtype", "float64"],
               ["merge", place / "avg_5_6", checkpoints[0], "--method", "ema", "--decay", "0.5", "--out",
                place / "ema"],
               ["generate", "--weights", place / "ema", "--labels", labels, "--out", place / "images",
                "--width", "192", "--backend", "torch"])
    for each in done:
        each.ok()
    five, six, mean, ema = (read_weights(p) for p in (
        checkpoints[0] / "G.safetensors", checkpoints[1] / "G.safetensors", place / "avg_5_6_net_G.pkl",
        place / "ema/G.safetensors"))
    for key in five:
        exact = (five[key].astype(np.float64) + six[key]) / 2
        np.testing.assert_array_equal(mean[key], exact)
        np.testing.assert_allclose(ema[key], (exact + five[key]) / 2, rtol=1e-6, atol=1e-9)


def test_an_average_is_both_files_or_none(place):
    checkpoints = [str(place / "run/checkpoints" / epoch) for epoch in "56"]
    out = place / "full"
    done = run(Command(["merge", *checkpoints, "--out", str(out)], disk_full_after=2))[0]
    assert "No space left" in done.one_line() and not list(out.iterdir())


def test_what_cannot_be_measured_shows_before_the_first_is_measured(place, labels, data):
    folder = place / "originals"
    folder.mkdir()
    for name in ("4_net_E", "4_net_G", "5_net_G"):
        write_weights(folder / f"{name}.pkl", read_weights(place / f"run/checkpoints/4/{name[-1]}.safetensors"))
    use = ["--reference", data / "imgs", "--out", place / "x", *FID, "--backend", "torch"]
    (place / "one map").mkdir()
    shutil.copy(labels / "tree.png", place / "one map")
    absent, few = run(["select", folder, "--labels", labels, *use],
                      ["select", place / "run", "--labels", place / "one map", *use])
    assert "originals/5: no network E found" in absent.one_line()
    assert "one map: holds one label map, and FID" in few.one_line() and not (place / "x").exists()


def test_a_checkpoint_that_diverged(place, labels):
    shutil.copytree(place / "run/checkpoints/6", place / "diverged")
    weights = read_weights(place / "diverged/G.safetensors")
    weights["out_conv_img.bias"][0] = np.nan
    write_weights(place / "diverged/G.safetensors", weights, read_metadata(place / "diverged/G.safetensors"))
    done = run(["generate", "--weights", place / "diverged", "--labels", labels, "--out", place / "black",
                "--backend", "torch"])[0]
    assert "diverged/G.safetensors: out_conv_img.bias holds 1 NaN or infinite numbers of 3" in done.err
    assert done.status == 2 and not (place / "black").exists()


@pytest.mark.parametrize("command", ["select", "generate"])
def test_statistics_that_tell_no_mode(place, labels, command):
    """Of another tool: they may be of another mode, and the value says nothing."""
    np.savez(place / "foreign.npz", mu=np.zeros(2048), sigma=np.eye(2048))
    source = ["select", place / "run", "--epochs", "6"] if command == "select" else [
        "generate", "--weights", place / "run"]
    done = run([*source, "--labels", labels, "--reference", place / "foreign.npz", *FID, "--backend", "torch",
                "--out", place / f"foreign {command}"])[0]
    assert "foreign.npz: does not tell its mode and weights" in done.ok().err


@pytest.fixture(scope="module")
def segmenter(place):
    """Weights of an untrained SegFormer B0 with 29 classes, which sees sky and trees everywhere."""
    shapes = load_backend("torch").state_shapes("segformer", preset("B0", CLASSES))
    path, weights = place / "segformer.safetensors", dict(initial_weights("segformer", shapes))
    seen = [CLASS_NUMBER["sky"], CLASS_NUMBER["tree"]]
    weights["decode_head.classifier.bias"] = np.where(np.isin(np.arange(CLASSES), seen), 10, 0).astype(np.float32)
    write_weights(path, weights, {})
    return path


def test_selection_by_the_competition_score(place, labels, data, segmenter):
    found, printed = {}, {}
    (place / "aesthetic.csv").write_text("epoch,aesthetic\n4,1\n5,2.5\n6,9\n")
    for backend in BACKENDS:
        out = place / f"{backend} score"
        use = [*FID, "--labels", labels, "--reference", data / "imgs", "--backend", backend, "--epochs", "5-6",
               "--segmenter", segmenter, "--aesthetic", place / "aesthetic.csv", "--out", out]
        done = run(["select", place / "run", *use])[0]
        found[backend], printed[backend] = rows(out / "select.csv"), done.ok().out
    for a, b in zip(*found.values(), strict=True):
        assert a["epoch"] == b["epoch"]
        assert float(a["mask_accuracy"]) == pytest.approx(float(b["mask_accuracy"]), abs=1e-3)
        score = float(a["mask_accuracy"]) * (float(a["aesthetic"]) / 20 + max(0, 100 - float(a["fid"])) / 200)
        assert float(a["score"]) == pytest.approx(score, abs=1e-5) and 0 < float(a["mask_accuracy_shuffled"]) < 1
    scores = [float(row["score"]) for row in found["torch"]]
    assert scores == sorted(scores, reverse=True) and len(scores) == 2
    assert "with other labels" in printed["torch"] and "of photographs: not known" in printed["torch"]


def test_photographs_are_the_upper_anchor(place, data, segmenter):
    out = place / "anchored"
    use = ["select", place / "run", "--epochs", "6", "--labels", data, "--width", "192", "--out", out, *FID,
           "--reference", data / "imgs", "--backend", "jittor", "--segmenter", segmenter]
    (place / "others").mkdir()
    for path in sorted((data / "imgs").iterdir())[:2]:
        (place / "others" / path.name).write_bytes(path.read_bytes())
    # Those of the data set, unless others are named.
    anchored, others = run(use, [*use, "--real", place / "others"])
    assert "of photographs 0." in anchored.ok().out and "another real" in others.err
    assert 0 < float(rows(out / "select.csv")[0]["mask_accuracy_real"]) < 1


def test_mistakes_about_mask_accuracy(place, labels, data, segmenter):
    use = ["select", place / "run", "--labels", labels, "--reference", data / "imgs", "--out", place / "x", *FID]
    (place / "short.csv").write_text("epoch,aesthetic\n4,1\n")
    (place / "other.csv").write_text("name,value\n4,1\n")
    alone, wordy, short, other, absent, generator = run(
        [*use, "--aesthetic", "5"], [*use, "--segmenter", segmenter, "--aesthetic", "nice"],
        [*use, "--segmenter", segmenter, "--aesthetic", place / "short.csv"],
        [*use, "--segmenter", segmenter, "--aesthetic", place / "other.csv"],
        [*use, "--segmenter", place / "absent.safetensors", "--backend", "torch"],
        [*use, "--segmenter", place / "run/checkpoints/5/G.safetensors", "--backend", "torch"])
    assert "give --segmenter FILE too" in alone.one_line()
    assert "'nice' of epoch 1 is not a number" in wordy.one_line()
    assert "has no line for epoch 1" in short.one_line()
    assert "no column 'epoch'" in other.one_line()
    assert "absent.safetensors" in absent.one_line()
    assert "not the weights of a SegFormer" in generator.one_line()
    assert not (place / "x").exists()


def test_mistakes(place, labels):
    measure = [*FID, "--labels", labels, "--reference", labels, "--backend", "torch"]
    one, two_runs, decay, soup, other, phases = run(
        ["merge", place / "run", "--out", place / "x"],
        ["merge", place / "run", place / "run", "--epochs", "5-6", "--out", place / "x"],
        ["merge", place / "run", "--epochs", "5-6", "--method", "ema", "--decay", "1", "--out", place / "x"],
        ["merge", place / "run", "--epochs", "5-6", "--method", "soup", "--out", place / "x"],
        ["merge", place / "run/checkpoints/5", place / "run/checkpoints/6", place / "absent", "--out", place / "x"],
        ["merge", place / "run", "--epochs", "3-4", "--method", "soup", "--out", place / "x", *measure])
    assert "at least two checkpoints" in one.one_line()
    assert "of one run, but 2 are given" in two_runs.one_line()
    assert "--decay 1" in decay.one_line()
    assert "--labels and --reference" in soup.one_line()
    assert "no network E found" in other.one_line()
    assert "checkpoints/3: not the same network as" in phases.one_line() and "one phase" in phases.err
    assert not (place / "x").exists()
