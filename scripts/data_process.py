"""The original `data_process.py`: EvalMuse-Structure's annotation to the train_info.pkl that the original trains from.

    DATA_ROOT=DIR python scripts/data_process.py

DIR holds train/images/ and train/train_info.json. It writes ./data/train_info.pkl and, in ./data/headmap_vis, every
picture with its map in colours. `jittwin train` needs neither. Here no picture is dropped: what cannot be used is an
error, and what is unusual is printed.
"""
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from jittwin import cli, imaging
from jittwin.commands.options import add_pixel_limit, limit_pixels
from jittwin.data.evalmuse import EvalMuse
from jittwin.data.evalmuse_files import PICKLE, STORED_SIDE, maps, write_pickle
from jittwin.errors import UserError

PICTURES = "headmap_vis"        # as the original spells it
WARMTH = 0.7                    # share of the map in a picture


def drawn(found, folder: Path):
    """Pass maps on, and save each with its picture."""
    folder.mkdir(parents=True, exist_ok=True)
    for sample, levels in found:
        mixed = imaging.heat_overlay(sample.read(), levels, WARMTH)
        imaging.save_image(folder / f"{Path(sample.name).stem}.jpg", mixed)
        yield sample, levels


def run(argv: list[str]) -> int:
    parser = cli.Parser(prog="python scripts/data_process.py", description="maps of EvalMuse-Structure as a pickle")
    ours = parser.add_argument_group("options that the original does not have")
    ours.add_argument("--data", metavar="DIR", help="the data set (default: the environment variable DATA_ROOT)")
    ours.add_argument("--out", metavar="DIR", default="data", help="where to write (default: data)")
    ours.add_argument("--no-pictures", action="store_true", help="do not draw the maps")
    add_pixel_limit(ours)
    ours.add_argument("--debug", action="store_true", help="show the traceback of an error")
    args = parser.parse_args(argv)
    limit_pixels(args)
    root = args.data or os.environ.get("DATA_ROOT")
    if not root:
        raise UserError("DATA_ROOT is not set: set it to the folder with train/images/ and train/train_info.json, or "
                        "give --data")
    data, out = EvalMuse(root), Path(args.out)
    for line in [*data.notes, *map(str, data.problems + data.geometry())]:
        print(line, file=sys.stderr)
    out.mkdir(parents=True, exist_ok=True)
    found = maps(data.samples, STORED_SIDE)
    count = write_pickle(out / PICKLE, found if args.no_pictures else drawn(found, out / PICTURES))
    print(f"{out / PICKLE}: {count} pictures; the original's training reads it from the folder of the data set")
    return 0


if __name__ == "__main__":
    sys.exit(cli.guarded(lambda: run(sys.argv[1:]), debug="--debug" in sys.argv))
