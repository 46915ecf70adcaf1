"""A limit to the memory of networks: which metrics are measured together, and what is in memory meanwhile."""
import gc
import weakref

import numpy as np
import pytest
from PIL import Image

from jittwin import cli
from jittwin.commands import assess as command
from jittwin.data.pictures import ImageSet
from jittwin.errors import UserError
from jittwin.metrics.assessment import assess, gather
from jittwin.metrics.metric import Info, Scores
from jittwin.metrics.passes import passes, weights_of
from jittwin.predictors.towers import Tower, Towers

MB = 1_000_000


class Network:
    """A network that refers to itself, as modules of frameworks may, so that only the collector of garbage frees it."""

    def __init__(self, elements):
        self.elements, self.itself = elements, self


class Memory:
    """A backend that knows how many bytes of weights are alive, and how many at most were. config: elements."""

    name, device = "memory", "cpu"

    def __init__(self):
        self.alive, self.most, self.built = 0, 0, []

    def state_shapes(self, model, config):
        return {"w": (config,)}

    def build(self, model, config):
        network = Network(config)
        self.built.append(model)
        self.alive += 4 * config
        self.most = max(self.most, self.alive)
        weakref.finalize(network, self.freed, 4 * config)
        return network

    def freed(self, size):
        self.alive -= size

    def free_memory(self):
        """The collector of garbage does it."""

    def load_numpy(self, network, arrays, allow_unexpected):
        """Nothing to load."""

    def infer_only(self, network):
        """Nothing to set."""


class Sized:
    """A metric whose networks have these names and sizes in megabytes; its score is their sum and the picture's mean."""

    profile, notes, random, provenance = (), (), False, {}

    def __init__(self, name, backend, towers, **sizes):
        self.info = Info(name, "assess", "test", "higher", (0, 1000), "none")
        self.towers = [Tower(backend, each, size * MB // 4, {"w": np.broadcast_to(np.float32(0), size * MB // 4)}, towers,
                             each) for each, size in sizes.items()]

    def preprocess(self, image):
        return image.mean()

    def score(self, batch):
        total = sum(tower.network.elements for tower in self.towers) * 4 / MB
        return Scores([{self.info.name: total + float(mean), f"{self.info.name}_n": 1} for mean in batch.pixels])

    def describe(self, value):
        return ""


@pytest.fixture
def pool():
    return Memory(), Towers()


@pytest.fixture
def pictures(tmp_path):
    for value in (10, 20, 30):
        Image.new("RGB", (4, 4), (value,) * 3).save(tmp_path / f"{value}.png")
    (tmp_path / "bad.png").write_bytes(b"nothing")
    return tmp_path


@pytest.mark.parametrize("room, expected", [
    (100, ["abcd"]), (17, ["abcd"]), (16, ["abc", "d"]), (13, ["abd", "c"]), (12, ["abd", "c"]), (11, ["ab", "c", "d"]),
    (8, ["ad", "b", "c"]), (7, ["a", "b", "c", "d"]), (1, ["a", "b", "c", "d"])])
def test_metrics_share_a_pass_where_they_fit_and_shared_networks_count_once(pool, room, expected):
    """c shares nothing; d needs a's network and a little more."""
    metrics = [Sized("a", *pool, x=5), Sized("b", *pool, y=4), Sized("c", *pool, z=5), Sized("d", *pool, x=5, u=3)]
    found = passes(metrics, room * MB)
    assert ["".join(metric.info.name for metric in group) for group in found] == expected
    assert weights_of(metrics) == 17 * MB
    assert all(weights_of(group) <= room * MB for group in found if len(group) > 1)


@pytest.mark.parametrize("room", [17, 12, 8])
def test_memory_stays_under_the_limit_and_the_scores_are_the_same(pool, pictures, room):
    backend, towers = pool
    metrics = [Sized("a", *pool, x=5), Sized("b", *pool, y=4), Sized("c", *pool, z=5), Sized("d", *pool, x=5, u=3)]
    images = gather([str(pictures)])
    gc.collect()
    gc.disable()        # nothing but the release frees a network
    try:
        found = assess(images, metrics, 2, quiet=True, passes=passes(metrics, room * MB), between=towers.release,
                       thumbnails=True)
    finally:
        gc.enable()
    assert 0 < backend.most <= room * MB
    assert found.rows == [{"image": f"{value}.png", "width": 4, "height": 4, "a": 5.0 + value, "a_n": 1,
                           "b": 4.0 + value, "b_n": 1, "c": 5.0 + value, "c_n": 1, "d": 8.0 + value, "d_n": 1}
                          for value in (10, 20, 30)]
    assert list(found.rows[0]) == ["image", "width", "height", "a", "a_n", "b", "b_n", "c", "c_n", "d", "d_n"]
    assert len(found.failed) == 1 and "bad.png: cannot be read" in found.failed[0] and len(found.thumbnails) == 3
    if room == 17:
        assert backend.most == 17 * MB and sorted(backend.built) == ["u", "x", "y", "z"]


