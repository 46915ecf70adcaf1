"""The training loop on a NumPy backend: accumulation, resumption bit for bit, kills, interrupts."""
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import toy

from jittwin.checkpoints.store import Checkpoints
from jittwin.engine.state import OtherCheckpoint
from jittwin.errors import UserError


def log_of(run, measured=False):
    """Lines of losses, or those of held-out measures."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if any(key.startswith("held_out") for key in line) == measured]


def final_state(run):
    """Every byte that a resumed run must share with an uninterrupted one."""
    checkpoints = Checkpoints(run)
    latest = checkpoints.folder / checkpoints.latest()
    return {path.name: path.read_bytes() for path in [*latest.iterdir(), run / "log.jsonl", run / "best.json"]}


def files_of(run):
    """Every file of every checkpoint."""
    folder = Checkpoints(run).folder
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run: 6 epochs of 5 steps in two phases."""
    run = tmp_path_factory.mktemp("whole")
    assert toy.trainer(run).train() == 0
    return run


def test_run_directory(whole):
    checkpoints = Checkpoints(whole)
    assert checkpoints.latest() == "6" and checkpoints.names() == ["1", "2", "3", "4", "5", "6"]
    assert {path.name for path in (checkpoints.folder / "6").iterdir()} == {
        "W.safetensors", "W.ema.safetensors", "B.safetensors", "optimizer.safetensors", "state.json"}
    state = checkpoints.state("6")
    assert (state["epoch"], state["step"], state["global_step"], state["epoch_done"]) == (6, 5, 30, True)
    assert (state["phase"], state["loader_position"], state["seed"], state["task"]) == ("second", 5, 3, "toy")
    assert sorted(path.name for path in (whole / "samples").iterdir()) == [f"{e}.png" for e in range(1, 7)]
    assert (whole / "config.yaml").exists() and list(whole.glob("events.out.tfevents.*"))
    scores = [np.abs(checkpoints.weights(n, "W")["w"] - [1, -2, 3]).max() for n in checkpoints.names()]
    best = {"checkpoint": checkpoints.names()[int(np.argmin(scores))], "score": min(scores)}
    assert checkpoints.best() == best and list(checkpoints.bests()) == ["error", "size"]
    sizes = [np.abs(checkpoints.weights(n, "W")["w"]).sum() for n in checkpoints.names()]
    assert checkpoints.bests()["size"]["score"] == max(sizes)


def test_log_has_every_second_step_and_no_times(whole):
    log = log_of(whole)
    assert [entry["step"] for entry in log] == list(range(0, 30, 2))
    assert set(log[0]) == {"phase", "epoch", "step", "mse"}
    assert log[-1]["mse"] < 0.1 * log[0]["mse"]
    measured = log_of(whole, measured=True)
    assert [entry["step"] for entry in measured] == [5, 10, 15, 20, 25, 30]
    assert list(measured[0])[3:] == ["held_out/error", "held_out/size", "held_out/nothing"]
    assert measured[0]["held_out/nothing"] is None
    assert Checkpoints(whole).state("1")["measures"] == {key[9:]: measured[0][key] for key in list(measured[0])[3:]}


def test_phases_and_epochs_are_announced_once(tmp_path):
    trainer = toy.trainer(tmp_path)
    trainer.train()
    assert trainer.task.calls == ["first", 1, 2, 3, "second", 4, 5, 6]


@pytest.mark.parametrize("stop", [1, 2, 4, 5, 13, 15, 17, 20, 29])
def test_resumed_equals_uninterrupted(whole, tmp_path, stop):
    """Stops inside epochs, at their ends, at the end of a phase and between log lines."""
    assert toy.trainer(tmp_path, f"max_steps={stop}").train() == 0
    start = Checkpoints(tmp_path).latest()
    trainer = toy.trainer(tmp_path)
    assert trainer.train(start) == 0
    assert final_state(tmp_path) == final_state(whole)
    assert trainer.task.loaders.skipped[0] == stop % 5


THINNED = ("keep_epochs=4", "keep_optimizers=newest")


@pytest.fixture(scope="module")
def thinned(tmp_path_factory):
    """An uninterrupted run that keeps few checkpoints."""
    run = tmp_path_factory.mktemp("thinned")
    assert toy.trainer(run, *THINNED).train() == 0
    return run


