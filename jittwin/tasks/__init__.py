"""The registry of training tasks: names, and the modules that hold their Config and Task."""
import importlib
from types import ModuleType

from jittwin.errors import UserError, choose_from

TASKS = {"apf_gan": "jittwin.tasks.apf_gan", "aesthetic": "jittwin.tasks.aesthetic",
         "tier": "jittwin.tasks.tier", "distortion": "jittwin.tasks.distortion"}


def load_task(name: str) -> ModuleType:
    """The module of a task: `Config` (dataclass with PRESETS) and `Task`. UserError: unknown name."""
    if name not in TASKS:
        raise UserError(f"unknown task {name!r}{choose_from(name, TASKS)}")
    return importlib.import_module(TASKS[name])
