"""L9: a run begun in one framework goes on in the other, with the real training function, checkpoints and log.

This is done in both directions, and on both sides of the boundary between two phases. The restored state must equal
the checkpoint byte for byte. The next step of each framework is compared with the step that float64 PyTorch makes
from that checkpoint, by the rules of L6.
"""
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from unittest import mock

from jittwin import config as settings
from jittwin.checkpoints.store import Checkpoints
from jittwin.training import train
from parity.case import load
from parity.levels.trajectory import PERTURBATIONS, changes, judged, step, still
from parity.levels.update import missing
from parity.result import Row, row
from parity.training import Outcome, Training, trainer
from parity.workers.compare import Verdict, equal
from parity.workers.oracle import Comparison, Twins, measure
from parity.workers.side import Arrays, Side, group, grouped

DIRECTIONS = (("torch", "jittor"), ("jittor", "torch"))
UNSAVED = ("rates", "still", "update frozen weights")     # first words of changes that no checkpoint or log contains
HELD_OUT = "held_out/"           # how the log's names of an epoch's measures begin


def begin(side: Side, arrays: Arrays, case: dict, size: str, folder: str, steps: int) -> Arrays:
    """In a worker: a new run of `steps` steps, with a checkpoint after each."""
    case, file = load(case), Path(folder, "settings.yaml")
    file.write_text(settings.dump(replace(case.config(size), max_steps=steps, save_every=1)))
    with all_kept():
        train(case.task, side.name, out=folder, yaml_path=str(file))
    return {}


def go_on(side: Side, arrays: Arrays, case: dict, folder: str, start: str, steps: int) -> Arrays:
    """In a worker: the run goes on from checkpoint `start` until it has `steps` steps."""
    checkpoints = Checkpoints(folder)
    checkpoints.point_to(start, checkpoints.state(start))
    with all_kept():
        train(load(case).task, side.name, out=folder, resume=True, overrides=[f"max_steps={steps}"])
    return {}


def all_kept():
    """A context in which no checkpoint is deleted, not even those inside an epoch."""
    return mock.patch.object(Checkpoints, "thin")


def restored(side: Side, arrays: Arrays, case: dict, size: str, folder: str, start: str) -> Arrays:
    """In a worker: the arrays that a checkpoint's files would hold if they were written right after restoring it."""
    run = trainer(side, load(case), size, 0, folder)
    run.restore(start)
    return {key: a for stem, files in run.files() for key, a in grouped(stem, files).items()}


def outcome(folder: str, name: str) -> Outcome:
    """The contents of a checkpoint, and the logged losses of its last step."""
    checkpoints = Checkpoints(folder)
    state = checkpoints.state(name)
    stems = sorted(path.stem for path in (checkpoints.folder / name).glob("*.safetensors"))
    arrays = {key: a for stem in stems for key, a in grouped(stem, checkpoints.weights(name, stem)).items()}
    lines = [json.loads(line) for line in Path(folder, "log.jsonl").read_text().splitlines()]
    line = [line for line in lines if not any(key.startswith(HELD_OUT) for key in line)][state["global_step"] - 1]
    losses = {key: value for key, value in line.items() if key not in ("phase", "epoch", "step")}
    return Outcome(arrays, state, losses)


class Truth:
    """The changes that float64 PyTorch makes to a checkpoint in the next step."""

    def __init__(self, twins: Twins, before: Outcome, steps: int, arguments: dict):
        arguments = {**arguments, "state": before.state, "steps": steps}
        added, found = twins.torch.call(still, before.arrays, **arguments)
        self.before, self.still, self.parameters = {**added, **before.arrays}, found["names"], found["parameters"]
        truth, self.measured = twins.torch.call(
            measure, before.arrays, function=step, perturbations=PERTURBATIONS[arguments["size"]],
            arguments={**arguments, "still": self.still})
        self.truth = group(truth, "truth")

    def judged(self, who: str, after: Outcome) -> dict[str, Verdict]:
        candidate = changes(self.before, replace(after, parameters=self.parameters), self.still)
        found = Comparison(candidate, self.truth, self.measured["own"], self.measured["noise"], {})
        names = [name for name in self.truth if not name.startswith(UNSAVED)]
        return {f"{name} ({who})": verdict for name, verdict in judged(found, names).items()}


def check(case: Training, size: str, mode: str, twins: Twins) -> list[Row]:
    """One row per direction."""
    return [row(case.name, "L9", " to ".join(way), handed_over(case, size, twins, way), case.dtype)
            for way in DIRECTIONS]


def handed_over(case: Training, size: str, twins: Twins, way: tuple[str, str]) -> dict[str, Verdict]:
    """The first framework runs up to the first step of the second phase. From the two checkpoints before its last
    one, the second framework takes the next step as well."""
    workers = {"torch": twins.torch, "jittor": twins.jittor}
    first, second = (workers[name] for name in way)
    arguments, verdicts, last = {"case": case.reference(), "size": size}, {}, case.boundary(size) + 1
    with tempfile.TemporaryDirectory() as folder:
        first.call(begin, folder=folder, steps=last, **arguments)
        names = Checkpoints(folder).names()[-3:]
        made = [outcome(folder, name) for name in names]
        found = [second.call(restored, folder=folder, start=name, **arguments)[0] for name in names[:2]]
        # The later checkpoint comes first, since a resumed run overwrites the checkpoints after its own.
        for i, steps in ((1, last), (0, last - 1)):
            before, after, where = made[i], made[i + 1], f"after {steps - 1} steps"
            second.call(go_on, case=case.reference(), folder=folder, start=names[i], steps=steps)
            resumed = outcome(folder, names[i + 1])
            truth = Truth(twins, before, steps, arguments)
            verdicts |= {f"restored {name}, {where}":
                         equal(found[i][name], a) if name in found[i] else missing()
                         for name, a in before.arrays.items()}
            verdicts |= truth.judged(f"{way[0]} itself, {where}", after)
            verdicts |= truth.judged(f"{way[1]} resumed, {where}", resumed)
    return verdicts
