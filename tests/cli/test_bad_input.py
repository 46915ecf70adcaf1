"""Bad input: one line on stderr, exit status 2, nothing half-written, what was there stays intact."""
import io
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from commands import BACKENDS, Command, run, train
from PIL import Image

from jittwin.models.apf_gan import ModelConfig
from jittwin.models.apf_gan_keys import expected_keys
from jittwin.weights import read_weights, write_weights
from jittwin.weights.initial import initial_weights


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def label_of(folder: Path, change: Callable[[np.ndarray], np.ndarray], name: str = "2") -> None:
    """Rewrite one label map."""
    path = folder / "labels" / f"{name}.png"
    Image.fromarray(change(np.array(Image.open(path)))).save(path)


def set_corner(value: int):
    def change(label):
        label[-1, -1] = value
        return label
    return change


def truncate(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:int(len(content) * share)])


# What is done to a good data folder, and what the message must say.
BAD_DATA = {
    "no such folder": (shutil.rmtree, ["{data}: no such folder"]),
    "empty folder": (lambda d: [shutil.rmtree(d), d.mkdir()], ["{data}: not a landscape data set", "imgs/", "labels/"]),
    "no pictures": (lambda d: [p.unlink() for p in d.glob("imgs/*")], ["imgs: holds no pictures"]),
    "picture without label": (lambda d: (d / "labels/10.png").unlink(), ["imgs/10.jpg: no file of that name in"]),
    "label without picture": (lambda d: (d / "imgs/sky.jpg").unlink(), ["labels/sky.png: no file of that name in"]),
    "label 29": (lambda d: label_of(d, set_corner(29)), ["labels/2.png: holds label 29", "0..28", "relabel"]),
    "label 255": (lambda d: label_of(d, set_corner(255)), ["labels/2.png: holds label 255", "0..28"]),
    "coloured label": (lambda d: label_of(d, lambda a: np.stack([a, a, a * 0 + 3], 2)),
                       ["labels/2.png: a label map needs one channel or three identical ones"]),
    "one class unknown": (lambda d: label_of(d, lambda a: a * 0 + 40, "sky"), ["labels/sky.png: holds label 40"]),
    "sizes differ": (lambda d: label_of(d, lambda a: a[:, :-2]), ["labels/2.png: 286x96 pixels", "288x96"]),
    "truncated label": (lambda d: truncate(d / "labels/2.png", 0.7), ["labels/2.png: cannot be read"]),
    "truncated picture": (lambda d: truncate(d / "imgs/2.jpg", 0.01), ["imgs/2.jpg: cannot be read"]),
    "text as picture": (lambda d: (d / "imgs/2.jpg").write_text("hello"), ["imgs/2.jpg: cannot be read"]),
    "too flat": (lambda d: flatten(d), ["imgs/2.jpg: 288x32 pixels scale to 216x24, too low"]),
}


def flatten(folder: Path) -> None:
    label_of(folder, lambda a: a[:32])
    Image.open(folder / "imgs/2.jpg").crop((0, 0, 288, 32)).save(folder / "imgs/2.jpg")


