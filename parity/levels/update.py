"""L5: one optimizer step after another, from the same state and with the same gradients.

Each step begins from the float32 state that one framework has reached, and both frameworks take it, so every step
also hands a run over. The truth is torch.optim in float64, with torch.amp.GradScaler where the loss is scaled; for Adam
in Jittor's form, which PyTorch lacks, it is the formula in NumPy. The error of parameters and moments may be 2 units in
the last place of the largest of the value before, the value after and the change. It may also be 4 times the largest
error of the same reference in float32, which is more if terms cancel or a parameter is near zero. State that one
framework hands to the other must come back byte for byte.
"""
import numpy as np

from jittwin.draws import Draws
from jittwin.loss_scaler import LossScaler
from parity.case import Case, arrays_for, load
from parity.result import Row, row
from parity.workers.compare import FACTORS, Verdict, equal, masks_differ
from parity.workers.oracle import Twins
from parity.workers.side import Arrays, Side, group, grouped

ONCE = True          # an optimizer does not know the model's mode
STEPS = 4
ULPS = 2
RATE = 1e-3
SECOND_RATE, SECOND_DECAY = 5e-4, 0.3      # of the second group of parameters, if there is one
SCALE, GROWTH = 1024.0, 2                  # of a rule with a scaler: the first factor, the updates before it grows
OVERFLOW = 2                               # the step in which such a rule meets a gradient that is not finite


def gradient(index: int, name: str, shape, step: int, part: int, rule: dict):
    """The gradient of a parameter; None in steps whose losses do not reach it.

    Its elements have sizes from 1e-7 to 1, so that the optimizer's epsilon matters.
    """
    if step and (index + step) % 5 == 0:
        return None
    draws = Draws(2, step, part)
    found = draws.normal(name, shape) * 10.0 ** -draws.integers(f"size {name}", 0, 7, shape).astype(np.float32)
    if rule.get("scaler") and step == OVERFLOW and index == part == 0:
        found.flat[7] = np.nan
    return found


def groups(tensors: dict, split: bool) -> list[dict]:
    names = list(tensors)
    first, second = (names[:-1], names[-1:]) if split else (names, [])
    found = [{"params": {name: tensors[name] for name in first}, "lr": RATE}]
    if second:
        found.append({"params": {name: tensors[name] for name in second}, "lr": SECOND_RATE,
                      "weight_decay": SECOND_DECAY})
    return found


class Stepper:
    """In a worker: an optimizer of the twin and the parameters it moves, and the scaler of the loss if there is one."""

    def __init__(self, side: Side, values: Arrays, rule: dict, split: bool):
        self.backend, self.rule = side.backend, rule
        self.scaler = LossScaler(SCALE, interval=GROWTH) if rule.get("scaler") else None
        self.tensors = {name: side.differentiable(side.tensor(a.copy())) for name, a in values.items()}
        self.optimizer = side.backend.optimizer(rule["kind"], groups(self.tensors, split), **rule.get("settings", {}))

    def state(self) -> Arrays:
        values = {name: np.array(self.backend.numpy(tensor)) for name, tensor in self.tensors.items()}
        state = self.backend.optimizer_state(self.optimizer)
        if self.scaler:
            state |= {"scale": np.float64(self.scaler.scale), "clean": np.int64(self.scaler.clean)}
        return {**grouped("values", values), **grouped("state", state)}

    def load(self, state: Arrays) -> None:
        self.backend.load_optimizer_state(self.optimizer, state)
        if self.scaler:
            self.scaler.scale, self.scaler.clean = float(state["scale"]), int(state["clean"])

    def step(self, step: int) -> None:
        """Take one step. The loss sum(p * g) gives every parameter p the gradient g."""
        parts = self.rule.get("parts", 1)
        for part in range(parts):
            loss = sum((tensor * self.backend.asarray(g)).sum() for i, (name, tensor) in enumerate(self.tensors.items())
                       if (g := gradient(i, name, tuple(tensor.shape), step, part, self.rule)) is not None)
            self.backend.step(self.optimizer, loss, self.rule.get("clip"), part < parts - 1, self.scaler)


def record(side: Side, arrays: Arrays, rule: dict, split: bool) -> Arrays:
    """In a worker: the states before each step of a run, "<step>/values/…" and "<step>/state/…"."""
    stepper, found = Stepper(side, arrays, rule, split), {}
    for step in range(STEPS):
        found |= grouped(str(step), stepper.state())
        stepper.step(step)
    return found


