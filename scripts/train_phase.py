"""The original `train_phase.py`: run one phase of APF-GAN training, with the original's flags.

    python scripts/train_phase.py --input_path=DIR --batchSize=10 --niter=180 --pg_niter=180 …
    python scripts/train_phase.py --input_path=DIR --batchSize=5 --niter=310 … --inception_loss \
        --diff_aug='color,crop,translation' --use_seg_noise --continue_train --which_epoch=180

The run folder is CHECKPOINTS_DIR/NAME. Fine-tuning goes on from the checkpoint of the first phase in it, or from the
original's files WHICH_EPOCH_net_{E,G,D}.pkl.
"""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import apf_gan_flags as flags

from jittwin import cli, training
from jittwin import config as settings
from jittwin.checkpoints.store import Checkpoints
from jittwin.errors import UserError
from jittwin.tasks.apf_gan import Config

CHOICES = {*flags.FOLDERS, "continue_train", "which_epoch", "inception_loss"}


def run(argv: list[str]) -> int:
    given, options = flags.parse(argv, flags.TRAIN, "train_phase.py", "train one phase of APF-GAN")
    switches = ("inception_loss", "use_seg_noise")
    second = bool(given["diff_aug"]) or any(flags.truth(given[name]) for name in switches)
    given["save_epoch_freq"] = check_phase(given, second)
    flags.refuse_others(given, flags.TRAIN, CHOICES)
    folder = Path(given["checkpoints_dir"], given["name"])
    start, phases = starting_point(given, folder, second)
    return training.train("apf_gan", options.backend, data=given["input_path"], out=str(folder),
                       overrides=flags.overrides(given, second) + phases, continue_from=start,
                       device=options.device)


def check_phase(given: dict, second: bool) -> str | None:
    """Check that the flags of fine-tuning are used together (UserError), and return the value of save_epoch_freq."""
    if not second:
        return given["save_epoch_freq"]
    if not flags.truth(given["inception_loss"]):
        raise UserError("--diff_aug and --use_seg_noise belong to fine-tuning, whose perceptual loss is "
                        "Inception's: add --inception_loss")
    if not flags.truth(given["continue_train"]):
        raise UserError("fine-tuning starts from the first phase: add --continue_train --which_epoch=EPOCH")
    if given["save_epoch_freq"] not in (None, "1"):
        raise UserError(f"--save_epoch_freq={given['save_epoch_freq']}: fine-tuning saves every epoch; "
                        "leave the flag out")
    return None


def starting_point(given: dict, folder: Path, second: bool) -> tuple[str | None, list[str]]:
    """The checkpoint to go on from, and the settings that say which phases to train."""
    checkpoints, epoch = Checkpoints(folder), given["which_epoch"]
    if not flags.truth(given["continue_train"]):
        if checkpoints.latest():
            raise UserError(f"{folder} already holds a run: pass --continue_train, or another --name")
        return None, ["phase=1"]
    name = checkpoints.latest() if epoch == "latest" else epoch
    if name in checkpoints.names():
        # Both phases, because the checkpoint may belong to the first and fine-tuning follow it.
        return name, ["phase=both", f"pretrain_epochs={end_of_first(checkpoints, name)}"] if second else ["phase=1"]
    if not second:
        raise UserError(f"{folder}: no checkpoint '{epoch}' to continue from: there is "
                        f"{', '.join(checkpoints.names()) or 'none'}")
    end = [f"pretrain_epochs={epoch}"] if epoch.isdigit() else []
    return None, ["phase=2", f"start_weights={folder / epoch}", *end]


def end_of_first(checkpoints: Checkpoints, name: str) -> int:
    """The last epoch of the first phase: the epoch of a checkpoint in it; for a later one, that of the run's config."""
    if checkpoints.state(name).get("phase") == "finetune":
        return settings.resolve(Config, yaml_path=checkpoints.run / "config.yaml").pretrain_epochs
    return int(name.split(".")[0])


if __name__ == "__main__":
    sys.exit(cli.guarded(lambda: run(sys.argv[1:]), debug="--debug" in sys.argv))