# --set arguments, options, and what the message must say.
BAD_SETTINGS = {
    "width not a multiple of 64": (["crop_size=200"], ["200x67", "multiples of 64"]),
    "height not a multiple of 64": (["aspect_ratio=2"], ["192x96", "multiples of 64"]),
    "unknown key": (["leanring_rate=1"], ["unknown key 'leanring_rate'"]),
    "misspelt key": (["batchsize=2"], ["unknown key 'batchsize' (did you mean 'batch_size'?)"]),
    "misspelt nested key": (["semantics.adm=torch"], ["(did you mean 'semantics.adam'?)"]),
    "wrong type": (["batch_size=two"], ["batch_size: expected a whole number but got 'two'"]),
    "illegal choice": (["noise=sharde"], ["(did you mean 'shared'?)"]),
    "unknown preset": (["preset=tny"], ["(did you mean 'tiny'?)"]),
    "growing past phase 1": (["pg_niter=6"], ["pg_niter=6 is after pretrain_epochs=3"]),
    "uneven growing": (["pg_niter=2"], ["pg_niter=2 is not a positive multiple"]),
    "batch too large": (["batch_size=5"], ["batch_size=5: must be 1..4"]),
    "phase 2 batch too large": (["finetune_batch_size=5"], ["finetune_batch_size=5: must be 1..4"]),
    "accumulation": (["accumulation=3"], ["2 batches, fewer than accumulation=3"]),
    "phase 2 without phase 1": (["phase=2"], ["phase=2 starts from the networks of phase 1", "start_weights"]),
    "phase 2 from nowhere": (["phase=2", "start_weights=none/there"], ["none/there: no network E found"]),
    "augmentation": (["diff_aug=colour"], ["diff_aug", "colour", "color"]),
    "VGG on small pictures": (["random_perceptual=1", "phase=1", "pg_niter=6", "pretrain_epochs=6", "epochs=7"],
                              ["the VGG loss needs 16 pixels", "24x8"]),
    "Inception on small pictures": (["random_perceptual=1"], ["the Inception loss needs 75 pixels", "192x64"]),
    "no VGG file": (["vgg_weights=none.pth"], ["none.pth: not found"]),
    "no Inception file": (["inception_weights=none.pth", "crop_size=384", "load_size=432"],
                          ["none.pth: not found"]),
}


@pytest.fixture(scope="module")
def refused(data, tmp_path_factory):
    """refused(backend): {case: (how the command ended, its data folder, its run folder)}, in one process."""
    found = {}

    def collect(backend: str) -> dict:
        if backend in found:
            return found[backend]
        folder, commands, places = tmp_path_factory.mktemp("bad"), [], []
        for number, (case, (spoil, _)) in enumerate(BAD_DATA.items()):
            bad = Path(shutil.copytree(data, folder / f"data_{number}"))
            spoil(bad)
            places.append((case, bad, folder / f"run_data_{number}"))
            commands.append(train(backend, places[-1][2], "--data", bad))
        for number, (case, (values, _)) in enumerate(BAD_SETTINGS.items()):
            places.append((case, data, folder / f"run_set_{number}"))
            commands.append(train(backend, places[-1][2], "--data", data, *[p for v in values for p in ("--set", v)]))
        found[backend] = {case: (done, *rest) for (case, *rest), done in zip(places, run(*commands), strict=True)}
        return found[backend]
    return collect


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", [*BAD_DATA, *BAD_SETTINGS])
def test_training_is_refused(refused, backend, case):
    done, data_folder, run_folder = refused(backend)[case]
    message = done.one_line()
    for part in {**BAD_DATA, **BAD_SETTINGS}[case][1]:
        assert part.format(data=data_folder) in message
    assert not run_folder.exists()


def test_no_such_backend_and_no_such_command(tmp_path):
    for done, text in zip(run(
            train("pytorch", tmp_path / "run"), ["train", "--out", tmp_path / "run"], ["tarin"],
            ["train", "apf", "--backend", "torch"], ["generate", "--weights", "x"]),
            ["(did you mean 'torch'?)", "--backend is missing: choose from jittor, torch", "(did you mean 'train'?)",
             "(did you mean 'apf_gan'?)", "--labels"], strict=True):
        assert text in done.one_line()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_run_in_the_way_stays_as_it_is(backend, finished, data, tmp_path):
    """New runs, unknown epochs, changed settings, other widths, other data: refused without touching the run."""
    folder = Path(shutil.copytree(finished(backend), tmp_path / "run"))
    before = contents(folder)
    resume = ["train", "--out", folder, "--resume"]
    cases = {
        "already holds a run (checkpoint 4): pass --resume": train(backend, folder, "--data", data),
        "no checkpoint '7'": ["train", "--out", folder, "--continue", "7"],
        "epochs was 4, is 9": [*resume, "--set", "epochs=9"],
        "there is no run to resume": ["train", "--out", tmp_path / "none", "--resume"],
        "checkpoints/2, G: the weights do not fit the model": [
            "train", "--out", folder, "--continue", "2", "--set", "spade_hidden=32"],
        "nowhere: no such folder": ["train", "--out", folder, "--continue", "2", "--data", "nowhere"],
        "not legal": [*resume, "--backend", "tensorflow"],
    }
    for text, done in zip(cases, run(*cases.values()), strict=True):
        assert text in done.one_line()
    assert contents(folder) == before and not (tmp_path / "none").exists()


