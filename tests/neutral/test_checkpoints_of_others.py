"""Checkpoints as people have them: neighbours of the weights, several networks, wrappers' names, numbers of no use."""
import argparse
import collections
import datetime
import decimal
import enum
import fractions
import functools
import ipaddress
import pathlib
import pickle
import random
import types
import uuid

import ml_dtypes
import numpy as np
import pytest

from jittwin.checkpoints.convert import convert
from jittwin.checkpoints.find import read_network
from jittwin.commands.merge import merge
from jittwin.errors import UserError
from jittwin.generate import read_generator
from jittwin.models.apf_gan import ModelConfig
from jittwin.models.apf_gan_keys import expected_keys
from jittwin.weights import content_hash, open_weights, read_content, read_weights, write_weights
from jittwin.weights.choice import prefix
from jittwin.weights.initial import initial_weights
from jittwin.weights.safe_pickle import Inert
from jittwin.weights.usable import checked, is_finite

E, G = "apf_gan.encoder", "apf_gan.generator"
WEIGHTS = {"conv.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "conv.bias": np.ones(2, np.float16)}


class Options:
    """A class of somebody's program."""

    def __init__(self, **settings):
        self.__dict__ |= settings


class Slotted:
    __slots__ = ("a",)

    def __init__(self):
        self.a = 1


class Attributes(dict):
    """As Lightning's and easydict's: a dictionary with attributes."""
    __getattr__ = dict.__getitem__


class Phase(enum.Enum):
    FIRST = 1


class Named(collections.namedtuple("Named", "x y")):
    pass


class Exacting:
    """An object that is made with named arguments."""

    def __getnewargs_ex__(self):
        return (), {"a": 1}

    def __new__(cls, *, a=1):
        return super().__new__(cls)


def callback(x):
    return x


NEIGHBOURS = {
    "namespace": argparse.Namespace(lr=1e-4, out=pathlib.PurePosixPath("runs/a")),
    "path": pathlib.Path("runs/a"), "windows path": pathlib.PureWindowsPath("C:\\runs"),
    "date": datetime.datetime(2026, 1, 2, 3), "zone": datetime.timezone(datetime.timedelta(hours=8)),
    "time": datetime.timedelta(3), "number of numpy": np.float64(0.5), "whole number of numpy": np.int64(3),
    "dtype": np.dtype("float32"), "types of numpy": np.float16, "text of numpy": np.array(["a", "b"]),
    "complex": np.ones(2, complex), "dates of numpy": np.array(["2026-01-01"], "M8[D]"), "records": np.zeros(2, "i4,f4"),
    "generator": np.random.default_rng(0), "state": np.random.RandomState(0).get_state(), "sets": [{1, 2}, frozenset("ab")],
    "default": collections.defaultdict(list, loss=[1.0]), "counter": collections.Counter("aab"),
    "deque": collections.deque([1, 2], 4), "ordered": collections.OrderedDict(a=1), "named": Named(1, 2),
    "chain": collections.ChainMap({}, {"a": 1}), "bytes": b"ab\0", "buffer": bytearray(b"ab"), "complex number": 1 + 2j,
    "range": range(3), "slice": slice(1, 2), "type": int, "function": callback, "partial": functools.partial(callback, 1),
    "bound": "abc".upper, "enum": Phase.FIRST, "uuid": uuid.UUID(int=3), "decimal": decimal.Decimal("0.1"),
    "fraction": fractions.Fraction(1, 3), "address": ipaddress.ip_address("10.0.0.1"), "error": ValueError("lost"),
    "simple": types.SimpleNamespace(a=1), "options": Options(a=Options(b=[1])), "slots": Slotted(),
    "attributes": Attributes(a=1, b=Attributes()), "exacting": Exacting(), "nothing": None, "ellipsis": ...,
    "large": 10 ** 400, "array": np.ones(3), "nested": {"a": [{"b": (argparse.Namespace(),)}]}}


@pytest.mark.parametrize("protocol", range(2, 6))
@pytest.mark.parametrize("name", NEIGHBOURS)
def test_a_neighbour_of_the_weights_does_no_harm(tmp_path, name, protocol):
    path = tmp_path / "a.pkl"
    try:
        content = pickle.dumps({"epoch": 3, "state_dict": WEIGHTS, name: NEIGHBOURS[name]}, protocol)
    except TypeError:
        pytest.skip("no such object in this protocol")
    path.write_bytes(content)
    for read in (read_weights, open_weights):
        found = read(path)
        assert {key: (array.dtype, array.tolist()) for key, array in found.items()} == {
            key: (array.dtype, array.tolist()) for key, array in WEIGHTS.items()}


@pytest.mark.parametrize("seed", range(60))
def test_drawn_neighbours(tmp_path, seed):
    """Any of them, in lists, tuples and dictionaries of any depth, before and after the weights."""
    rng = random.Random(seed)

    def drawn(depth: int):
        if not depth or rng.random() < 0.4:
            return rng.choice([value for name, value in NEIGHBOURS.items() if name not in ("slots",)])
        some = [drawn(depth - 1) for _ in range(rng.randint(0, 3))]
        kind = rng.choice((list, tuple, dict, Options, Attributes))
        named = {f"n{number}": value for number, value in enumerate(some)}
        return kind(some) if kind in (list, tuple) else kind(**named)

    before, after = ({f"{place}{n}": drawn(4) for n in range(rng.randint(0, 3))} for place in "ab")
    around = rng.choice((dict, collections.OrderedDict, Attributes))
    content = around({**before, "state_dict": rng.choice((dict, collections.OrderedDict))(WEIGHTS), **after})
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content, rng.choice((2, 3, 4, 5))))
    found = read_weights(tmp_path / "a.pkl")
    assert list(found) == list(WEIGHTS) and content_hash(found) == content_hash(WEIGHTS)


