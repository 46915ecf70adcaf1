"""Statistics and the files they are kept in."""
import numpy as np
import pytest

from jittwin.errors import UserError
from jittwin.metrics.fid import cache
from jittwin.metrics.fid.moments import Moments
from jittwin.metrics.fid.statistics import Statistics, fid, read_statistics, write_statistics


def statistics(n, d=12, seed=0, keep=True, **provenance):
    rows = np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)
    moments = Moments()
    moments.add(rows)
    return Statistics(moments.mean, moments.covariance, n, rows if keep else None, None, provenance)


def test_the_small_sample_form_gives_the_same_distance():
    large = statistics(40, seed=1, keep=False)
    few, bare = statistics(9), statistics(9, keep=False)
    assert fid(few, large) == pytest.approx(fid(bare, large), rel=1e-9)
    assert fid(few, large) == pytest.approx(fid(large, few), rel=1e-9)


def test_a_file_keeps_everything(tmp_path):
    before = statistics(9, mode="clean", weights="abc", random_weights=False)
    write_statistics(tmp_path / "a.npz", before)
    after = read_statistics(tmp_path / "a.npz")
    for name in ("mean", "covariance", "features"):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name))
    assert (after.n, after.provenance, after.logits) == (9, before.provenance, None)


def test_files_of_pytorch_fid_and_of_the_published_tool(tmp_path):
    own = statistics(30)
    np.savez(tmp_path / "a.npz", mu=own.mean, sigma=own.covariance)
    np.save(tmp_path / "train_fid_m.npy", own.mean)
    np.save(tmp_path / "train_fid_s.npy", own.covariance)
    for name in ("a.npz", "train_fid_m.npy", "train_fid_s.npy"):
        read = read_statistics(tmp_path / name)
        np.testing.assert_array_equal(read.covariance, own.covariance)
        assert read.n == 0 and read.provenance == {} and not read.complete
        assert fid(own, read) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("write, message", [
    (lambda p: p.write_bytes(b"nothing"), "no statistics"),
    (lambda p: np.savez(p, mu=np.zeros(3)), "no statistics"),
    (lambda p: np.savez(p, mu=np.zeros(3), sigma=np.zeros((2, 2))), "do not belong together"),
    (lambda p: np.savez(p, mu=np.full(3, np.nan), sigma=np.eye(3)), "not finite"),
    (lambda p: np.savez(p, mu=np.array([{}]), sigma=np.eye(3)), "no statistics"),
    (lambda p: np.savez(p, mu=np.zeros(3), sigma=np.eye(3) + 0j), "complex"),
    (lambda p: np.savez(p, mu=np.zeros(3), sigma=np.eye(3), n=[2, 3]), "no statistics"),
    (lambda p: np.savez(p, mu=np.zeros(3), sigma=np.eye(3), provenance="[1]"), "no statistics"),
    (lambda p: np.savez(p, mu=np.zeros(3), sigma=-np.eye(3)), "not a covariance"),
    (lambda p: np.savez(p, mu=np.zeros(3), sigma=np.triu(np.ones((3, 3)))), "not a covariance"),
    (lambda p: np.savez(p, mu=np.zeros(3), sigma=np.eye(3), n=1), "at least two"),
    (lambda p: np.savez(p, mu=np.zeros(3), sigma=np.eye(3), n=2, features=np.full((2, 3), np.nan)), "not finite"),
    (lambda p: np.savez(p, mu=np.zeros(3), sigma=np.eye(3), n=2, features=np.zeros((2, 4))), "do not belong to mu"),
    (lambda p: np.savez(p, mu=np.zeros(3), sigma=np.eye(3), n=2, features=np.zeros((3, 3))), "do not belong to mu")])
def test_what_is_not_statistics(tmp_path, write, message):
    write(tmp_path / "a.npz")
    with pytest.raises(UserError, match=message):
        read_statistics(tmp_path / "a.npz")


def test_half_a_pair(tmp_path):
    np.save(tmp_path / "x_m.npy", np.zeros(3))
    np.save(tmp_path / "x.npy", np.zeros(3))
    with pytest.raises(UserError, match="no statistics"):
        read_statistics(tmp_path / "x_m.npy")
    with pytest.raises(UserError, match="ends in _m"):
        read_statistics(tmp_path / "x.npy")


@pytest.mark.parametrize("a, b, message", [
    (statistics(5, 3), statistics(5, 4), "features of 3 values against features of 4"),
    (statistics(5, mode="clean"), statistics(5, mode="apf-gan"), "mode clean against mode apf-gan"),
    (statistics(5, weights="a"), statistics(5, weights="b"), "weights a against weights b")])
def test_statistics_that_do_not_compare(a, b, message):
    with pytest.raises(UserError, match=message):
        fid(a, b)


def test_the_cache_computes_once_per_key_and_survives_damage(tmp_path, monkeypatch):
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))
    calls = []

    def compute():
        calls.append(1)
        return statistics(6)

    first = cache.cached({"a": 1}, compute)
    again = cache.cached({"a": 1}, compute)
    np.testing.assert_array_equal(first.features, again.features)
    assert len(calls) == 1
    cache.cached({"a": 2}, compute)
    assert len(calls) == 2
    for file in (tmp_path / "cache").iterdir():
        file.write_bytes(file.read_bytes()[:100])
    cache.cached({"a": 1}, compute)
    assert len(calls) == 3


def test_what_cannot_be_cached_is_still_returned(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "file/cache"))
    assert cache.cached({"a": 1}, lambda: statistics(6)).n == 6
    assert "statistics are not cached" in capsys.readouterr().err