@pytest.mark.parametrize("backend", BACKENDS)
def test_phase_2_from_another_width(backend, finished, data, tmp_path):
    start = finished(backend) / "checkpoints/3"
    done, = run(train(backend, tmp_path / "run", "--data", data, phase=2, start_weights=start, ngf=16))
    assert f"{start}/E.safetensors: the weights do not fit the model" in done.one_line()
    assert "of another shape: layer1.0.weight_orig (8, 29, 3, 3) instead of (16, 29, 3, 3)" in done.err
    assert not (tmp_path / "run").exists()


@pytest.fixture
def damaged(finished, tmp_path):
    """A copy of a run's newest checkpoint folder to spoil, and --weights of it."""
    return Path(shutil.copytree(finished("torch") / "checkpoints/4", tmp_path / "weights"))


def encoder_of_another_width(folder):
    shapes = expected_keys("apf_gan.encoder", ModelConfig(ngf=16))
    write_weights(folder / "E.safetensors", initial_weights("apf_gan", shapes))


def generator_without(key):
    def spoil(folder):
        arrays = read_weights(folder / "G.safetensors")
        del arrays[key]
        write_weights(folder / "G.safetensors", arrays)
    return spoil


BAD_WEIGHTS = {
    "missing": (shutil.rmtree, ["weights: no network E found", "PREFIX"]),
    "only one": (lambda d: (d / "G.safetensors").unlink(), ["weights: no network G found"]),
    "truncated": (lambda d: truncate(d / "G.safetensors", 0.5), ["G.safetensors: damaged or truncated"]),
    "text": (lambda d: (d / "G.safetensors").write_text("hello"), ["G.safetensors: "]),
    "other widths": (encoder_of_another_width, ["E.safetensors: has ngf=16", "ngf=8", "one training run"]),
    "missing key": (generator_without("out_conv_img.bias"), ["G.safetensors: not", "1 missing: out_conv_img.bias"]),
    "discriminator": (lambda d: shutil.copy(d / "D.safetensors", d / "G.safetensors"),
                      ["G.safetensors: not an apf_gan.generator", "94 unexpected"]),
}


@pytest.mark.parametrize("case", BAD_WEIGHTS)
def test_generation_refuses_weights(case, damaged, labels, tmp_path):
    spoil, parts = BAD_WEIGHTS[case]
    spoil(damaged)
    done, = run(["generate", "--backend", "torch", "--weights", damaged, "--labels", labels, "--out", tmp_path / "out"])
    message = done.one_line()
    assert all(part in message for part in parts)
    assert not (tmp_path / "out").exists()


def picture(value: int, size=(64, 192)) -> bytes:
    content = io.BytesIO()
    Image.fromarray(np.full(size, value, np.uint8)).save(content, "PNG")
    return content.getvalue()


def npz(**arrays) -> bytes:
    content = io.BytesIO()
    np.savez(content, **arrays)
    return content.getvalue()


