"""Weights files nobody should trust: damaged, unsuitable, hostile. Nothing in them may run."""
import contextlib
import hashlib
import io
import json
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest

from jittwin.weights import WeightsError, open_weights, read_weights, restricted_load, write_weights
from jittwin.weights.safe_pickle import Inert


@pytest.mark.parametrize("content, words", [
    ({"G": {"w": np.ones(1)}, "D": {"w": np.ones(1)}}, "several state dictionaries (G, D)"),
    ({"w": np.ones(1), "epoch": 3}, "'epoch' holds int"),
    ([np.ones(1)], "holds list"),
    ({"w": np.array([1, "x"], object)}, "'w' holds Array"),
    ({"w": np.array(["x"])}, "array type 'U1'"),
])
def test_unsuitable_pickles(tmp_path, content, words):
    (tmp_path / "c.pkl").write_bytes(pickle.dumps(content, 4))
    with pytest.raises(WeightsError) as caught:
        read_weights(tmp_path / "c.pkl")
    assert words in one_line(caught, tmp_path / "c.pkl")


def one_line(caught, path) -> str:
    message = str(caught.value)
    assert "\n" not in message and str(path) in message
    return message


# Hostile files.

class Calls:
    """Pickles as a call of `function` with `arguments`."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def attacks(target) -> dict[str, bytes]:
    """Pickles that would create the file `target` if anything in them ran."""
    shell, code = f"echo x > {target}", f"open({str(target)!r}, 'w').close()"
    dtype = b"cnumpy\ndtype\n(X\x02\x00\x00\x00O8I00\nI01\ntR"
    return {
        "os.system": pickle.dumps({"w": Calls(os.system, shell)}, 4),
        "posix.system": b"cposix\nsystem\n(V" + shell.encode() + b"\ntR.",
        "builtins.exec": pickle.dumps({"w": Calls(exec, code)}, 2),
        "builtins.eval": pickle.dumps({"w": Calls(eval, code)}, 0),
        "inst": b"(S'" + shell.encode() + b"'\niposix\nsystem\n.",
        "obj": b"(cos\nsystem\nS'" + shell.encode() + b"'\no.",
        "dotted name": b"\x80\x04\x8c\x0bcollections\x8c\x18OrderedDict.__subclasses__\x93)R.",
        "numpy runstring": (b"\x80\x02cnumpy.testing\nrunstring\nX" + struct.pack("<I", len(code))
                            + code.encode() + b"}\x86R."),
        "numpy load": b"\x80\x02cnumpy\nload\nX\x01\x00\x00\x00x\x85R.",
        # A dtype whose state claims that object pointers are plain numbers, then bytes for pointers.
        "numpy dtype flags": (b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n"
                              b"K\x00\x85U\x01b\x87R(K\x01K\x01\x85" + dtype
                              + b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
                              + b"\x89U\x08AAAAAAAAtb."),
        "extension registry": b"\x80\x02\x82\x01.",
        "patch a stand-in": b"\x80\x02ccollections\nOrderedDict\nN}U\x08__call__U\x01xs\x86b.",
        "patch the array class": b"\x80\x02cnumpy\nndarray\nN}U\x0c__setstate__U\x01xs\x86b.",
        "call of data": b"\x80\x02U\x01x)R.",
        "persistent id": b"\x80\x02U\x01xQ.",
        "codec": b"\x80\x02c_codecs\nencode\nU\x01xU\x03hex\x86R.",
    }


def torch_zip(path, body: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", body)
        archive.writestr("archive/version", "3\n")


LEGACY_HEAD = b"".join(pickle.dumps(value, 2)
                       for value in (0x1950a86a20f9469cfc6c, 1001, {"little_endian": True}))


@pytest.mark.parametrize("container", ["pkl", "jittor", "pth", "legacy"])
@pytest.mark.parametrize("name", list(attacks("t")))
def test_hostile_pickles_run_nothing(tmp_path, container, name):
    target = tmp_path / "written_by_attack"
    body, path = attacks(target)[name], tmp_path / "evil.bin"
    if container == "pth":
        torch_zip(path, body)
    else:
        trailer = hashlib.sha1(body).digest() + b"HCAJSLHD" if container == "jittor" else b""
        path.write_bytes((LEGACY_HEAD if container == "legacy" else b"") + body + trailer)
    with pytest.raises(WeightsError) as caught:
        read_weights(path)
    assert not target.exists()
    message = one_line(caught, path)
    if name in ("os.system", "posix.system", "builtins.exec", "builtins.eval"):
        assert "refused" in message and any(word in message for word in ("system'", "exec'", "eval'"))


MODULE = b"c__torch__.torch.nn.modules\nNet\n)\x81"       # a module of a TorchScript archive, without attributes


def script(state: bytes) -> bytes:
    """The pickle of a TorchScript archive whose module has this state."""
    return b"\x80\x02" + MODULE + state + b"b."


def nested(depth: int) -> bytes:
    """Modules in one another, each of which holds the next twice: 2 ** depth names for a few bytes."""
    state = b"}"
    for level in range(depth):
        state = b"}(U\x01a" + MODULE + state + b"bq" + bytes([level]) + b"U\x01bh" + bytes([level]) + b"u"
    return state


@pytest.mark.parametrize("state, words", [
    (b"}U\x01wcposix\nsystem\n(Vecho x > TARGET\ntRs", "refused: the pickle contains global 'posix.system'"),
    (b"}U\x01wcbuiltins\nexec\n(Vopen('TARGET', 'w')\ntRs", "refused: the pickle contains global 'builtins.exec'"),
    (b"}U\x01wc__torch__\nNet\n(Vecho\ntRs", "damaged or truncated"),
    (b"}K\x01K\x02s", "refused: the pickle contains a TorchScript module without named attributes"),
    (b"]", "refused: the pickle contains a TorchScript module without named attributes"),
    (nested(40), "more than 1048576 attributes of modules")])
def test_a_torchscript_archive_runs_nothing(tmp_path, state, words):
    """The code in such an archive is not even looked at."""
    target, path = tmp_path / "written_by_attack", tmp_path / "model.pt"
    torch_zip(path, script(state.replace(b"TARGET", str(target).encode())))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/code/__torch__.py", f"open({str(target)!r}, 'w')\n")
    with pytest.raises(WeightsError) as caught:
        read_weights(path)
    assert words in one_line(caught, path) and not target.exists()


def test_a_torchscript_archive_without_mischief(tmp_path):
    """The control: the same bytes without an attack are read."""
    torch_zip(tmp_path / "model.pt", script(nested(3)))
    assert read_weights(tmp_path / "model.pt") == {}


def test_attacks_are_real(tmp_path):
    """The control: Python's own unpickler runs the same bytes."""
    for name in ("os.system", "posix.system", "builtins.exec", "builtins.eval", "inst", "numpy runstring"):
        target = tmp_path / name.replace(" ", "_")
        with contextlib.suppress(Exception):
            pickle.loads(attacks(target)[name])
        assert target.exists(), name


