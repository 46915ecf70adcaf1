"""`jittwin generate` and `jittwin convert` on runs of both twins: every option, every kind of weights, both ways."""
import shutil
from pathlib import Path

import numpy as np
import pytest
from commands import BACKENDS, run
from PIL import Image

from jittwin.draws import Draws
from jittwin.weights import read_metadata, read_weights, write_weights

NAMES = ["scene_2", "scene_10", "sky_1", "sky_2", "tree"]
# Of the feature maps in the generator's norms, two or three per block, for an image 64 pixels high.
HEIGHTS = [1] * 2 + [2] * 4 + [4] * 3 + [8] * 3 + [16] * 3 + [32] * 3 + [64] * 3


def vivid(path: Path) -> dict[str, np.ndarray]:
    """The weights of a file with random convolutions, so that every layer passes its signal and its noise on.

    The pictures of a run of eight steps are flat, and what little they show differs from one kind of processor to
    the next, as such training does.
    """
    def lively(key, array):
        if key.endswith((".running_mean", ".running_var")):
            return np.full_like(array, key.endswith("var"))
        if array.ndim != 4:
            return array
        gain = 1.0 if "conv_img" in key or ".seg_noise_var." in key else 0.3
        return Draws(1).normal(key, array.shape) * np.float32(gain / array[0].size ** 0.5)
    return {key: lively(key, array) for key, array in read_weights(path).items()}


@pytest.fixture(scope="module")
def runs(finished, tmp_path_factory) -> dict[str, Path]:
    """The finished run of each backend, with vivid weights in its checkpoints."""
    folders = {}
    for backend in BACKENDS:
        folders[backend] = shutil.copytree(finished(backend), tmp_path_factory.mktemp("vivid") / backend)
        for path in folders[backend].glob("checkpoints/*/[EG].safetensors"):
            metadata = read_metadata(path)
            write_weights(path, vivid(path), metadata)
    return folders


def convert(source: Path, target: Path, letter: str) -> list:
    model = {"E": "apf_gan.encoder", "G": "apf_gan.generator"}[letter]
    return ["convert", source, target, "--model", model, "--verify"]


@pytest.fixture(scope="module")
def networks(runs, tmp_path_factory) -> dict[str, Path]:
    """--weights of one network per run in every form: NAME, NAME.pkl, NAME.pth, and NAME.back from .pth."""
    folder, commands, forms = tmp_path_factory.mktemp("networks"), [], {}
    for backend in BACKENDS:
        checkpoint = runs[backend] / "checkpoints/4"
        forms[backend] = runs[backend]
        for kind in ("pkl", "pth"):
            forms[f"{backend}.{kind}"] = folder / f"{backend}_{kind}"
        forms[f"{backend}.back"] = folder / f"{backend}_back"
        forms[f"{backend}.back"].mkdir()
        for letter in "EG":
            source, first = checkpoint / f"{letter}.safetensors", folder / f"{backend}_pth_net_{letter}.pth"
            commands += [convert(source, folder / f"{backend}_pkl_net_{letter}.pkl", letter),
                         convert(source, first, letter),
                         convert(first, forms[f"{backend}.back"] / f"{letter}.safetensors", letter)]
    for done in run(*commands):
        assert "verified: read back byte for byte" in done.ok().out
    return forms


@pytest.fixture(scope="module")
def merged(runs, tmp_path_factory) -> Path:
    """PREFIX of the mean of two checkpoints in float64, as the original merges them, heads and all."""
    folder = tmp_path_factory.mktemp("merged")
    for letter in "EG":
        first, second = (read_weights(runs["jittor"] / f"checkpoints/{n}/{letter}.safetensors") for n in (2, 3))
        write_weights(folder / f"avg_2_3_net_{letter}.pkl",
                      {key: (first[key].astype(np.float64) + second[key]) / 2 for key in second})
    assert read_weights(folder / "avg_2_3_net_G.pkl")["out_conv_img.weight"].dtype == np.float64
    return folder / "avg_2_3"


@pytest.fixture(scope="module")
def noise_files(tmp_path_factory) -> dict[str, Path]:
    """Noise for every norm at 192x64 pixels: nothing, and what seed 5 draws for scene_2."""
    folder, draws = tmp_path_factory.mktemp("noise"), Draws(5).within("scene_2")
    shapes = {f"seg_noise.{i}": (1, 1, height, 3 * height) for i, height in enumerate(HEIGHTS)}
    write_weights(folder / "zeros.npz", {key: np.zeros(shape, np.float32) for key, shape in shapes.items()})
    write_weights(folder / "seed_5.safetensors", {key: draws.normal(key, shape) for key, shape in shapes.items()})
    return {path.stem: path for path in folder.iterdir()}