def test_thinning_changes_no_number(whole, thinned):
    checkpoints = Checkpoints(thinned)
    best = {record["checkpoint"] for record in checkpoints.bests().values()}
    assert set(checkpoints.names()) == {"4", "6"} | best
    assert final_state(thinned) == final_state(whole)
    every, kept = files_of(whole), files_of(thinned)
    assert all(every[name] == content for name, content in kept.items())
    assert [name for name in kept if name.endswith("optimizer.safetensors")] == ["6/optimizer.safetensors"]


@pytest.mark.parametrize("killed", [1, 3, 11, 18])
def test_a_kill_between_a_checkpoint_and_thinning_loses_nothing(thinned, tmp_path, monkeypatch, killed):
    """At one of the 18 checkpoints of a run; resumed, it keeps the same files as an uninterrupted one."""
    count, original = itertools.count(1), Checkpoints.thin

    def thin(self):
        if next(count) == killed:
            raise KeyboardInterrupt
        original(self)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "thin", thin)
        with pytest.raises(KeyboardInterrupt):
            toy.trainer(tmp_path, *THINNED).train()
    assert toy.trainer(tmp_path, *THINNED).train(Checkpoints(tmp_path).latest()) == 0
    assert final_state(tmp_path) == final_state(thinned) and files_of(tmp_path) == files_of(thinned)


def test_going_back_needs_optimizer_state(thinned, tmp_path):
    """Refused in one line before anything is written; a run that kept all goes back, and is thinned from then on."""
    before = files_of(thinned), final_state(thinned)
    with pytest.raises(UserError, match="checkpoints/4: has no optimizer state.*choose from 6$"):
        toy.trainer(thinned, *THINNED).train("4")
    assert (files_of(thinned), final_state(thinned)) == before and Checkpoints(thinned).latest() == "6"
    toy.trainer(tmp_path).train()
    toy.trainer(tmp_path, *THINNED).train("2")
    assert final_state(tmp_path) == final_state(thinned) and files_of(tmp_path) == files_of(thinned)


def test_stopping_at_the_end_of_an_epoch_that_is_not_due_adds_nothing(tmp_path):
    """With checkpoints every second epoch, one that an interruption makes after the first is not measured."""
    first, second = tmp_path / "a", tmp_path / "b"
    toy.trainer(first, "save_epochs=2", "save_every=0").train()
    toy.trainer(second, "save_epochs=2", "save_every=0", "max_steps=5").train()
    assert Checkpoints(second).state("1")["measures"] == {}
    toy.trainer(second, "save_epochs=2", "save_every=0").train("1")
    assert final_state(first) == final_state(second)
    assert [entry["epoch"] for entry in log_of(first, measured=True)] == [2, 4, 5, 6]


def test_going_back_to_an_epoch_repeats_it(whole, tmp_path):
    toy.trainer(tmp_path).train()
    toy.trainer(tmp_path).train("2")
    assert final_state(tmp_path) == final_state(whole)


def test_a_finished_run_resumes_to_nothing(tmp_path):
    toy.trainer(tmp_path, "max_steps=7").train()
    trainer = toy.trainer(tmp_path, "max_steps=7")
    before = final_state(tmp_path)
    assert trainer.train(Checkpoints(tmp_path).latest()) == 0
    assert final_state(tmp_path) == before and trainer.task.loaders.skipped == []


def test_accumulated_half_batches_make_the_same_step(tmp_path):
    """Two batches of 2 give the mean gradient of the four samples."""
    trainer = toy.trainer(tmp_path, "accumulation=2", "ema=0")
    trainer.enter(trainer.task.phases[0])
    trainer.task.begin_epoch(1)
    batches = list(toy.Loader(3).epoch(1))[:2]
    terms = trainer.step(iter(batches))
    gradient = np.mean([2 * b["x"].T @ (-b["y"]) / 2 for b in batches], axis=0)
    np.testing.assert_allclose(trainer.task.modules["W"]["w"], -0.05 * gradient, atol=5e-3)
    assert trainer.read(terms)["mse"] == pytest.approx(np.mean([t["mse"] for t in terms]))