def test_what_becomes_of_a_neighbour(tmp_path):
    """It has its class's name; arrays and dictionaries beside it are as they were."""
    from test_weights_hostile import torch_zip
    content = {"a": argparse.Namespace(x=1), "b": [np.float32(2)], "c": {"d": np.ones(2)}}
    torch_zip(tmp_path / "a.pth", pickle.dumps(content, 2))
    found = read_content(tmp_path / "a.pth")
    assert isinstance(found["a"], Inert) and found["a"].name == "argparse.Namespace" and found["a"].state == {"x": 1}
    assert found["b"] == [2.0] and found["c"]["d"].tolist() == [1, 1]


# ---- several networks ---------------------------------------------------------------

def network(seed: int, model: str = E) -> dict[str, np.ndarray]:
    return dict(initial_weights("apf_gan", expected_keys(model, ModelConfig(ngf=2)), seed))


def dumped(path, content):
    path.write_bytes(pickle.dumps(content, 4))
    return path


@pytest.mark.parametrize("content, part", [
    (lambda one, two: {"netE": one, "netG": two, "epoch": 3}, "netE"),
    (lambda one, two: {"epoch": 3, "models": {"E": one, "G": two}}, "models.E"),
    (lambda one, two: {"netE": {f"module.{key}": value for key, value in one.items()}, "netG": two}, "netE"),
    (lambda one, two: {**{f"netE.{key}": v for key, v in one.items()}, **{f"netG.{key}": v for key, v in two.items()}},
     "netE"),
    (lambda one, two: {"state_dict": {f"gan.{name}.{key}": v for name, net in (("E", one), ("G", two))
                                      for key, v in net.items()}}, "gan.E"),
    (lambda one, two: {"params_ema": two, "params": one}, "params")])
def test_one_of_several_networks_is_chosen_by_name(tmp_path, content, part):
    path = dumped(tmp_path / "a.pkl", content(network(1), network(2)))
    report = convert(path, tmp_path / "e.safetensors", E, part=part)
    assert report.sha256 == content_hash(network(1))
    with pytest.raises(UserError, match=f"has no part 'netX'.*{part.split('.')[0]}"):
        convert(path, tmp_path / "x.safetensors", E, part="netX")
    assert not (tmp_path / "x.safetensors").exists()


@pytest.mark.parametrize("seed", range(20))
def test_drawn_files_of_several_networks(tmp_path, seed):
    """Every one of them can be chosen, in files of any format; without a choice they are named, never guessed."""
    rng = random.Random(seed)
    names = rng.sample(["netE", "netG", "netD", "ema", "teacher", "student", "E", "encoder_q"], rng.randint(2, 4))
    nets = {name: {f"w{n}": np.full(2, rng.random(), np.float32) for n in range(rng.randint(2, 4))} for name in names}
    if rng.random() < 0.5:
        path = dumped(tmp_path / "a.pkl", {"epoch": 1, **nets, "optimizer": {"state": {0: {"step": np.ones(1)}}}})
        with pytest.raises(UserError, match=rf"several state dictionaries \({', '.join(names)}\); choose one with --part"):
            read_weights(path)
    else:
        path = tmp_path / f"a{rng.choice(['.pkl', '.pth', '.npz', '.safetensors'])}"
        write_weights(path, {f"{name}.{key}": value for name, net in nets.items() for key, value in net.items()})
    for name, net in nets.items():
        assert content_hash(read_weights(path, part=name)) == content_hash(net)
        assert content_hash(dict(open_weights(path, part=name))) == content_hash(net)


