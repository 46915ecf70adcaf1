"""The metrics `blipscore` and `imagereward`, as tests that either twin must pass."""
import json
import os
import weakref
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jittwin import cli
from jittwin.commands import assess as command
from jittwin.data.pictures import ImageSet
from jittwin.errors import UserError
from jittwin.metrics.assessment import assess
from jittwin.metrics.catalog import ASSESSED
from jittwin.metrics.metric import Batch, Request
from jittwin.metrics.passes import passes, weights_of
from jittwin.models import blip
from jittwin.models.image_reward import MEAN, STD
from jittwin.predictors.blip import BlipScorePredictor, ImageRewardPredictor
from jittwin.predictors.towers import Towers
from jittwin.weights import write_weights

PREDICTORS = {"blipscore": BlipScorePredictor, "imagereward": ImageRewardPredictor}
PROMPTS = ["a view of a coast", "a dark view of a farm, oil painting", "a view of a coast", "a view of a coast " * 9]
NAMES = ["0.png", "1.png", "2.png", "3.png"]
PIXELS = np.random.default_rng(0).standard_normal((4, 3, 64, 64)).astype(np.float32)


def loaded(backend, name, random=True, towers=None, **options):
    metric = ASSESSED[name]
    given = {option.name: options.get(option.name.removeprefix(f"{name}-")) for option in metric.INFO.options}
    return metric.load(Request(backend, "float32", ImageSet(NAMES), given, random, towers=towers))


def scores(metric, rows=(0, 1, 2, 3)) -> list[float]:
    found = metric.score(Batch([PIXELS[row] for row in rows], [NAMES[row] for row in rows], [(1, 1)] * len(rows),
                               [PROMPTS[row] for row in rows]))
    return [values[metric.info.name] for values in found.values]


@pytest.mark.parametrize("name", PREDICTORS)
def test_a_prompt_is_encoded_once_and_padded_to_35_tokens(backend, name):
    """Each picture is judged as alone, with its own prompt."""
    metric = loaded(backend, name)
    encoded, encode = [], metric.predictor.encode
    metric.predictor.encode = lambda tokens: encoded.append(tokens.ids.shape) or encode(tokens)
    found = scores(metric)
    again = [scores(metric, (row,))[0] for row in (3, 1, 0, 2)]
    np.testing.assert_allclose(again, np.array(found)[[3, 1, 0, 2]], atol=2e-6)
    assert np.std(found) > 0.01 and encoded == [(3, 35)]
    line, = metric.notes
    assert line.startswith(f"{name}: 1 prompts have more than 35 tokens and lose their ends, such as 'a view of a coast")
    assert metric.random and metric.provenance["network"] in ("BLIP 48x3", "ImageReward")


def test_scores_are_those_of_the_network(backend, tmp_path):
    """The networks, given the whole batch. Their weights come from files with the vocabulary beside them."""
    for name, predictor in PREDICTORS.items():
        metric = loaded(backend, name, random=False, weights=saved(backend, predictor, tmp_path / name))
        tokens = metric.predictor.weights.tokenizer(PROMPTS, length=35)
        with backend.no_grad():
            whole = metric.predictor.network(*map(backend.asarray, (PIXELS, tokens.ids, tokens.mask)))
        np.testing.assert_allclose(scores(metric), backend.numpy(whole), atol=2e-6)
        assert not metric.random
    assert metric.provenance["convention"] == f"(reward - {MEAN}) / {STD}"