def test_accumulation_drops_the_incomplete_step_and_resumes(tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    toy.trainer(first, "accumulation=2").train()
    toy.trainer(second, "accumulation=2", "max_steps=3").train()
    state = Checkpoints(second).state("2.1")
    assert (state["global_step"], state["loader_position"]) == (3, 2)
    toy.trainer(second, "accumulation=2").train("2.1")
    assert Checkpoints(first).state("6")["global_step"] == 12
    assert final_state(first) == final_state(second)


def test_left_over_batches_make_a_weaker_step_where_the_task_wants_it(tmp_path):
    """5 batches in steps of 2: the third has one, whose gradient still counts half."""
    def run(folder, *limit):
        trainer = toy.trainer(folder, "accumulation=2", *limit)
        trainer.task.partial_steps = True
        return trainer

    shares, whole = [], run(tmp_path / "a")
    original = whole.task.train_step
    whole.task.train_step = lambda batch, context: (shares.append((context.accumulate, context.loss_factor)),
                                                    original(batch, context))[1]
    whole.train()
    assert shares[:5] == [(True, 0.5), (False, 0.5), (True, 0.5), (False, 0.5), (False, 0.5)]
    assert Checkpoints(tmp_path / "a").state("6")["global_step"] == 18
    for stop in (2, 3):         # before the short step, and after it
        run(tmp_path / f"b{stop}", f"max_steps={stop}").train()
        run(tmp_path / f"b{stop}").train(Checkpoints(tmp_path / f"b{stop}").latest())
        assert final_state(tmp_path / f"b{stop}") == final_state(tmp_path / "a")


def test_frozen_weights_are_in_no_checkpoint_and_need_not_be(tmp_path):
    def run(*limit):
        trainer = toy.trainer(tmp_path, "ema=0.9", *limit)
        trainer.task.frozen = ("b",)
        return trainer

    run("max_steps=18").train()
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.weights("4.3", "B") == {} and "w" in checkpoints.weights("4.3", "W.ema")
    resumed = run("max_steps=18")
    assert resumed.train("4.3") == 0 and resumed.task.modules["B"]["b"] == 0


def test_the_files_of_a_run_are_there_before_its_first_step(tmp_path):
    """So that a checkpoint inside the first epoch has all that its use needs."""
    def begun(steps, start=None):
        trainer, seen = toy.trainer(tmp_path, f"max_steps={steps}"), []
        trainer.task.run_begun = lambda: seen.append(trainer.at.global_step)
        trainer.train(start)
        return seen

    assert begun(1) == [0] and begun(2, "1.1") == [1]


@pytest.mark.parametrize("stage", ["before", "after"])
def test_a_kill_around_the_files_of_an_epoch_loses_none_of_them(whole, tmp_path, monkeypatch, stage):
    """Between the checkpoint and what is derived from it: best.json and the task's own files."""
    def run():
        trainer = toy.trainer(tmp_path)
        trainer.task.epoch_saved = lambda name, state: (tmp_path / "best.txt").write_text(
            f"{name} {state['best']}")
        return trainer

    states = {name: Checkpoints(whole).state(name) for name in Checkpoints(whole).names()}
    last = next(n for n in "3456" if states[n]["best"] != states[str(int(n) - 1)]["best"])

    def killed(self, name, state):
        if name == last:
            if stage == "after":
                (self.run / "latest").write_text(f"{last}\n")
            raise KeyboardInterrupt
        original(self, name, state)

    original = Checkpoints.point_to
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "point_to", killed)
        with pytest.raises(KeyboardInterrupt):
            run().train()
    assert Checkpoints(tmp_path).bests() == states[str(int(last) - 1)]["best"]
    resumed = run()
    resumed.config = replace(resumed.config, max_steps=5 * int(last))
    resumed.train(Checkpoints(tmp_path).latest())
    assert Checkpoints(tmp_path).bests() == states[last]["best"]
    assert (tmp_path / "best.txt").read_text() == f"{last} {states[last]['best']}"


def test_going_back_forgets_what_was_best_since(whole, tmp_path):
    toy.trainer(tmp_path).train()
    toy.trainer(tmp_path, "max_steps=10").train("2")
    assert Checkpoints(tmp_path).bests() == Checkpoints(whole).state("2")["best"]


def test_a_run_goes_on_only_with_the_inputs_it_had(tmp_path):
    def run(digest, *limit):
        trainer = toy.trainer(tmp_path, *limit)
        trainer.task.inputs = lambda: {"tower": digest}
        return trainer

    run("a" * 64, "max_steps=5").train()
    with pytest.raises(UserError, match="the tower of this run had the hash a{16}, now it is b{16}"):
        run("b" * 64).train("1")