def test_hostile_npz(tmp_path):
    np.savez(tmp_path / "evil.npz", w=np.array([Calls(os.system, f"echo x > {tmp_path}/t")], object))
    with pytest.raises(WeightsError) as caught:
        read_weights(tmp_path / "evil.npz")
    assert "allow_pickle" in one_line(caught, tmp_path / "evil.npz") and not (tmp_path / "t").exists()


def test_extra_stand_ins():
    """Callers may admit more names, as long as they bring the stand-ins."""
    class Picture:
        def __init__(self, *ignored):
            pass
    body = b"\x80\x02cPIL.Image\nImage\n)\x81."
    extra = {("PIL.Image", "Image"): Picture}
    assert isinstance(restricted_load(io.BytesIO(body), "x", extra), Picture)
    found = restricted_load(io.BytesIO(body), "x")
    assert isinstance(found, Inert) and found.name == "PIL.Image.Image"


def torch_tensor(path, offset, size, stride, data: bytes, byteorder: bytes = b"little") -> None:
    """A .pth with one tensor "w" on a storage of six float32."""
    def plain(value):
        return pickle.dumps(value, 2)[2:-1]
    torch_zip(path, b"".join([
        b"\x80\x02}", plain("w"), b"ctorch._utils\n_rebuild_tensor_v2\n((", plain("storage"),
        b"ctorch\nFloatStorage\n", plain("0"), plain("cpu"), plain(6), b"tQ", plain(offset), plain(size),
        plain(stride), b"\x89}tRs."]))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/byteorder", byteorder)
        archive.writestr("archive/data/0", data)


