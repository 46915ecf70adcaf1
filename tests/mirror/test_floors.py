"""The rooms of the packages stand on floors: no circle of imports, and no import of a higher floor."""
from pathlib import Path

import pytest
from floors import arrows_up, circles, parses_arguments, rooms

ROOT = Path(__file__).resolve().parents[2]
FLOORS = {
    "jittwin": (
        ("__init__", "errors", "loss_scaler"),
        ("launching", "processes"),
        ("draws",),
        ("atomic", "backend", "config", "file_kinds", "text_files"),
        ("picture_formats",),
        ("classes", "imaging", "preprocessing", "text", "text_cleaning"),
        ("weights",),
        ("models",),
        ("checkpoints", "data"),
        ("data/synthetic", "engine", "predictors"),
        ("metrics", "metrics/fid", "aesthetic", "export"),
        ("report", "generate", "reward"),
        ("selection", "tasks"),
        ("training",),
        ("commands",),
        ("cli",),
        ("__main__",),
    ),
    "parity": (
        ("__init__", "__main__", "align", "fingerprints", "workers"),
        ("case", "lint", "result", "sites"),
        ("pair", "report", "training"),
        ("cases", "levels"),
        ("bundle",),
        ("runner",),
        ("explain", "faults"),
        ("commands", "testing"),
    ),
}
COMMANDS = {"jittwin/cli.py", "jittwin/commands/", "parity/commands/"}      # the places that know argparse


def sources(package: str) -> dict[str, str]:
    return {path.relative_to(ROOT).as_posix(): path.read_text() for path in sorted((ROOT / package).rglob("*.py"))}


@pytest.mark.parametrize("package", FLOORS)
def test_rooms_import_downwards(package):
    graph = rooms(sources(package))
    assert not circles(graph)
    assert not arrows_up(graph, FLOORS[package])


@pytest.mark.parametrize("package", ["jittwin", "parity", "jt_models", "torch_models"])
def test_only_commands_know_the_command_line(package):
    assert not [path for path, source in sources(package).items()
                if parses_arguments(source) and not path.startswith(tuple(COMMANDS))]


# ---- the checks can fail ------------------------------------------------------------

SMALL = {"p/low.py": "", "p/room/__init__.py": "", "p/room/a.py": "from p import low",
         "p/room/b.py": "from p.room.a import x"}


def test_a_room_is_a_folder_or_a_module_at_the_top():
    assert rooms(SMALL) == {"low": set(), "room": {"low"}}


@pytest.mark.parametrize("source", ["import p.room.a", "from p.room import a", "from p.room.a import x",
                                    "def f():\n    from p.room import a", "import_module('p.room.a')"])
def test_a_circle_and_an_arrow_up_are_found(source):
    graph = rooms(SMALL | {"p/low.py": source})
    assert circles(graph) == [["low", "room"]]
    assert arrows_up(graph, (("low",), ("room",))) == ["low imports room, which is higher"]


def test_a_room_without_a_floor_is_found():
    assert arrows_up(rooms(SMALL), (("low",), ("other",))) == ["room stands on no floor", "there is no room other"]


@pytest.mark.parametrize("source", ["import argparse", "from argparse import Namespace", "parser.add_argument('x')",
                                    "def f():\n    import argparse"])
def test_code_that_knows_the_command_line_is_found(source):
    assert parses_arguments(source)
    assert not parses_arguments("arguments = 1")
