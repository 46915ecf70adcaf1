"""Weights files nobody should trust: damaged, unsuitable, hostile. Nothing in them may run."""
import contextlib
import hashlib
import io
import json
import os
import pickle
import resource
import shutil
import struct
import subprocess
import time
import zipfile

import numpy as np
import pytest

from jittwin import cli
from jittwin.checkpoints.convert import convert
from jittwin.errors import UserError
from jittwin.models.catalog import find
from jittwin.weights import (
    WeightsError,
    open_weights,
    read_content,
    read_metadata,
    read_weights,
    restricted_load,
    torch_file,
    write_weights,
)
from jittwin.weights.safe_pickle import Inert


@pytest.mark.parametrize("content, words", [
    ({"G": {"w": np.ones(1)}, "D": {"w": np.ones(1)}}, "several state dictionaries (G, D)"),
    ({"w": np.ones(1), "epoch": 3}, "'epoch' holds int"),
    ([np.ones(1)], "holds list"),
    ({"w": np.array([1, "x"], object)}, "'w' holds an array of objects, no array of numbers"),
    ({"w": np.array(["x"])}, "'w' holds an array of U1, no array of numbers"),
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
        "subprocess": pickle.dumps({"w": Calls(subprocess.call, ["sh", "-c", shell])}, 4),
        "compile": pickle.dumps({"w": Calls(compile, code, "x", "exec")}, 4),
        "import": pickle.dumps({"w": Calls(__import__, "os")}, 4),
        # getattr(getattr(object, "__base__"), "__subclasses__")(), which needs no global of a dangerous module.
        "getattr chain": (b"\x80\x04\x8c\x08builtins\x8c\x07getattr\x93\x8c\x08builtins\x8c\x06object\x93"
                          b"\x8c\x0e__subclasses__\x86R)R."),
        "attrgetter": (b"\x80\x02coperator\nattrgetter\nU\x06system\x85Rcos\n\n\x85R."),
        "chain of globals": b"\x80\x04\x8c\x02os\x8c\x0fenviron.__class__\x93)R.",
        "named arguments": b"\x80\x04ccollections\nOrderedDict\n)}\x8c\x01aK\x01s\x92.",
        "partial of a shell": (b"\x80\x02}U\x01wcfunctools\npartial\ncos\nsystem\nV" + shell.encode() + b"\n\x86R)Rs."),
        "persistent id in a persistent id": b"\x80\x02(X\x07\x00\x00\x00storage(X\x07\x00\x00\x00storageNNNNtQNNNtQ.",
        "persistent id of a class": b"\x80\x02(U\x07storageccollections\nOrderedDict\nU\x010U\x03cpuK\x01tQ.",
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


BOMB = b"".join(b"h" + bytes([level]) + b"h" + bytes([level]) + b"\x86q" + bytes([level + 1]) for level in range(60))


@pytest.mark.parametrize("body", [
    b"\x80\x02)q\x00" + BOMB + b"K\x01s.",                                      # no dictionary to put it into
    b"\x80\x02})q\x00" + BOMB + b"K\x01s.",                                     # as a key
    b"\x80\x02})" + b"\x85" * 200_000 + b"K\x01s.",                              # as a key, deep
    b"\x80\x04\x8f()q\x00" + BOMB + b"\x90.",                                     # as an element of a set
    b"\x80\x04()q\x00" + BOMB + b"\x91.",                                         # of a frozen set
    b"\x80\x02ccollections\nOrderedDict\n])q\x00" + BOMB + b"K\x01\x86a\x85R.",    # of an ordered dictionary
    b"\x80\x02)q\x00" + BOMB + b")R.",                                           # called, so that it were printed
    b"\x80\x02ccodecs\nx\n)q\x00" + BOMB + b"\x86R)R.",
    b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00x)q\x00" + BOMB + b"\x86R.",
    b"\x80\x02cnumpy\ndtype\n)q\x00" + BOMB + b"\x85R.",
    b"\x80\x02" + b"(" * 300_000 + b".", b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
    b"\x80\x02B\xff\xff\xff\x7fx.", b"\x80\x04\x8e" + b"\xff" * 7 + b"\x0fx.", b"\x80\x04\x8d" + b"\xff" * 7 + b"\x0fx.",
    b"\x80\x05\x96" + b"\xff" * 6 + b"\x00\x00x.", b"\x80\x02\x8b\xff\xff\xff\x7fx.", b"\x80\x04\x95" + b"\xff" * 7 + b"\x0f."])
@pytest.mark.parametrize("container", ["pkl", "pth", "legacy"])
def test_small_files_that_ask_for_much_are_refused_at_once(tmp_path, container, body):
    """Tuples in one another whose hash or text would take forever, and claims of sizes that the file does not have."""
    path = tmp_path / "a.bin"
    if container == "pth":
        torch_zip(path, body)
    else:
        path.write_bytes((LEGACY_HEAD if container == "legacy" else b"") + body)
    started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(WeightsError) as caught:
        read_weights(path)
    one_line(caught, path)
    assert time.monotonic() - started < 5 and resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000


def test_entries_that_unpack_to_far_more_than_they_are(tmp_path, monkeypatch):
    """As of a zip bomb: they are refused before they are unpacked."""
    monkeypatch.setattr(torch_file, "MOST_UNPACKED", 1 << 20)
    for name in ("archive/data.pkl", "archive/data/0"):
        torch_tensor(tmp_path / "a.pth", 0, (6,), (1,), bytes(24))
        with zipfile.ZipFile(tmp_path / "a.pth") as whole, zipfile.ZipFile(tmp_path / "b.pth", "w") as packed:
            for entry in whole.namelist():
                content = bytes(3 << 20) if entry == name else whole.read(entry)
                packed.writestr(entry, content, zipfile.ZIP_DEFLATED)
        for read in (read_weights, lambda path: dict(open_weights(path))):
            with pytest.raises(WeightsError, match=f"{name} of .* bytes unpacks to 3145728"):
                read(tmp_path / "b.pth")


def test_many_tensors_that_repeat_one_element(tmp_path):
    """Each is within the limit of one; together they would fill the memory."""
    def plain(value):
        return pickle.dumps(value, 2)[2:-1]
    storage = b"".join([plain("storage"), b"ctorch\nFloatStorage\n", plain("0"), plain("cpu"), plain(1)])
    tensor = b"".join([b"ctorch._utils\n_rebuild_tensor_v2\n((", storage, b"tQ", plain(0), plain((1 << 25,)), plain((0,)),
                       b"\x89}tR"])
    torch_zip(tmp_path / "a.pth", b"\x80\x02}(" + b"".join(plain(f"w{n}") + tensor for n in range(40)) + b"u.")
    with zipfile.ZipFile(tmp_path / "a.pth", "a") as archive:
        archive.writestr("archive/data/0", bytes(4))
    for read in (read_weights, open_weights):
        with pytest.raises(WeightsError, match="tensors that repeat their storages have 13421"):
            read(tmp_path / "a.pth")


@pytest.mark.parametrize("function, arguments", [
    (os.system, ("echo x > TARGET",)), (subprocess.call, (["touch", "TARGET"],)), (eval, ("open('TARGET', 'w')",)),
    (exec, ("open('TARGET', 'w')",)), (__import__, ("os",)), (compile, ("1", "x", "eval")), (open, ("TARGET", "w")),
    (shutil.rmtree, ("TARGET",)), (pickle.loads, (b"cos\nsystem\n(VTARGET\ntR.",)), (setattr, ("a", "b", 1))])
def test_an_attack_beside_good_weights_is_refused(tmp_path, function, arguments):
    """Although nothing would run, the file is not to be trusted."""
    target = tmp_path / "written_by_attack"
    arguments = [argument.replace("TARGET", str(target)) if isinstance(argument, str) else argument for argument in arguments]
    content = {"state_dict": {"w": np.ones(2)}, "hooks": [Calls(function, *arguments)]}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content, 4))
    with pytest.raises(WeightsError, match="refused: the pickle contains global"):
        read_weights(tmp_path / "a.pkl")
    assert not target.exists()