def test_a_checkpoint_of_another_program_is_adopted(whole, tmp_path):
    """Given what the run's own checkpoint 2 holds, training goes on as that run did."""
    checkpoints = Checkpoints(whole)
    optimizer = {key.removeprefix("W/"): value for key, value in checkpoints.weights("2", "optimizer").items()}
    state = checkpoints.state("2")
    found = OtherCheckpoint(Path("other.pth"), 2, 10, {"W": checkpoints.weights("2", "W")}, {"W": optimizer},
                            state["measures"], {"error": state["measures"]["error"], "size": 99.0}, {"lr": 0.05}, {})
    name = toy.trainer(tmp_path, "ema=0").adopt(found)
    assert name == "2" and Checkpoints(tmp_path).bests() == {
        "error": {"checkpoint": "2", "score": state["measures"]["error"]}, "size": {"checkpoint": None, "score": 99.0}}
    toy.trainer(tmp_path, "ema=0").train(name)
    for stem in ("W", "B", "optimizer"):
        for key, value in checkpoints.weights("6", stem).items():
            np.testing.assert_array_equal(Checkpoints(tmp_path).weights("6", stem)[key], value)
    misfit = replace(found, modules={"W": {"v": np.zeros(3)}})
    with pytest.raises(UserError, match="other.pth, W: the weights do not fit: v"):
        toy.trainer(tmp_path / "new").adopt(misfit)
    with pytest.raises(UserError, match="other.pth is of epoch 9"):
        toy.trainer(tmp_path / "new").adopt(replace(found, epoch=9))
    with pytest.raises(UserError, match="other.pth: was trained with lr=0.1, this run has lr=0.05: set lr=0.1"):
        toy.trainer(tmp_path / "new").adopt(replace(found, settings={"lr": 0.1}))
    with pytest.raises(UserError, match="other.pth: the tower of this run had the hash a{16}, now it is absent"):
        toy.trainer(tmp_path / "new").adopt(replace(found, inputs={"tower": "a" * 64}))
    assert not Checkpoints(tmp_path / "new").names()


def test_measures_that_another_program_took_in_another_way_are_taken_again(whole, tmp_path):
    """Whatever its best was, it is compared with none of ours."""
    checkpoints = Checkpoints(whole)
    optimizer = {key.removeprefix("W/"): value for key, value in checkpoints.weights("2", "optimizer").items()}
    state = checkpoints.state("2")
    found = OtherCheckpoint(Path("other.pth"), 2, 10, {"W": checkpoints.weights("2", "W")}, {"W": optimizer},
                            {"error": 1e-9}, {"error": 1e-9, "size": 1e9}, {}, {}, comparable=False)
    trainer = toy.trainer(tmp_path, "ema=0")
    name = trainer.adopt(found)
    measures = Checkpoints(tmp_path).state(name)["measures"]
    assert measures.keys() == state["measures"].keys() and measures["error"] > 1e-6
    assert Checkpoints(tmp_path).bests() == {key: {"checkpoint": "2", "score": measures[key]}
                                             for key in trainer.task.best}
    assert "other.pth: its program takes measures in another way" in trainer.task.notes[-1]
    toy.trainer(tmp_path, "ema=0").train(name)
    scores = [Checkpoints(tmp_path).state(each)["measures"]["error"] for each in Checkpoints(tmp_path).names()]
    assert Checkpoints(tmp_path).bests()["error"]["score"] == min(scores)


def test_fewer_batches_than_accumulation(tmp_path):
    with pytest.raises(UserError, match="5 batches, fewer than accumulation=6"):
        toy.trainer(tmp_path, "accumulation=6").train()


def test_losses_are_read_only_when_logged_or_saved(tmp_path):
    trainer = toy.trainer(tmp_path, "log_every=7", "save_every=0", "save_epochs=6", "ema=0", "max_steps=14")
    trainer.train()
    assert trainer.backend.reads == 3     # steps 0 and 7, and the last


def test_a_loss_that_is_not_finite_stops_before_it_is_saved(tmp_path):
    with pytest.raises(UserError) as error:
        toy.trainer(tmp_path, "poison_step=7").train()
    message = str(error.value)
    assert "loss 'mse' is nan at step 7 (epoch 2)" in message and "checkpoint 2.1 is intact" in message
    assert Checkpoints(tmp_path).latest() == "2.1"


def test_sigint_saves_and_ends_with_130(whole, tmp_path):
    trainer = toy.trainer(tmp_path)
    original, count = trainer.task.train_step, itertools.count(1)

    def interrupted_at_eight(batch, context):
        if next(count) == 8:
            os.kill(os.getpid(), signal.SIGINT)
        return original(batch, context)

    trainer.task.train_step = interrupted_at_eight
    before = signal.getsignal(signal.SIGINT)
    assert trainer.train() == 130
    assert signal.getsignal(signal.SIGINT) is before
    assert Checkpoints(tmp_path).latest() == "2.3"
    toy.trainer(tmp_path).train("2.3")
    assert final_state(tmp_path) == final_state(whole)


