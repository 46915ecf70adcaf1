"""The original projects' commands: every flag leads to a setting, to the recipe's value, or to one line."""
import contextlib
import importlib.util
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from jittwin import config as settings
from jittwin import imaging, training
from jittwin.checkpoints.store import Checkpoints
from jittwin.commands import generate
from jittwin.errors import UserError
from jittwin.tasks.apf_gan import Config

SCRIPTS = Path(__file__).parents[2] / "scripts"
PHASE_1 = "--input_path=d --batchSize=10 --niter=180 --pg_niter=180 --pg_strategy=1 --num_D=4"
PHASE_2 = ("--input_path=d --batchSize=5 --niter=310 --pg_niter=180 --pg_strategy=1 --save_epoch_freq=1 "
           "--num_D=4 --diff_aug='color,crop,translation' --inception_loss --use_seg_noise --continue_train "
           "--which_epoch=180")
ALWAYS = dict(workers=8, removal_list="remove_130_imgs.txt")
# The original counts samples, these are steps of 10 or 5.
LOGS_1 = dict(log_every=1000, sample_every=5000, save_every=5000, **ALWAYS)
LOGS_2 = dict(log_every=2000, sample_every=10000, save_every=10000, **ALWAYS)


def script(name, monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    spec = importlib.util.spec_from_file_location(f"scripts_{name}", SCRIPTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def trained(monkeypatch, tmp_path):
    """Runs a script as far as the training call; returns that call's settings and keywords."""
    monkeypatch.chdir(tmp_path)
    Path("remove_130_imgs.txt").write_text("1\n")
    calls = []

    def record(task, backend, **keywords):
        calls.append({"backend": backend, **keywords})
        return 0

    monkeypatch.setattr(training, "train", record)

    def call(name, command):
        assert script(name, monkeypatch).run(shlex.split(command)) == 0
        return settings.resolve(Config, overrides=calls[-1]["overrides"]), calls.pop()
    return call


def save(epoch):
    Checkpoints("checkpoints/label2img").save(epoch, [], {}, {})


def test_phase_1_of_the_recipe(trained):
    config, call = trained("train_phase", PHASE_1)
    # diff_aug and seg noise concern the second phase, which this run does not have
    assert config == replace(Config(phase="1"), diff_aug=(), use_seg_noise=False, **LOGS_1)
    assert (call["backend"], call["data"], call["out"], call["continue_from"], call["device"]) == (
        "jittor", "d", "checkpoints/label2img", None, "cpu")


def test_phase_2_of_the_recipe(trained):
    save("180")
    config, call = trained("train_phase", PHASE_2 + " --backend torch")
    assert config == replace(Config(), **LOGS_2)
    assert (call["backend"], call["continue_from"]) == ("torch", "180")


def test_phase_2_from_the_original_files(trained):
    config, call = trained("train_phase", PHASE_2)
    assert config == replace(Config(phase="2", start_weights="checkpoints/label2img/180"), **LOGS_2)
    assert call["continue_from"] is None


def test_an_interrupted_first_phase_goes_on(trained):
    save("12.40")
    config, call = trained("train_phase", PHASE_1 + " --continue_train")
    assert (config.phase, call["continue_from"]) == ("1", "12.40")


def test_both_phases(trained):
    config, call = trained("train", "--input_path=d --checkpoints_dir=c")
    assert config == Config(removal_list="remove_130_imgs.txt") and call["out"] == "c/label2img"


@pytest.mark.parametrize("text, key, value", [
    ("--no_flip", "flip", False), ("--no_TTUR", "ttur", False), ("--diff_aug=", "diff_aug", ()),
    ("--lr=1e-3", "lr", 1e-3), ("--remove_hard_imgs=False", "removal_list", None),
    ("--print_freq=5", "log_every", 1), ("--ngf=32", "ngf", 32), ("--niter=200", "pretrain_epochs", 200),
    ("--lambda_vgg=0", "lambda_perceptual", 0.0), ("--aspect_ratio=2", "aspect_ratio", 2.0),
    ("--save_epoch_freq=5", "save_epochs", 5), ("--label_nc=29", "phase", "1"),
    ("--sr_scale=0.0", "phase", "1"), ("--contain_dontcare_label=false", "phase", "1")])
def test_flags(trained, text, key, value):
    assert getattr(trained("train_phase", f"{PHASE_1} {text}")[0], key) == value


@pytest.mark.parametrize("command, message", [
    (f"{PHASE_1} --batchsize=3", "unknown option '--batchsize' (did you mean '--batchSize'?)"),
    (f"{PHASE_1} --gan_mode=ls", "--gan_mode=ls: only hinge is implemented; leave the flag out"),
    (f"{PHASE_1} --pg_strategy=2", "--pg_strategy=2: only 1 is implemented"),
    (f"{PHASE_1} --use_pos", "--use_pos=True: only False is implemented"),
    (f"{PHASE_1} --diff_aug=color", "add --inception_loss"),
    (f"{PHASE_1} --inception_loss", "add --continue_train --which_epoch=EPOCH"),
    (f"{PHASE_1} --continue_train", "no checkpoint 'latest' to continue from: there is none"),
    (f"{PHASE_1} --print_freq=x", "'x' samples in batches of '10'"),
    (PHASE_2.replace("freq=1", "freq=5"), "fine-tuning saves every epoch"),
    ("--niter=3", "--input_path is missing")])
def test_mistakes(trained, command, message):
    with pytest.raises(UserError) as error:
        trained("train_phase", command)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_run_is_not_overwritten(trained):
    save("3")
    with pytest.raises(UserError, match="already holds a run: pass --continue_train"):
        trained("train_phase", PHASE_1)


def test_the_removal_list_must_be_there(trained):
    Path("remove_130_imgs.txt").unlink()
    with pytest.raises(UserError, match="or pass --remove_hard_imgs=False"):
        trained("train_phase", PHASE_1)


@pytest.fixture
def generated(monkeypatch, tmp_path):
    """Runs test_phase.py as far as `jittwin generate`; returns that command's options."""
    monkeypatch.chdir(tmp_path)
    calls = []
    monkeypatch.setattr(generate, "run", calls.append)

    def call(command):
        assert script("test_phase", monkeypatch).run(shlex.split(command)) == 0
        return calls.pop()
    return call


def test_generating_from_the_published_weights(generated, capsys):
    options = generated("--input_path=labels --which_epoch=avg_273_299 --seed=2433")
    assert options.weights == "checkpoints/label2img/avg_273_299"
    assert (options.labels, options.out) == ("labels", "./results/")
    assert (options.seed, options.batch, options.pure, options.backend) == (2433, 1, None, "jittor")
    assert "no pure_img.npz" in capsys.readouterr().err


def test_generating_from_our_checkpoints(generated):
    save("7"), save("8.3")
    Path("checkpoints/label2img/pure_img.npy").write_text("")
    options = generated("--input_path=l --batchSize=4 --backend=torch")
    assert options.weights == "checkpoints/label2img/checkpoints/8.3"
    assert options.pure == "checkpoints/label2img/pure_img.npy"
    assert options.seed >= 0 and options.batch == 4 and options.backend == "torch"
    assert generated("--input_path=l --which_epoch=7 --use_pure=False").pure is None


def test_generating_refuses_what_has_no_effect(generated):
    with pytest.raises(UserError, match="--how_many=5: only inf is implemented"):
        generated("--input_path=l --how_many=5")


@pytest.mark.parametrize("name", ["train", "train_phase", "test_phase"])
def test_scripts_run_from_anywhere(name, tmp_path):
    done = subprocess.run([sys.executable, SCRIPTS / f"{name}.py", "--inptu_path=d"], cwd=tmp_path, text=True,
                          capture_output=True)
    assert done.returncode == 2 and "did you mean '--input_path'" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("command", [
    "train --input_path=d", f"train_phase {PHASE_1}", "test", "test_phase --input_path=d --which_epoch=avg_1_2",
    "train_aesthetic_lora --image_dir=d", "train_tier", "run_tier", "train_accelerate --model=florence2 --data_path=d",
    "evaluate config.yaml --root=d", "data_process --data=d", "scorer_evaluation"])
def test_the_limit_of_pixels_is_set_before_a_picture_is_decoded(command, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    name, *words = shlex.split(command)
    limits = []
    monkeypatch.setattr(imaging, "limit_pixels", limits.append)
    monkeypatch.setattr(training, "train", lambda *_, **__: limits.append("training"))
    monkeypatch.setattr(generate, "run", lambda args: limits.append(args.max_pixels))
    defaults = ("scorer_evaluation.py", "blipscore", "I2I") if name == "scorer_evaluation" else ()
    with contextlib.suppress(UserError, FileNotFoundError):     # of what is not in this folder
        script(name, monkeypatch).run([*words, "--max-pixels", "12345"], *defaults)
    assert limits[0] == 12345
