"""`jittwin train`: train a model."""
import argparse

from jittwin.backend import DEVICES, PACKAGES
from jittwin.classes import IGNORE
from jittwin.commands.options import add_pixel_limit, limit_pixels
from jittwin.errors import UserError
from jittwin.tasks import TASKS
from jittwin.training import train


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("task", nargs="?", default="apf_gan", metavar="TASK",
                        help=f"what to train: {', '.join(TASKS)} (default: apf_gan)")
    parser.add_argument("--backend", choices=PACKAGES, help="the framework; a resumed run remembers its own")
    parser.add_argument("--data", metavar="DIR", help="data folder (default: the built-in procedural data)")
    parser.add_argument("--out", metavar="DIR", help="run directory (default: runs/TASK-BACKEND)")
    parser.add_argument("--config", metavar="YAML", help="settings (default when resuming: the run's own)")
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[],
                        help="one setting, e.g. preset=tiny, max_steps=100; may be repeated")
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--resume", action="store_true", help="continue from the run's newest checkpoint")
    start.add_argument("--continue", dest="continue_from", metavar="EPOCH",
                       help="go back to the checkpoint of EPOCH and train on; settings may change. "
                            "aesthetic, tier: or the original's checkpoint_epoch_n.pth or best_model.pt")
    parser.add_argument("--device", choices=DEVICES, default="cpu", help="default: cpu")
    add_pixel_limit(parser)
    parser.add_argument("--ignore", metavar=IGNORE, help="apf_gan: what values of the label maps that are no class "
                        "are, such as 255=other; the same as --set ignore=255=other")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: all)")


def run(args: argparse.Namespace) -> int:
    """Train as the command line asks; returns the exit status."""
    limit_pixels(args)
    settings = args.set if args.ignore is None else [*args.set, f"ignore={args.ignore}"]
    if args.ignore is not None and args.task != "apf_gan":
        raise UserError(f"--ignore {args.ignore}: is for apf_gan, which has label maps; leave it out")
    return train(args.task, backend_name=args.backend, data=args.data, out=args.out, yaml_path=args.config,
                 overrides=settings, resume=args.resume, continue_from=args.continue_from,
                 device=args.device, threads=args.threads)
