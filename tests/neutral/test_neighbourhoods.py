"""The distinct neighbourhoods of label maps, against every window of the padded map taken by itself."""
import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from jittwin.models.neighbourhoods import neighbourhoods


def rebuilt(found, classes):
    """The 5x5 class ids around every pixel (B, H, W, 5, 5), put together from the patches; and which of its inner 3x3
    pixels are outside the map."""
    patches = np.concatenate([found.patches, np.full((1, 3, 3), classes)])[found.around].reshape(-1, 3, 3, 3, 3)
    whole = np.full((len(patches), 5, 5), classes)
    for y in range(3):
        for x in range(3):
            inside = found.around.reshape(-1, 3, 3)[:, y, x] < len(found.patches)
            whole[inside, y:y + 3, x:x + 3] = patches[inside, y, x]
    outside = found.around.reshape(-1, 3, 3) == len(found.patches)
    return whole[found.index], outside[found.index]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 1, 7), (1, 9, 2), (3, 6, 8), (2, 33, 17)])
def test_every_pixel_has_its_own_neighbourhood(shape, seed):
    random = np.random.default_rng(seed)
    classes = int(random.integers(1, 30))
    labels = random.integers(0, classes + 1, shape).astype(random.choice(["uint8", "int64"]))
    if seed % 2:        # patches of one class
        labels = labels[:, ::4, ::4].repeat(4, 1).repeat(4, 2)[:, :shape[1], :shape[2]]
    if seed == 4:
        labels[0, 0, 0] = 255
    found = neighbourhoods(labels, classes)
    ids = np.where(labels < classes, labels, classes).astype(int)
    windows = sliding_window_view(np.pad(ids, [(0, 0), (2, 2), (2, 2)], constant_values=classes), (5, 5), (1, 2))
    inside = sliding_window_view(np.pad(np.ones_like(ids), [(0, 0), (1, 1), (1, 1)]), (3, 3), (1, 2))
    around, outside = rebuilt(found, classes)
    np.testing.assert_array_equal(around, windows)
    np.testing.assert_array_equal(outside, inside == 0)
    different = {(w.tobytes(), i.tobytes()) for w, i in zip(windows.reshape(-1, 25), inside.reshape(-1, 9))}
    assert len(found.around) == len(different)
    assert found.share == len(different) / labels.size


def test_a_map_of_one_class_has_25_neighbourhoods_and_noise_has_one_for_each_pixel():
    assert len(neighbourhoods(np.zeros((2, 40, 60), np.uint8), 29).around) == 25
    noise = np.random.default_rng(0).integers(0, 29, (1, 40, 60))
    assert neighbourhoods(noise, 29).share == 1


def test_negative_ids_and_those_beyond_the_classes_are_no_class():
    labels = np.array([[[0, 1], [2, 3]]])
    for bad in (-1, 4, 255, -2 ** 40):
        one, other = (neighbourhoods(np.where(labels == 3, value, labels), 4) for value in (bad, 77))
        for a, b in zip(one, other):
            np.testing.assert_array_equal(a, b)
