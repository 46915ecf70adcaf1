import threading
import time

import numpy as np
import pytest

from jittwin.data.loader import Loader
from jittwin.errors import UserError


class Numbers:
    """Sample i holds its number and a draw; counts who asks for what."""

    def __init__(self, count, broken=None, delay=0.0):
        self.count, self.broken, self.delay = count, broken, delay
        self.taken, self.running, self.most = [], 0, 0
        self.lock = threading.Lock()

    def __len__(self):
        return self.count

    def get(self, index, draws):
        with self.lock:
            self.taken.append(index)
            self.running += 1
            self.most = max(self.most, self.running)
        time.sleep(self.delay * (1 + index % 3))
        with self.lock:
            self.running -= 1
        if index == self.broken:
            raise UserError(f"sample {index} is broken")
        label = np.full((2, 2), index, np.uint8)
        return {"image": draws.normal("image", (3, 2, 2)), "label": label, "name": f"n{index}"}


def names(batches):
    return [name for batch in batches for name in batch["name"]]


def test_reference_order_is_jittors_stream():
    loader = Loader(Numbers(11), 11, workers=2)
    stream = np.random.default_rng(1)  # as Jittor's Dataset draws it, epoch after epoch
    for epoch in (1, 2, 3):
        expected = stream.permutation(range(11))
        assert names(loader.epoch(epoch)) == [f"n{i}" for i in expected]
    second_phase = Loader(Numbers(11), 11, first_epoch=181)
    for epoch in (1, 3):
        assert (second_phase.order(180 + epoch) == loader.order(epoch)).all()


def test_philox_order_depends_on_seed_and_epoch():
    orders = {(seed, epoch): tuple(Loader(Numbers(20), 4, seed, shuffle="philox").order(epoch))
              for seed in (0, 1) for epoch in (1, 2)}
    assert len(set(orders.values())) == 4
    assert all(sorted(order) == list(range(20)) for order in orders.values())
    assert tuple(Loader(Numbers(20), 4, 1, shuffle="philox").order(2)) == orders[1, 2]
    assert Loader(Numbers(5), 1, shuffle=None).order(3).tolist() == [0, 1, 2, 3, 4]


def test_batches_are_stacked_and_the_rest_dropped_on_request():
    loader = Loader(Numbers(10), 4)
    batches = list(loader.epoch(1))
    assert len(loader) == len(batches) == 2
    assert batches[0]["image"].shape == (4, 3, 2, 2) and batches[0]["image"].dtype == np.float32
    assert batches[0]["label"].shape == (4, 2, 2) and batches[0]["label"].dtype == np.uint8
    assert [f"n{label[0, 0]}" for label in batches[1]["label"]] == batches[1]["name"]
    whole = Loader(Numbers(10), 4, drop_last=False)
    assert len(whole) == 3 and [len(batch["name"]) for batch in whole.epoch(1)] == [4, 4, 2]


def test_bytes_do_not_depend_on_workers_or_timing():
    runs = [list(Loader(Numbers(12, delay=delay), 3, seed=4, workers=workers).epoch(2))
            for workers, delay in ((1, 0), (4, 0.002))]
    for slow, fast in zip(*runs, strict=True):
        assert slow["name"] == fast["name"] and slow["image"].tobytes() == fast["image"].tobytes()
    name, first = runs[0][0]["name"][0], runs[0][0]["image"][0]
    for batch in Loader(Numbers(12), 3, seed=4).epoch(3):
        if name in batch["name"]:  # the same sample, another epoch: other draws
            assert (batch["image"][batch["name"].index(name)] != first).all()


def test_resuming_skips_without_decoding():
    full, data = list(Loader(Numbers(12), 3, seed=1).epoch(5)), Numbers(12)
    rest = list(Loader(data, 3, seed=1).epoch(5, start=2))
    assert names(rest) == names(full[2:])
    assert rest[0]["image"].tobytes() == full[2]["image"].tobytes()
    assert len(data.taken) == 6
    assert list(Loader(data, 3, seed=1).epoch(5, start=4)) == []


def test_workers_and_prefetch_are_bounded():
    data = Numbers(100, delay=0.001)
    batches = Loader(data, 2, workers=3).epoch(1)
    next(batches)
    time.sleep(0.1)
    assert data.most <= 3 and len(data.taken) <= 2 + 3 + 2
    batches.close()


def test_stopping_early_ends_the_threads():
    before = threading.active_count()
    data = Numbers(50, delay=0.002)
    for _ in Loader(data, 2, workers=4).epoch(1):
        break
    taken = len(data.taken)
    time.sleep(0.05)
    assert threading.active_count() == before and len(data.taken) == taken < 20


def test_failures_reach_the_consumer_unchanged():
    before, seen = threading.active_count(), []
    with pytest.raises(UserError, match="sample 7 is broken"):
        for batch in Loader(Numbers(10, broken=7), 2, workers=2, shuffle=None).epoch(1):
            seen += batch["name"]
    assert seen == [f"n{i}" for i in range(6)] and threading.active_count() == before


def test_mixed_sizes_and_bad_settings_are_explained():
    class Mixed(Numbers):
        def get(self, index, draws):
            return {"label": np.zeros((64, 64 * (1 + index)), np.uint8), "name": f"n{index}"}

    with pytest.raises(UserError, match="'n0' is 64x64 but 'n1' is 128x64.*batch_size=1"):
        list(Loader(Mixed(2), 2, shuffle=None).epoch(1))
    class Rated(Numbers):
        def get(self, index, draws):
            return {"pixels": np.zeros((3, 8, 4 + index), np.float32), "target": np.zeros(10), "name": f"n{index}"}

    with pytest.raises(UserError, match="'n0' is 4x8x3 but 'n1' is 5x8x3; a batch needs one size of pixels"):
        list(Loader(Rated(2), 2, shuffle=None).epoch(1))
    assert [batch["target"].shape for batch in Loader(Rated(2), 1, shuffle=None).epoch(1)] == [(1, 10)] * 2
    with pytest.raises(UserError, match="batch_size=5: must be 1..4"):
        Loader(Numbers(4), 5)
    assert len(Loader(Numbers(4), 5, drop_last=False)) == 1
    with pytest.raises(UserError, match="shuffle=random.*reference"):
        Loader(Numbers(4), 2, shuffle="random")
