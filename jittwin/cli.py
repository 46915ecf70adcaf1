"""The command lines of jittwin and parity. Only the module of the command is imported; mistakes become one line."""
import argparse
import contextlib
import importlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import jittwin
from jittwin.errors import UserError, choose_from, did_you_mean, printable
from jittwin.launching import launch, launched, leave

MISTAKE, INTERRUPTED, BROKEN_PIPE = 2, 130, 141


class Once(argparse.Action):
    """Stores a value and refuses a second one, because argparse would silently ignore the first."""

    def __call__(self, parser, namespace, values, option_string=None):
        if option_string and self.dest in parser.given:
            raise argparse.ArgumentError(self, f"given twice, {parser.given[self.dest]!r} and {values!r}: give it once")
        parser.given[self.dest] = values
        setattr(namespace, self.dest, values)


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line with the nearest option; options cannot be abbreviated.

    once: an option cannot be given twice. Without it the last value counts, as in the original projects' commands.
    """

    def __init__(self, once: bool = False, **keywords):
        super().__init__(allow_abbrev=False, **keywords)
        self.given = {}         # values of this command line so far, by option
        if once:
            self.register("action", None, Once)
            self.register("action", "store", Once)

    def parse_args(self, args=None, namespace=None):
        self.given.clear()
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


@dataclass(frozen=True)
class Program:
    """A program with several commands.

    call: how it is started. about: a description in one line. commands: by name, ("module:function", summary). The
    function takes the parsed arguments and returns the exit status, or None for 0. Its module also has
    `add_arguments(parser)`, and imports no framework before the function is called.
    """
    name: str
    call: str
    about: str
    commands: Mapping[str, tuple[str, str]]

    def overview(self) -> str:
        """The text that `--help` prints without a command."""
        lines = [f"  {name:10}{summary}" for name, (_, summary) in self.commands.items()]
        return "\n".join([f"usage: {self.call} COMMAND ...", "", self.about, "", "commands:", *lines, "",
                          f"{self.call} COMMAND --help shows its options, {self.call} --version the version."])

    def parser_of(self, command: str) -> Parser:
        """The parser of one command, with `--debug` added."""
        where, summary = self.commands[command]
        parser = Parser(once=True, prog=f"{self.call} {command}", description=summary)
        importlib.import_module(where.split(":")[0]).add_arguments(parser)
        parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
        return parser

    def dispatch(self, argv: Sequence[str]) -> int:
        """Run one command; returns its exit status. Errors of the command are not caught."""
        if not argv or argv[0] in ("-h", "--help", "help"):
            print(self.overview())
            return 0
        if argv[0] == "--version":
            print(jittwin.__version__)
            return 0
        if argv[0] not in self.commands:
            raise UserError(f"unknown command '{argv[0]}'{choose_from(argv[0], self.commands)}")
        args = self.parser_of(argv[0]).parse_args(argv[1:])
        rank, running = launched()
        if running == 1 and (getattr(args, "processes", None) or 1) > 1:
            return launch(args.backend, args.processes, [sys.executable, "-m", "jittwin", *argv])
        module, function = self.commands[argv[0]][0].split(":")
        with quiet() if rank else contextlib.nullcontext():     # the first of several processes talks
            return getattr(importlib.import_module(module), function)(args) or 0

    def main(self, argv: Sequence[str] | None = None) -> int:
        """Run one command; returns the exit status, 2 after a mistake and 130 after an interrupt."""
        argv = list(sys.argv[1:] if argv is None else argv)
        return guarded(lambda: self.dispatch(argv), debug="--debug" in argv, program=self.name)


def guarded(work, debug: bool, program: str = "jittwin") -> int:
    """The exit status of `told`; one of several processes that have met ends here."""
    return leave(told(work, debug, program))


def told(work, debug: bool, program: str) -> int:
    """Call `work`; mistakes, a full disk, a full GPU, Ctrl-C and a closed pipe become one line and an exit status."""
    try:
        sys.stdout.reconfigure(errors="backslashreplace")   # a terminal that is not UTF-8 cannot show every character
        status = work()
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        # The reader has closed the pipe; without this the interpreter prints an error when it flushes at exit.
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
        if not launched()[0] or getattr(error, "of_this_process", False):
            print(f"{program}: {one_line(error)}", file=sys.stderr)
        return MISTAKE
    except RuntimeError as error:
        if debug or not gpu_full(error):
            raise
        print(f"{program}: {GPU_FULL}", file=sys.stderr)
        return MISTAKE


def gpu_full(error: RuntimeError) -> bool:
    """Whether a framework says that the GPU has too little memory. It is known by name and words, because no framework
    is imported here: PyTorch's own class, the errors of CUDA's libraries that PyTorch passes on, and Jittor's."""
    return type(error).__name__ == "OutOfMemoryError" or any(words in str(error) for words in OUT_OF_MEMORY)


OUT_OF_MEMORY = ("CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED",
                 "cudaErrorMemoryAllocation", "Unable to alloc cuda device memory")
GPU_FULL = ("the GPU has too little free memory: lower --batch (of train: --set batch_size), take smaller pictures, "
            "compute in bfloat16 (--dtype; of train: --set precision), or use --device cpu")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """While this context lasts, nothing is printed."""
    with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing), contextlib.redirect_stderr(nothing):
        yield


def one_line(error: Exception) -> str:
    """The message on one line; for an error of the operating system (disk full, no permission) also the file."""
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror} (errno {error.errno}); --debug shows where"
    return printable(" ".join(str(error).split()))


JITTWIN = Program("jittwin", "jittwin", jittwin.__doc__, {
    "train": ("jittwin.commands.train:run", "train a model"),
    "generate": ("jittwin.commands.generate:run", "images from label maps"),
    "assess": ("jittwin.commands.assess:run", "how good single pictures are"),
    "fid": ("jittwin.commands.fid:run", "distance between two sets of pictures"),
    "select": ("jittwin.commands.select:run", "the best checkpoint of a run by FID"),
    "merge": ("jittwin.commands.merge:run", "average checkpoints"),
    "convert": ("jittwin.commands.convert:run", "weights between files, frameworks and upstream formats"),
    "prepare": ("jittwin.commands.prepare:run", "check a data set, or write a procedural one"),
    "list": ("jittwin.commands.listing:run", "models and metrics: backends, weights needed, licence"),
})
main, dispatch = JITTWIN.main, JITTWIN.dispatch
