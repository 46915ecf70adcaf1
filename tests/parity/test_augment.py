"""DiffAugment in both twins against NumPy in float64, written here from the formulas.

Zhao et al. 2020, arXiv 2006.10738, as APF-GAN uses it: label and both images move together, and only the
images change colour, real and fake with draws of their own.
"""
import numpy as np
import pytest

from jittwin.draws import Draws
from parity.cases import find
from parity.levels.backward import cotangent, gradients
from parity.levels.data import augmented

AUGMENT = find("apf_gan.augment")
INPUTS = AUGMENT.inputs("tiny", "train")
KINDS = ("real", "fake", "label")
BATCH, _, HEIGHT, WIDTH = INPUTS["real"].shape
POLICIES = ["", "color", "crop", "translation", "color crop translation", "translation color"]
REACH_Y, REACH_X = 3, 4               # an eighth of each side, half rounded up
COEFFICIENTS = {kind: cotangent(kind, INPUTS[kind].shape) for kind in KINDS}


@pytest.fixture(scope="module")
def runs(twins):
    """By policy and twin: the images, and as "gradient input …" the gradients of a linear function of them."""
    arrays = {**{f"inputs/{kind}": a for kind, a in INPUTS.items()},
              **{f"cotangents/{kind}": a for kind, a in COEFFICIENTS.items()}}
    found = {}
    for policy in POLICIES:
        arguments = {"case": AUGMENT.reference(), "size": "tiny", "mode": f"train {policy}"}
        images, slopes = (twins.both(function, arrays, **arguments) for function in (augmented, gradients))
        found[policy] = {twin: {**images[twin][0], **slopes[twin][0]} for twin in images}
    return found


# The three steps, sample by sample.

def colored(x, site):
    """Brightness u-1/2; saturation 2u about the pixel's mean; contrast u+1/2 about the image's mean."""
    draws, out = Draws(AUGMENT.seed), np.empty_like(x)
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
    draws, out = Draws(AUGMENT.seed), x.copy()
    top = int(draws.integers("crop.top", 0, int(1.2 * HEIGHT) - HEIGHT, ()))
    left = int(draws.integers("crop.left", 0, int(1.2 * WIDTH) - WIDTH, ()))
    rows = enlargement(HEIGHT, smooth)[top:top + HEIGHT]
    columns = enlargement(WIDTH, smooth)[left:left + WIDTH]
    for i, u in enumerate(draws.uniform("crop.taken", BATCH)):
        if u < 0.5:
            out[i] = rows @ x[i] @ columns.T
    return out


def translated(x):
    draws, out = Draws(AUGMENT.seed), np.zeros_like(x)
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
    for name in policy.split():
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
    for kind in KINDS:
        truth, seen = expected(policy, kind, INPUTS[kind].astype(np.float64)), runs[policy][twin][kind]
        assert seen.shape == truth.shape and seen.dtype == np.float32
        # float32 positions of PyTorch's bicubic cost about 1e-5
        np.testing.assert_allclose(seen, truth, atol=0 if kind == "label" else 3e-5)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("twin", ["torch", "jittor"])
def test_gradients_flow_through(runs, twin, policy):
    """The map is affine, so its effect on any direction must be the gradient times that direction."""
    for kind in KINDS:
        x, coefficients = INPUTS[kind].astype(np.float64), COEFFICIENTS[kind].astype(np.float64)
        gradient = runs[policy][twin][f"gradient input {kind}"].astype(np.float64)
        for number in range(5):
            direction = Draws(number).normal("direction", x.shape).astype(np.float64)
            change = expected(policy, kind, x + direction) - expected(policy, kind, x)
            truth = (coefficients * change).sum()
            assert (gradient * direction).sum() == pytest.approx(truth, abs=2e-5 * np.abs(coefficients * change).sum())


def test_the_draws_exercise_every_branch():
    draws = Draws(AUGMENT.seed)
    assert len(set(draws.uniform("crop.taken", BATCH) < 0.5)) == 2
    assert draws.integers("crop.top", 0, int(1.2 * HEIGHT) - HEIGHT, ()) > 0
    for axis, reach in (("y", REACH_Y), ("x", REACH_X)):
        shifts = draws.integers(f"translation.{axis}", -reach, reach, BATCH)
        assert shifts.min() < 0 < shifts.max()
