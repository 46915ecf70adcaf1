"""Options that several commands share, and what their values must be."""
from collections.abc import Sequence
from pathlib import Path

from jittwin.errors import UserError
from parity.report.write import FORMATS, writable


def model_arguments(parser) -> None:
    """Add the arguments of every command that runs cases."""
    parser.add_argument("models", nargs="*", metavar="MODEL",
                        help="a model, a family such as apf_gan, or module:NAME of a Pair; without one every model")
    parser.add_argument("--twin", metavar="FOLDER", help="a folder with the copy of jt_models to check")


def twin_folder(folder: str | None) -> str | None:
    """The folder itself. UserError if it holds no copy of the Jittor twin."""
    if folder and not Path(folder, "jt_models", "__init__.py").is_file():
        raise UserError(f"--twin {folder}: there is no jt_models package in it: name the folder that contains one")
    return folder


def output_arguments(parser, formats: Sequence[str] = FORMATS) -> None:
    kinds = {"json": "JSON", "html": "one HTML page", "junit": "JUnit XML", "markdown": "Markdown tables"}
    for name in formats:
        parser.add_argument(f"--{name}", metavar="FILE", help=f"write the report to this file as {kinds[name]}")


def outputs(args) -> dict[str, Path]:
    """The files asked for, by format. UserError, before any work, if one cannot be written."""
    return writable({name: value for name in FORMATS if (value := getattr(args, name, None))})
