"""Write a folder that reproduces one failing layer on its own: its inputs, its weights and a short script.

The script builds the whole model with arbitrary weights and runs it until the layer is called. So the layer gets
the model's own objects, such as a condition; the tensors in them come from the folder.
"""
import json
import os
from collections.abc import Callable
from pathlib import Path

from safetensors.numpy import save_file

from jittwin.errors import UserError, did_you_mean
from parity.case import Case, arrays_for, is_training, load, prepared
from parity.levels.calls import is_within
from parity.levels.trace import ROOT, Tape, host
from parity.workers.side import Arrays, Side, group, grouped

SCRIPT = '''"""{title}, in both twins.

    python repro.py [--twin FOLDER]    FOLDER holds another copy of jt_models

Exits with 1 while the twins disagree. The layer and its case are in case.json.
"""
import argparse, json, sys
from pathlib import Path
from safetensors.numpy import load_file
from parity import bundle
from parity.workers.oracle import Twins
from parity.workers.side import grouped

parser, here = argparse.ArgumentParser(), Path(__file__).parent
parser.add_argument("--twin")
arrays = {{name: a for kind in ("inputs", "weights")
          for name, a in grouped(kind, load_file(here / f"{{kind}}.safetensors")).items()}}
layer = json.loads((here / "case.json").read_text())
with Twins(parser.parse_args().twin, layer.pop("paths")) as twins:
    verdicts = twins.compare(bundle.layer, arrays, **layer).verdicts()
for name, v in verdicts.items():
    print(f"{{name}}: error {{v.error:.2e}}, noise {{v.noise:.2e}}, limit {{v.limit:.2e}}: {{v.reason or 'pass'}}")
sys.exit(any(not v.passed for v in verdicts.values()))
'''


class Reached(Exception):
    """Raised once the layer has been called, to end the forward pass there."""


def write(folder: str | os.PathLike, case: Case, size: str, mode: str, path: str, twins, call: int = 0) -> Path:
    """Write inputs.safetensors, weights.safetensors, case.json and repro.py into `folder`, which is returned.

    path: the layer's path, as a report names it. call: which of its calls in one forward pass, counted from 0. The
    inputs written are those that the layer gets in the PyTorch twin.
    """
    layer = {"case": case.reference(), "size": size, "mode": mode, "path": "" if path == ROOT else path, "call": call}
    arrays, found = twins.torch.call(taken, arrays_for(case, twins, size, mode), **layer)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for kind in ("inputs", "weights"):
        save_file(group(arrays, kind), folder / f"{kind}.safetensors")
    paths = [os.fspath(Path(p).resolve()) for p in (*twins.paths, ".")]
    (folder / "case.json").write_text(json.dumps({**layer, "paths": paths}, indent=1) + "\n")
    (folder / "repro.py").write_text(SCRIPT.format(
        title=f"{path or ROOT} ({found['class']}) of {case.name}, size {size}, mode {mode}"))
    return folder


def taken(side: Side, arrays: Arrays, case: dict, size: str, mode: str, path: str, call: int) -> tuple[Arrays, dict]:
    """In the PyTorch worker: the arrays "inputs/model/<name>", "inputs/layer/<i>" and the layer's "weights/<name>"."""
    case, tape = load(case), Tape(side)
    module, tensors = prepared(side, arrays, case, size, mode)
    if path:
        until(side, case, module, tensors, mode, path, call,
              lambda proceed, given: tape.passed("inputs/layer", given))
    own = {name: a for name, a in group(arrays, "weights").items() if is_within(name, path)}
    return ({**grouped("inputs/model", group(arrays, "inputs")), **tape.arrays, **grouped("weights", own)},
            {"class": type(side.parts(module)[path]).__name__})


def layer(side: Side, arrays: Arrays, case: dict, size: str, mode: str, path: str, call: int) -> Arrays:
    """In a worker: call the layer alone. Returns its "output <i>" and, in a training mode, "state <name>" of each
    entry of its state that is not trained."""
    case = load(case)
    given = {**grouped("weights", group(arrays, "weights")), **grouped("inputs", group(arrays, "inputs/model"))}
    module, tensors = prepared(side, given, case, size, mode, allow_missing=("*",))
    trained, tape = set(side.backend.parameters(module)), Tape(side, forced=group(arrays, "inputs"))
    if path:
        def alone(proceed, given):
            arguments, keywords = tape.passed("layer", given)
            tape.passed("output", proceed(*arguments, **keywords))

        until(side, case, module, tensors, mode, path, call, alone)
        results = {f"output {number}": a for number, a in group(tape.arrays, "output").items()}
    else:
        with side.backend.no_grad():
            results = {name: host(side, tensor) for name, tensor in case.run(side, module, tensors, mode).items()}
    if is_training(mode):
        results |= {f"state {name}": a for name, a in side.backend.state_numpy(module).items()
                    if name not in trained and is_within(name, path)}
    return results


def until(side: Side, case: Case, module, tensors: dict, mode: str, path: str, call: int, instead: Callable) -> None:
    """Run the model up to one call and replace that by instead(proceed, (arguments, keywords)).

    UserError if the model makes no such call.
    """
    def around(at, number, part, proceed, arguments, keywords):
        if (at, number) == (path, call):
            instead(proceed, (arguments, keywords))
            raise Reached
        return proceed(*arguments, **keywords)

    try:
        with side.backend.no_grad(), side.intercepted(module, around):
            case.run(side, module, tensors, mode)
    except Reached:
        return
    raise UserError(f"{side.name}: {case.name}, mode {mode}: there is no call {call} of {path!r}"
                    f"{did_you_mean(path, side.parts(module))}")
