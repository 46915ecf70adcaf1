"""Checkpoints: whole or absent, whatever happens while one is written."""
import errno
import itertools
import os
import shutil

import numpy as np
import pytest

from jittwin.checkpoints.store import Checkpoints
from jittwin.errors import UserError


def write(checkpoints, name, value=0.0, **state):
    arrays = {"w": np.full((2, 3), value, np.float32)}
    files = [("G", arrays), ("G.ema", arrays), ("optimizer", {"G/w/step": np.array([4])})]
    checkpoints.save(name, files, {"epoch": 1, **state}, {"model": "toy", "config": {"width": 3}})


@pytest.fixture
def checkpoints(tmp_path):
    return Checkpoints(tmp_path)


def test_what_is_saved_comes_back(checkpoints):
    write(checkpoints, "1", 0.5, seed=7)
    assert checkpoints.latest() == "1" and checkpoints.state("1") == {"epoch": 1, "seed": 7}
    np.testing.assert_array_equal(checkpoints.weights("1", "G")["w"], np.full((2, 3), 0.5, np.float32))
    assert checkpoints.weights("1", "optimizer")["G/w/step"] == [4]
    assert checkpoints.has("1", "G.ema") and not checkpoints.has("1", "E")


@pytest.mark.parametrize("content", ["", "{", "\x00"])
def test_a_damaged_state_is_one_line(checkpoints, content):
    write(checkpoints, "1", best={"emd": {"checkpoint": "1", "score": 0.5}})
    for path, read in ((checkpoints.folder / "1/state.json", lambda: checkpoints.state("1")),
                       (checkpoints.run / "best.json", checkpoints.bests)):
        path.write_text(content)
        with pytest.raises(UserError, match=rf"{path}: damaged \(.*go back with --continue EPOCH") as error:
            read()
        assert "\n" not in str(error.value)


def test_names_are_in_order_of_training(checkpoints):
    for name in ("10", "2", "2.7", "2.30", "1"):
        write(checkpoints, name)
        (checkpoints.folder / name).rename(checkpoints.folder / (name + "x"))
    for path in list(checkpoints.folder.iterdir()):
        path.rename(path.with_name(path.name[:-1]))
    assert checkpoints.names() == ["1", "2.7", "2.30", "2", "10"]


def test_retention_keeps_multiples_the_newest_and_the_best(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep_epochs=3)
    for epoch in range(1, 8):
        best = {"loss": {"checkpoint": "2", "score": 1.0}, "rank": {"checkpoint": "4", "score": 0.5}}
        best = {key: record for key, record in best.items() if int(record["checkpoint"]) <= epoch}
        write(checkpoints, f"{epoch}.5", best=best)
        write(checkpoints, str(epoch), best=best)
    assert checkpoints.names() == ["2", "3", "4", "6", "7"]
    assert checkpoints.best() == best["loss"] and checkpoints.bests() == best


def test_optimizer_state_stays_with_the_newest_alone(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep_epochs=3, keep_optimizers="newest")
    for epoch in range(1, 8):
        write(checkpoints, str(epoch), best={"loss": {"checkpoint": "1", "score": 1.0}})
        assert [name for name in checkpoints.names() if checkpoints.has(name, "optimizer")] == [str(epoch)]
    assert checkpoints.names() == ["1", "3", "6", "7"]
    for name in checkpoints.names():
        assert checkpoints.weights(name, "G").keys() == checkpoints.weights(name, "G.ema").keys() == {"w"}
        assert checkpoints.state(name)["epoch"] == 1
    checkpoints.check_optimizers("7")
    with pytest.raises(UserError, match="checkpoints/3: has no optimizer state.*keep_optimizers=newest.*: "
                                        "choose from 7$"):
        checkpoints.check_optimizers("3")


def test_optimizer_states_stay_by_default(checkpoints):
    for name in ("1", "2", "3"):
        write(checkpoints, name)
    assert all(checkpoints.has(name, "optimizer") for name in ("1", "2", "3"))


def test_unknown_checkpoint_names_the_legal_ones(checkpoints):
    with pytest.raises(UserError, match="no checkpoint '3': there is none"):
        checkpoints.state("3")
    write(checkpoints, "20")
    with pytest.raises(UserError, match="there is 20"):
        checkpoints.state("3")


