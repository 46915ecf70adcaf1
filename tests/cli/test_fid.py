"""`jittwin fid` on both backends: the same number, whatever form the pictures come in."""
import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from commands import BACKENDS, run
from jittwin.draws import Draws
from jittwin.metrics.fid.statistics import read_statistics

SIZE, OTHER = (80, 96), (96, 80)
OPTIONS = ["--random-weights", "--batch", "4", "--no-cache"]


def smooth(seed, size):
    """A picture with structure: features of plain noise hardly differ."""
    grid = Draws(seed).uniform("grid", (3, 4, 3)) * 255
    return Image.fromarray(grid.astype(np.uint8)).resize((size[1], size[0]), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("fid")
    for name, seeds in (("a", range(5)), ("b", range(10, 16))):
        (root / name).mkdir()
        for seed in seeds:
            smooth(seed, OTHER if seed == 3 else SIZE).save(root / name / f"{seed}.png")
    (root / "bad").mkdir()
    for seed in range(4):
        smooth(seed, SIZE).save(root / "bad" / f"{seed}.png")
    (root / "bad/2.png").write_bytes((root / "bad/2.png").read_bytes()[:80])
    (root / "empty").mkdir()
    (root / "one").mkdir()
    smooth(0, SIZE).save(root / "one/0.png")
    with zipfile.ZipFile(root / "b.zip", "w") as archive:
        for path in sorted((root / "b").iterdir()):
            archive.write(path, path.name)
    return root


@pytest.fixture(scope="module")
def results(place):
    """Per backend: folder against folder; zip and saved statistics; skipped damage; mistakes."""
    found = {}
    for backend in BACKENDS:
        use, stats = [*OPTIONS, "--backend", backend], place / f"{backend}.npz"
        found[backend] = run(
            ["fid", place / "a", place / "b", "--metrics", "fid,kid,pr", "--json", place / f"{backend}.json",
             "--save-stats", stats, *use],
            ["fid", stats, place / "b.zip", "--workers", "1", *use],
            ["fid", place / "b", place / "bad", "--skip-bad", "--json", place / f"{backend} left.json", *use],
            ["fid", place / "bad", place / "b", *use],
            ["fid", stats, place / "b", "--mode", "clean", *use],
            ["fid", place / "one", place / "b", *use],
            ["fid", stats, stats, "--metrics", "fid,kid", "--json", place / f"{backend} files.json"])
    return found


def number(done):
    return float(done.ok().out.split()[1])


def test_both_backends_print_the_same(results, place):
    jittor, torch = (json.loads((place / f"{b}.json").read_text()) for b in BACKENDS)
    for name in ("fid", "kid", "precision", "recall"):
        assert jittor[name] == pytest.approx(torch[name], rel=1e-4)
    assert torch["fid"] > 0 and (torch["n_a"], torch["n_b"]) == (5, 6)
    assert torch["random_weights"] and torch["weights_sha256"] is None and torch["mode"] == "pytorch-fid"
    for backend in BACKENDS:
        assert "(random weights)" in results[backend][0].out and "biased upwards" in results[backend][0].err


@pytest.mark.parametrize("backend", BACKENDS)
def test_statistics_and_zip_give_the_number_of_the_folders(results, place, backend):
    assert number(results[backend][1]) == pytest.approx(number(results[backend][0]), rel=1e-6)
    saved = read_statistics(place / f"{backend}.npz")
    assert saved.n == 5 and saved.features.shape == (5, 2048) and saved.provenance["mode"] == "pytorch-fid"


@pytest.mark.parametrize("backend", BACKENDS)
def test_mistakes(results, place, backend):
    skipped, damaged, other_mode, one = results[backend][2:6]
    assert number(skipped) > 0 and "skipped: " in skipped.err and "2.png" in skipped.err
    assert "6 against 3 (1 skipped) pictures" in skipped.out
    left = json.loads((place / f"{backend} left.json").read_text())
    assert (left["n_b"], left["skipped_a"], left["skipped_b"]) == (3, 0, 1)
    assert left["passed_over_a"] == {} == left["passed_over_b"]
    assert damaged.status == 2 and "2.png: cannot be read" in damaged.err
    assert other_mode.status == 2 and "made with mode pytorch-fid, not clean" in other_mode.err
    assert "one picture; a distance needs at least two" in one.one_line()


@pytest.mark.parametrize("backend", BACKENDS)
def test_two_statistics_files_need_no_network(results, place, backend):
    found, name = results[backend][6].ok(), f"{backend} files.json"
    assert found.out.startswith("FID 0.0000 (random weights)")      # of what made them; and never -0.0000
    read = json.loads((place / name).read_text(), parse_constant=pytest.fail)      # NaN is not JSON
    assert 0 <= read["fid"] < 1e-9 and read["random_weights"] and (read["n_a"], read["backend"]) == (5, backend)
    assert read["kid_error"] > 0 and read["weights_sha256"] is None


def test_statistics_of_another_tool(place):
    np.savez(place / "foreign.npz", mu=np.zeros(2048), sigma=np.eye(2048))
    done = run(["fid", place / "foreign.npz", place / "foreign.npz", "--json", place / "foreign.json"])[0].ok()
    read = json.loads((place / "foreign.json").read_text())
    assert read["n_a"] is read["n_b"] is read["weights_sha256"] is None and "does not tell its mode" in done.err


def test_mistakes_that_need_no_network(place):
    np.savez(place / "narrow.npz", mu=np.zeros(64), sigma=np.eye(64))
    (place / "torn.zip").write_bytes((place / "b.zip").read_bytes().replace(b"PK\x01\x02", b"PK\x01\x00"))
    no_weights, both, metric, empty, absent, narrow, name, nowhere, torn, threads = run(
        ["fid", place / "a", place / "b", "--backend", "torch"],
        ["fid", place / "a", place / "b", "--backend", "torch", "--random-weights", "--weights", "x.pth"],
        ["fid", place / "a", place / "b", "--metrics", "fdi"],
        ["fid", place / "empty", place / "b", "--backend", "torch", *OPTIONS],
        ["fid", place / "a", place / "absent", "--backend", "torch", *OPTIONS],
        ["fid", place / "a", place / "narrow.npz", "--backend", "torch", *OPTIONS],
        ["fid", place / "a", place / "b", "--save-stats", "x.npy"],
        ["fid", place / "a", place / "b", "--json", place / "absent/x.json"],
        ["fid", place / "torn.zip", place / "b", "--backend", "torch", *OPTIONS],
        ["fid", place / "a", place / "b", "--threads", "-1", *OPTIONS])
    assert "FID needs weights" in no_weights.one_line() and "--random-weights" in no_weights.err
    assert "x.pth: not found" in both.one_line()      # weights that are given are taken, --random-weights or not
    assert "did you mean 'fid'" in metric.one_line()
    assert "holds no picture" in empty.one_line()
    assert "no such folder or zip file" in absent.one_line()
    assert "narrow.npz: features of 64 values" in narrow.one_line()
    assert ".npz" in name.one_line()
    assert "x.json: there is no folder to write it to" in nowhere.one_line()
    assert "torn.zip: cannot be read" in torn.one_line()
    assert "--threads -1: must be at least 1" in threads.one_line()
