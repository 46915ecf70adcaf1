"""Write a report to files in several formats."""
import json
import os
from collections.abc import Mapping
from pathlib import Path

from jittwin.atomic import write_file
from jittwin.errors import UserError
from parity.report import junit, markdown, page
from parity.report.report import Report


def to_json(report: Report) -> str:
    return json.dumps(report.to_json(), indent=1) + "\n"


RENDERERS = {"json": to_json, "html": page.render, "junit": junit.render, "markdown": markdown.render}
FORMATS = tuple(RENDERERS)


def writable(wanted: Mapping[str, str | os.PathLike]) -> dict[str, Path]:
    """The files by format, as paths. UserError, which names the option --<format>, if one cannot be written."""
    paths, seen = {name: Path(value) for name, value in wanted.items()}, {}
    for name, path in paths.items():
        if path.is_dir():
            raise UserError(f"--{name} {path} is a folder: name a file in it")
        if not path.parent.is_dir():
            raise UserError(f"--{name} {path}: the folder {path.parent} does not exist: create it first")
        if not os.access(path.parent, os.W_OK):
            raise UserError(f"--{name} {path}: the folder {path.parent} cannot be written: choose another")
        if path.resolve() in seen:
            raise UserError(f"--{seen[path.resolve()]} and --{name} are the same file {path}: give each its own")
        seen[path.resolve()] = name
    return paths


def write(report: Report, files: Mapping[str, Path]) -> None:
    for name, path in files.items():
        write_file(path, RENDERERS[name](report))
