"""The metrics `clipscore` and `pickscore`, as tests that either twin must pass."""
import json
from dataclasses import asdict

import numpy as np
import pytest
from blip_scores import PIXELS, PROMPTS, loaded, scores

from jittwin.errors import UserError
from jittwin.models import blip, clip
from jittwin.predictors.clip import ClipPredictor
from jittwin.predictors.towers import Towers
from jittwin.weights import read_metadata, read_weights, write_weights

NAMES = ("clipscore", "pickscore")


def quiet(metric, *rows) -> np.ndarray:
    return np.array(scores(metric, *rows))


def saved(backend, folder, change=lambda config: config, vocabulary=lambda found: found):
    """A file of an untrained network, with its vocabulary beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = ClipPredictor.untrained(backend)
    write_weights(folder / "a.safetensors", dict(weights.arrays),
                  {"model": "clip", "config": change(asdict(weights.config))})
    found = json.loads(weights.tokenizer.splitter.to_str())["model"]["vocab"]
    (folder / "vocab.json").write_text(json.dumps(vocabulary(found)))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return folder / "a.safetensors"


@pytest.mark.parametrize("name", NAMES)
def test_a_prompt_is_encoded_once_and_padded_to_the_longest(backend, name):
    """Each picture is judged as alone, with its own prompt."""
    metric = loaded(backend, name)
    encoded, encode = [], metric.predictor.encode
    metric.predictor.encode = lambda tokens: encoded.append(tokens.ids.shape) or encode(tokens)
    found = scores(metric)
    again = [scores(metric, (row,))[0] for row in (3, 1, 0, 2)]
    np.testing.assert_allclose(again, np.array(found)[[3, 1, 0, 2]], atol=1e-5)
    assert np.std(found) > 0.01 and encoded == [(3, 77)]        # one prompt is cut
    line, = metric.notes
    assert line.startswith(f"{name}: 1 prompts have more than 77 tokens and lose their ends, such as 'a view of a coast")
    assert metric.random and metric.provenance["network"] == "CLIP 48x3"
    short = loaded(backend, name)
    encode_short = short.predictor.encode
    short.predictor.encode = lambda tokens: encoded.append(tokens.ids.shape) or encode_short(tokens)
    np.testing.assert_allclose(scores(short, (0, 2)), np.array(found)[[0, 2]], atol=1e-5)
    assert encoded[1:] == [(1, 2 + len("aviewofacoast"))]


def test_scores_are_those_of_the_network(backend, tmp_path):
    """The features of the network, compared here in float64. The weights come from a file with its vocabulary."""
    path, towers = saved(backend, tmp_path), Towers()
    cosine, hessel, pick = (loaded(backend, name, random=False, towers=towers, weights=path, **options)
                            for name, options in (("clipscore", {}), ("clipscore", {"scale": "hessel"}),
                                                  ("pickscore", {})))
    network, tokens = cosine.predictor.network, cosine.predictor.weights.tokenizer(PROMPTS)
    with backend.no_grad():
        image, text = (np.float64(backend.numpy(found)) for found in (
            network.image_features(backend.asarray(PIXELS)), network.text_features(backend.asarray(tokens.ids))))
    np.testing.assert_allclose([np.linalg.norm(each, axis=1) for each in (image, text)], 1, atol=1e-6)
    expected = (image * text).sum(1)
    np.testing.assert_allclose(quiet(cosine), expected, atol=1e-6)
    np.testing.assert_allclose(quiet(hessel), 2.5 * np.maximum(expected, 0), atol=2e-6)
    np.testing.assert_allclose(quiet(pick), expected / 0.07, rtol=1e-5)        # the scale with which training begins
    assert hessel.info.range == "0 to 2.5" and cosine.info.range == "-1 to 1"
    assert [metric.provenance["convention"] for metric in (cosine, hessel, pick)] == [
        "cosine", "2.5 max(cosine, 0)", "exp(logit_scale) cosine, exp(logit_scale) = 14.2857"]
    assert pick.predictor.network is network and not pick.random


def test_hessels_score_is_never_negative(backend, tmp_path):
    """With features of pictures turned round, every cosine changes its sign."""
    path = saved(backend, tmp_path)
    arrays, config, seen = read_weights(path), read_metadata(path)["config"], []
    for sign in (1, -1):
        turned = arrays | {"visual_projection.weight": sign * arrays["visual_projection.weight"]}
        write_weights(path, turned, {"model": "clip", "config": config})
        cosines, found = (quiet(loaded(backend, "clipscore", random=False, weights=path, scale=scale))
                          for scale in ("cosine", "hessel"))
        np.testing.assert_allclose(found, np.where(cosines > 0, 2.5 * cosines, 0), rtol=1e-12)
        seen.append(cosines)
    np.testing.assert_allclose(seen[0], -seen[1], atol=1e-6)
    assert min(map(np.min, seen)) < -0.05


def test_prompts_are_cleaned_as_by_openai(backend):
    """HTML entities and curled quotes, unless the cleaning is turned off. PickScore has none."""
    prompts, plain = ["the artist&amp;#39;s \u201cview\u201d"] * 4, ["the artist's \"view\""] * 4
    found = {}
    for name, cleaning in (("clipscore", None), ("clipscore", "none"), ("pickscore", None)):
        metric = loaded(backend, name, cleaning=cleaning)
        found[name, cleaning] = np.ptp([metric.predictor.score_pixels(PIXELS[:1], [each])[0]
                                        for each in (prompts[0], plain[0])])
        assert metric.provenance.get("cleaning") == {"clipscore": cleaning or "openai"}.get(name)
    assert found["clipscore", None] == 0 and found["clipscore", "none"] > 1e-3 and found["pickscore", None] > 1e-3


def test_pictures_are_prepared_once_for_clip_and_blip():
    assert clip.preprocess(clip.PRESETS["l14"]) == clip.preprocess(clip.PRESETS["h14"]) == blip.preprocess(
        blip.PRESETS["large"])


@pytest.mark.parametrize("options, message", [
    ({"random": False}, "clipscore needs trained weights: give --clipscore-weights FILE, or --random-weights"),
    ({"scale": "cosin"}, r"--clipscore-scale cosin \(did you mean 'cosine'\?\): choose from cosine, hessel"),
    ({"cleaning": "ftfy"}, "--clipscore-cleaning ftfy: choose from openai, none"),
    ({"weights": "a.safetensors", "tokenizer": "small"}, "small: its vocabulary has 513 tokens, and the text encoder of "
     ".*a.safetensors knows 514; give its own: --clipscore-tokenizer clip-vit-large-patch14"),
    ({"weights": "end/a.safetensors"}, "end/a.safetensors: the end of a text has the id 7, and 513 in the vocabulary"),
    ({"weights": "turned/a.safetensors"}, "the end of a text has the id 513, and 512 in the vocabulary")])
def test_mistakes(backend, tmp_path, options, message):
    saved(backend, tmp_path)
    saved(backend, tmp_path / "small", vocabulary=lambda found: {
        token: number - 1 for token, number in found.items() if number})
    saved(backend, tmp_path / "end", lambda config: config | {"text": config["text"] | {"eos_token_id": 7}})
    saved(backend, tmp_path / "turned", vocabulary=lambda found: found | {"<|startoftext|>": 513, "<|endoftext|>": 512})
    options = {key: tmp_path / value if key in ("weights", "tokenizer") else value for key, value in options.items()}
    with pytest.raises(UserError, match=message):
        loaded(backend, "clipscore", **options)
