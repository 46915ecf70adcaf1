"""The proofs that the twins agree: python -m parity COMMAND.

A command is a module with `add_arguments(parser)` and `command(args) -> status`. None imports a framework:
those live in worker processes. Exit status 0: pass, 1: fail, 2: a mistake.
"""
import importlib
import sys
from collections.abc import Sequence

from jittwin.cli import Parser, guarded
from jittwin.errors import UserError, choose_from

COMMANDS = {
    "check": ("parity.check", "compare the twins, model by model and level by level"),
    "attest": ("parity.attest", "what both sides compute with, and whether it can be trusted"),
    "explain": ("parity.explain", "which known difference between the frameworks explains a failure"),
    "mutate": ("parity.mutate", "put faults into the Jittor twin and see which of them are noticed"),
    "report": ("parity.report", "render a JSON report as HTML, Markdown or JUnit"),
}


def overview() -> str:
    lines = [f"  {name:10}{summary}" for name, (_, summary) in COMMANDS.items()]
    return "\n".join(["usage: python -m parity COMMAND ...", "", *__doc__.splitlines()[:1], "", "commands:", *lines, "",
                      "python -m parity COMMAND --help shows its options."])


def parser_of(command: str) -> Parser:
    module, summary = COMMANDS[command]
    parser = Parser(prog=f"python -m parity {command}", description=summary)
    importlib.import_module(module).add_arguments(parser)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(overview())
        return 0
    if words[0] not in COMMANDS:
        raise UserError(f"unknown command '{words[0]}'{choose_from(words[0], COMMANDS)}")
    args = parser_of(words[0]).parse_args(words[1:])
    return importlib.import_module(COMMANDS[words[0]][0]).command(args)


def main(words: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if words is None else words)
    return guarded(lambda: dispatch(words), debug="--debug" in words, program="parity")


if __name__ == "__main__":
    sys.exit(main())
