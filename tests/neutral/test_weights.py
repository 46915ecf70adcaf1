"""Weights files: round trips, bytes on disk, atomic writes. No framework is imported."""
import hashlib
import itertools
import json
import os
import pickle
import resource
import struct
import subprocess
import sys
import tracemalloc
import zipfile
from collections import OrderedDict

import ml_dtypes
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from jittwin.atomic import atomic_write
from jittwin.weights import (
    WeightsError,
    content_hash,
    open_weights,
    read_metadata,
    read_weights,
    torch_file,
    write_weights,
)

EXTENSIONS = (".safetensors", ".pth", ".pkl", ".npz")


def sample() -> dict[str, np.ndarray]:
    """One array per awkward property; the order is not alphabetical on purpose."""
    rng = np.random.default_rng(0)
    return {
        "z.weight": rng.standard_normal((2, 3, 4)).astype(np.float32),
        "flag": np.array([True, False, True]),
        "a.bias": rng.standard_normal(5),
        "scalar": np.array(7, np.int64),
        "one": np.array([1.5], np.float32),
        "empty": np.zeros((0, 3), np.float16),
        "transposed": np.arange(6, dtype=np.float32).reshape(2, 3).T,
        "strided": np.arange(20, dtype=np.int32)[::3],
        "big_endian": np.arange(3, dtype=">f8"),
        "bytes": np.arange(256, dtype=np.uint8),
        "half": rng.standard_normal(3).astype(ml_dtypes.bfloat16),
        "special": np.array([np.nan, -0.0, np.inf, 1e-45], np.float32),
        "large": rng.standard_normal((300, 100)).astype(np.float32),
        "π/x y": np.array([-1], np.int8),
    }


def same(left, right) -> None:
    assert list(left) == list(right)
    for key, value in left.items():
        other, value = right[key], np.asarray(value)
        assert other.dtype == value.dtype.newbyteorder("=") and other.shape == value.shape, key
        assert other.tobytes() == value.astype(other.dtype).tobytes(), key


@pytest.mark.parametrize("first, second", list(itertools.product(EXTENSIONS, repeat=2)))
def test_round_trip_through_every_pair(tmp_path, first, second):
    arrays = sample()
    write_weights(tmp_path / f"a{first}", arrays)
    write_weights(tmp_path / f"b{second}", read_weights(tmp_path / f"a{first}"))
    write_weights(tmp_path / f"c{first}", read_weights(tmp_path / f"b{second}"))
    found = read_weights(tmp_path / f"b{second}")
    same(arrays, found)
    assert all(array.flags.writeable for array in found.values())
    assert content_hash(found) == content_hash(arrays)
    opened = open_weights(tmp_path / f"b{second}")
    same(arrays, opened)
    assert opened.shapes == {key: np.shape(value) for key, value in arrays.items()}
    assert all(array.flags.writeable for array in opened.values())
    assert (tmp_path / f"a{first}").read_bytes() == (tmp_path / f"c{first}").read_bytes()


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_content_decides_not_the_name(tmp_path, extension):
    write_weights(tmp_path / f"a{extension}", sample())
    os.rename(tmp_path / f"a{extension}", tmp_path / "a.dat")
    same(sample(), read_weights(tmp_path / "a.dat"))


def test_the_content_hash_sees_names_types_shapes_and_bytes():
    base = {"a": np.zeros(4, np.float32), "b": np.ones(2, np.float32)}
    assert content_hash(base) == content_hash(dict(reversed(base.items())))
    others = [{**base, "a": np.zeros((2, 2), np.float32)}, {**base, "a": np.zeros(4, np.int32)},
              {**base, "a": -base["a"]}, {"c": base["a"], "b": base["b"]}]
    assert len({content_hash(content) for content in (base, *others)}) == 5


# Bytes on disk, written out by hand or by the format's own library.

@pytest.mark.parametrize("extension", [".safetensors", ".pth"])
def test_opened_arrays_are_read_one_after_the_other(tmp_path, extension):
    """So that a large network is not in memory twice; what was read before is not kept."""
    path = tmp_path / f"a{extension}"
    write_weights(path, {f"{n}": np.full(250_000, n, np.float32) for n in range(10)})
    tracemalloc.start()
    found = open_weights(path)
    for key, array in found.items():
        assert array[-1] == int(key)
        array[:] = -1
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4e6 and found["7"][0] == 7 and len(found) == 10


