"""The original TIER's commands: every flag leads to a setting or to one line; the matrix of run.sh."""
import json
import shlex
from pathlib import Path

import pytest
from test_scripts import script

from jittwin import config as settings
from jittwin import training
from jittwin.checkpoints.store import Checkpoints
from jittwin.engine.state import config_hash
from jittwin.errors import UserError
from jittwin.tasks.tier import Config

BERT = {"text_weights": "./bert-base-uncased"}


@pytest.fixture
def trained(monkeypatch, tmp_path):
    """Runs a script as far as the training calls; returns their settings and keywords."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")      # the scripts set it
    calls = []

    def record(task, backend, data, out, overrides, **keywords):
        config = settings.resolve(Config, overrides=overrides)
        calls.append((config, {"task": task, "backend": backend, "data": data, "out": out, **keywords}))
        results = {"selected": {"epoch": 7, "srcc": 0.5, "plcc": 0.25, "krcc": None, "rmse": 1.0},
                   "maxima": {"plcc": {"value": 0.75, "epoch": 9}}}
        Path(out).mkdir(parents=True, exist_ok=True)
        Path(out, "results.json").write_text(json.dumps(results))
        state = {"epoch": config.epochs, "epoch_done": True, "config_hash": config_hash(config)}
        Checkpoints(out).save(str(config.epochs), [], state, {})
        return 0

    monkeypatch.setattr(training, "train", record)

    def call(command, name="train_tier"):
        calls.clear()
        assert script(name, monkeypatch).run(shlex.split(command)) == 0
        return calls
    return call


def test_the_defaults_of_the_original(trained):
    [(config, call)] = trained("")
    assert config == Config(lr=1e-4, **BERT)
    assert call == {"task": "tier", "backend": "jittor", "data": "./Dataset/PKU-AIGIQA-4K", "device": "auto",
                    "out": "exp/TIER-NR-AIGIQA4K-vit-MOS_q", "resume": False}


@pytest.mark.parametrize("text, values", [
    ("--lr 1e-5", {"lr": 1e-5}), ("--weight_decay 0", {"weight_decay": 0.0}), ("--seed 7", {"seed": 7}),
    ("--train_batch_size 4", {"batch_size": 4}), ("--test_batch_size 5", {"test_batch_size": 5}),
    ("--num_epochs 3", {"epochs": 3}), ("--true_score MOS_a", {"column": "MOS_a"}), ("--log_info x", {"log_info": "x"}),
    ("--backbone resnet50", {"backbone": "resnet50", "image_weights": "pretrained/resnet50.pth"}),
    ("--using_image_prompt 0 --benchmark I2I", {"mode": "nr", "subset": "I2I"}),
    ("--using_image_prompt 1 --benchmark I2I", {"mode": "fr", "subset": "I2I"}),
    ("--using_image_prompt 1", {"mode": "pr", "legacy_pr_batch": False}),
    ("--using_image_prompt 1 --benchmark T2I", {"mode": "pr", "subset": "T2I"}),
    ("--using_image_prompt 1 --backbone resnet18", {"mode": "pr", "legacy_pr_batch": True}),
    ("--using_prompt 0", {"baseline": True, "mode": "nr", "subset": "T2I", "log_info": "AIGCIQA2023",
                          "text_weights": None}),
    ("--using_prompt 1 --benchmark I2I --backbone vgg19", {"mode": "fr", "backbone": "vgg19",
                                                           "image_weights": "pretrained/vgg19-dcbb9e9d.pth"}),
    ("--set random_model=true --set size=tiny", {"random_model": True, "text_weights": None}),
    ("--image_weights x --text_weights y --set split=prompts", {"image_weights": "x", "text_weights": "y",
                                                                "split": "prompts"})])
def test_flags(trained, text, values):
    [(config, _)] = trained(text)
    assert {key: getattr(config, key) for key in values} == values


@pytest.mark.parametrize("text, message", [
    ("--using_image_promt 1", "unknown option '--using_image_promt' (did you mean '--using_image_prompt'?)"),
    ("--backbone vgg16", "--backbone=vgg16"), ("--using_image_prompt 2", "--using_image_prompt=2"),
    ("--using_prompt 1 --using_image_prompt 1", "give one of the two"), ("--benchmark AGIQA3K", "subset: 'AGIQA3K'"),
    ("--true_score MOS", "column: 'MOS'"), ("--lr fast", "lr: expected a number")])
def test_mistakes_in_flags(trained, text, message):
    with pytest.raises(UserError) as caught:
        trained(text)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_the_matrix_of_run_sh(trained, capsys):
    calls = trained("--out all --data d --num_epochs 2", "run_tier")
    assert [(config.mode, config.subset, config.column) for config, _ in calls] == [
        *(("fr", "I2I", column) for column in ("MOS_q", "MOS_a", "MOS_c")),
        *(("nr", "AIGIQA4K", column) for column in ("MOS_a", "MOS_c")),
        *((mode, subset, column) for mode, subset in (("pr", "AIGIQA4K"), ("nr", "T2I"), ("nr", "I2I"))
          for column in ("MOS_q", "MOS_a", "MOS_c"))]
    assert all(config.lr == 1e-5 and config.log_info == config.column for config, _ in calls)
    assert len({call["out"] for _, call in calls}) == 14 and calls[0][1]["out"] == "all/TIER-FR-I2I-MOS_q"
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "1 of 14: TIER-FR on I2I, MOS_q: all/TIER-FR-I2I-MOS_q"
    assert lines[15].split() == ["TIER-FR", "I2I", "MOS_q", "7", "0.5000", "0.2500", "1.0000", "0.7500", "9"]
    assert Path("all/results.csv").read_text().splitlines()[1] == "TIER-FR,I2I,MOS_q,7,0.5000,0.2500,,1.0000,0.7500,9"
    assert trained("--out all --data d --num_epochs 2", "run_tier") == []      # all of them are finished
    assert len(trained("--out all --data d --num_epochs 2 --all", "run_tier")) == 1
    assert len(trained("--out all --data d --num_epochs 3", "run_tier")) == 14


def test_the_matrix_of_the_baselines(trained):
    calls = trained("--baselines --data d", "run_tier")
    assert [(config.mode, config.subset) for config, _ in calls][::3] == [
        ("fr", "I2I"), ("pr", "AIGIQA4K"), ("nr", "AIGIQA4K")]
    assert len(calls) == 9 and all(config.baseline for config, _ in calls)