# A file to write, options with {bad} for it, and what the message must say.
BAD_GENERATION = {
    "no such folder": (None, None, ["--labels", "nowhere"], ["nowhere: no such folder"]),
    "empty folder": (None, None, ["--labels", "{tmp}/empty"], ["empty: holds no pictures"]),
    "label 29": ("l/x.png", picture(29), ["--labels", "{tmp}/l"], ["l/x.png: holds label 29", "0..28"]),
    "truncated": ("l/x.png", picture(1)[:60], ["--labels", "{tmp}/l"], ["l/x.png: cannot be read"]),
    "not a picture": ("l/x.jpg", b"hello", ["--labels", "{tmp}/l"], ["l/x.jpg: cannot be read"]),
    "wrong proportions": ("l/x.png", picture(1, (90, 192)), ["--labels", "{tmp}/l"], ["192x90", "multiples of 64"]),
    "wrong width": (None, None, ["--width", "200"], ["200x66", "multiples of 64"]),
    "no pure dictionary": (None, None, ["--pure", "none.npz"], ["none.npz: cannot be read"]),
    "unknown class": ("p.npz", npz(**{"29": np.zeros((1, 4, 4, 3), np.uint8)}), ["--pure", "{tmp}/p.npz"],
                      ["p.npz: holds class 29; legal are 0..28"]),
    "not a dictionary": ("p.npz", b"hello", ["--pure", "{tmp}/p.npz"], ["p.npz: not a pure-colour dictionary"]),
    "no noise file": (None, None, ["--noise", "none.npz"], ["none.npz: cannot be read"]),
    "noise of another size": ("n.npz", npz(**{"seg_noise.0": np.zeros((1, 1, 2, 2), np.float32)}),
                              ["--noise", "{tmp}/n.npz"], ["n.npz: seg_noise.0 is (1, 1, 2, 2)", "(1, 1, 1, 3)"]),
    "noise of another name": ("n.npz", npz(a=np.zeros(1)), ["--noise", "{tmp}/n.npz"], ["seg_noise.0 is absent"]),
    "format": (None, None, ["--format", "gif"], ["'gif' is not legal", "jpg, png"]),
    "quality": (None, None, ["--quality", "100"], ["--quality 100"]),
    "no seed": (None, None, ["--seeds", "0"], ["--seeds 0"]),
    "sheet of unknown format": (None, None, ["--sheet", "{tmp}/sheet.gif"], ["sheet.gif", ".png"]),
    "one label map to choose by": ("l/x.png", picture(1), ["--labels", "{tmp}/l", "--reference", "{tmp}/l"],
                                   ["l: holds one label map", "at least two"]),
    "no averages": (None, None, ["--ema"], ["no network E.ema"]),
}


@pytest.fixture(scope="module")
def refused_generation(finished, labels, tmp_path_factory):
    commands, folders = [], []
    for name, content, options, _ in BAD_GENERATION.values():
        folders.append(folder := tmp_path_factory.mktemp("generation"))
        (folder / "empty").mkdir()
        if name:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(content)
        options = [option.format(tmp=folder) for option in options]
        if "--labels" not in options:
            options += ["--labels", labels]
        commands.append(["generate", "--backend", "torch", "--weights", finished("torch"), "--out", folder / "out",
                         *options])
    return dict(zip(BAD_GENERATION, zip(run(*commands), folders), strict=True))


@pytest.mark.parametrize("case", BAD_GENERATION)
def test_generation_is_refused(case, refused_generation):
    done, folder = refused_generation[case]
    message = done.one_line()
    assert all(part in message for part in BAD_GENERATION[case][3])
    assert not (folder / "out").exists()


def test_conversion_is_refused(finished, tmp_path):
    source = finished("torch") / "checkpoints/4/G.safetensors"
    (tmp_path / "old.pth").write_bytes(b"previous")
    (tmp_path / "text.pkl").write_text("hello")
    cases = {
        "not an apf_gan.encoder": [source, tmp_path / "old.pth", "--model", "apf_gan.encoder"],
        "'apf_gan.genrator' (did you mean 'apf_gan.generator'?)": [
            source, tmp_path / "old.pth", "--model", "apf_gan.genrator"],
        "unknown extension '.pht'": [source, tmp_path / "new.pht", "--model", "any"],
        "none.pkl: not found": [tmp_path / "none.pkl", tmp_path / "old.pth", "--model", "any"],
        "text.pkl": [tmp_path / "text.pkl", tmp_path / "old.pth", "--model", "any"],
    }
    for text, done in zip(cases, run(*(["convert", *options] for options in cases.values())), strict=True):
        assert text in done.one_line()
    assert {path.name for path in tmp_path.iterdir()} == {"old.pth", "text.pkl"}
    assert (tmp_path / "old.pth").read_bytes() == b"previous"


