"""The original TIER-4K `train.py`, and that of its baselines without text, with their settings as flags.

    python scripts/train_tier.py --backbone vit --lr 1e-5 --using_image_prompt 1 --benchmark I2I [--backend torch]

--using_image_prompt trains TIER: with 1, TIER-FR on I2I and else TIER-PR; with 0, TIER-NR. --using_prompt trains the
baselines FR-, PR- and NR-AIGCIQA instead. Like the original, it looks for ./Dataset/PKU-AIGIQA-4K, ./bert-base-uncased
and ./pretrained/resnet18.pth and its like; for the vision transformer give --image_weights, as nothing is downloaded.
The log and best_model.pt lie in --out, a folder for each run. A misspelt flag is an error, which the original ignores.
"""
import os
import sys
from argparse import Namespace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from jittwin import cli, training
from jittwin.backend import DEVICES, PACKAGES
from jittwin.checkpoints.store import Checkpoints
from jittwin.commands.options import add_pixel_limit, limit_pixels
from jittwin.errors import UserError, choose_from

DATA, TEXT_WEIGHTS = "./Dataset/PKU-AIGIQA-4K", "./bert-base-uncased"
PRETRAINED = {"resnet18": "resnet18.pth", "resnet50": "resnet50.pth", "inceptionv4": "inceptionv4-8e4777a0.pth",
              "vgg16": "vgg16-397923af.pth", "vgg19": "vgg19-dcbb9e9d.pth"}
BACKBONES = {False: ("resnet18", "resnet50", "vit", "inceptionv4"),
             True: ("resnet18", "resnet50", "vit", "inceptionv4", "vgg16", "vgg19")}
NORMALISED = ("resnet18", "resnet50", "inceptionv4")    # backbones that a batch's zero pictures change in training
# The originals' defaults, where TIER's and the baselines' differ.
DEFAULTS = {False: {"log_info": "AGIQA3K", "benchmark": "AIGIQA4K"},
            True: {"log_info": "AIGCIQA2023", "benchmark": "T2I"}}
# Flags with the original's default and the key of jittwin.tasks.tier.Config that they set.
FLAGS = {
    "log_info": (None, "log_info"), "lr": ("1e-4", "lr"), "weight_decay": ("1e-5", "weight_decay"),
    "seed": ("1", "seed"), "gpu": ("0", None), "train_batch_size": ("8", "batch_size"),
    "test_batch_size": ("20", "test_batch_size"), "num_epochs": ("100", "epochs"), "backbone": ("vit", "backbone"),
    "using_image_prompt": (None, None), "using_prompt": (None, None), "true_score": ("MOS_q", "column"),
    "benchmark": (None, "subset"),
}
HELP = {"lr": "default: 1e-4, the original's; its README and run.sh give 1e-5", "gpu": "default: 0; numbers of GPUs",
        "using_image_prompt": "0 or 1 (default: 0)", "using_prompt": "0 or 1: train a baseline without text",
        "log_info": "headline of the log (default: AGIQA3K, of baselines AIGCIQA2023)",
        "benchmark": "AIGIQA4K, I2I or T2I (default: AIGIQA4K, of baselines T2I)"}


def parser(prog: str, summary: str, flags=tuple(FLAGS)) -> cli.Parser:
    """The original's flags, and those that all commands here have."""
    made = cli.Parser(prog=f"python scripts/{prog}", description=summary)
    for name in flags:
        default = FLAGS[name][0]
        made.add_argument(f"--{name}", metavar="VALUE", default=default, help=HELP.get(name, f"default: {default}"))
    ours = made.add_argument_group("options that the original does not have")
    ours.add_argument("--backend", choices=PACKAGES, default="jittor", help="default: jittor")
    ours.add_argument("--device", choices=("auto", *DEVICES), default="auto",
                      help="default: auto, the GPU if there is one")
    ours.add_argument("--data", metavar="DIR", help=f"default: {DATA}; none: built-in data")
    ours.add_argument("--text_weights", metavar="FOLDER", help=f"BERT's (default: {TEXT_WEIGHTS})")
    ours.add_argument("--image_weights", metavar="PATH", help="the backbone's (default: its file in ./pretrained)")
    ours.add_argument("--out", metavar="DIR", help="run directory (default: exp/ and the name of the network and data)")
    ours.add_argument("--set", metavar="KEY=VALUE", action="append", default=[],
                      help="another setting of `jittwin train tier`, e.g. random_model=true")
    add_pixel_limit(ours)
    ours.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return made


def checked(args: Namespace) -> Namespace:
    """The arguments with the defaults that depend on others, `baseline` and `mode`. UserError: an illegal value."""
    if args.using_prompt is not None and args.using_image_prompt is not None:
        raise UserError("--using_prompt trains a baseline and --using_image_prompt TIER: give one of the two")
    args.baseline = args.using_prompt is not None
    given, name = ((args.using_prompt, "using_prompt") if args.baseline else
                   (args.using_image_prompt or "0", "using_image_prompt"))
    for flag, value, legal in ((name, given, ("0", "1")), ("backbone", args.backbone, BACKBONES[args.baseline])):
        if value not in legal:
            raise UserError(f"--{flag}={value}{choose_from(value, legal)}")
    for flag, default in DEFAULTS[args.baseline].items():
        if getattr(args, flag) is None:
            setattr(args, flag, default)
    args.mode = "nr" if given == "0" else "fr" if args.benchmark == "I2I" else "pr"
    return args


def overrides(args: Namespace) -> list[str]:
    """The settings KEY=VALUE of checked arguments, as for --set."""
    found = {key: getattr(args, name) for name, (_, key) in FLAGS.items() if key}
    found |= {"mode": args.mode, "baseline": args.baseline}
    if args.mode == "pr" and args.backbone in NORMALISED:
        found["legacy_pr_batch"] = True
    wanted = "random_model=true" not in args.set
    pretrained = Path("pretrained", PRETRAINED.get(args.backbone, "-"))
    paths = {"image_weights": args.image_weights or (pretrained if wanted and pretrained.name != "-" else None)}
    if not args.baseline:
        paths["text_weights"] = args.text_weights or (TEXT_WEIGHTS if wanted else None)
    found |= {key: path for key, path in paths.items() if path}
    return [f"{key}={value}" for key, value in found.items()] + args.set


def network(args: Namespace) -> str:
    """The paper's name of the network."""
    return f"{args.mode.upper()}-AIGCIQA" if args.baseline else f"TIER-{args.mode.upper()}"


def start(args: Namespace, folder: Path) -> int:
    """Train with checked arguments in a folder; a run that is there goes on. Returns the exit status."""
    limit_pixels(args)
    os.environ["CUDA_VISIBLE_DEVICES"] = args.gpu       # before a framework is imported
    data = None if args.data == "none" else args.data or DATA
    return training.train("tier", args.backend, data=data, out=str(folder), overrides=overrides(args),
                          resume=Checkpoints(folder).latest() is not None, device=args.device)


def run(argv: list[str]) -> int:
    args = checked(parser("train_tier.py", "train TIER on PKU-AIGIQA-4K").parse_args(argv))
    name = f"{network(args)}-{args.benchmark}-{args.backbone}-{args.true_score}"
    return start(args, Path(args.out or Path("exp", name)))


if __name__ == "__main__":
    sys.exit(cli.guarded(lambda: run(sys.argv[1:]), debug="--debug" in sys.argv))