def test_names_of_several_networks_are_told_by_the_check(tmp_path):
    both = {f"net{name}.{key}": value for name, model in (("E", E), ("G", G)) for key, value in network(1, model).items()}
    write_weights(tmp_path / "a.safetensors", both)
    with pytest.raises(UserError, match="its names begin with netE, netG: give --part netG"):
        convert(tmp_path / "a.safetensors", tmp_path / "g.safetensors", G)


def test_a_choice_among_known_names_is_told(tmp_path, capsys):
    path = dumped(tmp_path / "a.pkl", {"params": {"w": np.zeros(1)}, "params_ema": {"w": np.ones(1)}})
    assert read_weights(path)["w"] == 1
    assert capsys.readouterr().err.strip() == (f"{path}: holds several networks, params, params_ema; params_ema is read, "
                                               "and --part of jittwin convert chooses another")


@pytest.mark.parametrize("content, words", [
    ({"net": types.SimpleNamespace()}, "'net' holds types.SimpleNamespace, no array of numbers"),
    (argparse.Namespace(a=1), "holds argparse.Namespace instead of a dictionary of arrays"),
    ({"w": np.ones(1), "path": pathlib.Path("a")}, "'path' holds pathlib.PosixPath, no array of numbers"),
    ({1: np.ones(1)}, "holds an array under the key 1, which is no name"), ({"state_dict": {}}, "'state_dict' holds dict"),
    ([1], "holds list instead of a dictionary of arrays")])
def test_what_holds_no_network_is_named(tmp_path, content, words):
    with pytest.raises(UserError) as error:
        read_weights(dumped(tmp_path / "a.pkl", content))
    assert words in str(error.value) and "\n" not in str(error.value)


# ---- names that wrappers have lengthened ------------------------------------------------

@pytest.mark.parametrize("put", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "netG.", "model.netG.",
                                 "module.model.net.generator.", "_forward_module.module.", "G.0."])
@pytest.mark.parametrize("suffix", [".safetensors", ".pkl", ".pth", ".npz"])
def test_what_a_wrapper_put_before_all_names_is_left_out_and_told(tmp_path, capsys, put, suffix):
    write_weights(tmp_path / f"a{suffix}", {put + key: value for key, value in network(1).items()})
    assert convert(tmp_path / f"a{suffix}", tmp_path / "e.pkl", E).sha256 == content_hash(network(1))
    assert f"a{suffix}: every name begins with {put!r}, which is left out\n" in capsys.readouterr().err
    convert(tmp_path / f"a{suffix}", tmp_path / "any.pkl", "any")
    assert list(read_weights(tmp_path / "any.pkl")) == [put + key for key in network(1)]


@pytest.mark.parametrize("suffix", [".safetensors", ".pkl", ".pth", ".npz"])
def test_of_another_network_nothing_but_the_error_is_told(tmp_path, capsys, suffix):
    write_weights(tmp_path / f"a{suffix}", {"layers.weight": np.zeros((2, 2)), "layers.bias": np.zeros(2)})
    with pytest.raises(UserError, match="not an apf_gan.encoder"):
        convert(tmp_path / f"a{suffix}", tmp_path / "e.pkl", E)
    assert not capsys.readouterr().err


@pytest.mark.parametrize("seed", range(30))
def test_drawn_wrappers(seed):
    """Any words before all names, up to six; names of the network itself stay, and averaging's counter is no name."""
    rng = random.Random(seed)
    words = [rng.choice(["module", "_orig_mod", "model", "net", "netG", "0", "x_y", "wrapped"]) for _ in range(rng.randint(0, 6))]
    names = [f"{rng.choice('abc')}{n}.{rng.choice(['weight', 'bias', 'conv.weight'])}" for n in range(rng.randint(2, 5))]
    put = "".join(f"{word}." for word in words)
    found = [put + name for name in names]
    rng.shuffle(found)
    assert prefix([*found, "n_averaged"]) == prefix(found) == put
    own = rng.choice(words) if words else "features"
    cut = words.index(own) if own in words else 0
    assert prefix(found, (own,)) == "".join(f"{word}." for word in words[:cut])


def test_generation_and_merging_read_wrapped_networks(tmp_path):
    for epoch, put in ((1, ""), (2, "module._orig_mod.")):
        for model, name in ((E, "E"), (G, "G")):
            write_weights(tmp_path / f"{epoch}_net_{name}.pth",
                          {put + key: value for key, value in network(epoch, model).items()})
    weights, _ = read_generator(str(tmp_path / "2"))
    assert content_hash(weights["G"]) == content_hash(network(2, G))
    merge([str(tmp_path / "1"), str(tmp_path / "2")], [0.5, 0.5], str(tmp_path / "out"))
    found, one, two = read_weights(tmp_path / "out" / "E.safetensors"), network(1), network(2)
    assert all(np.allclose(found[key], (one[key].astype(float) + two[key]) / 2) for key in one)