@pytest.mark.parametrize("offset, size, stride", [(0, (7,), (1,)), (6, (1,), (1,)), (0, (2, 3), (4, 1)),
                                                  (-1, (1,), (1,)), (0, (2,), (-1,)), (0, (1 << 40,), (0,))])
def test_tensors_must_stay_in_their_storage(tmp_path, offset, size, stride):
    torch_tensor(tmp_path / "w.pth", offset, size, stride, bytes(24))
    for read in (read_weights, open_weights):
        with pytest.raises(WeightsError):
            read(tmp_path / "w.pth")


def test_big_endian_torch_file(tmp_path):
    numbers = np.arange(6, dtype=">f4")
    torch_tensor(tmp_path / "w.pth", 1, (2, 2), (1, 2), numbers.tobytes(), b"big")
    for read in (read_weights, open_weights):
        assert read(tmp_path / "w.pth")["w"].tolist() == [[1, 3], [2, 4]]


# Damage.

@pytest.mark.parametrize("extension", [".safetensors", ".pth", ".pkl", ".npz"])
def test_truncated_anywhere(tmp_path, extension):
    path = tmp_path / f"a{extension}"
    write_weights(path, {"w": np.arange(40, dtype=np.float32), "v": np.ones((3, 3))})
    content = path.read_bytes()
    for length in {0, 1, 4, 8, 30, len(content) // 2, len(content) - 30, len(content) - 1}:
        path.write_bytes(content[:length])
        for read in (read_weights, open_weights):
            with pytest.raises(WeightsError) as caught:
                read(path)
            one_line(caught, path)


def test_damage_of_an_array_is_told_when_it_is_read(tmp_path):
    """The zip file has a checksum for each; a storage may also be shorter than its tensor says."""
    path = tmp_path / "a.pth"
    write_weights(path, {"w": np.arange(40, dtype=np.float32), "v": np.ones(3)})
    content = path.read_bytes()
    at = content.index(np.arange(40, dtype=np.float32).tobytes())
    path.write_bytes(content[:at] + b"\xff" + content[at + 1:])
    found = open_weights(path)
    assert found["v"].tolist() == [1, 1, 1]
    with pytest.raises(WeightsError) as caught:
        found["w"]
    one_line(caught, path)
    torch_tensor(path, 0, (6,), (1,), bytes(20))
    with pytest.raises(WeightsError, match="storage 0 needs 24 bytes, the file has 20"):
        open_weights(path)


def test_jittor_checksum(tmp_path):
    path = tmp_path / "a.pkl"
    write_weights(path, {"w": np.arange(40, dtype=np.float32)})
    content = bytearray(path.read_bytes())
    content[-60] ^= 1
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="SHA-1"):
        read_weights(path)


@pytest.mark.parametrize("content", [b"hello, world", b"\x93NUMPY\x01\x00", b"\x89PNG\r\n", b"PK\x03\x04"])
def test_other_files(tmp_path, content):
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(WeightsError) as caught:
        read_weights(tmp_path / "x.pth")
    one_line(caught, tmp_path / "x.pth")


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(WeightsError, match="No such file"):
        read_weights(tmp_path / "none.pth")
    with pytest.raises(WeightsError, match="No such file"):
        write_weights(tmp_path / "none" / "a.pth", {})


def test_safetensors_offsets_are_checked(tmp_path):
    header = json.dumps({"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 12]}}).encode()
    (tmp_path / "w.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(16))
    with pytest.raises(WeightsError, match="lies at bytes 0 to 12"):
        read_weights(tmp_path / "w.safetensors")
