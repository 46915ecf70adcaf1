"""`jittwin prepare landscape`: check a data folder, or write a procedural one."""
import argparse
from pathlib import Path

from jittwin.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", choices=["landscape"], metavar="KIND", help="landscape")
    parser.add_argument("folder", metavar="DIR", help="folder with imgs/ and labels/, to check or to write")
    parser.add_argument("--synthetic", type=int, metavar="N", help="write N procedural landscapes into DIR")
    parser.add_argument("--size", type=size, default=(512, 384), metavar="WxH",
                        help="of the procedural pictures, pixels (default: 512x384)")
    parser.add_argument("--seed", type=int, default=0, help="of the procedural pictures (default: 0)")


def size(text: str) -> tuple[int, int]:
    """(width, height) of "WxH"."""
    width, _, height = text.lower().partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f"'{text}' is not WIDTHxHEIGHT, for example 512x384")
    return int(width), int(height)


def run(args: argparse.Namespace) -> None:
    """Print what the folder holds. UserError names the first file that training would trip over."""
    from jittwin.data.landscape import LandscapeDataset
    from jittwin.data.synthetic import write_folder

    if args.synthetic is not None:
        if args.synthetic < 1:
            raise UserError(f"--synthetic {args.synthetic}: must be at least 1")
        if any(Path(args.folder).glob("imgs/*")):
            raise UserError(f"{args.folder} already holds pictures: name a new folder")
        write_folder(args.folder, args.synthetic, *args.size, args.seed)
    dataset = LandscapeDataset(args.folder)
    print(f"{args.folder}: {len(dataset)} pairs of picture and label map, ready for training")
