"""The original `train_aesthetic_lora.py`: train the aesthetic scorer on AVA, with the original's settings as flags.

    python scripts/train_aesthetic_lora.py --model_name FOLDER --image_dir DIR --ava_txt_path AVA.txt [--backend torch]

Nothing is uploaded or downloaded. The trained weights stay float32; --dtype is the type of the matrix products.
With --resume_checkpoint auto, the default, a run in --save_dir goes on, also a run of the original program, from its
checkpoint_latest.pth. To go on with other settings, such as more epochs, name the checkpoint:
--resume_checkpoint SAVE_DIR/checkpoint_epoch_n.pth.
"""
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from jittwin import cli, training
from jittwin.backend import DEVICES, PACKAGES
from jittwin.checkpoints.store import Checkpoints
from jittwin.commands.options import add_pixel_limit, limit_pixels
from jittwin.errors import UserError, choose_from
from jittwin.models.lora import LAYER_NAMES

SPLITS = {"full": "random", "split": "lists"}


def split(text: str) -> str:
    if text not in SPLITS:
        raise UserError(f"--dataset_mode={text}{choose_from(text, SPLITS)}")
    return SPLITS[text]


class Flag(NamedTuple):
    """A flag of the original. default: the original's; None keeps ours. key: the key of
    jittwin.tasks.aesthetic.Config that it sets."""

    default: str | None
    key: str | None = None
    convert: Callable[[str], str] = str


FLAGS = {
    "model_name": Flag(None, "model"), "image_dir": Flag(None, "images"), "ava_txt_path": Flag(None, "votes"),
    "dataset_mode": Flag("full", "split", split), "train_split": Flag("0.9", "train_split"),
    "train_list_path": Flag(None, "train_list"), "test_list_path": Flag(None, "test_list"),
    "resume_checkpoint": Flag("auto"),
    "lora_r": Flag("32", "lora_r"), "lora_alpha": Flag("64", "lora_alpha"),
    "lora_dropout": Flag("0.1", "lora_dropout"), "lora_target_modules": Flag(",".join(LAYER_NAMES)),
    "batch_size": Flag("48", "batch_size"), "accum_steps": Flag("2", "accumulation"),
    "num_epochs": Flag("20", "epochs"), "learning_rate": Flag("2e-4", "lr"),
    "mlp_learning_rate": Flag("5e-4", "head_lr"), "weight_decay": Flag("0.01", "weight_decay"),
    "warmup_ratio": Flag("0.1", "warmup_ratio"), "device": Flag("auto"), "dtype": Flag("bfloat16", "precision"),
    "num_workers": Flag("4", "workers"), "seed": Flag("42", "seed"), "save_dir": Flag("./checkpoints"),
    "log_interval": Flag("50", "log_every"), "max_samples": Flag("none", "max_samples"),
}


def parse(argv: list[str]):
    parser = cli.Parser(prog="python scripts/train_aesthetic_lora.py", description="train the aesthetic scorer on AVA")
    for name, flag in FLAGS.items():
        parser.add_argument(f"--{name}", metavar="VALUE", default=flag.default,
                            help="no default" if flag.default is None else f"default: {flag.default}")
    ours = parser.add_argument_group("options that the original does not have")
    ours.add_argument("--backend", choices=PACKAGES, default="jittor", help="default: jittor")
    ours.add_argument("--set", metavar="KEY=VALUE", action="append", default=[],
                      help="another setting of `jittwin train aesthetic`, e.g. gradient_checkpointing=true")
    add_pixel_limit(ours)
    ours.add_argument("--debug", action="store_true", help="show the traceback of an error")
    args = parser.parse_args(argv)
    limit_pixels(args)
    if args.image_dir is None:
        raise UserError("--image_dir is missing: name the folder of AVA's pictures")
    if args.device not in ("auto", *DEVICES):
        raise UserError(f"--device={args.device}{choose_from(args.device, ('auto', *DEVICES))}")
    names = re.split(r"[,\s]+", args.lora_target_modules.strip())
    if sorted(names) != sorted(LAYER_NAMES):
        raise UserError(f"--lora_target_modules={args.lora_target_modules}: only {','.join(LAYER_NAMES)} is "
                        "implemented; leave the flag out")
    return args


def overrides(args) -> list[str]:
    """The settings KEY=VALUE, as for --set."""
    settings = {flag.key: flag.convert(value) for name, flag in FLAGS.items()
                if flag.key and (value := getattr(args, name)) is not None}
    return [f"{key}={value}" for key, value in settings.items()] + args.set


def start(folder: Path, wanted: str) -> dict:
    """The arguments of `train` that say how to begin. wanted: none, auto, or the path of a checkpoint_epoch_n.pth.

    UserError: the file is missing, or `none` for a folder that holds a run.
    """
    if wanted.lower() == "none":
        if Checkpoints(folder).latest():
            raise UserError(f"--resume_checkpoint={wanted}: {folder} already holds a run: give auto, or another "
                            "--save_dir")
        return {}
    if wanted != "auto":
        if not Path(wanted).is_file():
            raise UserError(f"--resume_checkpoint={wanted}: no such file: give a checkpoint_epoch_n.pth, auto or none")
        return {"continue_from": wanted}
    if Checkpoints(folder).latest():
        return {"resume": True}
    numbered = {int(found[1]): path for path in folder.glob("checkpoint_epoch_*.pth")
                if (found := re.fullmatch(r"checkpoint_epoch_(\d+)\.pth", path.name))}
    newest = folder / "checkpoint_latest.pth"
    if not newest.exists() and numbered:
        newest = numbered[max(numbered)]
    return {"continue_from": str(newest)} if newest.exists() else {}


def run(argv: list[str]) -> int:
    args = parse(argv)
    return training.train("aesthetic", args.backend, data=args.image_dir, out=args.save_dir, overrides=overrides(args),
                       device=args.device, **start(Path(args.save_dir), args.resume_checkpoint))


if __name__ == "__main__":
    sys.exit(cli.guarded(lambda: run(sys.argv[1:]), debug="--debug" in sys.argv))
