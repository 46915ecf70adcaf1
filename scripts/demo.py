"""The whole system at tiny size: train both twins on procedural landscapes, compare, convert, generate.

Both runs have the same data, initial weights, noise and augmentation, so their losses can be compared. The folder
runs/demo then holds the two run folders, the converted weights, and pictures.

Jittor compiles its core on all cores, then one kernel at a time on one core, and takes longest. So PyTorch trains at a
lower priority, in the time that Jittor leaves, and what follows a training starts when that training has ended. The
last line says how much of the cores' time was used.
"""
import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from jittwin import imaging  # noqa: E402
from jittwin.classes import colour_label  # noqa: E402
from jittwin.data.landscape import natural_key  # noqa: E402
from jittwin.data.synthetic.landscapes import SyntheticLandscapes, write_folder  # noqa: E402
from jittwin.errors import UserError  # noqa: E402
from jittwin.tasks.apf_gan import Config  # noqa: E402

BACKENDS = ("jittor", "torch")
SUFFIXES = {"jittor": "pkl", "torch": "pth"}        # of weights for the backend
PRIORITIES = {"jittor": 0, "torch": 10}             # niceness
THREADS = max(1, (os.cpu_count() or 2) // 2)        # of each of two processes
SCENES, UNSEEN_SEED = 8, 1000
LOSSES = ("GAN", "GAN_Feat", "D_Fake", "D_real")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="default: runs/demo, emptied first")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as in jittwin train")
    args = parser.parse_args()
    started = time.time()
    shutil.rmtree(args.out, ignore_errors=True)
    args.out.mkdir(parents=True)
    tiny = Config(**Config.PRESETS["tiny"])
    side = tiny.crop_size
    height = round(side / tiny.aspect_ratio)
    write_folder(args.out / "unseen", SCENES, side, height, UNSEEN_SEED)
    try:
        with ThreadPoolExecutor(len(BACKENDS)) as lanes:
            for done in train_both(args.out, args.set, tiny, lanes):
                done.result()
            compare_losses(args.out)
            for done in [lanes.submit(generate, args.out, *pair) for pair in (BACKENDS, BACKENDS[::-1])]:
                done.result()
        compare_pictures(args.out)
    except UserError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 2
    seconds = time.time() - started
    print(f"done in {seconds:.0f} s, in which {busy() / seconds / len(os.sched_getaffinity(0)):.0%} of the cores' time "
          f"was used; pictures: {args.out / 'demo.png'} (unseen label maps), "
          f"{args.out}/*/samples/*.png (training)")
    return 0


def busy() -> float:
    """CPU seconds of this process and of those that it has started."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def command(*arguments) -> list[str]:
    return [sys.executable, "-m", "jittwin", *map(str, arguments)]


def train_both(out: Path, settings: list[str], tiny: Config, lanes: ThreadPoolExecutor) -> list[Future]:
    """Train both at the same time, each on half of the cores: kernels this small gain nothing from more threads.

    Returns what follows each training in a lane of its own.
    """
    chosen = [word for setting in ["preset=tiny", *settings] for word in ("--set", setting)]
    runs, bars, following, compiled = {}, {}, [], out / "compiled.txt"
    for position, name in enumerate(BACKENDS):
        log = open(out / f"{name}.txt", "w")
        runs[name] = subprocess.Popen(
            ["nice", "-n", str(PRIORITIES[name]),
             *command("train", "--backend", name, "--out", out / name, "--threads", THREADS, *chosen)],
            stdout=log, stderr=subprocess.STDOUT, env={**os.environ, "JITTWIN_COMPILE_LOG": str(compiled.absolute())})
        following.append(lanes.submit(use, out, name, runs[name]))
        total = tiny.epochs * (tiny.synthetic_images // tiny.batch_size)
        bars[name] = tqdm(total=total, desc=f"training, {name:6}", position=position, unit="step")
    try:
        while any(run.poll() is None for run in runs.values()):
            time.sleep(0.5)
            for name, bar in bars.items():
                lines = read_log(out / name)
                bar.update((lines[-1]["step"] + 1 if lines else 0) - bar.n)
            bars["jittor"].set_postfix_str(compile_state(compiled))
    finally:
        for run in runs.values():
            run.terminate()
    for name, run in runs.items():
        if run.returncode == 0:
            bars[name].update(bars[name].total - bars[name].n)
        bars[name].close()
        if run.returncode:
            tail = (out / f"{name}.txt").read_text().strip().splitlines()[-1:]
            raise UserError(f"training on {name} ended with status {run.returncode}: {' '.join(tail)} "
                            f"(see {out / name}.txt)")
    return following


def compile_state(log: Path) -> str:
    """What the Jittor run has compiled so far: a number of kernels, or of files of Jittor's core; "" for nothing."""
    lines = log.read_text().splitlines() if log.exists() else []
    if kernels := lines.count("kernel"):
        return f"{kernels} kernels compiled"
    return f"{lines[-1].removeprefix('core ')} files of Jittor's core compiled" if lines else ""


