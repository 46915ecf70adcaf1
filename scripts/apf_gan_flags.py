"""The flags of the original APF-GAN commands and their names here: one table for all scripts.

A flag with a key sets that key of jittwin.tasks.apf_gan.Config. A flag without a key chose among alternatives of
which this project implements only the one that the published recipe used. It is accepted with the recipe's value and
refused with any other.
"""
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from jittwin.backend import DEVICES, PACKAGES
from jittwin.checkpoints.store import Checkpoints
from jittwin.cli import Parser
from jittwin.commands.options import add_pixel_limit, limit_pixels
from jittwin.errors import UserError

REMOVAL_LIST = "remove_130_imgs.txt"
FID_WEIGHTS = "util/net_params.pkl"     # where the original keeps its Inception
FID_HELP = f"Inception's weights, see jittwin fid --weights (default: {FID_WEIGHTS} if it exists)"
STATISTICS = "train_fid"                # how the names of the files _m.npy and _s.npy beside the checkpoints begin


class Flag(NamedTuple):
    """A flag of the original. default: the original's; None keeps ours. key: the key of Config that it sets in the
    first phase; second: in fine-tuning."""

    default: str | None
    key: str | None = None
    second: str | None = None
    convert: Callable[[str, dict], str] = lambda text, given: text


def truth(text: str) -> bool:
    return text.lower() in ("true", "1", "yes")


def negated(text: str, given: dict) -> str:
    return str(not truth(text))


