"""What a detector of distortion is trained and validated on, out of a folder of EvalMuse-Structure."""
from dataclasses import dataclass
from pathlib import Path

from jittwin.data.evalmuse import Sample, hold_out
from jittwin.data.evalmuse_files import negatives, open_training, pseudo_labels
from jittwin.errors import UserError


@dataclass(frozen=True)
class Parts:
    """val: empty where nothing is validated. notes: lines for the user."""
    train: list[Sample]
    val: list[Sample]
    notes: tuple[str, ...]


def open_parts(folder, held_out: int = 0, seed: int = 0, negative_count: int = 0,
               labels: str | Path | None = None) -> Parts:
    """The parts of a data set.

    held_out: how many pictures of the training part are validated on instead, see `hold_out`. negative_count: how many
    photographs without distortion are added to training, see `negatives`. labels: a submission whose predictions for
    the pictures of val/ are validated on, see `pseudo_labels`. UserError: both kinds of validation, or what these say.
    """
    if held_out and labels:
        raise UserError(f"{held_out} pictures to hold out and the predictions {labels}: validate on one of the two")
    samples, problems, notes = open_training(folder)
    train, val = hold_out(samples, held_out, seed)
    if labels:
        val = pseudo_labels(labels, folder)
        notes += (f"validated on the {len(val)} predictions of {labels}, which nobody checked",)
    if negative_count:
        train = train + negatives(folder, negative_count, seed)
    if problems:
        notes += (f"{folder}: {len(problems)} things are unusual, such as: {problems[0]}; `jittwin prepare evalmuse` "
                  "lists all of them",)
    return Parts(train, val, notes)
