"""`jittwin convert`: the same weights in another file."""
import argparse

from jittwin.checkpoints.convert import ADAPTERS, ANY, MODAL, MODELS, convert
from jittwin.weights import FLOATS, FORMATS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    adapters = ", ".join(ADAPTERS)
    parser.add_argument("src", metavar="SRC", help="weights file of any supported kind, a *.index.json, or a "
                        f"model's hub folder; for {adapters} also a run, a checkpoint or a peft folder")
    parser.add_argument("dst", metavar="DST", help=f"file to write: {' '.join(FORMATS)}; for {adapters} an original "
                        ".pth, or a name without extension for a peft folder")
    parser.add_argument("--model", required=True, metavar="NAME", help=f"one of {', '.join(MODELS)}; "
                        f"'{ANY}' copies without checking names")
    parser.add_argument("--verify", action="store_true", help="read the written file again and compare")
    parser.add_argument("--dtype", metavar="TYPE", help=f"cast floating-point tensors: {', '.join(FLOATS)}")
    parser.add_argument("--to", choices=("jittor", "torch"), default="jittor",
                        help="keys to write: 'jittor' (default), which both backends here load; 'torch': those of "
                             "upstream's PyTorch files, where they differ (APF-GAN's counters, SigLIP's prefix)")
    parser.add_argument("--mode", metavar="MODE", help=f"{', '.join(MODAL)}: the mode, such as nr, of weights that do "
                        "not tell it")
    parser.add_argument("--part", metavar="NAME", help="which network of a file that holds several: the name of its "
                        "dictionary, or the word with which its tensors' names begin")
    parser.add_argument("--reference-compat", action="store_true", help=f"{adapters}: also write the original's "
                        "adapters of the pooling head, which change nothing")


def run(args: argparse.Namespace) -> int:
    """Carry out `jittwin convert`; returns the exit status. UserError: a mistake."""
    print(convert(args.src, args.dst, args.model, verify=args.verify, dtype=args.dtype, to=args.to,
                  reference_compat=args.reference_compat, mode=args.mode, part=args.part))
    return 0
