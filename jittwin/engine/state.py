"""What a checkpoint says about its run besides the weights: position, settings, best measures."""
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

from jittwin import config as settings
from jittwin.engine.task import RunConfig


@dataclass(frozen=True)
class OtherCheckpoint:
    """A checkpoint that another program wrote at the end of an epoch."""

    source: Path
    epoch: int                              # from 1
    global_step: int                        # steps completed in the run
    modules: dict[str, dict]                # the arrays of each module, without frozen ones
    optimizers: dict[str, dict]             # as backend.optimizer_state gives them
    measures: dict[str, float | None]       # measures of this epoch
    best: dict[str, float]                  # the best value of each measure so far
    settings: dict                          # its settings, by our names; a run that continues it must have the same
    inputs: dict[str, str]                  # the hashes of Task.inputs that the file states; likewise
    progress: dict = field(default_factory=dict)    # as Task.progress gives it
    comparable: bool = True                 # whether `measures` and `best` are what Task.evaluate would say


@dataclass
class Position:
    """How far training has come."""

    epoch: int = 1          # the epoch in progress, from 1
    step: int = 0           # steps completed in it
    global_step: int = 0    # steps completed in the run


def config_hash(config: RunConfig) -> str:
    """Hash of the settings that decide a run's numbers; those of ADDED_LATER that have their defaults are excluded."""
    values, defaults = settings.flat(config), settings.flat(type(config)())
    decisive = {key: values[key] for key in values if key not in config.FREE_TO_CHANGE
                and (key not in config.ADDED_LATER or values[key] != defaults[key])}
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def improved(best: dict[str, dict], name: str, measures: dict, directions: dict[str, str]) -> dict[str, dict]:
    """The best checkpoint by each measure after checkpoint `name`; an equal value does not replace it."""
    def better(key: str) -> bool:
        value, before = measures.get(key), best.get(key)
        if value is None or before is None:
            return value is not None
        return value < before["score"] if directions[key] == "lower" else value > before["score"]

    found = {key: {"checkpoint": name, "score": measures[key]} if better(key) else best.get(key) for key in directions}
    return {key: record for key, record in found.items() if record}