def in_steps(text: str, given: dict) -> str:
    """A number of samples, which the original counts, in steps."""
    try:
        return str(max(1, int(text) // int(given["batchSize"])))
    except (ValueError, ZeroDivisionError):
        raise UserError(f"'{text}' samples in batches of '{given['batchSize']}': both must be whole numbers, "
                        "and a batch must not be empty") from None


def removal_list(text: str, given: dict) -> str:
    if not truth(text):
        return "none"
    if not Path(REMOVAL_LIST).exists():
        raise UserError(f"{REMOVAL_LIST} is not in this folder: copy it here from the original project, "
                        "or pass --remove_hard_imgs=False")
    return REMOVAL_LIST


FOLDERS = {"input_path": Flag(None), "name": Flag("label2img"), "checkpoints_dir": Flag("./checkpoints")}

RECIPE = {
    "preprocess_mode": Flag("scale_width_and_crop"), "label_nc": Flag("29"),
    "contain_dontcare_label": Flag("False"), "no_instance": Flag("True"),
    "netG": Flag("spade"), "norm_G": Flag("spectralspadesyncbatch3x3"), "num_upsampling_layers": Flag("more"),
    "use_vae": Flag("True"), "encode_mask": Flag("True"), "norm_E": Flag("spectralinstance"),
    "add_noise": Flag("False"), "use_pos": Flag("False"), "use_pos_proj": Flag("False"),
    "use_interFeature_pos": Flag("False"), "sr_scale": Flag("0"), "USE_AMP": Flag("False"),
}

TRAIN = {
    **FOLDERS, **RECIPE,
    "continue_train": Flag("False"), "which_epoch": Flag("latest"),
    # schedule
    "niter": Flag(None, "pretrain_epochs", "epochs"), "niter_decay": Flag("0"),
    "batchSize": Flag("20", "batch_size", "finetune_batch_size"),
    "pg_niter": Flag("180", "pg_niter", "pg_niter"), "num_D": Flag("4", "num_D", "num_D"),
    "pg_strategy": Flag("1"), "one_pg_D": Flag("False"), "reverse_map_D": Flag("False"),
    "D_steps_per_G": Flag("1"),
    # fine-tuning
    "diff_aug": Flag("", "diff_aug", "diff_aug"), "inception_loss": Flag("False"),
    "use_seg_noise": Flag("False", "use_seg_noise", "use_seg_noise"),
    "use_seg_noise_kernel": Flag("1", "seg_noise_kernel", "seg_noise_kernel"),
    # data
    "load_size": Flag("572", "load_size", "load_size"), "crop_size": Flag("512", "crop_size", "crop_size"),
    "aspect_ratio": Flag(None, "aspect_ratio", "aspect_ratio"),
    "no_flip": Flag("False", "flip", "flip", negated), "nThreads": Flag("8", "workers", "workers"),
    "remove_hard_imgs": Flag("True", "removal_list", "removal_list", removal_list),
    # networks
    "ngf": Flag("64", "ngf", "ngf"), "ndf": Flag("64", "ndf", "ndf"), "netD": Flag("multiscale"),
    "norm_D": Flag("spectralinstance"), "n_layers_D": Flag("4"), "init_type": Flag("xavier"),
    "init_variance": Flag("0.02"),
    # losses and optimizers
    "lr": Flag("0.0002", "lr", "lr"), "no_TTUR": Flag("False", "ttur", "ttur", negated),
    "beta1": Flag("0.0", "beta1", "beta1"), "beta2": Flag("0.9", "beta2", "beta2"),
    "lambda_feat": Flag("10.0", "lambda_feat", "lambda_feat"),
    "lambda_vgg": Flag("10.0", "lambda_perceptual", "lambda_perceptual"), "lambda_kld": Flag("0.05"),
    "gan_mode": Flag("hinge"),
    # logs, in samples, and checkpoints; fine-tuning saves every epoch
    "print_freq": Flag("10000", "log_every", "log_every", in_steps),
    "display_freq": Flag("50000", "sample_every", "sample_every", in_steps),
    "save_latest_freq": Flag("50000", "save_every", "save_every", in_steps),
    "save_epoch_freq": Flag(None, "save_epochs"),
}

TEST = {
    **FOLDERS, **RECIPE,
    "which_epoch": Flag("latest"), "out_path": Flag("./results/"), "use_pure": Flag("True"),
    "seed": Flag("-1"), "batchSize": Flag(None), "how_many": Flag("inf"),
    "load_size": Flag("512"), "crop_size": Flag("512"),
    "use_seg_noise": Flag("True"), "use_seg_noise_kernel": Flag("1"),
}


def parse(argv: list[str], table: dict[str, Flag], script: str, summary: str,
          more: Mapping[str, str] = MappingProxyType({})) -> tuple[dict, Namespace]:
    """({flag: text} with the original's defaults, our own options).

    UserError, with the nearest name, for an unknown flag; also without --input_path.
    more: {option: help} of files that the original does not need.
    """
    parser = Parser(prog=f"python scripts/{script}", description=summary)
    for name, flag in table.items():
        # A flag that is true or false may stand alone: --inception_loss is --inception_loss=True.
        switch = {"nargs": "?", "const": "True"} if flag.default in ("True", "False") else {}
        default = "ours" if flag.default is None else repr(flag.default)
        parser.add_argument(f"--{name}", metavar="VALUE", help=f"default: {default}", **switch)
    ours = parser.add_argument_group("options that the original does not have")
    ours.add_argument("--backend", choices=PACKAGES, default="jittor", help="default: jittor")
    ours.add_argument("--device", choices=DEVICES, default="cpu", help="default: cpu")
    add_pixel_limit(ours)
    ours.add_argument("--debug", action="store_true", help="show the traceback of an error")
    for option, text in more.items():
        ours.add_argument(option, metavar="FILE", help=text)
    options = parser.parse_args(argv)
    limit_pixels(options)
    given = {name: getattr(options, name) for name in table}
    if given["input_path"] is None:
        raise UserError("--input_path is missing: name the folder of the pictures or label maps")
    return {name: table[name].default if text is None else text for name, text in given.items()}, options


def refuse_others(given: dict, table: dict[str, Flag], free: set[str]) -> None:
    """UserError if a flag for which this project has no choice has another value than the recipe's."""
    for name, flag in table.items():
        if flag.key is None and name not in free and not same(given[name], flag.default):
            raise UserError(f"--{name}={given[name]}: only {flag.default} is implemented; leave the flag out")


def same(text: str, other: str) -> bool:
    try:
        return float(text) == float(other)
    except ValueError:
        return text.lower() == other.lower()


def overrides(given: dict, second: bool) -> list[str]:
    """The settings KEY=VALUE, as for --set. second: those of fine-tuning instead of the first phase."""
    settings = []
    for name, flag in TRAIN.items():
        key = flag.second if second else flag.key
        if key and given[name] is not None:
            settings.append(f"{key}={flag.convert(given[name], given)}")
    return settings


def checkpoint(folder: Path, epoch: str) -> str:
    """The value of `jittwin generate --weights`: our checkpoint if there is one, else the prefix of the original's."""
    checkpoints = Checkpoints(folder)
    name = checkpoints.latest() if epoch == "latest" else epoch
    return str(checkpoints.folder / name if name in checkpoints.names() else folder / epoch)


def fid_weights(given: str | None) -> str | None:
    """The file of FID's Inception: the one given, or else the original's if it exists."""
    return given or (FID_WEIGHTS if Path(FID_WEIGHTS).exists() else None)


def reference(folder: Path, pictures: str) -> str:
    """The reference of FID: the statistics that training wrote, or else the training pictures."""
    known = folder / f"{STATISTICS}_m.npy"
    return str(known if known.exists() else pictures)


def pure(folder: Path) -> list[str]:
    """The arguments for the pure-colour dictionary that training wrote, ours or the original's; [] if there is none."""
    for name in ("pure_img.npz", "pure_img.npy"):
        if (folder / name).exists():
            return ["--pure", str(folder / name)]
    print(f"{folder}: no pure_img.npz, so single-class maps are generated like the others", file=sys.stderr)
    return []