def test_sigkill_then_resume_equals_uninterrupted(thinned, tmp_path):
    """Killed wherever it happens to be, three times, until it has run to its end, thinning as it goes."""
    def start(run, *extra):
        return subprocess.Popen([sys.executable, toy.__file__, run, *THINNED, *extra], stderr=subprocess.DEVNULL,
                                env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])})

    run = tmp_path / "killed"
    process, seen = start(run), None
    for _ in range(3):
        while process.poll() is None and Checkpoints(run).latest() == seen:
            time.sleep(0.005)
        seen = Checkpoints(run).latest()
        process.kill()
        process.wait()
        process = start(run, "resume")
    assert process.wait(60) == 0
    assert final_state(run) == final_state(thinned) and files_of(run) == files_of(thinned)


@pytest.mark.parametrize("setting, message", [
    ("log_every=0", "log_every=0 must be at least 1"), ("accumulation=-1", "accumulation=-1 must be"),
    ("save_every=-2", "save_every=-2 must not be negative"), ("max_steps=-1", "max_steps=-1 must not be"),
    ("clip=0", "clip=0.0 must be above 0"), ("clip=-1", "clip=-1.0 must be"), ("clip=nan", "clip=nan must be"),
    ("ema=1", "ema=1.0 must be at least 0 and below 1")])
def test_settings_that_make_no_sense(tmp_path, setting, message):
    with pytest.raises(UserError, match=message):
        toy.trainer(tmp_path, setting)


def test_what_a_task_notes_is_shown_when_training_starts(tmp_path, capsys):
    trainer = toy.trainer(tmp_path, "max_steps=1")
    trainer.task.notes = ("two rows are not used",)
    trainer.train()
    assert capsys.readouterr().err.startswith("two rows are not used\n")


class Remembering(toy.Task):
    """Remembers the sum of the inputs of an epoch, and never has a size that is large enough to be the best."""

    least = {"size": 1e9}
    total = 0.0

    def begin_epoch(self, epoch):
        super().begin_epoch(epoch)
        self.total = 0.0

    def train_step(self, batch, context):
        self.total += float(batch["x"].sum())
        return super().train_step(batch, context)

    def evaluate(self, context):
        return {**super().evaluate(context), "train/total": self.total}

    def progress(self):
        return {"total": self.total}

    def restore_progress(self, progress):
        self.total = progress.get("total", 0.0)

    @property
    def closing(self):
        return (f"the total is {self.total:.3f}",)


def test_what_a_task_remembers_outlives_a_stop(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(toy, "Task", Remembering)
    for name, stops in (("whole", [30]), ("stopped", [13, 30])):
        for stop in stops:
            toy.trainer(tmp_path / name, f"max_steps={stop}").train(Checkpoints(tmp_path / name).latest())
    whole, stopped = (final_state(tmp_path / name) for name in ("whole", "stopped"))
    assert whole == stopped
    last = log_of(tmp_path / "whole", measured=True)[-1]
    total = sum(float(batch["x"].sum()) for batch in toy.Loader(3).epoch(6))
    assert last["train/total"] == pytest.approx(total) and "held_out/error" in last
    best = json.loads((tmp_path / "whole/best.json").read_text())
    assert best["size"] == {"checkpoint": None, "score": 1e9} and best["error"]["checkpoint"] is not None
    lines = capsys.readouterr().err.splitlines()
    assert lines.index(f"the total is {total:.3f}") < lines.index(next(line for line in lines if "finished" in line))


def test_a_checkpoint_that_does_not_fit_is_named(tmp_path):
    toy.trainer(tmp_path, "max_steps=5").train()
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save("2", [("W", {"v": np.zeros(3)}), ("optimizer", {})], checkpoints.state("1"), {})
    with pytest.raises(UserError, match="checkpoints/2, W: the weights do not fit: v"):
        toy.trainer(tmp_path).train("2")


def test_checkpoint_outside_the_phases(tmp_path, whole):
    trainer = toy.trainer(whole)
    trainer.task.phases = trainer.task.phases[:1]
    with pytest.raises(UserError, match="epoch 5, but these settings train epochs 1 to 3"):
        trainer.restore("5")