def test_a_picture_that_is_removed_between_two_passes_has_no_row(pool, pictures):
    metrics = [Sized("a", *pool, x=5), Sized("b", *pool, y=4)]
    found = assess(gather([str(pictures)]), metrics, quiet=True, passes=[[metric] for metric in metrics],
                   between=(pictures / "20.png").unlink)
    assert [row["image"] for row in found.rows] == ["10.png", "30.png"]
    assert [message.split(":")[0].split("/")[-1] for message in found.failed] == ["bad.png", "20.png"]


def test_building_networks_is_not_counted_as_time_of_scoring(pool, pictures, monkeypatch):
    """Each pass begins with it, before a picture is decoded."""
    backend, clock, build = pool[0], [0], Memory.build
    monkeypatch.setattr("jittwin.metrics.assessment.time.perf_counter", lambda: clock[0])

    def slow(self, model, config):
        clock[0] += 100
        return build(self, model, config)

    def decode(self, index, *admit):
        assert backend.built
        clock[0] += 1
        return np.zeros((4, 4, 3), np.uint8)

    monkeypatch.setattr(Memory, "build", slow)
    monkeypatch.setattr(ImageSet, "decode", decode)
    metrics = [Sized("a", *pool, x=5), Sized("b", *pool, y=4)]
    found = assess(gather([str(pictures)]), metrics, quiet=True, workers=1, passes=[[metric] for metric in metrics])
    assert found.seconds == 2 * 4 and clock[0] == 208


def test_nothing_is_left_where_all_pictures_are_removed_between_two_passes(pool, pictures):
    def remove():
        for path in pictures.glob("*.png"):
            path.unlink()

    metrics = [Sized("a", *pool, x=5), Sized("b", *pool, y=4)]
    with pytest.raises(UserError, match="bad.png: cannot be read .*; none of 4 pictures could be scored"):
        assess(gather([str(pictures)]), metrics, quiet=True, passes=[[metric] for metric in metrics], between=remove)


def test_without_a_limit_each_picture_is_decoded_once(pool, pictures, monkeypatch):
    decoded, decode = [], ImageSet.decode
    monkeypatch.setattr(ImageSet, "decode", lambda self, index, *admit: decoded.append(index) or decode(self, index))
    metrics = [Sized("a", *pool, x=5), Sized("b", *pool, y=4)]
    assess(gather([str(pictures)]), metrics, quiet=True)
    assert sorted(decoded) == [0, 1, 2, 3]
    assess(gather([str(pictures)]), metrics, quiet=True, passes=[[metric] for metric in metrics])
    assert len(decoded) == 3 * 4


def arguments(*more):
    return cli.JITTWIN.parser_of("assess").parse_args(["x", "--batch", "2", *more])


def test_the_limit_counts_the_program_and_its_pictures(pool, capsys):
    metrics = [Sized("a", *pool, x=500), Sized("b", *pool, y=400), Sized("c", *pool, z=500)]
    taken = 300 * MB
    assert command.groups_within(arguments("--memory-limit", "1.9"), metrics, taken) == [metrics]
    assert capsys.readouterr().err == ""
    groups = command.groups_within(arguments("--memory-limit", "1.5"), metrics, taken)
    assert groups == [metrics[:2], metrics[2:]]
    assert capsys.readouterr().err == (
        "--memory-limit 1.5: the weights of all metrics need 1.40 GB, so the pictures are read 2 times: for a and b "
        "(0.90 GB), then c (0.50 GB)\n")
    with pytest.raises(UserError, match="--memory-limit 0.9: a needs 0.50 GB for its weights, beside 0.50 GB for the "
                       "program and --batch 2 pictures; give at least 1, or a smaller --batch"):
        command.groups_within(arguments("--memory-limit", "0.9"), metrics, taken)


@pytest.mark.parametrize("limit", ["0", "-1", "nan"])
def test_no_limit(limit, capsys, pictures):
    assert cli.main(["assess", str(pictures), "--random-weights", "--memory-limit", limit]) == 2
    assert f"--memory-limit {limit}: must be greater than 0" in capsys.readouterr().err