def read_log(run: Path) -> list[dict]:
    """The complete lines of a run's log.jsonl."""
    path = run / "log.jsonl"
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text[:text.rfind("\n") + 1].splitlines()]


def compare_losses(out: Path) -> None:
    """Print the losses of both runs side by side, and where they differ most."""
    logs = {name: read_log(out / name) for name in BACKENDS}
    table = Table("epoch", "step", *(f"{loss}\n{name}" for loss in LOSSES for name in BACKENDS))
    worst = (0.0, "", 0)
    first = 0.0
    for ours, theirs in zip(logs["jittor"], logs["torch"]):
        for loss in LOSSES:
            difference = abs(ours[loss] - theirs[loss])
            worst = max(worst, (difference, loss, ours["step"]))
            if ours["step"] == 0:
                first = max(first, difference)
        table.add_row(str(ours["epoch"]), str(ours["step"]),
                      *(f"{line[loss]:.4f}" for loss in LOSSES for line in (ours, theirs)))
    Console(width=110).print(table)
    print(f"largest difference at step 0: {first:.2e}; over the whole run: {worst[0]:.2e} ({worst[1]}, step "
          f"{worst[2]}). Adversarial training amplifies rounding; the parity tests restart from equal states.")


def other(backend: str) -> str:
    return BACKENDS[1 - BACKENDS.index(backend)]


def use(out: Path, origin: str, training: subprocess.Popen) -> None:
    """When a training has ended well, convert its weights for the other backend, and generate with them on its own."""
    if training.wait():
        return
    latest = (out / origin / "latest").read_text().strip()
    converted(out, origin).mkdir()
    for name, model in (("E", "encoder"), ("G", "generator")):
        run(command("convert", out / origin / "checkpoints" / latest / f"{name}.safetensors",
                    converted(out, origin) / f"{name}.{SUFFIXES[other(origin)]}", "--model", f"apf_gan.{model}",
                    "--verify"))
    generate(out, origin, origin)


def generate(out: Path, origin: str, backend: str) -> None:
    """Pictures on a backend with the weights of a run, converted if the other backend has trained them."""
    weights = out / origin if backend == origin else converted(out, origin)
    run(command("generate", "--backend", backend, "--weights", weights, "--labels", out / "unseen/labels",
                "--out", pictures(out, origin, backend), "--format", "png", "--threads", THREADS,
                "--width", Config.PRESETS["tiny"]["crop_size"]))


def compare_pictures(out: Path) -> None:
    """Print how far the pictures of both backends with the same weights agree, and write one sheet with all of them."""
    for origin in BACKENDS:
        ours, theirs = (read_pictures(pictures(out, origin, backend)) for backend in BACKENDS)
        apart = np.abs(ours.astype(int) - theirs)
        print(f"weights trained in {origin}: {np.mean(apart <= 1):.4%} of the pixels of {len(ours)} generated images "
              f"agree within 1 grey level between the backends (largest difference {apart.max()})")
    height, width = ours.shape[1:3]
    scenes = SyntheticLandscapes(SCENES, width, height, UNSEEN_SEED, aspect_ratio=width / height)
    native = [read_pictures(pictures(out, name, name)) for name in BACKENDS]
    rows = [[colour_label(label), photograph, *(images[i] for images in native)]
            for i, (photograph, label) in enumerate(map(scenes.pair, range(SCENES)))]
    captions = ["label map", "photograph", *BACKENDS]
    halves = [imaging.grid(rows[start::2], captions=captions) for start in (0, 1)]
    imaging.save_image(out / "demo.png", np.concatenate(halves, 1))


def converted(out: Path, origin: str) -> Path:
    return out / f"{origin}-as-{SUFFIXES[other(origin)]}"


def pictures(out: Path, origin: str, backend: str) -> Path:
    return out / f"{origin}-on-{backend}"


def read_pictures(folder: Path) -> np.ndarray:
    return np.stack([imaging.decode_image(path) for path in sorted(folder.glob("*.png"), key=natural_key)])


def run(arguments: list[str]) -> None:
    done = subprocess.run(arguments, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"{' '.join(arguments[2:4])} failed: {done.stderr.strip()}")


if __name__ == "__main__":
    sys.exit(main())
