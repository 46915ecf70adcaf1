"""The command line: finds the command, imports only that, and turns mistakes into one line.

A command is a module with `add_arguments(parser)` and `run(args) -> int | None`; none of them
imports a framework before `run`.
"""
import argparse
import importlib
import os
import sys
from collections.abc import Sequence

import jittwin
from jittwin.errors import UserError, choose_from, did_you_mean

COMMANDS = {
    "train": ("jittwin.train", "train a model"),
    "generate": ("jittwin.generate", "images from label maps"),
    "assess": ("jittwin.assess", "how good single pictures are"),
    "fid": ("jittwin.fid", "distance between two sets of pictures"),
    "select": ("jittwin.select", "the best checkpoint of a run by FID"),
    "merge": ("jittwin.merge", "average checkpoints"),
    "convert": ("parity.convert", "weights between files, frameworks and upstream formats"),
    "prepare": ("jittwin.prepare", "check a data set, or write a procedural one"),
    "list": ("jittwin.listing", "models and metrics: backends, weights needed, licence"),
}
MISTAKE, INTERRUPTED, BROKEN_PIPE = 2, 130, 141


class Parser(argparse.ArgumentParser):
    """One-line errors that name the nearest option; options cannot be abbreviated."""

    def __init__(self, **keywords):
        super().__init__(allow_abbrev=False, **keywords)

    def parse_args(self, args=None, namespace=None):
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            self.error(self._explain(unknown[0]))
        return parsed

    def _explain(self, unknown: str) -> str:
        if not unknown.startswith("-"):
            return f"unexpected argument '{unknown}'"
        name = unknown.partition("=")[0]
        nearest = did_you_mean(name, self._option_string_actions)
        return f"unknown option '{name}'{nearest}; see {self.prog} --help"

    def _check_value(self, action, value):
        if action.choices is not None and value not in action.choices:
            legal = [str(choice) for choice in action.choices]
            raise argparse.ArgumentError(action, f"'{value}' is not legal{choose_from(value, legal)}")

    def error(self, message: str):
        raise UserError(message)


def parser_of(command: str) -> Parser:
    """The parser of one command, with `--debug` added."""
    module, summary = COMMANDS[command]
    parser = Parser(prog=f"jittwin {command}", description=summary)
    importlib.import_module(module).add_arguments(parser)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def overview() -> str:
    lines = [f"  {name:10}{summary}" for name, (_, summary) in COMMANDS.items()]
    return "\n".join(["usage: jittwin COMMAND ...", "", jittwin.__doc__, "", "commands:", *lines, "",
                      "jittwin COMMAND --help shows its options, jittwin --version the version."])


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status. 2: a mistake, 130: interrupted."""
    argv = list(sys.argv[1:] if argv is None else argv)
    return guarded(lambda: dispatch(argv), debug="--debug" in argv)


def dispatch(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(overview())
        return 0
    if argv[0] == "--version":
        print(jittwin.__version__)
        return 0
    if argv[0] not in COMMANDS:
        raise UserError(f"unknown command '{argv[0]}'{choose_from(argv[0], COMMANDS)}")
    args = parser_of(argv[0]).parse_args(argv[1:])
    return importlib.import_module(COMMANDS[argv[0]][0]).run(args) or 0


def guarded(work, debug: bool, program: str = "jittwin") -> int:
    """Call `work`; mistakes, a full disk, Ctrl-C and a closed pipe become one line and an exit status."""
    try:
        status = work()
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        # The reader has left; without this the interpreter complains when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except KeyboardInterrupt:
        if debug:
            raise
        print(f"{program}: interrupted", file=sys.stderr)
        return INTERRUPTED
    except (UserError, OSError) as error:
        if debug:
            raise
        print(f"{program}: {one_line(error)}", file=sys.stderr)
        return MISTAKE


def one_line(error: Exception) -> str:
    """The message; for an error of the operating system (disk full, no permission) also the file."""
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror} (errno {error.errno}); --debug shows where"
    return " ".join(str(error).split())
