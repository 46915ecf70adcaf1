"""Aesthetic scores by the command, the original's scripts and ONNX files, on either backend without the other."""
import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from commands import BACKENDS, Command, run
from PIL import Image
from tower import random_tower, tower_shapes

from jittwin.checkpoints.adapters import Adapter, write_adapter
from jittwin.draws import Draws
from jittwin.export.onnx import OnnxNetwork
from jittwin.models.aesthetic import AestheticConfig, trainable_keys
from jittwin.models.lora import LoraConfig
from jittwin.models.siglip import PRESETS
from jittwin.weights import write_weights
from jittwin.weights.initial import initial_weights

TINY = PRESETS["tiny"]
CONFIG = AestheticConfig(TINY, LoraConfig(4, 8))
OTHERS = {"jittor": ["torch", "torchvision", "transformers", "peft", "accelerate", "torch_models"],
          "torch": ["jittor", "jittor_utils", "jt_models"]}


def write_tower(folder):
    """A hub folder of a whole SigLIP whose text tower cannot be read by anybody."""
    folder.mkdir()
    sizes = {key: value for key, value in vars(TINY).items() if key != "head"}
    (folder / "config.json").write_text(json.dumps({"model_type": "siglip", "vision_config": sizes}))
    (folder / "preprocessor_config.json").write_text(json.dumps({"resample": 2}))
    arrays = {f"vision_model.{key}": array for key, array in random_tower(replace(TINY, head=True), 1).items()}
    write_weights(folder / "model.safetensors", arrays | {"logit_scale": np.ones(1, np.float32)})


def write_adapters(path, tower):
    """LoRA that changes something, and a head, whose scores spread over some levels."""
    arrays, draws = dict(initial_weights("aesthetic", trainable_keys(CONFIG, tower_shapes(TINY)), 3)), Draws(5)
    for key in arrays:
        if ".lora_B." in key:
            arrays[key] = draws.normal(key, arrays[key].shape) * np.float32(0.1)
    arrays["aesthetic_head.mlp.6.weight"] *= 100
    write_adapter(path, Adapter(CONFIG.lora, arrays, str(tower), TINY.hidden_size))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """tower, best_lora.pth, prompts.csv, six pictures of several sizes and kinds, and one that is none."""
    root = tmp_path_factory.mktemp("aesthetic")
    write_tower(root / "tower")
    write_adapters(root / "best_lora.pth", root / "tower")
    (root / "pictures/deep").mkdir(parents=True)
    for index, name in enumerate(("1.jpg", "2.png", "10.jpg", "deep/grey.png", "deep/a.gif", "deep/b.webp")):
        noise = np.random.default_rng(index).integers(0, 256, (3, 4, 3), np.uint8)
        image = Image.fromarray(noise).resize((60 + 7 * index, 48), Image.Resampling.BICUBIC)
        (image.convert("L") if "grey" in name else image).save(root / "pictures" / name)
    (root / "pictures/bad.jpg").write_bytes(b"\xff\xd8\xff nothing")
    (root / "prompts.csv").write_text("image,prompt,image_prompt\n1.jpg,a view of a coast,deep/grey.png\n")
    return root


@pytest.fixture(scope="module", params=BACKENDS)
def done(request, place):
    """(backend, output folder, what each command said), with the other framework blocked."""
    backend = request.param
    out = place / backend
    out.mkdir()
    use = ["--aesthetic-weights", place / "best_lora.pth", "--backend", backend]
    script = ["--weights", place / "best_lora.pth", "--model", place / "tower", "--backend", backend]
    ended = run(
        ["assess", place / "pictures", *use, "--output", out / "a.json", "--report", out / "report"],
        ["assess", place / "pictures", *use, "--tower", place / "tower", "--batch", "1", "--skip-bad",
         "--memory-limit", "500", "--compile", "--output", out / "a.csv"],
        ["assess", place / "pictures", *use, "--skip-bad", "--dtype", "bfloat16", "--output", out / "half.json"],
        ["assess", place / "pictures/1.jpg", "--random-weights", "--metrics", "aesthetic,tier", "--prompts",
         place / "prompts.csv", "--tier-mode", "pr", "--tier-image-prompts", place / "pictures", "--backend", backend,
         "--output", out / "random.json"],
        ["inference_aesthetic_lora.py", place / "pictures", *script, "--batch_size", "4", "--output", out / "s.json"],
        ["export_onnx.py", *script, "--all", "--output-dir", out / "onnx"],
        ["export_onnx.py", *script, "--dtype", "float16", "--output", out / "half.onnx"],
        blocked=OTHERS[backend])
    return backend, out, ended