def test_attacks_are_real(tmp_path):
    """The control: Python's own unpickler runs the same bytes."""
    for name in ("subprocess", "os.system", "posix.system", "builtins.exec", "builtins.eval", "inst", "numpy runstring"):
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


def zipped(**entries) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return stream.getvalue()


@pytest.mark.parametrize("content, words", [
    (b"", "empty file; legal content: safetensors"), (b"hello, world", "not a weights file; legal content"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a pointer of git LFS in place of the file itself; run"),
    (b"../../.git/annex/objects/x"[3:], "is a pointer of git-annex in place of the file itself; run git annex get"),
    (b"outs:\n- md5: 00\n  path: a.pth", "is a pointer of DVC in place of the file itself; run dvc pull"),
    (b"<!DOCTYPE html>\n<html><title>Quota exceeded", "is a web page in place of the file itself; fetch the file again, by"),
    (b"\n\n  <HTML>", "is a web page"), (b'<?xml version="1.0"?><Error><Code>AccessDenied', "is a web page"),
    (b"GGUF\x03\0\0\0" + bytes(20), "is a GGUF file, llama.cpp's form of a model; give the safetensors or PyTorch file"),
    (b"\x08\x07\x12\x07pytorch\x1a\x05", "is an ONNX graph; give the weights that it was exported from"),
    (b"\x89HDF\r\n\x1a\n", "is an HDF5 file, Keras's form; give"), (b"\x18\0\0\0TFL3", "is a TensorFlow Lite model; give"),
    (b"\x93NUMPY\x01\x00", "is a single NumPy array (.npy); give a file of named arrays"),
    (b"\x89PNG\r\n\x1a\n", "is a PNG picture; legal content"), (b"\xff\xd8\xff\xe0", "is a JPEG picture; legal"),
    (b"RIFF\x10\0\0\0WEBPVP8 ", "is a WebP picture; legal"), (b"\0\0\0\x18ftypheic", "is a picture or film"),
    (b"\x1f\x8b\x08\0", "is a gzip archive; unpack it (tar -xzf, or gunzip) and give the file in it"),
    (b"a/\0".ljust(257, b"\0") + b"ustar\0", "is a tar archive; unpack it"), (b"Rar!\x1a\x07\0", "is a RAR archive; unpack it"),
    (b"7z\xbc\xaf\x27\x1c", "is a 7z archive; unpack it"), (b"\0\x05\x16\x07\0", "is a companion file of macOS"),
    (b"import torch\n", "is a program, not weights"), (bytes(100), "is nothing but zero bytes; the copy or download failed"),
    (b"PK\x03\x04" + bytes(40), "is the beginning of a zip archive, PyTorch's form, 44 bytes long; the download is unfinished"),
    (zipped(**{"best.pth": b"x", "notes.txt": b""}), "is a zip archive that holds best.pth; unpack it and give that file"),
    (zipped(**{"a/E.pkl": b"x", "a/G.pkl": b""}), "is a zip archive that holds a/E.pkl and 1 more; unpack it"),
    (zipped(**{"x/archive/data.pkl": b"x"}), "is a zip archive of an unpacked PyTorch file (x/archive); fetch the file again"),
    (zipped(**{"[Content_Types].xml": b"x"}), "is a document or table of Office"), (zipped(), "without weights (empty)"),
    (zipped(**{"a.png": b"x", "b.png": b"", "c.png": b""}), "is a zip archive without weights (a.png, b.png)"),
    (b'{"a": 1}', "no index of shards: it lacks weight_map"), (b'{"weight_map": {"a": 3}}', "no index of shards")])
def test_files_that_are_something_else_are_named(tmp_path, content, words):
    """With what to do, and which file to take instead, by whoever reads weights."""
    path = tmp_path / "x.pth"
    path.write_bytes(content)
    for read in (read_weights, open_weights, read_metadata, read_content, find("inception_fid").conversion.open):
        if read is read_metadata and content.startswith(b"{"):
            continue        # the metadata of an index are read without its names
        with pytest.raises(UserError) as caught:
            read(path)
        assert words in one_line(caught, path) or read is read_content and content.startswith(b"{")


def test_a_folder_in_place_of_a_file(tmp_path):
    with pytest.raises(WeightsError, match="is a folder; give a file"):
        read_weights(tmp_path)
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive" / "data.pkl").write_bytes(b"")
    for place in (tmp_path, tmp_path / "archive"):
        with pytest.raises(WeightsError, match="is a folder, into which a PyTorch file was unpacked; fetch the file again"):
            read_weights(place)


def test_a_torchscript_archive_of_another_network_is_told_as_what_it_is(tmp_path):
    torch_zip(tmp_path / "inception-2015-12-05.pt", script(nested(3)))
    with zipfile.ZipFile(tmp_path / "inception-2015-12-05.pt", "a") as archive:
        archive.writestr("archive/code/__torch__.py", "")
    conversion = find("inception_fid").conversion
    source = conversion.open(tmp_path / "inception-2015-12-05.pt")
    with pytest.raises(UserError, match="is a TorchScript archive, as clean-fid and StyleGAN use it.*FID takes pytorch-fid's"):
        conversion.infer(source.arrays.shapes, source)
    source = find("siglip").conversion.open(tmp_path / "inception-2015-12-05.pt")
    with pytest.raises(UserError, match="is a TorchScript archive of another network: arrays alone do not tell"):
        find("siglip").conversion.infer(source.arrays.shapes, source)


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


def test_names_without_end_are_told_in_part_and_at_once(tmp_path):
    """Of a thousand words, and of a million letters that are nearly those of the network."""
    names = ["a." * 300_000 + "b", "layer1.0.weight_orig" * 20_000, "\x1b[31m\x07" * 1000]
    write_weights(tmp_path / "a.safetensors", {name: np.ones(1, np.float32) for name in names})
    write_weights(tmp_path / "b.safetensors", {"module." * 100_000 + "w": np.ones(1, np.float32)})
    started = time.monotonic()
    for name in ("a", "b"):
        with pytest.raises(UserError) as caught:
            convert(tmp_path / f"{name}.safetensors", tmp_path / "c.pth", "apf_gan.encoder")
        message = one_line(caught, tmp_path / f"{name}.safetensors")
        assert len(message) < 5000 and cli.one_line(caught.value).isprintable()
    assert time.monotonic() - started < 5
