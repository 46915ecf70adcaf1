"""`jittwin convert`: the same weights in another file."""
import argparse

from jittwin.checkpoints.convert import AESTHETIC, ANY, MODELS, convert
from jittwin.models.apf_gan_keys import COUNTER
from jittwin.weights import FLOATS, FORMATS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("src", metavar="SRC", help="weights file of any supported kind, or a *.index.json; for "
                        f"{AESTHETIC} also a run, a checkpoint or a peft folder")
    parser.add_argument("dst", metavar="DST", help=f"file to write: {' '.join(FORMATS)}; for {AESTHETIC} an original "
                        ".pth, or without extension a peft folder")
    parser.add_argument("--model", required=True, metavar="NAME", help=f"one of {', '.join(MODELS)}; "
                        f"'{ANY}' copies without checking names")
    parser.add_argument("--verify", action="store_true", help="read the written file again and compare")
    parser.add_argument("--dtype", metavar="TYPE", help=f"cast floating-point tensors: {', '.join(FLOATS)}")
    parser.add_argument("--to", choices=("jittor", "torch"), default="jittor",
                        help="keys to write: 'jittor' (default), which both backends here load; "
                             f"'torch': the official PyTorch tree, which adds {COUNTER}")
    parser.add_argument("--reference-compat", action="store_true", help=f"{AESTHETIC}: with the original's adapters of "
                        "the pooling head, which change nothing")


def run(args: argparse.Namespace) -> int:
    """Carries out `jittwin convert`; raises UserError."""
    print(convert(args.src, args.dst, args.model, verify=args.verify, dtype=args.dtype, to=args.to,
                  reference_compat=args.reference_compat))
    return 0
