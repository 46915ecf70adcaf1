"""SegFormer's sizes, the table of classes, and mask accuracy with a segmenter that reads the class off the colour."""
import contextlib

import numpy as np
import pytest

from jittwin import imaging
from jittwin.classes import CLASS_NAMES, CLASSES, PALETTE
from jittwin.errors import UserError
from jittwin.metrics import mask_accuracy
from jittwin.metrics.assessment import assess, gather
from jittwin.metrics.mask_accuracy import (
    PREPROCESS,
    MaskAccuracy,
    MaskAccuracyMetric,
    enlarged_argmax,
    paired_labels,
)
from jittwin.models.segformer import PRESETS, infer_preset, landscape_classes, preset
from jittwin.weights import write_weights

# Names of ADE20K at some of its numbers, counted from 0, as its authors list them.
ADE = {0: "wall", 1: "building", 2: "sky", 4: "tree", 6: "road", 9: "grass", 12: "person", 13: "earth", 16: "mountain",
       17: "plant", 21: "water", 25: "house", 26: "sea", 29: "field", 32: "fence", 34: "rock", 38: "railing",
       46: "sand", 52: "path", 60: "river", 61: "bridge", 68: "hill", 76: "boat", 94: "land", 103: "ship",
       113: "waterfall", 128: "lake", 140: "pier"}


def test_the_table_of_classes():
    table = landscape_classes()
    assert {number: CLASS_NAMES[c] for number, c in enumerate(table) if CLASS_NAMES[c] != "other"} == ADE
    assert table.shape == (150,) and (table == CLASSES - 1).sum() == 122


def shapes(config):
    """What tells the variants apart."""
    found = {"decode_head.classifier.weight": (config.num_labels, config.decoder_hidden_size, 1, 1)}
    for stage, (depth, wide) in enumerate(zip(config.depths, config.hidden_sizes)):
        found[f"segformer.encoder.layer_norm.{stage}.weight"] = (wide,)
        found |= {f"segformer.encoder.block.{stage}.{layer}.layer_norm_1.weight": (wide,) for layer in range(depth)}
    return found


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("classes", [29, 150])
def test_a_state_tells_its_variant(name, classes):
    assert infer_preset(shapes(preset(name, classes))) == (name, classes)


def test_states_of_other_networks_are_refused():
    deep = shapes(PRESETS["B2"]) | {"segformer.encoder.block.0.3.layer_norm_1.weight": (64,)}
    with pytest.raises(UserError, match=r"depths \(4, 4, 6, 3\).*no SegFormer B0 to B5"):
        infer_preset(deep)
    with pytest.raises(UserError, match="'decode_head.classifier.weight' is missing"):
        infer_preset({"classifier.weight": (1000, 256)})
    with pytest.raises(UserError, match="did you mean 'B5'"):
        preset("b5")


class ColourBackend:
    name, device = "colour", "cpu"
    """Its SegFormer gives, at a quarter of the size, the class whose number is the red of the picture."""

    def build(self, name, config):
        assert name == "segformer"
        self.classes, self.calls = config.num_labels, 0
        return self.network

    def network(self, x):
        self.calls += 1
        assert x.shape == (1, 3, 640, 640) and x.dtype == np.float32
        red = np.rint((x[:, 0, 2::4, 2::4] * 0.229 + 0.485) * 255)
        return (red[:, None] == np.arange(self.classes)[:, None, None]).astype(np.float32)

    state = {"decode_head.classifier.bias": np.zeros(3, np.float32)}

    def free_memory(self):
        pass

    def state_shapes(self, name, config):
        return {key: array.shape for key, array in self.state.items()}

    def state_numpy(self, module):
        return self.state

    def load_numpy(self, module, arrays, allow_unexpected):
        assert set(arrays) == set(self.state)

    def infer_only(self, module):
        """Nothing to set."""

    def asarray(self, array):
        return array

    numpy = asarray
    no_grad = contextlib.nullcontext