def scores(path):
    return {row["image"]: row["aesthetic"] for row in json.loads(path.read_text())["images"]}


def test_the_command(done, place):
    backend, out, (first, second, half, random, *_) = done
    assert (first.status, first.imported) == (1, []) and "bad.jpg: cannot be read" in first.err
    assert "6 scored, 1 skipped" in first.out and "(random weights)" not in first.out
    record = json.loads((out / "a.json").read_text())
    assert list(scores(out / "a.json")) == ["1.jpg", "2.png", "10.jpg", "deep/a.gif", "deep/b.webp", "deep/grey.png"]
    facts = record["metrics"]["aesthetic"]
    assert (facts["backend"], facts["dtype"], facts["n"], facts["random_weights"]) == (backend, "float32", 6, False)
    values = list(scores(out / "a.json").values())
    assert facts["mean"] == pytest.approx(np.mean(values))
    assert np.std(values) > 0.1 and 1 < min(values) < max(values) < 10
    for row in record["images"]:
        shares = [row[f"aesthetic_p{rating}"] for rating in range(1, 11)]
        assert sum(shares) == pytest.approx(1, abs=1e-6)
        assert row["aesthetic"] == pytest.approx(np.dot(shares, range(1, 11)), abs=1e-6)
    with (out / "a.csv").open() as stream:
        alone = {row["image"]: float(row["aesthetic"]) for row in csv.DictReader(stream)}
    assert second.ok() and alone == pytest.approx(scores(out / "a.json"), abs=2e-5)
    assert half.ok() and scores(out / "half.json") == pytest.approx(scores(out / "a.json"), abs=0.05)
    assert scores(out / "half.json") != scores(out / "a.json")
    assert random.ok().out.count("(random weights)") == 4
    assert "tier: mean" in random.out and "(higher is better, unbounded)" in random.out
    page = (out / "report/index.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 6 and "<svg" in page
    assert scores(out / "report/scores.json") == scores(out / "a.json")


def test_the_scripts(done, place):
    _, out, (*_, script, export, half) = done
    lines = script.ok().out.splitlines()
    assert scores(out / "s.json") == pytest.approx(scores(out / "a.json"), abs=2e-5)
    values = scores(out / "a.json")
    assert lines[0] == "[1/6] 1.jpg" and lines[1].startswith(f"  score: {values['1.jpg']:.2f}  ")
    assert [line.split(":")[0].strip() for line in lines[2:12]] == [str(rating) for rating in range(1, 11)]
    shares = json.loads((out / "a.json").read_text())["images"][0]
    assert [line.count("█") for line in lines[2:12]] == [
        int(40 * shares[f"aesthetic_p{rating}"]) for rating in range(1, 11)]
    assert lines[-7].startswith("6 of 7 pictures scored in ") and f"mean score {np.mean(list(values.values())):.2f}" in lines[-7]
    ranked = [line.split()[1] for line in lines[-6:]]
    assert ranked == sorted(values, key=lambda name: -values[name])
    assert {path.name for path in (out / "onnx").iterdir()} == {"model.onnx", "siglip_vision.onnx"}
    assert export.ok().out.count("from the") == 2 and "text tower is not exported" in export.err
    assert "half.onnx: " in half.ok().out


def test_onnx_gives_the_same_scores(done, place):
    _, out, _ = done
    common = ["inference_aesthetic_onnx.py", place / "pictures", "--threads", "2"]
    full, half = run([*common, "--model", out / "onnx/model.onnx", "--output", out / "o.json"],
                     [*common, "--model", out / "half.onnx", "--no-show-distribution", "--output", out / "oh.json"],
                     blocked=["torch", "jittor", "jt_models", "torch_models"])
    assert full.ok().out.count("█") > 6 and not half.ok().out.count("█")
    assert scores(out / "o.json") == pytest.approx(scores(out / "a.json"), abs=2e-4)
    assert scores(out / "oh.json") == pytest.approx(scores(out / "a.json"), abs=0.05)
    embeds = OnnxNetwork(out / "onnx/siglip_vision.onnx")(np.zeros((2, 3, 32, 32), np.float32))
    np.testing.assert_allclose(np.linalg.norm(embeds, axis=1), 1, atol=1e-6)


def test_the_twins_agree(place):
    """Runs after both backends."""
    found = [scores(place / backend / "a.json") for backend in BACKENDS]
    assert found[0] == pytest.approx(found[1], abs=1e-4)
    votes = [json.loads((place / backend / "random.json").read_text())["images"][0]["tier"] for backend in BACKENDS]
    assert votes[0] == pytest.approx(votes[1], abs=1e-5)


def test_mistakes(place, tmp_path):
    use = ["--aesthetic-weights", place / "best_lora.pth", "--tower", place / "tower", "--backend", "torch"]
    export = ["export_onnx.py", "--weights", place / "best_lora.pth", "--backend", "torch"]
    none, nothing, tower, text, two, full, helped, absent, limit = run(
        ["assess", place / "pictures", "--backend", "torch"],
        ["assess", place / "pictures/bad.jpg", *use, "--output", tmp_path / "a.json", "--report", tmp_path / "r"],
        ["assess", place / "pictures", *use[:2], "--tower", place / "pictures", "--backend", "torch"],
        [*export, "--export-text", "--model", place / "tower"],
        [*export, "--all", "--model", place / "tower", "--output", tmp_path / "x.onnx"],
        Command(["assess", str(place / "pictures"), *map(str, use), "--output", str(tmp_path / "a.json")],
                disk_full_after=0),
        ["inference_aesthetic_lora.py"],
        ["inference_aesthetic_lora.py", place / "pictures", "--weights", tmp_path / "absent.pth"],
        ["assess", place / "pictures", *use, "--memory-limit", "0.01"])
    assert "no metric's weights are given: give --aesthetic-weights ADAPTER" in none.one_line()
    assert "none of 1 pictures could be scored" in nothing.one_line()
    assert "config.json: not found" in tower.one_line()
    assert "--export-text: the text tower is not exported" in text.one_line()
    assert "names one file, but two" in two.one_line()
    assert full.status == 2 and "a.json: cannot be written: No space left" in full.err
    assert helped.status == 2 and "usage: python scripts/inference_aesthetic_lora.py" in helped.out
    assert "absent.pth" in absent.one_line()
    assert "--memory-limit 0.01: aesthetic needs 0.00 GB for its weights, beside " in limit.one_line()
    assert not list(tmp_path.iterdir())


def test_selection_measures_the_aesthetic_score(place, finished, labels, data, tmp_path):
    """Of the pictures that a checkpoint makes: the same as by assess."""
    use = ["select", finished("torch"), "--epochs", "4", "--labels", labels, "--reference", data / "imgs",
           "--random-weights", "--mode", "clean", "--backend", "torch", "--out", tmp_path / "out", "--aesthetic"]
    measured, number = run([*use, place / "best_lora.pth", "--tower", place / "tower"], [*use, "5"])
    assert "  aesthetic " in measured.ok().out and "--aesthetic is used with mask accuracy" in number.one_line()
    with (tmp_path / "out/select.csv").open() as stream:
        row, = csv.DictReader(stream)
    assert 1 < float(row["aesthetic"]) < 10 and "score" not in row
    record = json.loads((tmp_path / "out/select.json").read_text())
    assert record["settings"]["aesthetic"]["tower"] == "tower"
    run(["generate", "--weights", finished("torch"), "--labels", labels, "--backend", "torch", "--out", tmp_path / "made"],
        ["assess", tmp_path / "made", "--aesthetic-weights", place / "best_lora.pth", "--backend", "torch",
         "--output", tmp_path / "made.json"])[1].ok()
    assert np.mean(list(scores(tmp_path / "made.json").values())) == pytest.approx(float(row["aesthetic"]), abs=1e-5)