@pytest.fixture(scope="module")
def original_pure(tmp_path_factory) -> Path:
    """An object array holding {class: [Pillow image]}, as the original saves it."""
    path = tmp_path_factory.mktemp("pure") / "pure_img.npy"
    pictures = {np.uint8(1): [Image.new("RGB", (192, 64), (0, 128, 255))]}
    np.save(path, np.array(pictures, dtype=object), allow_pickle=True)
    return path


@pytest.fixture(scope="module")
def averaged(runs, tmp_path_factory) -> Path:
    """A checkpoint folder whose averages are the networks of the epoch before."""
    folder = tmp_path_factory.mktemp("averaged")
    for letter in "EG":
        for epoch, stem in ((4, letter), (3, f"{letter}.ema")):
            write_weights(folder / f"{stem}.safetensors",
                          read_weights(runs["torch"] / f"checkpoints/{epoch}/{letter}.safetensors"))
    return folder


@pytest.fixture(scope="module")
def generated(runs, networks, merged, averaged, noise_files, original_pure, labels, tmp_path_factory):
    """Folders of pictures by (backend, case); each backend makes all of its pictures in one process."""
    cases = {name: (where, ["--width", 192]) for name, where in networks.items()}
    run_folder = runs["torch"]
    cases |= {
        "merged": (merged, ["--width", 192]),
        "averaged": (averaged, ["--width", 192, "--ema"]), "epoch 3": (run_folder / "checkpoints/3", []),
        "jpeg": (run_folder, ["--format", "jpg"]), "coarse jpeg": (run_folder, ["--format", "jpg", "--quality", 10]),
        "pure": (run_folder, ["--pure", run_folder / "pure_img.npz", "--batch", 2, "--seeds", 2]),
        "original pure": (run_folder, ["--pure", original_pure]),
        "seeds": (run_folder, ["--seed", 5, "--seeds", 3]), "seed 5": (run_folder, ["--seed", 5]),
        "seed 6": (run_folder, ["--seed", 6]), "batch 3": (run_folder, ["--seed", 5, "--batch", 3]),
        "noise off": (run_folder, ["--noise", "off"]),
        "noise off, seed 6": (run_folder, ["--noise", "off", "--seed", 6]),
        "zeros": (run_folder, ["--noise", noise_files["zeros"]]),
        "noise of seed 5": (run_folder, ["--noise", noise_files["seed_5"]]),
        "sheet": (run_folder, ["--sheet", "SHEET"]),
    }
    folders, errors = {}, {}
    for backend in BACKENDS:
        out = tmp_path_factory.mktemp(f"pictures_{backend}")
        commands = []
        for name, (weights, options) in cases.items():
            folders[backend, name] = out / name
            options = [out / "sheet.png" if option == "SHEET" else option for option in options]
            image_format = [] if "--format" in options else ["--format", "png"]
            commands.append(["generate", "--backend", backend, "--weights", weights, "--labels", labels,
                             "--out", out / name, *image_format, *options])
        for name, done in zip(cases, run(*commands), strict=True):
            errors[backend, name] = done.ok().err
    return folders, errors


@pytest.fixture(params=BACKENDS)
def pictures(request, generated):
    """pictures(case) of one backend: arrays by file name without suffix."""
    def read(case: str, below: str = "") -> dict[str, np.ndarray]:
        folder = generated[0][request.param, case] / below
        return {path.stem: np.asarray(Image.open(path).convert("RGB")) for path in folder.glob("*.*")}
    read.folder = lambda case: generated[0][request.param, case]
    read.errors = lambda case: generated[1][request.param, case]
    return read


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys() and expected
    assert all((found[name] == expected[name]).all() for name in expected)