def half(left, right, size):
    label = np.full(size, left, np.uint8)
    label[:, size[1] // 2:] = right
    return label


@pytest.fixture
def folder(tmp_path):
    """Three label maps of two classes each, and pictures of them; the second shows its right half wrongly."""
    for name, seen, truth, size in (("1", (1, 5), (1, 5), (64, 96)), ("2", (1, 7), (1, 5), (64, 96)),
                                    ("10", (2, 2), (2, 2), (40, 80))):
        for kind, pair in (("imgs", seen), ("labels", truth)):
            (tmp_path / kind).mkdir(exist_ok=True)
            label = half(*pair, size)
            imaging.save_image(tmp_path / kind / f"{name}.png", np.stack([label] * 3, -1) if kind == "imgs" else label)
    return tmp_path


@pytest.fixture
def segmenter():
    return MaskAccuracy(ColourBackend(), random=True, num_labels=29)


def test_accuracy_and_the_shuffled_anchor(folder, segmenter):
    found = segmenter.measure(folder / "imgs", folder, quiet=True)
    # 1, 2, 10 against the map after them: (1, 5) against (1, 5), (1, 7) against 2s, and 2s against (1, 5).
    assert found["mask_accuracy"] == pytest.approx((1 + 0.5 + 1) / 3, abs=0.02)
    assert found["mask_accuracy_shuffled"] == pytest.approx((1 + 0 + 0) / 3, abs=0.02)
    assert segmenter.backend.calls == 3 and segmenter.random
    assert segmenter.measure(folder / "imgs", folder / "labels", quiet=True) == found


def test_the_metric_agrees_and_shows_what_the_network_sees(folder, segmenter):
    images, drawn = gather([str(folder / "imgs")]), {}
    metric = MaskAccuracyMetric(segmenter, dict(zip(images.shown_names, paired_labels(images, folder))))
    found = assess(images, [metric], on_map=lambda _, name, array: drawn.__setitem__(name, array), quiet=True)
    whole = segmenter.measure(folder / "imgs", folder, quiet=True)
    assert found.summary(metric)["mean"] == pytest.approx(whole["mask_accuracy"])
    assert [row["mask_accuracy"] for row in found.rows] == pytest.approx([1, 0.5, 1], abs=0.02)
    assert (drawn["2.png"][:, :40] == PALETTE[1]).all() and (drawn["2.png"][:, 56:] == PALETTE[7]).all()
    assert drawn["10.png"].shape == (40, 80, 3)


def test_one_picture_has_no_shuffled_anchor(folder, segmenter):
    found = segmenter.measure([folder / "imgs/10.png"], folder, quiet=True)
    assert found["mask_accuracy"] == 1 and np.isnan(found["mask_accuracy_shuffled"])


def test_classes_of_ade_are_translated(folder):
    segmenter = MaskAccuracy(ColourBackend(), random=True)
    picture = np.stack([half(2, 3, (32, 32))] * 3, -1)       # sky, and floor, which the challenge has not
    found = segmenter.labels(picture, (48, 48))
    assert set(found[:, :20].ravel()) == {CLASS_NAMES.index("sky")} and set(found[:, 28:].ravel()) == {CLASSES - 1}


def test_enlarging_one_row_at_a_time_changes_nothing(monkeypatch):
    maps = np.random.default_rng(0).standard_normal((5, 10, 12)).astype(np.float32)
    whole = enlarged_argmax(maps, (37, 50))
    monkeypatch.setattr(mask_accuracy, "BAND", 1)
    np.testing.assert_array_equal(enlarged_argmax(maps, (37, 50)), whole)
    np.testing.assert_array_equal(enlarged_argmax(maps, (10, 12)), maps.argmax(0))


def test_pictures_are_normalised():
    image = np.full((30, 50, 3), (0, 128, 255), np.uint8)
    expected = (np.array([0, 128 / 255, 1]) - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(PREPROCESS(image)[:, 320, 320], expected, rtol=1e-5)


def test_mistakes(folder, segmenter, tmp_path):
    with pytest.raises(UserError, match="needs the weights of a SegFormer"):
        MaskAccuracy(ColourBackend())
    write_weights(tmp_path / "other.safetensors", {"fc.weight": np.zeros((2, 2), np.float32)}, {})
    with pytest.raises(UserError, match="other.safetensors: not the weights of a SegFormer"):
        MaskAccuracy(ColourBackend(), tmp_path / "other.safetensors")
    cityscapes = {name: np.zeros(shape, np.float32) for name, shape in shapes(preset("B0", 19)).items()}
    write_weights(tmp_path / "city.safetensors", cityscapes, {})
    with pytest.raises(UserError, match="city.safetensors: has 19 classes.* 29 or ADE20K's 150"):
        MaskAccuracy(ColourBackend(), tmp_path / "city.safetensors")
    (folder / "labels/2.png").unlink()
    with pytest.raises(UserError, match="2.png has no label map"):
        segmenter.measure(folder / "imgs", folder)
    imaging.save_image(folder / "labels/2.png", np.full((64, 96), 200, np.uint8))
    with pytest.raises(UserError, match="2.png: holds label 200"):
        segmenter.measure(folder / "imgs", folder, quiet=True)
