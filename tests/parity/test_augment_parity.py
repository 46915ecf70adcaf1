"""DiffAugment in both twins against NumPy in float64, written here from the formulas.

Zhao et al. 2020, arXiv 2006.10738, as APF-GAN uses it: label and both images move together, and only the
images change colour, real and fake with draws of their own.
"""
import numpy as np
import pytest

from augment_probes import SEED
from jittwin.draws import Draws
from twins import run_probes

BATCH, CLASSES, HEIGHT, WIDTH = 4, 3, 20, 28
POLICIES = ["", "color", "crop", "translation", "color,crop,translation", "translation,color"]
REACH_Y, REACH_X = 3, 4               # an eighth of each side, half rounded up
SIZE = BATCH * 3 * HEIGHT * WIDTH     # of an image batch; the loss is scaled by it


def inputs():
    draws = Draws(2)
    label = draws.integers("label", 0, CLASSES - 1, (BATCH, HEIGHT // 4, WIDTH // 4))
    label = label.repeat(4, 1).repeat(4, 2)
    arrays = {"real": draws.normal("real", (BATCH, 3, HEIGHT, WIDTH)),
              "fake": draws.normal("fake", (BATCH, 3, HEIGHT, WIDTH)),
              "label": np.moveaxis(np.eye(CLASSES, dtype=np.float32)[label], -1, 1).copy()}
    return {**arrays, **{f"coefficients {kind}": draws.normal(f"coefficients {kind}", a.shape)
                         for kind, a in arrays.items()}}


@pytest.fixture(scope="module")
def runs():
    arrays = {**inputs(), **{f"policy {policy}": np.zeros(1) for policy in POLICIES}}
    return {twin: run_probes(twin, [("augment_probes:augment", arrays)])[0] for twin in ("torch", "jittor")}


# The three steps, sample by sample.

def colored(x, site):
    """Brightness u-1/2; saturation 2u about the pixel's mean; contrast u+1/2 about the image's mean."""
    draws, out = Draws(SEED), np.empty_like(x)
    u = {what: draws.uniform(f"color.{site}.{what}", BATCH).astype(np.float64)
         for what in ("brightness", "saturation", "contrast")}
    for i, image in enumerate(x):
        image = image + u["brightness"][i] - 0.5
        gray = image.sum(0) / 3
        image = gray + 2 * u["saturation"][i] * (image - gray)
        level = image.sum() / image.size
        out[i] = level + (0.5 + u["contrast"][i]) * (image - level)
    return out


def cubic(distance):
    """Keys' kernel with a = -3/4."""
    d = abs(distance)
    if d <= 1:
        return 1.25 * d ** 3 - 2.25 * d ** 2 + 1
    return -0.75 * d ** 3 + 3.75 * d ** 2 - 6 * d + 3 if d < 2 else 0.0


def enlargement(old, smooth):
    """(int(1.2 old), old) matrix: cubic with half-pixel centres and repeated borders, or nearest."""
    new = int(1.2 * old)
    matrix = np.zeros((new, old))
    for row in range(new):
        if not smooth:
            matrix[row, row * old // new] = 1
            continue
        centre = (row + 0.5) * old / new - 0.5
        for tap in range(int(np.floor(centre)) - 1, int(np.floor(centre)) + 3):
            matrix[row, min(max(tap, 0), old - 1)] += cubic(centre - tap)
    return matrix


def cropped(x, smooth):
    draws, out = Draws(SEED), x.copy()
    top = int(draws.integers("crop.top", 0, int(1.2 * HEIGHT) - HEIGHT, ()))
    left = int(draws.integers("crop.left", 0, int(1.2 * WIDTH) - WIDTH, ()))
    rows = enlargement(HEIGHT, smooth)[top:top + HEIGHT]
    columns = enlargement(WIDTH, smooth)[left:left + WIDTH]
    for i, u in enumerate(draws.uniform("crop.taken", BATCH)):
        if u < 0.5:
            out[i] = rows @ x[i] @ columns.T
    return out


def translated(x):
    draws, out = Draws(SEED), np.zeros_like(x)
    down = draws.integers("translation.y", -REACH_Y, REACH_Y, BATCH)
    right = draws.integers("translation.x", -REACH_X, REACH_X, BATCH)
    for i in range(BATCH):
        for y in range(HEIGHT):
            for column in range(WIDTH):
                source = y + down[i], column + right[i]
                if 0 <= source[0] < HEIGHT and 0 <= source[1] < WIDTH:
                    out[i, :, y, column] = x[i, :, source[0], source[1]]
    return out


def expected(policy, kind, x):
    for name in policy.split(",") if policy else ():
        if name == "color" and kind != "label":
            x = colored(x, kind)
        elif name == "crop":
            x = cropped(x, kind != "label")
        elif name == "translation":
            x = translated(x)
    return x


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("twin", ["torch", "jittor"])
def test_images_and_label(runs, twin, policy):
    for kind in ("real", "fake", "label"):
        truth = expected(policy, kind, inputs()[kind].astype(np.float64))
        seen = runs[twin][f"{policy}|{kind}"]
        assert seen.shape == truth.shape and seen.dtype == np.float32
        # float32 positions of PyTorch's bicubic cost about 1e-5
        np.testing.assert_allclose(seen, truth, atol=0 if kind == "label" else 3e-5)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("twin", ["torch", "jittor"])
def test_gradients_flow_through(runs, twin, policy):
    """The map is affine, so its effect on any direction must be the gradient times that direction."""
    arrays = inputs()
    for kind in ("real", "fake", "label"):
        x = arrays[kind].astype(np.float64)
        coefficients = arrays[f"coefficients {kind}"].astype(np.float64) * SIZE / x.size
        for number in range(5):
            direction = Draws(number).normal("direction", x.shape).astype(np.float64)
            change = expected(policy, kind, x + direction) - expected(policy, kind, x)
            truth = (coefficients * change).sum()
            seen = (runs[twin][f"{policy}|gradient {kind}"].astype(np.float64) * direction).sum()
            assert seen == pytest.approx(truth, abs=2e-5 * np.abs(coefficients * change).sum())


def test_the_draws_exercise_every_branch():
    draws = Draws(SEED)
    assert len(set(draws.uniform("crop.taken", BATCH) < 0.5)) == 2
    assert draws.integers("crop.top", 0, int(1.2 * HEIGHT) - HEIGHT, ()) > 0
    for axis, reach in (("y", REACH_Y), ("x", REACH_X)):
        shifts = draws.integers(f"translation.{axis}", -reach, reach, BATCH)
        assert shifts.min() < 0 < shifts.max()