# ---- numbers that no network computes with -----------------------------------------------

@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16, ml_dtypes.float8_e5m2])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_seen_in_every_type(dtype, bad):
    array = np.linspace(-1, 1, 1000).astype(dtype)
    assert is_finite(array) and is_finite(array[:0]) and is_finite(np.array(3))
    array[517] = bad
    assert not is_finite(array)
    with pytest.raises(UserError, match="f.pth: w holds 1 NaN or infinite numbers of 1000: the training diverged, or"):
        checked(array, "w", "f.pth")


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.int64, np.bool_])
def test_integers_are_no_weights(tmp_path, dtype):
    with pytest.raises(UserError, match=f"f.pth: w holds {np.dtype(dtype)}, where floating-point numbers are expected"):
        checked(np.ones(3, dtype), "w", "f.pth")
    write_weights(tmp_path / "a.safetensors", {"w": np.ones(3, dtype)})
    lazy = open_weights(tmp_path / "a.safetensors")
    with pytest.raises(UserError, match=f"a.safetensors: w holds {np.dtype(dtype)}"):
        lazy.cast(np.float32)["w"]
    assert checked(np.ones(3, dtype), "w", floating=False).dtype == dtype


@pytest.fixture
def diverged(tmp_path):
    """Epochs 1, whole, and 2, with a NaN in one number of the generator."""
    for epoch in (1, 2):
        for model, name in ((E, "E"), (G, "G")):
            arrays = network(epoch, model)
            if (epoch, name) == (2, "G"):
                arrays["out_conv_img.bias"][1] = np.nan
            write_weights(tmp_path / f"{epoch}_net_{name}.pkl", arrays)
    return tmp_path


def test_a_diverged_network_is_told_with_its_file_by_whoever_reads_it(diverged):
    words = "2_net_G.pkl: out_conv_img.bias holds 1 NaN or infinite numbers of 3"
    for read in (lambda: read_generator(str(diverged / "2")), lambda: read_network(str(diverged / "2"), "G"),
                 lambda: merge([str(diverged / "1"), str(diverged / "2")], [0.5, 0.5], str(diverged / "out"))):
        with pytest.raises(UserError, match=words):
            read()
    assert not (diverged / "out").exists()


def test_conversion_tells_them_and_keeps_every_byte(diverged):
    report = convert(diverged / "2_net_G.pkl", diverged / "g.safetensors", G, verify=True)
    assert "warning: 1 tensors hold NaN or infinity: out_conv_img.bias; no command computes with such a file" in str(report)
    assert np.isnan(read_weights(diverged / "g.safetensors")["out_conv_img.bias"][1])
    assert "warning" not in str(convert(diverged / "1_net_G.pkl", diverged / "g.safetensors", G))


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16])
def test_half_precision_is_averaged(tmp_path, dtype):
    for epoch in (1, 2):
        for model, name in ((E, "E"), (G, "G")):
            arrays = {key: np.full(value.shape, epoch, dtype) for key, value in network(epoch, model).items()}
            write_weights(tmp_path / f"{epoch}_net_{name}.pth", arrays)
    merge([str(tmp_path / "1"), str(tmp_path / "2")], [0.5, 0.5], str(tmp_path / "out"))
    assert {float(each) for array in read_weights(tmp_path / "out" / "E.safetensors").values()
            for each in np.unique(array)} == {1.5}


def test_quantised_weights_have_no_average(tmp_path):
    for epoch in (1, 2):
        for model, name in ((E, "E"), (G, "G")):
            arrays = {key: np.full(value.shape, epoch, np.int8) for key, value in network(epoch, model).items()}
            write_weights(tmp_path / f"{epoch}_net_{name}.pth", arrays)
    with pytest.raises(UserError, match="layer1.0.weight_orig holds int8 and differs from that of .*: integers"):
        merge([str(tmp_path / "1"), str(tmp_path / "2")], [0.5, 0.5], str(tmp_path / "out"))


def test_first_weights_of_a_training_are_told_with_their_file(tmp_path):
    """Where they are joined with drawn ones, the network that loads them no longer knows their file."""
    write_weights(tmp_path / "a.safetensors", {"w": np.array([1, np.nan], np.float16), "steps": np.array(3)})
    cast = open_weights(tmp_path / "a.safetensors").cast(np.float32)
    assert cast["steps"] == 3
    with pytest.raises(UserError, match="a.safetensors: w holds 1 NaN or infinite numbers of 2"):
        cast["w"]
