"""The detector of distortion as predictor and metric, as tests that either twin must pass."""
import json
from dataclasses import asdict

import numpy as np
import pytest
from PIL import Image

from jittwin import imaging
from jittwin.data.pictures import ImageSet
from jittwin.errors import UserError
from jittwin.metrics import distortion
from jittwin.metrics.metric import Batch, Request
from jittwin.models.distortion import encode_prompts
from jittwin.predictors.distortion import DistortionPredictor, detector_file, untrained
from jittwin.weights import write_weights

PROMPTS = ["a view of a coast", "a view of a town", "a view of a coast " * 30]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for number, size in enumerate(((80, 200), (96, 96), (120, 70))):
        tiles = rng.integers(0, 256, (4, 4, 3), np.uint8)
        Image.fromarray(tiles).resize(size[::-1], Image.Resampling.BICUBIC).save(root / f"{number}.png")
    return root


def loaded(backend, folder, random=False, **options):
    given = {option.name: options.get(option.name.removeprefix("distortion-")) for option in distortion.INFO.options}
    return distortion.load(Request(backend, "float32", ImageSet(folder), given, random))


def saved(backend, path, metadata=None):
    """A file of an untrained detector, whose maps are not nearly the same everywhere, with its vocabulary beside it."""
    weights = untrained(backend)
    arrays = {key: (30 if "final_layers" in key else 2.4) * array if key.startswith("heatmap") and array.ndim == 4
              else array for key, array in weights.arrays.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_weights(path, arrays, {"model": "distortion", "config": asdict(weights.config), **(metadata or {})})
    (path.parent / "tokenizer.json").write_text(weights.tokenizer.splitter.to_str())
    return path


def test_maps_and_scores_are_those_of_the_network(backend, folder, tmp_path):
    metric = loaded(backend, folder, weights=saved(backend, tmp_path / "a.safetensors"))
    pictures = [imaging.decode_image(folder / f"{number}.png") for number in range(3)]
    pixels = [metric.preprocess(picture) for picture in pictures]
    sizes = [picture.shape[:2] for picture in pictures]
    found = metric.score(Batch(pixels, ["0.png", "1.png", "2.png"], sizes, PROMPTS, True))
    metric.score(Batch(pixels[2:], ["2.png"], sizes[2:], PROMPTS[2:]))
    predictor = metric.predictor
    tokens = encode_prompts(predictor.config, predictor.weights.tokenizer, PROMPTS)
    with backend.no_grad():
        heat, scores = map(backend.numpy, predictor.network(
            *map(backend.asarray, (np.stack(pixels), tokens.ids)), backend.asarray(tokens.mask, "float32")))
    assert [values["distortion"] for values in found.values] == pytest.approx(scores.tolist(), abs=1e-6)
    areas = [float((np.rint(each * 255) > 90).mean()) for each in heat[:, 0]]
    assert [values["distorted_area"] for values in found.values] == pytest.approx(areas, abs=1e-3)
    assert 0.01 < min(areas) and np.std(heat) > 0.1
    # Drawn with the picture's proportions, warm where the map is high.
    assert [each.shape for each in found.maps] == [(38, 96, 3), (96, 96, 3), (96, 56, 3)]
    expected = imaging.heat_overlay(pictures[1], np.rint(heat[1, 0] * 255).astype(np.uint8))
    assert np.abs(found.maps[1].astype(int) - expected).max() <= 3
    line, = metric.notes
    assert line.startswith("distortion: 1 prompts have more than 118 tokens and lose their ends, such as 'a view of a c")
    score, alone = predictor.predict(pictures[0], PROMPTS[0])
    assert score == pytest.approx(float(scores[0]), abs=2e-5) and np.abs(alone - heat[0, 0]).max() < 1e-4
    assert not metric.random and metric.provenance["text"] == "fast 118"


def test_the_reference_pads_and_fast_does_not(backend, folder, tmp_path):
    path = saved(backend, tmp_path / "a.safetensors")
    image, found = imaging.decode_image(folder / "1.png"), {}
    for mode in (None, "fast", "reference"):
        predictor = loaded(backend, folder, weights=path, text=mode).predictor
        found[mode] = predictor.predict(image, "a coast")[1]
    assert np.array_equal(found[None], found["fast"]) and np.abs(found["fast"] - found["reference"]).max() > 1e-4


def test_untrained(backend, folder):
    metric = loaded(backend, folder, random=True)
    score, heat = metric.predictor.predict(imaging.decode_image(folder / "0.png"), "")
    assert metric.random and 0 < score < 1 and heat.shape == (96, 96) and heat.dtype == np.float32
    assert isinstance(metric.predictor, DistortionPredictor)


def test_files_of_runs(backend, folder, tmp_path):
    """Averaged weights come first; a run with LoRA has one file for all."""
    run = tmp_path / "run"
    for name in ("4", "8"):
        for stem in ("model", "model.ema")[:1 if name == "4" else 2]:
            saved(backend, run / "checkpoints" / name / f"{stem}.safetensors")
        (run / "checkpoints" / name / "state.json").write_text("{}")
    (run / "latest").write_text("8\n")
    (run / "best.json").write_text(json.dumps({"final": {"checkpoint": "4", "score": 0.5}}))
    assert detector_file(run) == run / "checkpoints/8/model.ema.safetensors"
    assert detector_file(run / "best") == run / "checkpoints/4/model.safetensors"
    merged = saved(backend, run / "merged.safetensors")
    assert detector_file(run) == detector_file(run / "best") == merged
    alone = saved(backend, tmp_path / "lora/model.safetensors", {"lora": {"r": 2}})
    with pytest.raises(UserError, match="holds LoRA without the trunk: give the run, whose merged.safetensors has both"):
        detector_file(alone)
    assert loaded(backend, folder, weights=run).predictor.weights.name == str(run)


@pytest.mark.parametrize("options, message", [
    ({}, "distortion needs trained weights: give --distortion-weights FILE, or --random-weights"),
    ({"text": "slow"}, "--distortion-text slow.*: choose from reference, fast"),
    ({"weights": "nothing"}, "nothing: no detector here; give last.pth"),
    ({"weights": "a.safetensors", "tokenizer": "none"}, "none: is not a folder; name the one that holds the vocabulary")])
def test_mistakes(backend, folder, tmp_path, options, message):
    saved(backend, tmp_path / "a.safetensors")
    for name in ("weights", "tokenizer"):
        if name in options:
            options = {**options, name: tmp_path / options[name]}
    with pytest.raises(UserError, match=message):
        loaded(backend, folder, **options)
