"""TIER's settings, its log in the original's form, and what its results say."""
import json
import math

import pytest

from jittwin import config as settings
from jittwin.data.synthetic.vocabulary import built_in_tokenizer
from jittwin.errors import UserError
from jittwin.tasks import tier_files as files
from jittwin.tasks.tier import Config
from jittwin.weights import write_content


def test_the_defaults_are_the_official_ones():
    config = settings.resolve(Config, "reference")
    assert (config.lr, config.weight_decay, config.optimizer, config.batch_size, config.test_batch_size, config.epochs,
            config.backbone, config.column, config.subset, config.mode, config.seed) == (
        1e-5, 1e-5, "adam", 8, 20, 100, "vit", "MOS_q", "AIGIQA4K", "nr", 1)
    assert (config.split, config.normalisation, config.legacy_pr_batch, config.accumulation, config.clip) == (
        "rows", "imagenet", False, 1, None)


@pytest.mark.parametrize("given, message", [
    ({"mode": "fr"}, "mode=fr needs an image prompt for every picture, which subset=AIGIQA4K lacks: set subset=I2I"),
    ({"legacy_pr_batch": True}, "legacy_pr_batch=true is for mode=pr, not mode=nr"),
    ({"baseline": True, "text_weights": "bert"}, "text_weights=bert is for a text encoder, which baseline=true"),
    ({"lr": math.inf}, "lr=inf must not be negative or infinite"), ({"epochs": 0}, "epochs=0 must be at least 1"),
    ({"side": 16}, "side=16 must be at least 32 pixels"),
    ({"precision": "float16"}, "precision=float16 cannot be trained with"),
    ({"backbone": "resnet34"}, "backbone: 'resnet34' is not legal"), ({"column": "MOS"}, "column: 'MOS' is not legal"),
    ({"padding": "long"}, "padding: 'long' is not legal")])
def test_mistakes_in_settings(given, message):
    with pytest.raises(UserError) as caught:
        settings.resolve(Config, overrides=[f"{key}={value}" for key, value in given.items()])
    assert message in str(caught.value) and "\n" not in str(caught.value)


# Of three epochs, the second is the best by SRCC and the third by PLCC; in the first nothing is defined.
HISTORY = [
    {"epoch": 1, "srcc": None, "plcc": None, "krcc": None, "rmse": 3.0, "train/srcc": -0.25, "train/plcc": 0.125},
    {"epoch": 2, "srcc": 0.5, "plcc": 0.25, "krcc": 0.375, "rmse": 1.0, "train/srcc": 0.5, "train/plcc": 0.5},
    {"epoch": 3, "srcc": 0.5, "plcc": 0.75, "krcc": 0.25, "rmse": 2.0, "train/srcc": 0.75, "train/plcc": 0.5}]
LOG = """------------------------------MOS_q------------------------------
Epoch: 0
train spearmanr_correlation: -0.25, pearsonr_correlation: 0.125
test spearmanr_correlation: nan, pearsonr_correlation: nan
 EPOCH_best: 0, SRCC_best: 0.000000, PLCC_best: 0.000000
Epoch: 1
train spearmanr_correlation: 0.5, pearsonr_correlation: 0.5
test spearmanr_correlation: 0.5, pearsonr_correlation: 0.25
##### New best correlation #####
 EPOCH_best: 1, SRCC_best: 0.500000, PLCC_best: 0.250000
Epoch: 2
train spearmanr_correlation: 0.75, pearsonr_correlation: 0.5
test spearmanr_correlation: 0.5, pearsonr_correlation: 0.75
 EPOCH_best: 1, SRCC_best: 0.500000, PLCC_best: 0.750000
"""


def test_the_log_of_the_original():
    lines = files.log_lines(Config(log_info="MOS_q"), HISTORY)
    assert "".join(f"{line}\n" for line in lines) == LOG
    baseline = list(files.log_lines(Config(log_info="x", baseline=True, mode="pr"), HISTORY[:1]))
    assert baseline[1:4] == ["log_info: x", "lr: 1e-05", "weight_decay: 1e-05"]
    assert baseline[-5:-3] == ["benchmark: AIGIQA4K", "Epoch: 0"] and "using_prompt: 1" in baseline


def test_a_run_that_another_program_began():
    begun = [{"epoch": 1, "srcc": 0.75}, *HISTORY[1:]]
    lines = list(files.log_lines(Config(), begun))
    assert lines[1] == "Epoch: 1" and lines[-1] == " EPOCH_best: 0, SRCC_best: 0.750000, PLCC_best: 0.750000"
    assert not any("New best" in line for line in lines)


def test_the_selected_epoch_and_the_maxima_are_told_apart():
    found = files.results(HISTORY, {"checkpoint": "2", "score": 0.5})
    assert found["selected"] == HISTORY[1]
    assert found["maxima"] == {"srcc": {"value": 0.5, "epoch": 2}, "plcc": {"value": 0.75, "epoch": 3},
                               "krcc": {"value": 0.375, "epoch": 2}, "rmse": {"value": 1.0, "epoch": 2}}
    assert files.results(HISTORY[:1], {"checkpoint": None, "score": 0.0}) == {
        "selected": None, "maxima": {"rmse": {"value": 3.0, "epoch": 1}}}


@pytest.mark.parametrize("content", [
    {"epoch": 1}, [1.0], {"epoch": 0, "rho_best": 0.1, "encoder": {}, "optimizer": {}},
    {"epoch": 0, "rho_best": 0.1, "encoder": {}, "regressor": {}, "optimizer": {"param_groups": [{"params": [0]}]}}])
def test_what_is_no_checkpoint(content, tmp_path):
    write_content(tmp_path / "x.pt", content)
    with pytest.raises(UserError, match="x.pt: not a checkpoint of TIER's training .*give its best_model.pt") as caught:
        files.read_other(tmp_path / "x.pt")
    assert "\n" not in str(caught.value)


def test_the_built_in_vocabulary():
    tokenizer = built_in_tokenizer()
    vocabulary = json.loads(tokenizer.splitter.to_str())["model"]["vocab"]
    names = {number: token for token, number in vocabulary.items()}
    tokens = tokenizer(["A bright view of a place in blue, wide angle", "zebra"])
    assert [names[number] for number in tokens.ids[0]] == [
        "[CLS]", "a", "bright", "view", "of", "a", "place", "in", "blue", ",", "wide", "angle", "[SEP]"]
    assert [names[number] for number in tokens.ids[1][:7]] == ["[CLS]", "z", "##e", "##b", "##r", "##a", "[SEP]"]
    assert len(tokenizer) == len(vocabulary)
