"""Optimizers fed with chosen gradients; see twins.py. The loss sum(p * g) has the gradient g."""
import numpy as np

from jittwin.draws import Draws

SHAPES = {"a": (6, 5), "b": (4,), "c": (3,)}
LEFT_OUT = {"c": (3, 4, 11)}     # steps whose loss does not reach the parameter
STEPS = 20
RATES = {"a": 0.05, "b": 0.05, "c": 0.02}
# kind, settings of the optimizer, largest gradient norm, losses added up per step
CASES = {
    "sgd": ("sgd", {}, None, 1),
    "sgd momentum": ("sgd", {"momentum": 0.9}, None, 1),
    "sgd nesterov decay": ("sgd", {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}, None, 1),
    "adam": ("adam", {}, None, 1),
    "adam decay": ("adam", {"betas": (0.5, 0.9), "weight_decay": 0.1}, None, 1),
    "adam without momentum": ("adam", {"betas": (0.0, 0.9)}, None, 1),
    "adamw": ("adamw", {}, None, 1),
    "adamw decay clipped": ("adamw", {"weight_decay": 0.2}, 1.0, 1),
    "adam accumulated clipped": ("adam", {}, 2.0, 3),
    "sgd accumulated": ("sgd", {"momentum": 0.9}, None, 3),
    "jittor": ("adam", {"form": "jittor"}, None, 1),
    "jittor decay clipped": ("adam", {"form": "jittor", "betas": (0.0, 0.9), "weight_decay": 0.1}, 1.0, 1),
}


def start() -> dict[str, np.ndarray]:
    return {name: Draws(1).normal(name, shape) for name, shape in SHAPES.items()}


def gradient(name: str, step: int, part: int):
    """None where the loss leaves the parameter out. Sizes from 1e-7 to 1: epsilon has to matter."""
    if step in LEFT_OUT.get(name, ()):
        return None
    draws, site = Draws(2, step, part), SHAPES[name]
    return draws.normal(name, site) * 10.0 ** -draws.integers(f"size {name}", 0, 7, site).astype(np.float32)


def rates(step: int) -> list[float]:
    """Per group; they halve in the middle."""
    return [rate * (0.5 if step >= STEPS // 2 else 1) for rate in (RATES["a"], RATES["c"])]


def build(backend, case: str, parameters):
    kind, hyper, _, _ = CASES[case]
    groups = [{"params": {name: parameters[name] for name in names}, "lr": RATES[names[0]]}
              for names in ("ab", "c")]
    groups[1]["weight_decay"] = 0.3
    return backend.optimizer(kind, groups, **hyper)


def go(backend, case: str, optimizer, parameters, steps) -> None:
    _, _, clip, parts = CASES[case]
    for step in steps:
        backend.set_lr(optimizer, rates(step))
        for part in range(parts):
            given = {name: gradient(name, step, part) for name in SHAPES}
            loss = sum((parameters[name] * backend.asarray(g)).sum()
                       for name, g in given.items() if g is not None)
            backend.step(optimizer, loss, clip=clip, accumulate=part < parts - 1)


def tensors(backend, values):
    """Trainable tensors with the given values."""
    if backend.name == "torch":
        import torch
        return {name: torch.tensor(a, dtype=torch.get_default_dtype(), requires_grad=True)
                for name, a in values.items()}
    return {name: backend.asarray(a) for name, a in values.items()}


def collect(backend, case: str, optimizer, parameters) -> dict[str, np.ndarray]:
    state = backend.optimizer_state(optimizer) if optimizer else {}
    return {**{f"{case}|{name}": backend.numpy(p).copy() for name, p in parameters.items()},
            **{f"{case}|state|{name}": a for name, a in state.items()}}


def train(backend, arrays):
    """Every case, from step arrays["first"] to before arrays["last"]; going on from what an
    earlier call returned, in either framework, where that is given."""
    results = {}
    for case in CASES:
        begun, prefix = f"{case}|a" in arrays, f"{case}|state|"
        values = {name: arrays[f"{case}|{name}"] for name in SHAPES} if begun else start()
        parameters = tensors(backend, values)
        optimizer = build(backend, case, parameters)
        if begun:
            state = {name.removeprefix(prefix): a for name, a in arrays.items() if name.startswith(prefix)}
            backend.load_optimizer_state(optimizer, state)
        go(backend, case, optimizer, parameters, range(int(arrays["first"]), int(arrays["last"])))
        results |= collect(backend, case, optimizer, parameters)
    return results


def torch_optim(backend, arrays):
    """PyTorch's own optimizers and clipping, for the cases that it has."""
    import torch
    kinds = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    results = {}
    for case, (kind, hyper, clip, parts) in CASES.items():
        if hyper.get("form") == "jittor":
            continue
        parameters = tensors(backend, start())
        a, b, c = parameters.values()
        groups = [{"params": [a, b]}, {"params": [c], "weight_decay": 0.3}]
        optimizer = kinds[kind](groups, lr=RATES["a"], **hyper)
        for step in range(STEPS):
            for group, rate in zip(optimizer.param_groups, rates(step)):
                group["lr"] = rate
            optimizer.zero_grad(set_to_none=True)
            for part in range(parts):
                for name, p in parameters.items():
                    g = gradient(name, step, part)
                    if g is not None:
                        g = torch.tensor(g, dtype=p.dtype)
                        p.grad = g if p.grad is None else p.grad + g
            if clip is not None:
                torch.nn.utils.clip_grad_norm_(parameters.values(), clip)
            optimizer.step()
        results |= collect(backend, case, None, parameters)
    return results
