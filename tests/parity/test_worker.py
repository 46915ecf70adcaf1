"""Workers: arrays survive the trip, and every way to fail is told."""
import numpy as np
import pytest
import worker_probes

from jittwin.errors import UserError
from parity.workers.oracle import Twins
from parity.workers.worker import Worker, WorkerError, reference, resolve

PROBES = "tests.parity.worker_probes"


@pytest.fixture
def worker():
    with Worker("torch") as worker:
        yield worker


def test_arrays_and_values_cross_both_ways(twins):
    x, label = np.arange(6, dtype=np.float32).reshape(2, 3), np.array([[1, 255]], np.uint8)
    for given, mark in ((x, label), (x.T, label.T)):      # .T: not contiguous
        for name, (arrays, values) in twins.both(f"{PROBES}:cube", {"x": given, "label": mark}).items():
            assert values == {"framework": name, "shape": list(given.shape)}
            assert arrays["y"].dtype == np.float32 and arrays["label"].dtype == np.uint8
            np.testing.assert_allclose(arrays["y"], given ** 3, rtol=1e-6)
            np.testing.assert_allclose(arrays["slope/x"], 3 * given ** 2, rtol=1e-6)
            np.testing.assert_array_equal(arrays["label"], mark)


def test_what_crosses_by_its_name_is_found_again(twins):
    for thing in (worker_probes.cube, Twins, Twins.compare):
        assert resolve(reference(thing)) is thing
    given = {"x": np.ones(1, np.float32), "label": np.uint8([1])}
    assert {values["framework"] for _, values in twins.both(worker_probes.cube, given).values()} == {"torch", "jittor"}


@pytest.mark.parametrize("thing", [lambda side, arrays: arrays, 1.5, object()])
def test_what_no_worker_could_import_is_refused(thing):
    with pytest.raises(TypeError, match="does not cross to a worker"):
        reference(thing)


def test_the_truth_is_computed_in_float64(twins):
    x = np.float32([[1 / 3, 2 / 3, 1e-3]])
    found = twins.compare(f"{PROBES}:cube", {"x": x, "label": np.uint8([0])})
    np.testing.assert_allclose(found.truth["y"], x.astype(np.float64) ** 3, rtol=1e-15)
    assert found.truth["y"].dtype == np.float64 and 0 < found.noise["y"] < 1e-6 and found.own["label"] == 0


def test_an_exception_is_told_with_its_place_and_the_worker_goes_on(twins):
    with pytest.raises(WorkerError, match=r"(?s)torch: .*worker_probes:wrong: .*add up") as caught:
        twins.torch.call(f"{PROBES}:wrong")
    assert "worker_probes.py" in str(caught.value)
    with pytest.raises(WorkerError, match="no attribute 'absent'"):
        twins.torch.call(f"{PROBES}:absent")
    assert twins.torch.call(f"{PROBES}:cube", {"x": np.ones(1, np.float32), "label": np.uint8([1])})


def test_an_answer_that_nobody_took_is_not_the_next_answer(twins):
    given = {"x": np.ones(1, np.float32), "label": np.uint8([1])}
    with pytest.raises(WorkerError, match="torch"):
        twins.both(f"{PROBES}:wrong")               # the other worker's answer stays unread
    assert {values["framework"] for _, values in twins.both(worker_probes.cube, given).values()} == {"torch", "jittor"}


def test_a_persons_mistake_stays_one(twins):
    with pytest.raises(UserError, match="^value=3: must be even$"):
        twins.jittor.call(f"{PROBES}:mistaken", value=3)


def test_a_killed_worker_leaves_its_signal_and_its_last_lines(worker):
    with pytest.raises(WorkerError) as caught:
        worker.call(f"{PROBES}:killed")
    first, *last = str(caught.value).splitlines()
    assert first == f"the torch worker ended by SIGKILL in {PROBES}:killed; its last lines:"
    assert {"about to die on stdout", "about to die on stderr"} <= set(last)


def test_a_worker_that_leaves_tells_its_status(worker):
    with pytest.raises(WorkerError, match="the torch worker ended with status 3 in"):
        worker.call(f"{PROBES}:leaving")
    with pytest.raises(WorkerError, match="ended with status 3"):       # and calls that come too late
        worker.call(f"{PROBES}:cube")


def test_a_worker_that_gives_no_answer_is_stopped(worker):
    with pytest.raises(WorkerError, match="gave no answer in 2 s in .*sleeping"):
        worker.call(f"{PROBES}:sleeping", timeout=2)
    assert worker.process.wait(10) < 0


def test_a_dead_worker_is_replaced():
    with Twins() as twins:
        with pytest.raises(WorkerError):
            twins.torch.call(f"{PROBES}:killed")
        assert twins.torch.call(f"{PROBES}:cube", {"x": np.ones(1, np.float32), "label": np.uint8([1])})
