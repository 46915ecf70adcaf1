"""Start of a training run: task, backend, settings and run directory are handed to the training engine."""
import fcntl
import importlib.metadata
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path

import numpy as np

import jittwin
from jittwin import config as settings
from jittwin.backend import PACKAGES, Backend, load_backend, usable_device
from jittwin.checkpoints.store import Checkpoints
from jittwin.engine.state import OtherCheckpoint, config_hash
from jittwin.engine.trainer import Trainer
from jittwin.errors import UserError
from jittwin.launching import ProcessEnded, launched, own_work
from jittwin.processes import differing
from jittwin.tasks import load_task

OTHER_SUFFIXES = (".pth", ".pt")     # of checkpoints of other programs
TOLD = 2                             # exit status of a process whose error another process tells


def train(task_name: str, backend_name: str | None, data: str | None = None, out: str | None = None,
          yaml_path: str | None = None, overrides: list[str] = (), resume: bool = False,
          continue_from: str | None = None, device: str = "cpu", threads: int | None = None) -> int:
    """Train, alone or with the other processes that a launcher has started.

    Returns the exit status: 0, 130 after SIGINT, or 2 in a process whose error another one tells. UserError: illegal
    settings, a run directory that does not fit or that another run uses, another process has ended.
    """
    rank, count = launched()
    check_accelerate(os.environ, count)
    folder = Path(out or f"runs/{task_name}-{backend_name or 'jittor'}")
    overrides = [*wanted_precision(os.environ), *overrides]
    with own_work(), nullcontext() if rank else only_run(folder):
        prepared = partial(prepare, task_name, backend_name, folder, data, yaml_path, overrides, resume, continue_from,
                           device, threads)
        trainer = prepared() if count == 1 else together(prepared, backend_name, folder, device)
        if trainer is None:
            return TOLD
        try:
            return trainer.go_on()
        except ProcessEnded as error:
            if rank:
                return TOLD
            latest = trainer.checkpoints.latest()
            raise UserError(f"{folder}: {error}; " + (f"checkpoint {latest} is usable: go on with --resume" if latest
                                                      else "there is no checkpoint yet")) from error


def prepare(task_name: str, backend_name: str | None, folder: Path, data: str | None, yaml_path: str | None,
            overrides: list[str], resume: bool, continue_from: str | None, device: str, threads: int | None,
            backend: Backend | None = None) -> Trainer:
    """The trainer in its first position. The settings are resolved before a framework is imported.

    backend: what has met the other processes already. The other arguments are those of `train`.
    """
    rank, count = launched()
    module = load_task(task_name)
    checkpoints = Checkpoints(folder)
    if not rank:
        checkpoints.clean()
    other = None
    if continue_from and continue_from.endswith(OTHER_SUFFIXES):
        continue_from, other = read_other(module, continue_from, checkpoints)
        if other and count > 1:
            raise UserError(f"--continue {other.source}: {count} processes cannot take over a checkpoint of another "
                            "program: take it over with one process, then go on with --resume")
    start = starting_point(checkpoints, resume, continue_from)
    remembered = checkpoints.state(start) if start else {}
    if remembered and remembered["task"] != task_name:
        raise UserError(f"{folder} is a run of {remembered['task']}, not of {task_name}: "
                        "name that task or another --out")
    backend_name = backend_name or remembered.get("backend")
    if backend_name is None:
        raise UserError(f"--backend is missing: choose from {', '.join(PACKAGES)}")
    data = data or remembered.get("data")
    own_settings = folder / "config.yaml"
    config = settings.resolve(module.Config, overrides=overrides,
                              yaml_path=yaml_path or (own_settings if start or resume else None))
    if resume and start:
        check_unchanged(config, remembered, own_settings)
        check_processes(config, remembered, count, folder)
    backend = backend or load_backend(backend_name, device)
    backend.setup(device=usable_device(backend, device), seed=config.seed, threads=threads,
                  precision=config.precision)
    task = module.Task(config, backend, data, folder)
    info = {"task": task_name, "backend": backend_name, "data": data and str(Path(data).absolute())}
    trainer = Trainer(task, backend, config, folder, info)
    trainer.begin(trainer.adopt(other) if other else start)
    return trainer


def together(prepared: Callable[..., Trainer], backend_name: str | None, folder: Path, device: str) -> Trainer | None:
    """The trainer of this one of several processes, or None if another process tells an error.

    The first process prepares before the others, which find the files that it has written. UserError: an error of this
    process; in the first one also when the processes differ in something that decides what is learnt.
    """
    if backend_name is None:
        checkpoints = Checkpoints(folder)
        backend_name = checkpoints.state(checkpoints.latest())["backend"] if checkpoints.latest() else None
    rank, _ = launched()
    try:
        if backend_name is None:
            raise UserError(f"--backend is missing: choose from {', '.join(PACKAGES)}")
        backend = load_backend(backend_name, device)
        backend.connect(usable_device(backend, device))
    except UserError:
        if rank:
            return None     # the first process tells the same
        raise
    trainer, error = None, None
    for first in (True, False):
        if (rank == 0) == first:
            try:
                trainer = prepared(backend=backend)
            except (UserError, OSError) as mistake:
                error = mistake
        failed = np.zeros(backend.world_size)
        failed[rank] = error is not None
        failed = np.flatnonzero(backend.all_reduce(failed))
        if error and failed[0] == rank:
            raise error
        if len(failed):
            return None
    if name := differing(backend, facts(trainer)):
        if rank:
            return None
        raise UserError(f"{folder}: the {backend.world_size} processes do not have the same {name}: start all of them "
                        "with the same packages, settings and files")
    return trainer