def again(side: Side, arrays: Arrays, rule: dict, split: bool) -> Arrays:
    """In a worker: one step from each recorded state, "<step>/after/…"; and that state itself after it was loaded
    into the optimizer and read back, "<step>/back/…"."""
    found = {}
    for step in range(STEPS):
        before = group(arrays, str(step))
        stepper = Stepper(side, group(before, "values"), rule, split)
        stepper.load(group(before, "state"))
        found |= grouped(f"{step}/back", stepper.state())
        stepper.step(step)
        found |= grouped(f"{step}/after", stepper.state())
    return found


def reference(side: Side, arrays: Arrays, rule: dict, split: bool) -> Arrays:
    """In the PyTorch worker: each recorded state after one more step, in float64, "<step>/double/…", and in float32,
    "<step>/single/…"."""
    rules = jittors_rule if rule.get("settings", {}).get("form") == "jittor" else torch_optim
    found = {}
    for step in range(STEPS):
        for precision, dtype in (("double", np.float64), ("single", np.float32)):
            before = {name: a.astype(dtype) for name, a in group(arrays, str(step)).items()}
            values, state = group(before, "values"), group(before, "state")
            after, moments = rules(values, state, total(values, rule, step), rule, groups(values, split))
            found |= grouped(f"{step}/{precision}", {**grouped("values", after), **grouped("state", moments)})
    return found


def total(values: Arrays, rule: dict, step: int) -> Arrays:
    """The gradients of a step, summed over its parts and clipped by their joint norm, in the type of the values;
    None for a parameter that the losses do not reach."""
    found = {}
    for index, (name, value) in enumerate(values.items()):
        parts = [gradient(index, name, value.shape, step, part, rule) for part in range(rule.get("parts", 1))]
        found[name] = None if parts[0] is None else sum(part.astype(value.dtype) for part in parts)
    if rule.get("clip"):
        norm = np.sqrt(sum(np.sum(g * g) for g in found.values() if g is not None))
        factor = min(1.0, rule["clip"] / (norm + 1e-6))
        found = {name: g if g is None else g * g.dtype.type(factor) for name, g in found.items()}
    return found


def torch_optim(values: Arrays, state: Arrays, gradients: Arrays, rule: dict, groups: list[dict]):
    """One step of PyTorch's own optimizer."""
    import torch
    kind = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[rule["kind"]]
    tensors = {name: torch.nn.Parameter(torch.tensor(a)) for name, a in values.items()}
    optimizer = kind([{**group, "params": [tensors[name] for name in group["params"]]} for group in groups],
                     **rule.get("settings", {}))
    quantities = ("momentum_buffer",) if rule["kind"] == "sgd" else ("exp_avg", "exp_avg_sq")
    for name, tensor in tensors.items():
        if gradients[name] is not None:
            tensor.grad = torch.tensor(gradients[name])
        if state[f"{name}/step"]:
            known = {q: torch.tensor(state.get(f"{name}/{q}", np.zeros_like(values[name]))) for q in quantities}
            optimizer.state[tensor] = {"step": torch.tensor(float(state[f"{name}/step"])), **known}
    scaler = torch.amp.GradScaler("cpu", growth_interval=GROWTH, enabled=bool(rule.get("scaler")))
    if scaler.is_enabled():
        scaler.load_state_dict(scaler.state_dict() | {"scale": float(state["scale"]),
                                                      "_growth_tracker": int(state["clean"])})
        for tensor in tensors.values():
            tensor.grad = None if tensor.grad is None else scaler.scale(tensor.grad)
    scaler.step(optimizer)
    scaler.update()
    moments = {f"{name}/{q}": optimizer.state[tensor][q].numpy() for name, tensor in tensors.items() for q in quantities
               if f"{name}/{q}" in state or stores(rule, q) and optimizer.state[tensor]}
    if scaler.is_enabled():
        moments |= {"scale": np.float64(scaler.get_scale()),
                    "clean": np.float64(scaler.state_dict()["_growth_tracker"])}
    return {name: tensor.detach().numpy() for name, tensor in tensors.items()}, moments


def stores(rule: dict, quantity: str) -> bool:
    """Whether the twins store this quantity: momentum if it is not 0, a first moment unless beta1 is 0."""
    settings = rule.get("settings", {})
    return {"momentum_buffer": settings.get("momentum", 0) > 0, "exp_avg": settings.get("betas", [0.9])[0] > 0,
            "exp_avg_sq": True}[quantity]


