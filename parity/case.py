"""What a case is: one model of both twins and how to exercise it. A case imports no framework."""
from collections.abc import Mapping

import numpy as np

from jittwin.draws import Draws
from parity.workers.side import Arrays, Side, group, grouped
from parity.workers.worker import reference, resolve

Shapes = Mapping[str, tuple[int, ...]]


class Case:
    """A subclass sets or overrides what differs for its model. Each worker makes its own instance of the class.

    name: the model's name in reports. sizes: "tiny" runs in CI, "full" is the published configuration; "full" alone is
    for a larger network of a model that has a tiny case already.
    modes: each begins with "eval" or "train"; further words select variants. more_modes: modes that only the full
    tier runs. levels: those that apply (parity.result.LEVELS). differentiable: names of the inputs whose gradients
    are compared. halves: names of the parts of a training step that have losses and parameters of their own, as in
    a GAN. optimizer: (kind, settings) of the optimizer that trains the model. full_depth: at full size the forward
    pass is compared down to this depth of the module tree. shared: the case looks at code that both twins share, so
    that no fault of the Jittor twin can concern it.
    """
    name: str
    sizes: tuple[str, ...] = ("tiny",)
    modes: tuple[str, ...] = ("eval", "train")
    more_modes: tuple[str, ...] = ()
    levels: tuple[str, ...] = ("L1", "L2", "L3", "L4", "L5")
    dtype: str = "float32"
    differentiable: tuple[str, ...] = ()
    optimizer: tuple[str, dict] = ("adam", {})
    full_depth: int = 1
    halves: tuple[str, ...] = ("",)
    shared: bool = False

    def reference(self) -> dict:
        """How a worker finds this case: {"factory": "module:callable", "arguments": {…}}, fit for JSON."""
        return {"factory": reference(type(self)), "arguments": {}}

    def build(self, side: Side, size: str, mode: str):
        """The module. Its weights do not matter: others are loaded into it."""
        raise NotImplementedError

    def inputs(self, size: str, mode: str) -> Arrays:
        """Host arrays by name. Random numbers (noise, masks) are not inputs: `run` injects them."""
        raise NotImplementedError

    def run(self, side: Side, module, inputs: dict, mode: str) -> dict:
        """Output tensors by name, from input tensors by name."""
        raise NotImplementedError

    def losses(self, side: Side, module, inputs: dict, mode: str, half: str = "") -> dict:
        """The model's training losses by name, as scalar tensors; {} if it has none of its own.

        half: one of `halves`, for the losses of that half alone; "" for all.
        """
        return {}

    def trained(self, half: str, parameter: str) -> bool:
        """Whether the losses of this half train the parameter of this name."""
        return True

    def weights(self, shapes: Shapes, seed: int) -> Arrays:
        """Float32 values for every key of the state."""
        return spread_weights(shapes, seed)


def spread_weights(shapes: Shapes, seed: int) -> Arrays:
    """Random weights of a size that keeps signals and gradients of order one through the depth."""
    arrays = {}
    for name, shape in shapes.items():
        values = Draws(7, seed).normal(name, shape)
        if name.endswith("running_var"):
            values = 1 + 0.5 * np.tanh(values)
        elif name.endswith(("bias", "running_mean")):
            values = 0.1 * values
        elif len(shape) == 1 and name.endswith("weight"):
            values = 1 + 0.1 * values               # the gain of a normalisation
        elif len(shape) > 1:
            values = values / np.sqrt(np.prod(shape[1:]))
        arrays[name] = np.asarray(values, np.float32)
    return arrays


def load(reference: dict) -> Case:
    """The case that a reference names; see Case.reference."""
    return resolve(reference["factory"])(**reference["arguments"])


def is_training(mode: str) -> bool:
    return mode.split()[0] == "train"


def shapes(side: Side, arrays: Arrays, case: dict, size: str, mode: str) -> tuple[Arrays, dict]:
    """In a worker: the state's shapes and types by key."""
    state = side.backend.state_numpy(load(case).build(side, size, mode))
    return {}, {name: [list(a.shape), str(a.dtype)] for name, a in state.items()}


def arrays_for(case: Case, twins, size: str, mode: str, seed: int = 0) -> Arrays:
    """Weights and inputs, as the functions that run in workers take them: "weights/…" and "inputs/…"."""
    _, found = twins.torch.call(shapes, case=case.reference(), size=size, mode=mode)
    weights = case.weights({name: tuple(shape) for name, (shape, _) in found.items()}, seed)
    return {**grouped("weights", weights), **grouped("inputs", case.inputs(size, mode))}


def prepared(side: Side, arrays: Arrays, case: Case, size: str, mode: str, allow_missing=()) -> tuple:
    """In a worker: the module with its weights, in its mode, and the input tensors.

    allow_missing: shell patterns of weights that `arrays` may lack.
    """
    module = case.build(side, size, mode)
    if side.wide:
        module.double()
    side.backend.load_numpy(module, group(arrays, "weights"), allow_missing=allow_missing)
    side.backend.train_mode(module, is_training(mode))
    inputs = {name: side.tensor(a) for name, a in group(arrays, "inputs").items()}
    for name in case.differentiable:
        inputs[name] = side.differentiable(inputs[name])
    return module, inputs