def facts(trainer: Trainer) -> dict[str, str]:
    """What decides a run, and must be the same in all its processes."""
    inputs = [len(trainer.task.loader()), trainer.task.inputs()]
    return {"task": trainer.info["task"], "framework": trainer.backend.name, "jittwin version": jittwin.__version__,
            "framework version": importlib.metadata.version(trainer.backend.name), "NumPy version": np.__version__,
            "settings": json.dumps(settings.flat(trainer.config)), "checkpoint": json.dumps(vars(trainer.at)),
            "data and weights": json.dumps(inputs)}


def wanted_precision(environment: Mapping[str, str]) -> list[str]:
    """The setting that `accelerate launch --mixed_precision` or its configuration asks for, which --set overrides."""
    asked = environment.get("ACCELERATE_MIXED_PRECISION", "no")
    names = {"fp16": "float16", "bf16": "bfloat16"}
    return [f"precision={names[asked]}"] if asked in names else []


def check_accelerate(environment: Mapping[str, str], processes: int) -> None:
    """UserError when `accelerate launch` was asked for several processes and has started one, which it does not tell.

    It sets MASTER_ADDR if it is asked for several.
    """
    if processes == 1 and "ACCELERATE_MIXED_PRECISION" in environment and "MASTER_ADDR" in environment:
        raise UserError("accelerate launch was asked for several processes and has started one, as it does on a CPU: "
                        "give it --mpirun_hostfile, use torchrun --nproc_per_node N train.py ..., or --num_processes 1")


@contextmanager
def only_run(folder: Path) -> Iterator[None]:
    """While this context lasts, no other run writes into the folder. A new folder that stays empty is removed.

    UserError: another run writes into it.
    """
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"{folder}: another run writes into this folder: wait for its end, or choose another "
                            "--out") from error
        except OSError:
            pass        # some network file systems cannot lock a folder
        yield
    finally:
        os.close(handle)
        with suppress(OSError):     # not empty
            for path in new:
                path.rmdir()


def read_other(module, path: str, checkpoints: Checkpoints) -> tuple[str | None, OtherCheckpoint | None]:
    """(None, checkpoint of another program); or (epoch, None) if the file is the run's own copy of a checkpoint."""
    if not hasattr(module, "read_other"):
        raise UserError(f"--continue {path}: this task reads no checkpoints of other programs: name an epoch")
    found = module.read_other(path)
    if Path(path).resolve().parent == checkpoints.run.resolve() and str(found.epoch) in checkpoints.names():
        return str(found.epoch), None
    return None, found


def starting_point(checkpoints: Checkpoints, resume: bool, continue_from: str | None) -> str | None:
    """The checkpoint to continue from; None for a new run. UserError: no run to resume, or a run is there already."""
    run, latest = checkpoints.run, checkpoints.latest()
    if continue_from is not None:
        return continue_from
    if resume and latest is None and not (run / "config.yaml").exists():
        raise UserError(f"{run}: there is no run to resume: check --out, or omit --resume to start one")
    if latest is not None and not resume:
        raise UserError(f"{run} already holds a run (checkpoint {latest}): "
                        "pass --resume, --continue EPOCH or another --out")
    return latest


def check_processes(config, remembered: dict, processes: int, folder: Path) -> None:
    """UserError if a run is resumed by another number of processes and its batches would have another size."""
    before = remembered.get("processes", 1)
    if before != processes and config.global_batch == "scaled":
        raise UserError(f"{folder}: was trained by {before} processes, each with batches of the configured size, and "
                        f"not by {processes}: start {before}; global_batch=kept, set when a run begins, allows any "
                        "number")


def check_unchanged(config, remembered: dict, own_settings: Path) -> None:
    """UserError if a run is resumed with settings that would change what it learns."""
    if remembered["config_hash"] == config_hash(config):
        return
    before, now = settings.flat(settings.resolve(type(config), yaml_path=own_settings)), settings.flat(config)
    changed = [f"{key} was {before[key]}, is {now[key]}" for key in now
               if before[key] != now[key] and key not in config.FREE_TO_CHANGE]
    raise UserError(f"{own_settings.parent}: --resume keeps the settings of the run, but "
                    f"{'; '.join(changed) or 'config.yaml was edited since'}: "
                    "use --continue EPOCH to change them, or another --out")