@pytest.mark.parametrize("function", ["fsync", "replace", "mkdir", "rename"])
def test_disk_full_at_any_call_leaves_the_previous_checkpoint(checkpoints, monkeypatch, function):
    """The same name is saved again, so replacing a checkpoint is covered too."""
    original = getattr(os, function)
    write(checkpoints, "1", 1.0)
    for fatal in itertools.count(1):
        count = itertools.count(1)

        def full(*args, **kwargs):
            if next(count) == fatal:
                raise OSError(errno.ENOSPC, "No space left on device")
            return original(*args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(os, function, full)
            try:
                write(checkpoints, "1", 2.0)
                return
            except UserError as error:
                assert "disk is full; checkpoint 1 is intact" in str(error) and "\n" not in str(error)
        assert_whole(checkpoints)


def test_kill_at_any_system_call_leaves_a_whole_checkpoint(checkpoints):
    """A child process dies, without any clean-up, at the n-th fsync, rename or replace of a save."""
    write(checkpoints, "1", 1.0)
    for fatal in itertools.count(1):
        if (child := os.fork()) == 0:
            count = itertools.count(1)
            for name in ("fsync", "rename", "replace"):
                def dying(*args, original=getattr(os, name), **kwargs):
                    return os._exit(9) if next(count) == fatal else original(*args, **kwargs)
                setattr(os, name, dying)
            write(checkpoints, "1", 2.0)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        checkpoints.clean()
        assert_whole(checkpoints)
        if status == 0:
            assert fatal > 8
            return


def test_kill_at_any_system_call_of_a_save_that_thins_leaves_what_is_needed(tmp_path):
    """The child deletes checkpoint 3.5 and the optimizer states of 1, the best, and of 2; it dies at its n-th call."""
    calls = ("fsync", "rename", "replace", "unlink", "rmdir")
    best = {"loss": {"checkpoint": "1", "score": 1.0}}
    for name in ("1", "2", "3.5"):
        write(Checkpoints(tmp_path / "before", keep_epochs=2), name, 1.0, best=best)
    seen = set()
    for fatal in itertools.count(1):
        run = shutil.copytree(tmp_path / "before", tmp_path / str(fatal))
        thinning = Checkpoints(run, keep_epochs=2, keep_optimizers="newest")
        if (child := os.fork()) == 0:
            count = itertools.count(1)
            for name in calls:
                def dying(*args, original=getattr(os, name), **kwargs):
                    return os._exit(9) if next(count) == fatal else original(*args, **kwargs)
                setattr(os, name, dying)
            write(thinning, "3", 2.0, best=best)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        thinning.clean()
        latest = thinning.latest()
        assert thinning.bests() == best and latest in ("3.5", "3") and {"1", "2", latest} <= set(thinning.names())
        thinning.check_optimizers(latest)
        for name in thinning.names():
            assert (thinning.weights(name, "G")["w"] == (2.0 if name == "3" else 1.0)).all()
            assert thinning.state(name)["best"] == best
        seen.add((latest, *(name for name in thinning.names() if thinning.has(name, "optimizer"))))
        if latest == "3":
            thinning.thin()
            assert thinning.names() == ["1", "2", "3"]
            assert [name for name in thinning.names() if thinning.has(name, "optimizer")] == ["3"]
        if status == 0:
            break
    # Killed before the new one, between it and `latest`, and before, between and after the deletions.
    assert {("3.5", "1", "2", "3.5"), ("3.5", "1", "2", "3.5", "3"), ("3", "1", "2", "3.5", "3"),
            ("3", "2", "3.5", "3"), ("3", "3.5", "3"), ("3", "3")} <= seen


def test_what_a_kill_left_of_other_files_is_removed(checkpoints):
    (checkpoints.run / "samples").mkdir()
    kept = [checkpoints.run / name for name in ("best_lora.pth", ".hidden.tmp", "a.0123456789ab.tmp")]
    left = [checkpoints.run / name for name in (".best_lora.pth.0123456789ab.tmp", "samples/.1.png.ba9876543210.tmp")]
    for path in (*kept, *left):
        path.touch()
    checkpoints.clean()
    assert all(path.exists() for path in kept) and not any(path.exists() for path in left)


def assert_whole(checkpoints):
    assert checkpoints.latest() == "1"
    assert [path.name for path in checkpoints.folder.iterdir()] == ["1"]
    assert checkpoints.state("1") == {"epoch": 1}
    value = checkpoints.weights("1", "G")["w"]
    assert (value == 1.0).all() or (value == 2.0).all()
