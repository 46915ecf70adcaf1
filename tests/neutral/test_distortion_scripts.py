"""The original detector's commands: every flag leads to a setting or to one line."""
import shlex
from pathlib import Path

import pytest
from test_scripts import script

from jittwin import config as settings
from jittwin import training
from jittwin.errors import UserError
from jittwin.tasks.distortion import Config

FULL = ("--experiment_name full --data_path d --negative_num 0 --epoch 50 --val_split 0 --batch_size 4 "
        "--batch_size_warmup 32 --accumulate_step 1 --lr 1e-4 --val_iter -1 --save_iter 5 --mask_loss dice-mse "
        "--score_loss mse-plcc-srcc --model florence2 --input_size 768 --mask_size 768 --warmup_epoch 20 --mode train "
        "--lora_rank 0 --fp16 --score_head linear --mask_head concat --unfreeze_params all")
LORA = (FULL.replace("experiment_name full", "experiment_name lora").replace("--batch_size 4", "--batch_size 3")
        .replace("--lora_rank 0", "--lora_rank 128").replace("mse-plcc-srcc", "mse")
        .replace("--warmup_epoch 20", "--warmup_epoch 0"))
PLAIN = "--data_path d --model florence2 --lora_rank 0"
TRUNK = {"trunk": "microsoft/Florence-2-large"}


@pytest.fixture
def trained(monkeypatch, tmp_path):
    """Runs the script as far as the training call; returns its settings and keywords."""
    monkeypatch.chdir(tmp_path)
    calls = []

    def record(task, backend, overrides, **keywords):
        calls.append((settings.resolve(Config, overrides=overrides), {"task": task, "backend": backend, **keywords}))
        return 0

    monkeypatch.setattr(training, "train", record)

    def call(command):
        calls.clear()
        assert script("train_accelerate", monkeypatch).run(shlex.split(command)) == 0
        [found] = calls
        return found
    return call


def test_the_command_for_full_fine_tuning(trained, capsys):
    config, call = trained(FULL)
    assert config == Config(unfreeze=("all",), side=768, **TRUNK)
    assert call == {"task": "distortion", "backend": "jittor", "data": "d", "out": str(Path("exp/experiments/full")),
                    "resume": False, "device": "auto"}
    assert capsys.readouterr().err.startswith("--fp16: as in the original, it changes nothing")


def test_the_command_for_lora(trained):
    config, call = trained(LORA)
    assert config == settings.resolve(Config, "lora", overrides=["unfreeze=all", "side=768", f"trunk={TRUNK['trunk']}"])
    assert (config.lora_rank, config.batch_size, config.semantics) == (128, 3, "reference")
    assert call["out"] == str(Path("exp/experiments/lora"))


def test_the_defaults_of_the_original(trained):
    config, _ = trained(PLAIN)
    assert config == Config(
        negatives=9000, val_split=1000, batch_size=8, warmup_batch_size=16, accumulation=16, save_epochs=1,
        mask_loss="mse", score_loss="mse", side=768, warmup_epochs=5,
        unfreeze=("lora", "heatmap_predictor", "score_predictor"), **TRUNK)


@pytest.mark.parametrize("text, values", [
    ("--ema", {"ema": 0.999}), ("--ema_decay 0.9", {"ema": 0.0}), ("--ema --ema_decay 0.9", {"ema": 0.9}),
    ("--val_iter 4 --save_iter 6", {"save_epochs": 4}), ("--val_iter 0 --save_iter 0", {"save_epochs": 1 << 30}),
    ("--hflip 0", {"flip": 0.0}), ("--seed 7", {"seed": 7}), ("--log_step 3", {"log_every": 3}),
    ("--load_checkpoint x.pth", {"weights": "x.pth", "trunk": None}), ("--trunk y", {"trunk": "y"}),
    ("--freeze_params vision_tower,encoder", {"freeze": ("vision_tower", "encoder")}),
    ("--score_head conv --mask_head last", {"score_head": "conv", "mask_head": "last"}),
    ("--model florence2-large-ft", {"trunk": "microsoft/Florence-2-large-ft"}),
    ("--backbone_lr_decay 0.5 --min_lr 1e-6", {"trunk_lr_factor": 0.5, "min_lr": 1e-6}),
    ("--set random_model=true --set size=tiny", {"random_model": True, "trunk": None})])
def test_flags(trained, text, values):
    config, _ = trained(f"{PLAIN} {text}")
    assert {key: getattr(config, key) for key in values} == values


@pytest.mark.parametrize("text, message", [
    ("--model altclip", "--model=altclip: choose from florence2, florence2-large-ft"),
    ("--mode eval", "--mode=eval: does not work in the original; use scripts/evaluate.py"),
    ("--mask_size 512", "--mask_size=512 and --input_size=768: maps have the size of the pictures"),
    ("--epoch 0", "--epoch=0 must be at least 1"), ("--epoch many", "--epoch=many: expected a whole number"),
    ("--lora_rank 8", "warmup_epochs=5 with lora_rank=8 needs a trained detector"),
    ("--mask_loss dise", "mask_loss=dise: 'dise' is no term"), ("--score_hed x", "unknown option '--score_hed'"),
    ("--data_path", "expected one argument")])
def test_mistakes_in_flags(trained, text, message):
    with pytest.raises(UserError) as caught:
        trained(f"{PLAIN} {text}")
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("content, message", [
    (None, "c.yaml: not a config.yaml"), ("a: [", "c.yaml: not a config.yaml"),
    ("lr: 1", "c.yaml: names no load_checkpoint and lies in no run of ours"),
    ("load_checkpoint: old.pth", "no such folder")])
def test_mistakes_of_evaluate(monkeypatch, tmp_path, content, message):
    monkeypatch.chdir(tmp_path)
    if content:
        Path("c.yaml").write_text(content)
    with pytest.raises(UserError) as caught:
        script("evaluate", monkeypatch).run(["c.yaml", "--root", "nowhere"])
    assert message in str(caught.value) and "\n" not in str(caught.value)