def test_tensors_that_are_parts_of_one_storage(tmp_path):
    """PyTorch writes the storage whole; it is read once."""
    whole = np.arange(12, dtype=np.float32).reshape(3, 4)
    write_weights(tmp_path / "a.pth", {"w": whole})
    with zipfile.ZipFile(tmp_path / "a.pth") as archive:
        content = torch_file.read_zip(archive, "a.pth", lambda content: ())
        storage = content["w"].storage
        row, column, both = (torch_file.Tensor(storage, *view) for view in ((4, (4,), (1,)), (1, (3,), (4,)), (0, (3, 4), (4, 1))))
        assert torch_file.read_tensor(archive, row).tolist() == [4, 5, 6, 7]
        storage.data.view(np.float32)[:] += 1
        assert torch_file.read_tensor(archive, column).tolist() == [2, 6, 10]
        assert (torch_file.read_tensor(archive, both) == whole + 1).all() and not hasattr(storage, "data")
        assert (torch_file.read_tensor(archive, both) == whole).all()


def test_jittor_pkl_bytes(tmp_path):
    arrays = {"w": np.arange(70000, dtype=np.float32).reshape(7, -1), "b": np.zeros(2, np.float32)}
    write_weights(tmp_path / "g.pkl", arrays)
    body = pickle.dumps(arrays, 4)
    assert (tmp_path / "g.pkl").read_bytes() == body + hashlib.sha1(body).digest() + b"HCAJSLHD"


def test_reads_jittor_var_form(tmp_path):
    """What newer Jittor writes: Var(ndarray), the class under the name 'jittor_core.Var' of module jittor."""
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    inner = pickle.dumps(array, 4)[11:-1]  # without protocol, frame and stop
    body = (b"\x80\x04}\x8c\x01w\x8c\x06jittor\x8c\x0fjittor_core.Var\x93" + inner + b"\x85Rs.")
    (tmp_path / "new.pkl").write_bytes(body + hashlib.sha1(body).digest() + b"HCAJSLHD")
    same({"w": array}, read_weights(tmp_path / "new.pkl"))


@pytest.mark.parametrize("protocol", range(2, 6))
def test_reads_plain_pickles_of_every_protocol(tmp_path, protocol):
    arrays = {"w": np.linspace(0, 1, 20000), "f": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
              "s": np.float64(3)}
    (tmp_path / "avg.pkl").write_bytes(pickle.dumps(OrderedDict(arrays), protocol))
    same(arrays, read_weights(tmp_path / "avg.pkl"))


def test_numpy_2_names(tmp_path):
    body = pickle.dumps({"w": np.ones(3)}, 2).replace(b"numpy.core.", b"numpy._core.")
    (tmp_path / "n.pkl").write_bytes(body)
    same({"w": np.ones(3)}, read_weights(tmp_path / "n.pkl"))


def test_safetensors_against_its_own_library(tmp_path):
    arrays = {key: value for key, value in sample().items() if key not in ("half", "big_endian")}
    arrays = {key: np.array(value, order="C") for key, value in arrays.items()}
    write_weights(tmp_path / "a.safetensors", arrays, {"model": "m", "config": {"ngf": 8}})
    with safe_open(tmp_path / "a.safetensors", "np") as stored:
        assert set(stored.keys()) == set(arrays)
        for key, array in arrays.items():
            found = stored.get_tensor(key)
            assert found.tobytes() == array.tobytes() and found.shape == array.shape
        assert stored.metadata()["sha256"] == content_hash(arrays)
    metadata = read_metadata(tmp_path / "a.safetensors")
    assert metadata == {"model": "m", "config": {"ngf": 8}, "sha256": content_hash(arrays)}
    save_file(arrays, tmp_path / "b.safetensors")
    found = read_weights(tmp_path / "b.safetensors")
    same(arrays, {key: found[key] for key in arrays})


