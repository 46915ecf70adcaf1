"""The original `train_accelerate.py` (also called train.py) of the detector of structural distortion.

    python scripts/train_accelerate.py --data_path DIR --model florence2 --lora_rank 0 --unfreeze_params all … \
        [--backend torch]

One process trains, without `accelerate launch`. Nothing is downloaded: microsoft/Florence-2-large is looked for as a
folder here, or given with --trunk. Checkpoints, log and settings lie in BYTENAS_PATH/experiments/EXPERIMENT_NAME; a run
that is there goes on. The defaults are the original's. What it ignores is accepted, with a line: --fp16, --config.
"""
import sys
from argparse import Namespace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from jittwin import cli, training
from jittwin.backend import DEVICES, PACKAGES
from jittwin.checkpoints.store import Checkpoints
from jittwin.commands.options import add_pixel_limit, limit_pixels
from jittwin.errors import UserError, choose_from

TRUNKS = {"florence2": "microsoft/Florence-2-large", "florence2-large-ft": "microsoft/Florence-2-large-ft"}
MODES = ("train", "debug", "eval")
NEVER = 1 << 30         # epochs between checkpoints: only the last is kept
# Flags with the original's default and the key of jittwin.tasks.distortion.Config that they set.
FLAGS = {
    "seed": ("0", "seed"), "experiment_name": ("exp_test", None), "load_checkpoint": ("", "weights"),
    "bytenas_path": ("./exp", None), "log_step": ("10", "log_every"), "data_path": (None, None),
    "negative_num": ("9000", "negatives"), "hflip": ("0.5", "flip"), "iters": ("10000", None),
    "epoch": ("50", "epochs"), "val_split": ("1000", "val_split"), "batch_size": ("8", "batch_size"),
    "batch_size_warmup": ("16", "warmup_batch_size"), "batch_size_val": ("16", "val_batch_size"),
    "accumulate_step": ("16", "accumulation"), "lr": ("1e-4", "lr"), "backbone_lr_decay": ("0.1", "trunk_lr_factor"),
    "min_lr": ("0", "min_lr"), "val_iter": ("1", None), "save_iter": ("1", None), "mask_loss": ("mse", "mask_loss"),
    "score_loss": ("mse", "score_loss"), "mask_loss_weight": ("1.0", "mask_loss_weight"),
    "score_loss_weight": ("1.0", "score_loss_weight"), "model": ("altclip", None), "input_size": ("768", "side"),
    "mask_size": ("768", None), "warmup_epoch": ("5", "warmup_epochs"), "mode": ("train", None),
    "lora_rank": ("8", "lora_rank"), "score_head": ("linear", "score_head"), "mask_head": ("concat", "mask_head"),
    "freeze_params": ("", "freeze"), "unfreeze_params": ("lora,heatmap_predictor,score_predictor", "unfreeze"),
    "ema_decay": ("0.999", None),
}
IGNORED = {"local-rank": "one process trains", "config": "as in the original, a YAML file changes nothing"}
SWITCHES = {"fp16": "as in the original, it changes nothing; --set precision=bfloat16 does",
            "use_lora": "as in the original, --lora_rank above 0 means LoRA",
            "weighted_loss": "the original ignores it"}
HELP = {"model": f"{' or '.join(TRUNKS)}; the default altclip is not here",
        "data_path": "folder of EvalMuse-Structure; none: built-in data",
        "input_size": "side of pictures and maps (default: 768; the original's 448 does not work)",
        "mask_size": "must be --input_size", "lora_rank": "default: 8; 0: no LoRA",
        "val_iter": "epochs between checkpoints with measures, as --save_iter; the smaller one counts (default: 1)"}


def parser() -> cli.Parser:
    made = cli.Parser(prog="python scripts/train_accelerate.py", description="train the detector of distortion")
    for name, (default, _) in FLAGS.items():
        made.add_argument(f"--{name}", metavar="VALUE", default=default, help=HELP.get(name, f"default: {default!r}"))
    for name, why in IGNORED.items():
        made.add_argument(f"--{name}", metavar="VALUE", help=why)
    for name, why in SWITCHES.items():
        made.add_argument(f"--{name}", action="store_true", help=why)
    made.add_argument("--ema", action="store_true", help="average the weights with --ema_decay")
    ours = made.add_argument_group("options that the original does not have")
    ours.add_argument("--backend", choices=PACKAGES, default="jittor", help="default: jittor")
    ours.add_argument("--device", choices=("auto", *DEVICES), default="auto",
                      help="default: auto, the GPU if there is one")
    ours.add_argument("--trunk", metavar="FOLDER", help="hub folder of Florence-2 (default: the folder of its name)")
    ours.add_argument("--set", metavar="KEY=VALUE", action="append", default=[],
                      help="another setting of `jittwin train distortion`, e.g. precision=bfloat16")
    add_pixel_limit(ours)
    ours.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return made


def whole(args: Namespace, name: str) -> int:
    try:
        return int(getattr(args, name))
    except ValueError as error:
        raise UserError(f"--{name}={getattr(args, name)}: expected a whole number") from error


def overrides(args: Namespace) -> list[str]:
    """The settings KEY=VALUE, as for --set. UserError: a value that is not legal, or not here."""
    if args.model not in TRUNKS:
        raise UserError(f"--model={args.model}{choose_from(args.model, TRUNKS)}")
    if args.mode not in MODES:
        raise UserError(f"--mode={args.mode}{choose_from(args.mode, MODES)}")
    if args.mode == "eval":
        raise UserError("--mode=eval: does not work in the original; use scripts/evaluate.py")
    if args.mask_size != args.input_size:
        raise UserError(f"--mask_size={args.mask_size} and --input_size={args.input_size}: maps have the size of the "
                        "pictures; give one size for both")
    if whole(args, "epoch") < 1:
        raise UserError(f"--epoch={args.epoch} must be at least 1; --iters alone does not say how long to train")
    every = [number for number in (whole(args, "val_iter"), whole(args, "save_iter")) if number > 0]
    found = {key: getattr(args, name) for name, (_, key) in FLAGS.items() if key}
    found |= {"save_epochs": min(every, default=NEVER), "ema": args.ema_decay if args.ema else 0}
    if not args.load_checkpoint:
        found["weights"] = "none"
        if "random_model=true" not in args.set:
            found["trunk"] = args.trunk or TRUNKS[args.model]
    return [f"{key}={value}" for key, value in found.items()] + args.set


def run(argv: list[str]) -> int:
    args = parser().parse_args(argv)
    limit_pixels(args)
    settings = overrides(args)
    if args.data_path is None:
        raise UserError("--data_path is missing: give the folder of EvalMuse-Structure, or none for built-in data")
    for name, why in {**IGNORED, **SWITCHES}.items():
        if getattr(args, name.replace("-", "_")):
            print(f"--{name}: {why}", file=sys.stderr)
    folder = Path(args.bytenas_path, "experiments", args.experiment_name)
    return training.train("distortion", args.backend, data=None if args.data_path == "none" else args.data_path,
                          out=str(folder), overrides=settings, resume=Checkpoints(folder).latest() is not None,
                          device=args.device)


if __name__ == "__main__":
    sys.exit(cli.guarded(lambda: run(sys.argv[1:]), debug="--debug" in sys.argv))