def saved(backend, predictor, folder, side=None):
    """A file of an untrained network, with its vocabulary beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = predictor.untrained(backend)
    config, arrays = weights.config, weights.arrays
    if side:
        config = replace(config, vision=replace(config.vision, image_size=side))
        arrays = {**arrays, "visual_encoder.pos_embed": np.zeros((1, config.vision.tokens, 48), np.float32)}
    write_weights(folder / "a.safetensors", dict(arrays), {"model": predictor.model, "config": asdict(config)})
    (folder / "tokenizer.json").write_text(weights.tokenizer.splitter.to_str())
    return folder / "a.safetensors"


def test_two_metrics_of_one_network_share_it(backend):
    towers = Towers()
    first, second = (loaded(backend, "imagereward", towers=towers) for _ in range(2))
    assert first.predictor.network is second.predictor.network
    assert first.preprocess == loaded(backend, "blipscore", towers=towers).preprocess


def test_metrics_measured_one_after_the_other_give_the_same(backend, tmp_path):
    """Where memory is limited, networks are released between two passes; prompts stay encoded."""
    rng = np.random.default_rng(2)
    for name in NAMES:
        Image.fromarray(rng.integers(0, 256, (70, 80, 3), np.uint8)).save(tmp_path / name)
    images, towers = ImageSet(tmp_path), Towers()
    metrics = [loaded(backend, name, towers=towers) for name in PREDICTORS]
    groups = passes(metrics, weights_of(metrics[1:]))
    assert groups == [[metrics[0]], [metrics[1]]] and passes(metrics, weights_of(metrics)) == [metrics]
    networks = [weakref.ref(metric.predictor.network) for metric in metrics]
    sizes = [sum(array.size for array in backend.state_numpy(network()).values()) for network in networks]
    assert [weights_of([metric]) for metric in metrics] == [4 * size for size in sizes]
    together = assess(images, metrics, prompts=PROMPTS, quiet=True)
    encoded = []
    for metric in metrics:
        metric.predictor.encode = encoded.append
    alone = assess(images, metrics, prompts=PROMPTS, quiet=True, passes=groups, between=towers.release)
    assert alone.rows == together.rows and len(alone.rows) == 4 and not encoded
    assert networks[0]() is None and networks[1]() is None


def test_memory_that_nothing_uses_is_given_back(backend):
    """To the system: another network may have arrays of other sizes, which the holes of the old ones do not serve."""
    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6

    held = [[np.ones(25_000, np.float32), np.ones(500, np.float32)] for _ in range(1500)]     # 150 MB; the second stays
    full = resident()
    for pair in held:
        pair[0] = None
    assert full - resident() < 75
    backend.free_memory()
    assert full - resident() > 100


def test_the_command_measures_one_after_the_other_where_memory_is_limited(backend, tmp_path, monkeypatch, capsys):
    """The numbers are the same, and the networks of the first pass are gone in the second."""
    for number in range(3):
        Image.new("RGB", (70, 80), (60 * number, 90, 200)).save(tmp_path / f"{number}.png")
    (tmp_path / "p.csv").write_text("".join(f"{number}.png,a view of a coast\n" for number in range(3)))
    argv = ["assess", str(tmp_path), "--prompts", str(tmp_path / "p.csv"), "--metrics", "blipscore,imagereward",
            "--random-weights", "--backend", backend.name]
    pools, get, release = [], Towers.get, Towers.release
    monkeypatch.setattr(Towers, "get", lambda self, *build: (get(self, *build), pools.append(len(self._built)))[0])
    monkeypatch.setattr(Towers, "release", lambda self: pools.append("released") or release(self))
    assert cli.main([*argv, "--output", str(tmp_path / "together.json")]) == 0
    assert "released" not in pools and max(pools) == 2
    pools.clear()
    capsys.readouterr()
    monkeypatch.setattr(command, "passes", lambda metrics, room: [[metric] for metric in metrics])
    assert cli.main([*argv, "--memory-limit", "1000", "--output", str(tmp_path / "apart.json")]) == 0
    assert pools.count("released") == 1 and max(set(pools) - {"released"}) == 1
    assert "so the pictures are read 2 times: for blipscore (0.00 GB), then imagereward (0.00 GB)\n" in capsys.readouterr().err
    together, apart = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("together", "apart"))
    assert apart["images"] == together["images"] and apart["metrics"] == together["metrics"]


@pytest.mark.parametrize("options, message", [
    ({"random": False}, "blipscore needs trained weights: give --blipscore-weights FILE, or --random-weights"),
    ({"weights": "nothing"}, "nothing: not found; give a weights file"),
    ({"weights": "a.safetensors", "tokenizer": "small"}, "small: its vocabulary has 8 tokens, and the text encoder of "
     ".*a.safetensors knows .*; give its own: --blipscore-tokenizer bert-base-uncased"),
    ({"weights": "a.safetensors", "tokenizer": "absent"}, "absent: is not a folder; name the one that holds the "
     "vocabulary, vocab.txt or tokenizer.json: --blipscore-tokenizer bert-base-uncased"),
    ({"weights": "384/a.safetensors"}, "was trained on pictures of 384 pixels .*; blipscore is made with pictures "
     "of 224 pixels, and positions are not interpolated"),
    ({"weights": "b/a.safetensors"}, r"b/a.safetensors: no vocabulary \(tokenizer.json or vocab.txt\) lies beside it")])
def test_mistakes(backend, tmp_path, options, message):
    saved(backend, BlipScorePredictor, tmp_path)
    saved(backend, BlipScorePredictor, tmp_path / "384", 384)
    deep = saved(backend, BlipScorePredictor, tmp_path / "1/2/3/4/5/b")
    (deep.parent / "tokenizer.json").unlink()
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a"]))
    for name in ("weights", "tokenizer"):
        if name in options:
            root = deep.parents[1] if options[name].startswith("b/") else tmp_path
            options = {**options, name: root / options[name]}
    with pytest.raises(UserError, match=message):
        loaded(backend, "blipscore", **options)


def test_pictures_are_prepared_as_for_clip():
    """The published sizes: the shorter side to 224 pixels by bicubic resampling, the middle, CLIP's normalisation."""
    picture = np.random.default_rng(1).integers(0, 256, (311, 250, 3), np.uint8)
    shown = Image.fromarray(picture).resize((224, 278), Image.Resampling.BICUBIC).crop((0, 27, 224, 251))
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    expected = (np.asarray(shown) / 255 - mean) / std
    np.testing.assert_allclose(blip.preprocess(blip.PRESETS["large"])(picture), expected.transpose(2, 0, 1), atol=1e-6)