@pytest.mark.parametrize("backend", BACKENDS)
def test_disk_full_while_saving(backend, finished, tmp_path):
    """Whichever write fails, the checkpoint before is intact, and resuming ends as if nothing had been."""
    folder = Path(shutil.copytree(finished(backend), tmp_path / "run"))
    whole = contents(folder)
    run(["train", "--out", folder, "--continue", "3", "--set", "max_steps=7"], backend=backend)[0].ok()
    before = contents(folder)
    resume = ["train", "--out", folder, "--resume", "--set", "max_steps=8"]
    # Of 22 writes: `latest`, config.yaml, the log, the pictures, a network, the state, the checkpoint's folder.
    for done in run(*(Command([*map(str, resume)], disk_full_after=number) for number in (0, 2, 4, 6, 9, 16, 19)),
                    backend=backend):
        assert done.status == 2 and "Traceback" not in done.err
        assert done.err.splitlines()[-1].endswith(
            f"jittwin: {folder}: the disk is full; checkpoint 4.1 is intact: free space and continue with --resume")
    now = contents(folder)
    assert {name: data for name, data in now.items() if name.startswith(("checkpoints/", "latest"))} == {
        name: data for name, data in before.items() if name.startswith(("checkpoints/", "latest"))}
    assert not [name for name in now if "tmp" in name or ".writing" in name]
    run(resume, backend=backend)[0].ok()
    now = contents(folder)
    for name, content in whole.items():
        if not name.startswith(("events.", "config.yaml")):
            assert now[name] == content, name


def test_files_too_large_while_saving(finished, data, tmp_path):
    """The system's own limit on the size of a file, met while a checkpoint is written."""
    first, second = tmp_path / "run", tmp_path / "fresh"
    run(train("torch", first, "--data", data, max_steps=1))[0].ok()
    before = contents(first)
    resume = ["train", "--out", str(first), "--resume", "--set", "max_steps=2"]
    fresh = [str(part) for part in train("torch", second, "--data", data, max_steps=1)]
    for done in run(Command(resume, file_limit=300_000), Command(fresh, file_limit=300_000)):
        assert done.status == 2 and "Traceback" not in done.err and "cannot be written" in done.err.splitlines()[-1]
    now = contents(first)
    assert all(now[name] == before[name] for name in before if name.startswith(("checkpoints/", "latest")))
    assert not (second / "latest").exists() and not list(second.glob("checkpoints/*"))


@pytest.mark.parametrize("letter", ["G", "E"])
def test_disk_full_while_converting(letter, finished, tmp_path):
    source, target = finished("torch") / f"checkpoints/4/{letter}.safetensors", tmp_path / "weights.pth"
    target.write_bytes(b"previous")
    command = ["convert", str(source), str(target), "--model", "any"]
    for done in run(Command(command, disk_full_after=0), Command(command, file_limit=20_000)):
        assert "weights.pth: cannot be written" in done.one_line()
    assert [path.name for path in tmp_path.iterdir()] == ["weights.pth"] and target.read_bytes() == b"previous"


def test_disk_full_while_generating(finished, labels, tmp_path):
    done, = run(Command([str(part) for part in (
        "generate", "--backend", "torch", "--weights", finished("torch"), "--labels", labels, "--out",
        tmp_path / "out")], disk_full_after=4))
    assert "cannot be written: No space left on device" in done.one_line()
    assert len(list((tmp_path / "out").iterdir())) == 2
