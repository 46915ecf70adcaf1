"""What the settings of all tasks have in common: the arithmetic they train in, and runs of earlier versions."""
import pytest
import toy

from jittwin import cli
from jittwin import config as settings
from jittwin.backend import PRECISIONS
from jittwin.engine.task import RunConfig
from jittwin.engine.state import config_hash
from jittwin.errors import UserError
from jittwin.tasks import TASKS, load_task

# As version 0.1.0 wrote them into state.json, by task and settings.
EARLIER = {
    ("apf_gan", ""): "cb09a7395b4286fbf55630a09b0b18d30a30c96b1f83caf5b79c6c06e2b1dceb",
    ("apf_gan", "preset=tiny"): "81adacdbef18bc8739c0804737da2d5c6bac2ca30ace3ebd6c7613dc5b61d2ee",
    ("aesthetic", ""): "fd0bebbc01bdd6a097d11da3a766f78d93648fe545a860785ca4418f2d0062e6",
    ("aesthetic", "preset=tiny"): "636883b780b732e378373a09ea52e86cf5e189acb1b47fa92093ac2cd5a4c6c8",
    ("aesthetic", "precision=bfloat16"): "b70b3bf4eba148d58aeef0dfa559ffab7a80946b2c14d897fd0fec983a871af2"}


@pytest.mark.parametrize("task, setting", EARLIER)
def test_settings_of_runs_of_an_earlier_version_have_their_hash(task, setting):
    """Else such a run could not be resumed."""
    config = settings.resolve(load_task(task).Config, overrides=[setting] if setting else [])
    assert config_hash(config) == EARLIER[task, setting]


def test_a_setting_added_later_counts_where_it_is_not_the_default():
    hashes = [config_hash(RunConfig(precision=precision)) for precision in PRECISIONS]
    assert len(set(hashes)) == len(PRECISIONS)
    assert config_hash(RunConfig(keep_epochs=7, max_steps=3)) == hashes[0]


@pytest.mark.parametrize("task", TASKS)
def test_every_task_trains_in_float32_by_default(task):
    config = load_task(task).Config
    assert config().precision == "float32" in config.TRAINS_IN and set(config.TRAINS_IN) <= set(PRECISIONS)


@pytest.mark.parametrize("config, value, legal", [
    (load_task("apf_gan").Config, "bfloat16", "float32"),
    (load_task("aesthetic").Config, "float16", "float32, bfloat16"),
    (toy.Config, "bf16", "float32, bfloat16, float16")])
def test_an_arithmetic_that_a_task_does_not_train_in_is_named_with_the_legal_ones(config, value, legal):
    with pytest.raises(UserError) as error:
        settings.resolve(config, overrides=[f"precision={value}"])
    message = str(error.value)
    assert f"precision={value} cannot be trained with" in message and message.endswith(f"choose from {legal}")


def test_the_command_says_it_in_one_line(tmp_path, capsys):
    out = tmp_path / "run"
    assert cli.main(["train", "--backend", "torch", "--out", str(out), "--set", "precision=bfloat16"]) == 2
    assert capsys.readouterr().err.endswith("precision=bfloat16 cannot be trained with: choose from float32\n")
    assert not out.exists()
