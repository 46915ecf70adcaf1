"""RewardModel, as tests that either twin must pass."""
from dataclasses import replace

import numpy as np
import pytest
from blip_scores import PREDICTORS, saved
from PIL import Image

from jittwin import imaging
from jittwin.errors import UserError
from jittwin.metrics.prompted import PromptedMetric
from jittwin.reward import RewardModel

PROMPT = "a dark view of a farm"


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """Three pictures: a grey one, one that EXIF turns, one with alpha."""
    root, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for name, mode in (("0.png", "L"), ("1.jpg", "RGB"), ("2.png", "RGBA")):
        tiles = Image.fromarray(rng.integers(0, 256, (4, 4, 3), np.uint8)).resize((80, 100), Image.Resampling.BICUBIC)
        exif = Image.Exif()
        exif[0x0112] = 6
        tiles.convert(mode).save(root / name, **({"exif": exif} if mode == "RGB" else {}))
    return sorted(root.iterdir())


@pytest.mark.parametrize("name", PREDICTORS)
def test_scores_of_files_pictures_and_arrays(backend, paths, tmp_path, name):
    """They are what the network gives of the prepared pictures; the batch changes nothing."""
    file = saved(backend, PREDICTORS[name], tmp_path)
    model = RewardModel.load(name, weights=file, tokenizer=tmp_path, backend=backend.name, batch=2)
    decoded = [imaging.decode_image(path) for path in paths]
    predictor = model.metric.predictor
    tokens = predictor.weights.tokenizer([PROMPT] * 3, length=35)
    pixels = np.stack([predictor.preprocess(image) for image in decoded])
    with backend.no_grad():
        expected = backend.numpy(predictor.network(*map(backend.asarray, (pixels, tokens.ids, tokens.mask))))
    found = model.score(PROMPT, paths)
    np.testing.assert_allclose(found, expected, atol=2e-6)
    assert np.std(found) > 0.001 and all(type(score) is float for score in found)
    assert model.score(PROMPT, decoded) == found
    opened = [Image.open(path) for path in paths]
    assert model.score(PROMPT, [opened[0], str(paths[1]), decoded[2]]) == found
    assert model.score(PROMPT, opened[1]) == pytest.approx(found[1], abs=2e-6)
    assert type(model.score(PROMPT, str(paths[1]))) is float
    assert model.score("a view of a coast", paths) != found
    assert model.score(PROMPT, []) == []
    assert not model.random and model.provenance["weights"] == str(file) and model.name == name


def test_ranks_are_those_of_the_scores(backend, paths):
    model = RewardModel.load(backend=backend.name, random_model=True)
    several = [paths[2], paths[0], paths[1], paths[0]]
    ranks, rewards = model.inference_rank(PROMPT, several)
    assert model.name == "imagereward" and model.random
    assert rewards == model.score(PROMPT, several) and rewards[1] == rewards[3]
    assert ranks == [1 + sum(other > mine for other in rewards) for mine in rewards] and set(ranks) != {1}
    lower = PromptedMetric(replace(model.metric.info, better="lower"), model.metric.predictor)
    assert RewardModel(lower).inference_rank(PROMPT, several)[0] == [
        1 + sum(other < mine for other in rewards) for mine in rewards]


@pytest.mark.parametrize("options, message", [
    ({"name": "ImageReward-v1.0"}, r"no reward model 'ImageReward-v1.0' \(did you mean 'imagereward'\?\): choose from "),
    ({"name": "tier"}, "no reward model 'tier'.*: choose from clipscore, blipscore, imagereward, pickscore"),
    ({}, "imagereward needs trained weights: give weights, a file such as hub THUDM/ImageReward, or random_model=True"),
    ({"weight": "a.pt"}, r"imagereward has no option 'weight' \(did you mean 'weights'\?\): choose from weights, tokenizer"),
    ({"weights": "absent.pt"}, "absent.pt: not found"),
    ({"random_model": True, "batch": 0}, "batch 0: must be at least 1"),
    ({"random_model": True, "device": "gpu"}, "device 'gpu'"),
    ({"random_model": True, "backend": "tensorflow"}, "unknown backend 'tensorflow'")])
def test_models_that_cannot_be_loaded(backend, options, message):
    with pytest.raises(UserError, match=message):
        RewardModel.load(**{"backend": backend.name, **options})


def test_pictures_and_prompts_that_are_none(backend, tmp_path):
    model = RewardModel.load(backend=backend.name, random_model=True)
    (tmp_path / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(tmp_path / "half.bmp")
    (tmp_path / "half.bmp").write_bytes((tmp_path / "half.bmp").read_bytes()[:500])
    right = np.zeros((5, 5, 3), np.uint8)
    for picture, message in ((tmp_path / "cut.png", "cut.png: cannot be read"), ("absent.png", "No such file"),
                             (Image.open(tmp_path / "half.bmp"), "picture 2: cannot be read"),
                             (right[..., 0], r"picture 2: is uint8 \(5, 5\); give a path, a picture of Pillow, or"),
                             (right / 1.0, r"picture 2: is float64 \(5, 5, 3\)"), (7, "picture 2: is int; give a path")):
        with pytest.raises(UserError, match=message):
            model.score(PROMPT, [right, picture])
    with pytest.raises(UserError, match=r"the prompt is \['a'\]; give one text for all pictures"):
        model.score(["a"], right)
    model.metric.predictor.compare = lambda pixels, encoded: backend.asarray(np.array([np.nan], np.float32))
    with pytest.raises(UserError, match="picture 1 and the pictures after it: the network's output is not finite"):
        model.score(PROMPT, right)
