"""`python -m parity attest`: what both sides compute with, and whether it can be trusted."""
import json

from jittwin.atomic import write_file
from parity.commands.options import output_arguments, outputs, twin_folder
from parity.levels.environment import attested
from parity.report import terminal
from parity.result import finite
from parity.workers.oracle import Twins


def add_arguments(parser) -> None:
    parser.add_argument("--twin", metavar="FOLDER", help="a folder with the copy of jt_models to attest")
    output_arguments(parser, ("json",))


def command(args) -> int:
    """Show the attestation. Returns 0 if everything that must hold does, else 1."""
    files = outputs(args)
    with Twins(twin_folder(args.twin)) as twins:
        found = attested(twins)
    for path in files.values():
        write_file(path, json.dumps(finite(found), indent=1) + "\n")
    terminal.show_attestation(found)
    return 0 if found["verdict"] == "pass" else 1
