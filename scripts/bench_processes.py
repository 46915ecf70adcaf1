"""Measure what training in two processes brings, each on one core, against one process on one core.

    python scripts/bench_processes.py [--backend torch|jittor] [--task TASK] [--batch B] [--steps N] [--repeat R]

Three measurements, `--repeat` times in turn: one process on the first core with steps of B pictures, one with steps of
2 B, and two processes, one on each of the first two cores, with B pictures each. Printed are the medians of the seconds
of a step, and how many times the pictures per second two processes make of one with the same batch for each process
("batch grows") and with the same batch in all ("batch kept"). The pictures are in memory; in a run on a folder, each
process decodes its own. Other load on the machine makes processes wait for each other: measure on two idle cores. CPU
seconds count waiting too: all of it in Jittor, since MPI waits by asking again, and short waits in PyTorch.
"""
import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from jittwin.backend import PACKAGES  # noqa: E402
from jittwin.engine.trainer import Trainer  # noqa: E402
from jittwin.launching import launch, launched, leave  # noqa: E402
from jittwin.tasks import TASKS  # noqa: E402
from jittwin.training import train  # noqa: E402

PICTURES = 120              # of the built-in set, which are kept in memory once they are drawn
WARM_UP = 60                # steps that are not measured, in which nearly every process draws nearly every picture
TIMES = ("wall", "cpu")


def measure(backend: str, task: str, batch: int, steps: int, folder: Path) -> None:
    """In one of the processes: train `steps` steps, and write the median seconds of one."""
    rank, _ = launched()
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[rank]})
    step, moments = Trainer.step, []

    def timed(trainer, *arguments):
        terms = step(trainer, *arguments)
        trainer.backend.synchronize()
        moments.append((time.perf_counter(), time.process_time()))
        return terms

    Trainer.step = timed
    settings = {"preset": "tiny", "batch_size": batch, "max_steps": steps + WARM_UP, "save_epochs": 10 ** 6,
                "log_every": 10 ** 6, "synthetic_images": PICTURES}
    if task == "apf_gan":       # pictures of the smallest size throughout
        settings |= {"finetune_batch_size": batch, "pg_niter": 3000, "pretrain_epochs": 5000, "epochs": 9000}
    else:
        settings |= {"epochs": 10 ** 4}
    train(task, backend, out=os.fspath(folder / "run"), threads=1,
          overrides=[f"{name}={value}" for name, value in settings.items()])
    moments = moments[WARM_UP - 1:]
    seconds = [[b - a for a, b in zip(before, after)] for before, after in zip(moments, moments[1:])]
    (folder / str(rank)).write_text(json.dumps(dict(zip(TIMES, map(median, zip(*seconds))))))


def run(processes: int, backend: str, task: str, pictures: int, steps: int) -> dict:
    """The median seconds of a step of so many pictures, of the slowest process."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--backend", backend, "--task", task, "--steps", str(steps),
                   "--batch", str(pictures // processes), "--measured-in", folder]
        with open(Path(folder, "log"), "w+") as log:
            if launch(backend, processes, command, log):
                log.seek(0)
                sys.exit(f"{processes} processes of {backend} failed:\n{log.read()[-2000:]}")
        found = [json.loads(Path(folder, str(rank)).read_text()) for rank in range(processes)]
        return {name: max(each[name] for each in found) for name in TIMES}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", choices=PACKAGES, action="append", help="default: both")
    parser.add_argument("--task", choices=TASKS, action="append", help="default: all")
    parser.add_argument("--batch", type=int, default=8, metavar="B",
                        help="pictures of each of two processes (default: 8)")
    parser.add_argument("--steps", type=int, default=40, metavar="N", help="measured steps (default: 40)")
    parser.add_argument("--repeat", type=int, default=3, metavar="R", help="turns (default: 3)")
    parser.add_argument("--measured-in", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measured_in:
        measure(args.backend[0], args.task[0], args.batch, args.steps, args.measured_in)
        sys.exit(leave(0))
    if len(os.sched_getaffinity(0)) < 2:
        sys.exit("two processes need two cores, and this one may use one")
    for task in args.task or TASKS:
        for backend in args.backend or PACKAGES:
            turns = [[run(count, backend, task, pictures, args.steps)
                      for count, pictures in ((1, args.batch), (1, 2 * args.batch), (2, 2 * args.batch))]
                     for _ in range(args.repeat)]
            seconds = [median(turn[which]["wall"] for turn in turns) for which in range(3)]
            grows = median(2 * one["wall"] / two["wall"] for one, _, two in turns)
            kept = median(one["wall"] / two["wall"] for _, one, two in turns)
            cpu = median(two["cpu"] for *_, two in turns)
            print(f"{task:11} {backend:7} one process, {args.batch} pictures a step: {seconds[0]:.4f} s; "
                  f"{2 * args.batch}: {seconds[1]:.4f} s; two processes, {2 * args.batch}: {seconds[2]:.4f} s (CPU "
                  f"{cpu:.4f} each). Pictures per second: {grows:.2f} times (batch grows), {kept:.2f} times (batch "
                  "kept)", flush=True)


if __name__ == "__main__":
    main()
