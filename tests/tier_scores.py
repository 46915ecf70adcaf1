"""The metric `tier`, as tests that either twin must pass."""

import numpy as np
import pytest
from PIL import Image

from jittwin import imaging
from jittwin.data.pictures import ImageSet
from jittwin.errors import UserError
from jittwin.metrics import tier
from jittwin.metrics.metric import Batch, Request
from jittwin.models.tier import make_config
from jittwin.models.tier_keys import describe
from jittwin.predictors.tier import untrained
from jittwin.weights import write_weights

PROMPTS = ["a view of a coast", "a dark view of a farm, oil painting", "a view of a coast", "a view of a coast " * 30]
IMAGES = {"0.png": "x.png", "2.png": "y.png", "3.png": "x.png"}     # the picture 1.png has no image prompt


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Four pictures and two image prompts of several sizes."""
    root, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for name, size in (("set/0.png", (80, 100)), ("set/1.png", (64, 64)), ("set/2.png", (120, 70)),
                       ("set/3.png", (73, 90)), ("prompts/x.png", (90, 90)), ("prompts/y.png", (64, 130))):
        (root / name).parent.mkdir(exist_ok=True)
        tiles = rng.integers(0, 256, (4, 4, 3), np.uint8)
        Image.fromarray(tiles).resize(size[::-1], Image.Resampling.BICUBIC).save(root / name)
    return root


def loaded(backend, folder, made_from=IMAGES, random=True, **options):
    given = {option.name: options.get(option.name.removeprefix("tier-").replace("-", "_")) for option in tier.INFO.options}
    return tier.load(Request(backend, "float32", ImageSet(folder / "set"), given, random, image_prompts=made_from))


def votes(metric, folder, rows=(0, 1, 2, 3)) -> list[float]:
    names = [f"{row}.png" for row in rows]
    pixels = [metric.preprocess(imaging.decode_image(folder / "set" / name)) for name in names]
    found = metric.score(Batch(pixels, names, [(1, 1)] * len(rows), [PROMPTS[row] for row in rows]))
    return [values["tier"] for values in found.values]


@pytest.mark.parametrize("mode", ["nr", "pr"])
def test_a_prompt_is_encoded_once_however_often_it_comes(backend, folder, mode):
    """Each picture is judged as alone, with its own prompts."""
    options = {"mode": mode, "image_prompts": folder / "prompts" if mode == "pr" else None}
    metric = loaded(backend, folder, **options)
    network, encoded, seen = metric.predictor.network, [], []
    encode, look = network.encode_text, network.look
    network.encode_text = lambda ids, keep: encoded.append(len(ids)) or encode(ids, keep)
    network.look = lambda pixels: seen.append(pixels.shape[0]) or look(pixels)
    found = votes(metric, folder)
    again = [votes(metric, folder, (row,))[0] for row in (3, 1, 0, 2)]
    np.testing.assert_allclose(again, np.array(found)[[3, 1, 0, 2]], atol=2e-6)
    assert np.std(found) > 0.01
    assert encoded == [3] and seen == ([4, 1, 1, 1, 1, 1, 1] if mode == "pr" else [4, 1, 1, 1, 1])
    line, = metric.notes
    assert line.startswith("tier: 1 prompts have more than 64 tokens and lose their ends, such as 'a view of a coast a ")
    assert metric.random and metric.provenance["network"] == f"TIER-{mode.upper()}"


def test_votes_are_those_of_the_network(backend, folder, tmp_path):
    """The network itself, given the whole batch. Its weights come from a file with the vocabulary beside it."""
    path = saved(backend, tmp_path / "a.safetensors", "pr")
    metric = loaded(backend, folder, random=False, weights=path, image_prompts=folder / "prompts")
    predictor = metric.predictor
    assert metric.provenance["votes"] == "MOS_a" and not metric.random
    pixels = np.stack([metric.preprocess(imaging.decode_image(path)) for path in sorted((folder / "set").iterdir())])
    given = np.zeros_like(pixels)
    for row, name in ((0, "x.png"), (2, "y.png"), (3, "x.png")):
        given[row] = metric.preprocess(imaging.decode_image(folder / "prompts" / name))
    tokens = predictor.weights.tokenizer(PROMPTS, at_most=64)
    with backend.no_grad():
        whole = backend.numpy(predictor.network(
            *map(backend.asarray, (pixels, tokens.ids, tokens.mask, given)), np.array([[1, 1], [1, 0], [1, 1], [1, 1]])))
    np.testing.assert_allclose(votes(metric, folder), whole, atol=2e-6)


def saved(backend, path, mode, *text):
    """A file of an untrained network, with its vocabulary beside it where it reads a text."""
    weights = untrained(backend, mode)
    config, arrays = weights.config, weights.arrays
    if text:
        config = make_config(mode, "resnet18", "tiny", *text)
        arrays = {key: np.zeros(shape, np.float32) for key, shape in backend.state_shapes("tier", config).items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_weights(path, arrays, {"model": "tier", "config": describe(config), "column": "MOS_a",
                                 "normalisation": "native"})
    (path.parent / "tokenizer.json").write_text(weights.tokenizer.splitter.to_str())
    return path


def test_a_baseline_reads_no_prompt(backend, folder, tmp_path):
    path = saved(backend, tmp_path / "a.safetensors", "fr", False)
    (tmp_path / "tokenizer.json").unlink()
    images = {**IMAGES, "1.png": "y.png"}
    metric = loaded(backend, folder, images, False, weights=path, image_prompts=folder / "prompts")
    assert votes(metric, folder) == [0.0] * 4 and metric.provenance["network"] == "FR-AIGCIQA"


@pytest.mark.parametrize("options, message", [
    ({"random": False}, "tier needs trained weights: give --tier-weights FILE, or --random-weights"),
    ({"mode": "rf"}, "--tier-mode rf .*: choose from nr, fr, pr"),
    ({"mode": "nr", "image_prompts": "prompts"}, "prompts: random:tiny:nr is TIER-NR, which sees no image prompts"),
    ({"mode": "fr", "image_prompts": "prompts"}, "TIER-FR needs an image prompt for every picture, and 1 of 4 have none"),
    ({"mode": "pr"}, "TIER-PR sees the image prompts that --prompts names: give --tier-image-prompts FOLDER"),
    ({"mode": "pr", "image_prompts": "set"}, "2 of 2 image prompts are not there: x.png, y.png"),
    ({"weights": "nothing"}, "nothing: no TIER here; give best_model.pt"),
    ({"weights": "a.safetensors", "mode": "pr"}, "a.safetensors: mode pr is asked for, and its metadata say nr"),
    ({"weights": "a.safetensors", "tokenizer": "small"}, "small: its vocabulary has 6 tokens, and the text encoder of"),
    ({"weights": "b.safetensors"}, r"b.safetensors: no vocabulary \(tokenizer.json or vocab.txt\) lies beside it")])
def test_mistakes(backend, folder, tmp_path, options, message):
    saved(backend, tmp_path / "a.safetensors", "nr")
    deep = saved(backend, tmp_path / "1/2/3/4/5/b.safetensors", "nr")
    (deep.parent / "tokenizer.json").unlink()
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a"]))
    for name in ("weights", "tokenizer", "image_prompts"):
        if name in options:
            root = folder if name == "image_prompts" else deep.parent if options[name][0] == "b" else tmp_path
            options = {**options, name: root / options[name]}
    with pytest.raises(UserError, match=message):
        loaded(backend, folder, **options)
