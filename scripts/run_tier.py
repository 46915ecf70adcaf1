"""The original TIER-4K `run.sh`, and with --baselines that of its baselines: every run of the paper, and a table.

    python scripts/run_tier.py --data DIR --image_weights FILE --text_weights bert-base-uncased [--backend torch]

Each run has its own folder in --out. The same command goes on where it was stopped; finished runs are not repeated.
results.csv and the table at the end hold the epoch that the SRCC of the test set selects, and the best PLCC of all
epochs, which the original reports beside it. The original's run.sh lacks TIER-NR on AIGIQA4K with MOS_q; --all adds it.
"""
import csv
import io
import json
import sys
from argparse import Namespace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import train_tier

from jittwin import cli
from jittwin import config as settings
from jittwin.atomic import write_file
from jittwin.checkpoints.store import Checkpoints
from jittwin.engine.state import config_hash
from jittwin.metrics.ratings import AGREEMENT
from jittwin.tasks.tier import RESULTS, Config

VOTES = ("MOS_q", "MOS_a", "MOS_c")
# (benchmark, whether the image prompt is used, columns), in the order of run.sh.
TIER = (("I2I", 1, VOTES), ("AIGIQA4K", 0, VOTES[1:]), ("AIGIQA4K", 1, VOTES), ("T2I", 0, VOTES), ("I2I", 0, VOTES))
BASELINES = (("I2I", 1, VOTES), ("AIGIQA4K", 1, VOTES), ("AIGIQA4K", 0, VOTES))
OMITTED = ("AIGIQA4K", 0, VOTES[:1])
SHARED = ("lr", "weight_decay", "seed", "gpu", "train_batch_size", "test_batch_size", "num_epochs", "backbone")
HEAD = ("network", "subset", "votes", "epoch", *AGREEMENT, "best_plcc", "best_plcc_epoch")


def rows(args: Namespace) -> list[Namespace]:
    """The arguments of each run."""
    matrix = BASELINES if args.baselines else (*TIER, *([OMITTED] if args.all else ()))
    flag, other = ("using_prompt", "using_image_prompt") if args.baselines else ("using_image_prompt", "using_prompt")
    return [train_tier.checked(Namespace(**{**vars(args), "benchmark": benchmark, flag: str(image), other: None,
                                            "true_score": votes, "log_info": votes}))
            for benchmark, image, columns in matrix for votes in columns]


def folder_of(row: Namespace, out: Path) -> Path:
    return out / f"{train_tier.network(row)}-{row.benchmark}-{row.true_score}"


def finished(row: Namespace, folder: Path) -> bool:
    """Whether the run is complete and has these settings."""
    latest = Checkpoints(folder).latest()
    if latest is None:
        return False
    state, config = Checkpoints(folder).state(latest), settings.resolve(Config, overrides=train_tier.overrides(row))
    return state["epoch_done"] and state["epoch"] == config.epochs and state["config_hash"] == config_hash(config)


def table(runs: list[Namespace], out: Path) -> list[tuple]:
    """A row of HEAD for each run; empty cells where nothing was selected."""
    found = []
    for row in runs:
        results = json.loads((folder_of(row, out) / RESULTS).read_text())
        chosen, plcc = results["selected"] or {}, results["maxima"].get("plcc", {})
        values = [chosen.get(name) for name in AGREEMENT] + [plcc.get("value")]
        cells = ["" if value is None else f"{value:.4f}" for value in values]
        found.append((train_tier.network(row), row.benchmark, row.true_score, chosen.get("epoch", ""), *cells,
                      plcc.get("epoch", "")))
    return found


def run(argv: list[str]) -> int:
    parser = train_tier.parser("run_tier.py", "every run of the paper, and a table of their results", SHARED)
    parser.set_defaults(lr="1e-5")
    parser.add_argument("--baselines", action="store_true", help="train the baselines without text")
    parser.add_argument("--all", action="store_true", help="add the run that the original's run.sh lacks")
    args = parser.parse_args(argv)
    out = Path(args.out or Path("exp", "baselines" if args.baselines else "tier"))
    runs = rows(args)
    for number, row in enumerate(runs, 1):
        folder = folder_of(row, out)
        print(f"{number} of {len(runs)}: {train_tier.network(row)} on {row.benchmark}, {row.true_score}: {folder}",
              flush=True)
        if not finished(row, folder) and (status := train_tier.start(row, folder)):
            return status
    lines = [HEAD, *table(runs, out)]
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(lines)
    write_file(out / "results.csv", stream.getvalue())
    widths = [max(len(str(line[column])) for line in lines) for column in range(len(HEAD))]
    print("\n".join("  ".join(str(cell).ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines))
    return 0


if __name__ == "__main__":
    sys.exit(cli.guarded(lambda: run(sys.argv[1:]), debug="--debug" in sys.argv))
