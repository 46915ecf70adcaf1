"""Alignment: what a map does to names, and what shapes suggest."""
import pytest

from parity.align import aligned, explain_differences, renamed, suggested, translated

MAP = {"blocks.*.fc": "layers.*.linear1", "blocks.*": "layers.*", "head": "classifier.out", "head.bias": "bias"}


@pytest.mark.parametrize("path, there", [
    ("blocks.3.fc.weight", "layers.3.linear1.weight"), ("blocks.3.norm.weight", "layers.3.norm.weight"),
    ("blocks.3", "layers.3"), ("head.weight", "classifier.out.weight"), ("head.bias", "bias"),
    ("heads.weight", "heads.weight"), ("blocks", "blocks"), ("", "")])
def test_a_map_renames_the_longest_path_that_fits(path, there):
    assert renamed(path, MAP) == there


def test_the_whole_module_can_be_moved():
    assert renamed("fc.weight", {"": "model"}) == "model.fc.weight"
    assert renamed("model.fc.weight", {"model": ""}) == "fc.weight"


def test_two_entries_never_get_one_name():
    with pytest.raises(ValueError, match="a.weight and b.weight would both be called c.weight"):
        translated({"a.weight": 1, "b.weight": 2}.items(), {"a": "c", "b": "c"})


def layer(name, *sizes):
    return {f"{name}.weight": sizes, f"{name}.bias": sizes[:1]}


def test_shapes_suggest_the_shortest_map():
    torch = {**layer("stem", 8, 3), **layer("layers.0.linear1", 16, 8), **layer("layers.1.linear1", 16, 8),
             **layer("out", 2, 8)}
    jittor = {**layer("stem", 8, 3), **layer("blocks.0.fc", 16, 8), **layer("blocks.1.fc", 16, 8),
              **layer("head", 2, 8)}
    assert suggested(torch, jittor, {}) == ({"blocks.*.fc": "layers.*.linear1", "head": "out"}, 0)
    assert suggested(torch, jittor, {"head": "out"}) == ({"head": "out", "blocks.*.fc": "layers.*.linear1"}, 0)


def test_numbers_that_shift_are_not_starred():
    names, left = suggested({**layer("net.0", 8, 3), **layer("net.2", 4, 8)},
                            {**layer("net.0", 8, 3), **layer("net.1", 4, 8)}, {})
    assert (names, left) == ({"net.1": "net.2"}, 0)


def test_statistics_pair_by_their_names_within_a_layer():
    """All four have one shape, and the frameworks list them in different orders."""
    torch = {f"bn.{n}": (4,) for n in ("weight", "bias", "running_mean", "running_var")}
    jittor = {f"norm.{n}": (4,) for n in ("running_mean", "running_var", "weight", "bias")}
    assert suggested(torch, jittor, {}) == ({"norm": "bn"}, 0)


def test_what_has_no_counterpart_is_left_over():
    names, left = suggested({**layer("a", 8, 3), **layer("c", 2, 8)},
                            {**layer("x", 8, 3), "extra": (5, 5), **layer("z", 2, 8)}, {})
    assert (names, left) == ({"x": "a", "z": "c"}, 1)
    assert suggested({"a": (2,)}, {"b": (3,)}, {}) == ({}, 2)


def test_a_pair_of_different_shapes_costs_more_than_two_gaps():
    assert aligned([("a", (2,)), ("b", (3,))], [("c", (3,))]) == [("b", "c")]


def test_the_message_can_be_pasted():
    torch, jittor = layer("linear1", 16, 8), layer("fc", 16, 8)
    found = explain_differences(torch, jittor, {})
    for part in ("2 missing: linear1.weight, linear1.bias", "2 unexpected", "names={\n    'fc': 'linear1',\n}"):
        assert part in found
    assert explain_differences(torch, jittor, {"fc": "linear1"}) == ""


def test_an_entry_of_the_map_that_names_nothing_is_told_and_left_out():
    torch = {**layer("linear1", 16, 8), **layer("out", 4, 16)}
    jittor = {**layer("linear1", 16, 8), **layer("head", 4, 16)}
    found = explain_differences(torch, jittor, {"haed": "out"})
    assert "names: the Jittor module has no 'haed' (did you mean 'head'?)\n" in found
    assert "names={\n    'head': 'out',\n}" in found


def test_a_transposed_weight_is_refused_and_named():
    found = explain_differences({"fc.weight": (16, 8)}, {"fc.weight": (8, 16)}, {})
    assert "fc.weight (8, 16) instead of (16, 8)" in found and "nothing is transposed" in found
    assert "names={" not in found