def jittors_rule(values: Arrays, state: Arrays, gradients: Arrays, rule: dict, groups: list[dict]):
    """One step of Jittor's Adam: epsilon is added before the bias correction, and a parameter that no loss reaches
    has a zero gradient."""
    settings, after, moments = rule["settings"], {}, {}
    beta1, beta2 = settings.get("betas", (0.9, 0.999))
    for chosen in groups:
        decay = chosen.get("weight_decay", settings.get("weight_decay", 0.0))
        for name in chosen["params"]:
            p, count, zero = values[name], state[f"{name}/step"] + 1, np.zeros_like(values[name])
            g = (zero if gradients[name] is None else gradients[name]) + decay * p
            first = beta1 * state.get(f"{name}/exp_avg", zero) + (1 - beta1) * g
            second = beta2 * state.get(f"{name}/exp_avg_sq", zero) + (1 - beta2) * g * g
            rate = chosen["lr"] * np.sqrt(1 - beta2 ** count) / (1 - beta1 ** count)
            after[name] = p - rate * first / (np.sqrt(second) + 1e-8)
            moments |= {f"{name}/exp_avg_sq": second, **({f"{name}/exp_avg": first} if beta1 else {})}
    return after, moments


def ulps(value, truth, before) -> float:
    """The largest error, in units in the last place of the largest of the value before, the truth and the change."""
    if masks_differ(value, truth):
        return np.inf
    way = np.maximum.reduce([np.abs(before), np.abs(truth), np.abs(truth - before)])
    unit = np.spacing(np.maximum(way, np.finfo(np.float32).tiny).astype(np.float32)).astype(np.float64)
    return float((np.abs(np.asarray(value, np.float64) - truth) / unit).max(initial=0.0))


def in_ulps(seen: float, own: float) -> Verdict:
    """The verdict on an error `seen`, given the error `own` of float32 PyTorch; both in units in the last place."""
    limit = max(ULPS, FACTORS[False][1] * own)
    return Verdict(seen, own, own, limit, "" if seen <= limit else f"{seen:.1f} ULP off, {limit:.1f} allowed")


def check(case: Case, size: str, mode: str, twins: Twins) -> list[Row]:
    """One row; for a case with `rules`, which has no model, one row per rule."""
    if hasattr(case, "rules"):
        start = {name: Draws(1).normal(name, shape) for name, shape in case.parameters.items()}
        return [row(case.name, "L5", name, stepped(twins, start, rule, split=True), case.dtype, unit="ULP")
                for name, rule in case.rules.items()]
    kind, settings = case.optimizer
    weights = group(arrays_for(case, twins, size, mode), "weights")
    _, found = twins.torch.call(trained, case=case.reference(), size=size, mode=mode)
    start = {name: weights[name] for name in found["names"]}
    verdicts = stepped(twins, start, {"kind": kind, "settings": settings}, split=False)
    return [row(case.name, "L5", mode, verdicts, case.dtype, unit="ULP")]


def trained(side: Side, arrays: Arrays, case: dict, size: str, mode: str) -> tuple[Arrays, dict]:
    """In a worker: the keys of the parameters."""
    return {}, {"names": list(side.backend.parameters(load(case).build(side, size, mode)))}


def stepped(twins: Twins, start: Arrays, rule: dict, split: bool) -> dict[str, Verdict]:
    """The verdicts of two runs, one per framework, each of whose steps both frameworks take again."""
    arguments, verdicts = {"rule": rule, "split": split}, {}
    for owner, (states, _) in twins.both(record, start, **arguments).items():
        steps = twins.both(again, states, **arguments)
        wanted, _ = twins.torch.call(reference, states, **arguments)
        for name, (found, _) in steps.items():
            verdicts |= {f"{key} ({name}, in the run of {owner})": verdict
                         for key, verdict in judged(states, found, wanted).items()}
    return verdicts


def judged(states: Arrays, found: Arrays, wanted: Arrays) -> dict[str, Verdict]:
    """The verdicts of one run: of the state read back, and of parameters and moments after each step."""
    verdicts = {}
    for step in range(STEPS):
        before, back = group(states, str(step)), group(found, f"{step}/back")
        for name, value in before.items():
            verdicts[f"step {step} back {name}"] = equal(back[name], value) if name in back else missing()
        after, single, double = (group(a, f"{step}/{kind}") for a, kind in (
            (found, "after"), (wanted, "single"), (wanted, "double")))
        start = {name: np.asarray(before.get(name, np.zeros_like(value)), np.float64)
                 for name, value in double.items()}
        own: dict[str, float] = {}             # by quantity: the largest over the parameters
        for name, value in double.items():
            own[quantity(name)] = max(own.get(quantity(name), 0.0), ulps(single[name], value, start[name]))
        for name, value in double.items():
            verdicts[f"step {step} {name}"] = in_ulps(
                ulps(after[name], value, start[name]), own[quantity(name)]) if name in after else missing()
    return verdicts


def quantity(name: str) -> str:
    return "values" if name.startswith("values/") else name.rpartition("/")[2]


def missing() -> Verdict:
    return Verdict(np.inf, 0.0, 0.0, 0.0, "no such state")
