import time

import numpy as np
import pytest

from jittwin import imaging
from jittwin.classes import CLASS_NAMES
from jittwin.data.landscape import LandscapeDataset
from jittwin.data.pure import PureDictionary
from jittwin.data.synthetic import landscapes as synthetic
from jittwin.data.synthetic.landscapes import SyntheticLandscapes
from jittwin.draws import Draws
from jittwin.errors import UserError


@pytest.fixture(scope="module")
def scenes():
    return [synthetic.render(index, 286, 214, seed=3) for index in range(60)]


def test_every_class_occurs(scenes):
    pictures_with = np.zeros(29, int)
    for image, label in scenes:
        assert image.shape == (214, 286, 3) and image.dtype == label.dtype == np.uint8
        pictures_with += np.bincount(label.ravel(), minlength=29)[:29] > 20
        assert label.max() <= 28
    assert (pictures_with >= 5).all(), dict(zip(CLASS_NAMES, pictures_with))


def test_classes_look_different(scenes):
    """A nearest-mean-colour rule recovers far more of the label map than the commonest class would."""
    pixels = np.concatenate([image[::3, ::3].reshape(-1, 3) for image, _ in scenes]).astype(np.float32)
    labels = np.concatenate([label[::3, ::3].ravel() for _, label in scenes])
    means = np.stack([pixels[labels == c].mean(0) for c in range(29)])
    guess = ((pixels[:, None] - means) ** 2).sum(-1).argmin(1)
    assert np.bincount(labels).max() / labels.size < 0.35
    assert (guess == labels).mean() > 0.6
    assert min(pixels[labels == c].std(0).mean() for c in range(29)) > 4  # texture, not flat paint


def test_some_scenes_are_one_class(scenes):
    pure = [label.flat[0] for _, label in scenes if (label == label.flat[0]).all()]
    assert len(pure) == len(set(pure)) == 7  # scenes 7, 15, ...
    data = SyntheticLandscapes(16, 128, 128, seed=3, aspect_ratio=1)
    found = PureDictionary.build(data, size=(64, 64)).images
    assert sorted(found) == sorted(pure[:2]) and found[pure[0]][0].shape == (64, 64, 3)


def test_seed_and_index_decide_everything():
    first, label = synthetic.render(2, 128, 96, seed=5)
    again, _ = synthetic.render(2, 128, 96, seed=5)
    assert first.tobytes() == again.tobytes()
    for other in (synthetic.render(2, 128, 96, seed=6), synthetic.render(10, 128, 96, seed=5)):
        assert (other[1] != label).mean() > 0.02
    large = synthetic.render(2, 256, 192, seed=5)[1]
    assert (np.bincount(large.ravel(), minlength=29) > 0).sum() >= 8


def test_fast_enough():
    start = time.process_time()
    for index in range(8):
        synthetic.render(index, 286, 214, seed=1)
    assert (time.process_time() - start) / 8 < 0.2  # 0.02 s measured; generous for a busy machine


def test_samples_like_the_landscape_data_set(tmp_path):
    data = SyntheticLandscapes(3, 140, 105, seed=2, crop_size=128, aspect_ratio=2)
    sample = data.get(1, Draws(0, 1, 1))
    assert len(data) == 3 and sample["name"] == "scene_1"
    assert sample["image"].shape == (3, 64, 128) and sample["image"].dtype == np.float32
    assert sample["label"].shape == (64, 128) and sample["label"].dtype == np.uint8
    _, label = synthetic.render(1, 140, 105, seed=2)
    views = [label[:64, x:x + 128] for x in range(13)]
    assert any((sample["label"] == view).all() or (sample["label"] == view[:, ::-1]).all() for view in views)

    synthetic.write_folder(tmp_path / "set", 3, 140, 105, seed=2)
    written = LandscapeDataset(tmp_path / "set", load_size=140, crop_size=128, aspect_ratio=2)
    same = written.get(1, Draws(0, 1, 1))
    assert (same["label"] == sample["label"]).all() and same["name"] == sample["name"]
    assert np.abs(same["image"] - sample["image"]).mean() < 0.05  # JPEG
    assert (imaging.decode_label(tmp_path / "set" / "labels" / "scene_1.png") == label).all()


def test_bad_settings(tmp_path):
    with pytest.raises(UserError, match="n=0"):
        SyntheticLandscapes(0, 128, 96)
    with pytest.raises(UserError, match="multiples of 64"):
        SyntheticLandscapes(4, 100, 75, multiple=64)
    with pytest.raises(UserError, match="too low"):
        SyntheticLandscapes(4, 128, 60, aspect_ratio=2)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file"):
        synthetic.write_folder(tmp_path / "file", 1, 128, 96)