def test_safetensors_bytes(tmp_path):
    write_weights(tmp_path / "a.safetensors", {"b": np.array([1, 2], np.uint8), "a": np.array(1, np.float32)})
    content = (tmp_path / "a.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8:8 + length])
    assert length % 8 == 0 and list(header) == ["__metadata__", "b", "a"]
    assert header["b"] == {"dtype": "U8", "shape": [2], "data_offsets": [4, 6]}
    assert content[8 + length:] == struct.pack("<fBB", 1, 1, 2)


def test_sharded_index(tmp_path):
    write_weights(tmp_path / "m-1.safetensors", {"a": np.ones(2), "c": np.zeros(1)})
    write_weights(tmp_path / "m-2.safetensors", {"b": np.arange(3)})
    index = {"metadata": {"total_size": 48},
             "weight_map": {"a": "m-1.safetensors", "b": "m-2.safetensors", "c": "m-1.safetensors"}}
    path = tmp_path / "m.safetensors.index.json"
    path.write_text(json.dumps(index))
    same({"a": np.ones(2), "b": np.arange(3), "c": np.zeros(1)}, read_weights(path))
    assert read_metadata(path) == {"total_size": 48}
    index["weight_map"]["d"] = "m-2.safetensors"
    path.write_text(json.dumps(index))
    with pytest.raises(WeightsError, match="d is not in m-2.safetensors"):
        read_weights(path)
    index["weight_map"]["d"] = "../m-2.safetensors"
    path.write_text(json.dumps(index))
    with pytest.raises(WeightsError, match="outside"):
        read_weights(path)


STATE = {"w": np.ones(2)}


@pytest.mark.parametrize("content", [{"epoch": 3, "model": STATE}, {"G": STATE}, {
    "epoch": np.float64(1), "optimizer": {"m": np.zeros(1)}, "state_dict": STATE}])
def test_unwraps_training_checkpoints(tmp_path, content):
    (tmp_path / "c.pkl").write_bytes(pickle.dumps(content, 4))
    same(STATE, read_weights(tmp_path / "c.pkl"))


@pytest.mark.parametrize("extension", [".safetensors", ".pth", ".pkl"])
def test_float8(tmp_path, extension):
    arrays = {name: np.arange(5).astype(getattr(ml_dtypes, f"float8_{name}")) for name in ("e4m3fn", "e5m2")}
    write_weights(tmp_path / f"a{extension}", arrays)
    same(arrays, read_weights(tmp_path / f"a{extension}"))


# Writing.

def test_unknown_names_and_types(tmp_path):
    with pytest.raises(WeightsError, match="did you mean '.pth'"):
        write_weights(tmp_path / "a.ptth", {})
    with pytest.raises(WeightsError, match="legal: safetensors, torch, jittor, npz"):
        write_weights(tmp_path / "a.pth", {}, format="onnx")
    with pytest.raises(WeightsError, match="complex128"):
        write_weights(tmp_path / "a.npz", {"w": np.ones(1, complex)})
    with pytest.raises(WeightsError, match="npz cannot name"):
        write_weights(tmp_path / "a.npz", {"w": np.ones(1, ml_dtypes.float8_e5m2)})
    assert os.listdir(tmp_path) == []
    write_weights(tmp_path / "a.dat", {"w": np.ones(1)}, format="npz")
    same({"w": np.ones(1)}, read_weights(tmp_path / "a.dat"))


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_a_full_disk_leaves_the_previous_file(tmp_path, extension):
    """The kernel refuses to write beyond a limit, as it does on a full disk, in the middle of the data."""
    path = tmp_path / f"a{extension}"
    write_weights(path, sample())
    code = ("import sys, numpy as np\nfrom jittwin.weights import write_weights, WeightsError\n"
            "try:\n    write_weights(sys.argv[1], {'w': np.ones(100000), 'v': np.ones(100000)})\n"
            "except WeightsError as error:\n    print(error)\n")
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000000, 1000000))
    done = subprocess.run([sys.executable, "-c", code, str(path)], preexec_fn=limit,
                          capture_output=True, text=True)
    assert done.stdout.count("\n") == 1 and f"{path}: cannot be written" in done.stdout, done.stderr
    same(sample(), read_weights(path))
    assert os.listdir(tmp_path) == [path.name]


def test_no_space_is_named(tmp_path, monkeypatch):
    def full(handle):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WeightsError, match="a.npz: cannot be written: No space left on device"):
        write_weights(tmp_path / "a.npz", sample())
    assert os.listdir(tmp_path) == []


def test_atomic_write_cleans_up_after_any_error(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        with atomic_write(tmp_path / "f") as stream:
            stream.write(b"half")
            raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []
    with atomic_write(tmp_path / "f") as stream:
        stream.write(b"whole")
    (tmp_path / "link").symlink_to("f")
    with atomic_write(tmp_path / "link") as stream:
        stream.write(b"new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "f").read_bytes() == b"new"
    plain = tmp_path / "plain"
    plain.touch()
    assert (tmp_path / "f").stat().st_mode == plain.stat().st_mode


def test_imports_no_framework():
    code = ("import sys, jittwin.weights, jittwin.commands.convert\n"
            "assert not {'torch', 'jittor', 'safetensors'} & set(sys.modules)")
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