def assert_near(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    """Within one grey level for 99.9 % of the values: convolutions of other batches round differently."""
    assert found.keys() == expected.keys() and expected
    close = [np.abs(found[name].astype(int) - expected[name]) <= 1 for name in expected]
    assert np.mean(close) >= 0.999


def different(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> bool:
    assert found.keys() == expected.keys()
    return all((found[name] != expected[name]).mean() > 0.1 for name in expected)


def test_one_picture_per_label_map(pictures):
    found = pictures("jittor")
    assert sorted(found) == sorted(NAMES)
    assert all(picture.shape == (64, 192, 3) for picture in found.values())
    assert min(picture.std() for picture in found.values()) > 5


@pytest.mark.parametrize("trained", BACKENDS)
def test_converted_weights_are_the_same_weights(pictures, trained):
    for form in ("pkl", "pth", "back"):
        assert_same(pictures(f"{trained}.{form}"), pictures(trained))


def test_twins_agree(generated):
    """Within one grey level for 99.9 % of the pixels, whichever twin trained and whatever the options."""
    folders = generated[0]
    for case in sorted({case for _, case in folders}):
        if "jpeg" in case:
            continue
        first, second = ({path.relative_to(folders[backend, case]): np.asarray(Image.open(path))
                          for path in folders[backend, case].rglob("*.png")} for backend in BACKENDS)
        assert len(first) >= len(NAMES)
        assert_near(first, second)


def test_merged_checkpoints_in_float64(pictures):
    assert different(pictures("merged"), pictures("jittor"))


def test_averaged_weights(pictures):
    assert_same(pictures("averaged"), pictures("epoch 3"))


def test_seeds(pictures):
    assert_near(pictures("seeds", "seed_5"), pictures("seed 5"))
    assert_near(pictures("seeds", "seed_6"), pictures("seed 6"))
    for first, second in ((5, 6), (6, 7), (5, 7)):
        assert different(pictures("seeds", f"seed_{first}"), pictures("seeds", f"seed_{second}"))


def test_the_name_of_a_label_map_decides_its_noise(pictures):
    found = pictures("seed 5")
    assert (found["sky_1"] != found["sky_2"]).mean() > 0.1


def test_batches_change_nothing(pictures):
    assert_near(pictures("batch 3"), pictures("seed 5"))


def test_injected_noise(pictures):
    assert_same(pictures("noise off, seed 6"), pictures("noise off"))
    assert_same(pictures("zeros"), pictures("noise off"))
    assert different(pictures("noise off"), pictures("seed 5"))
    injected, drawn = pictures("noise of seed 5"), pictures("seed 5")
    assert (injected["scene_2"] == drawn["scene_2"]).all()
    assert (injected["scene_10"] != drawn["scene_10"]).mean() > 0.1
    assert (injected["sky_1"] == injected["sky_2"]).all()


def test_pure_colour_dictionary_of_the_run(pictures, runs):
    """One photograph of sky, for the first of two maps; trees have none. Further seeds are generated."""
    plain, found = pictures("torch"), pictures("pure", "seed_0")
    with np.load(runs["torch"] / "pure_img.npz") as file:
        assert (found["sky_1"] == file["1"][0]).all()
    assert_near({**found, "sky_1": plain["sky_1"]}, plain)
    assert set(pictures("pure", "seed_1")) == set(NAMES)
    assert (pictures("pure", "seed_1")["sky_1"] != found["sky_1"]).mean() > 0.1
    assert pictures.errors("pure").splitlines()[-2:] == [
        "sky_2: photographs of class 1 are used up in the pure dictionary; keeping the generated image",
        "tree: photographs of class 5 do not exist in the pure dictionary; keeping the generated image"]


def test_pure_colour_dictionary_of_the_original(pictures):
    found = pictures("original pure")
    assert (found["sky_1"] == (0, 128, 255)).all() and (found["tree"] == pictures("torch")["tree"]).all()


def test_formats_and_quality(pictures):
    fine, coarse = ({path.name: path.stat().st_size for path in pictures.folder(case).iterdir()}
                    for case in ("jpeg", "coarse jpeg"))
    assert sorted(fine) == sorted(coarse) == sorted(f"{name}.jpg" for name in NAMES)
    assert all(coarse[f"{name}.jpg"] < fine[f"{name}.jpg"] for name in ("scene_2", "scene_10"))
    lossless = pictures("torch")
    assert all(np.abs(picture.astype(int) - lossless[name]).mean() < 8 for name, picture in pictures("jpeg").items())


def test_contact_sheet(pictures):
    """A row per label map in natural order: label in class colours | picture."""
    sheet = np.asarray(Image.open(pictures.folder("sheet").parent / "sheet.png"))
    assert sheet.shape[0] > 5 * 64 and sheet.shape[1] > 2 * 192
    windows = np.lib.stride_tricks.sliding_window_view(sheet, (64, 192, 3))[:, :, 0]
    first = pictures("sheet")["scene_2"]
    places = [(y, x) for y in range(windows.shape[0]) for x in (200,) if (windows[y, x] == first).all()]
    assert len(places) == 1 and places[0][0] < 64
