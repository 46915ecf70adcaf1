"""Start of a training run: task, backend, settings and run directory are handed to the training engine."""
import os
from collections.abc import Mapping
from pathlib import Path

from jittwin import config as settings
from jittwin.backend import PACKAGES, load_backend, usable_device
from jittwin.checkpoints.store import Checkpoints
from jittwin.engine.trainer import OtherCheckpoint, Trainer, config_hash
from jittwin.errors import UserError
from jittwin.tasks import load_task

OTHER_SUFFIXES = (".pth", ".pt")     # of checkpoints of other programs

# Environment variables with the number of processes and the rank: of torchrun, of Open MPI's mpirun, of MPICH's.
LAUNCHERS = {"WORLD_SIZE": "RANK", "OMPI_COMM_WORLD_SIZE": "OMPI_COMM_WORLD_RANK", "PMI_SIZE": "PMI_RANK"}


def train(task_name: str, backend_name: str | None, data: str | None = None, out: str | None = None,
          yaml_path: str | None = None, overrides: list[str] = (), resume: bool = False,
          continue_from: str | None = None, device: str = "cpu", threads: int | None = None) -> int:
    """Resolve the settings before any framework is imported, then train.

    Returns the exit status: 0, or 130 after SIGINT. If several processes were started, the first one raises a UserError
    and the others return 2. UserError: illegal settings, or a run directory that does not fit.
    """
    if not is_only_process(os.environ):
        return 2
    module = load_task(task_name)
    folder = Path(out or f"runs/{task_name}-{backend_name or 'jittor'}")
    checkpoints = Checkpoints(folder)
    checkpoints.clean()
    other = None
    if continue_from and continue_from.endswith(OTHER_SUFFIXES):
        continue_from, other = read_other(module, continue_from, checkpoints)
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
    backend = load_backend(backend_name)
    backend.setup(device=usable_device(backend, device), seed=config.seed, threads=threads,
                  precision=config.precision)
    task = module.Task(config, backend, data, folder)
    info = {"task": task_name, "backend": backend_name, "data": data and str(Path(data).absolute())}
    trainer = Trainer(task, backend, config, folder, info)
    return trainer.train(trainer.adopt(other) if other else start)


def is_only_process(environment: Mapping[str, str]) -> bool:
    """True if this process is the only one. If a launcher started several: UserError in the first, False in others."""
    for size, rank in LAUNCHERS.items():
        count = environment.get(size, "")
        if count.isdigit() and int(count) > 1:
            if environment.get(rank, "0") != "0":
                return False
            raise UserError(f"training runs in one process, but {size}={count}: start it without torchrun or mpirun, "
                            f"or unset {size}")
    return True


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
