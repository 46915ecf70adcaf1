"""Optimizers, learning-rate schedules, and which tensors train [O1-O5, C1, C2, S1, S9].

Both torch.optim and the optimizers of torch_models are changed.
"""
import contextlib
from collections.abc import Callable
from importlib import import_module

from parity.fingerprints.fingerprint import fingerprint
from parity.fingerprints.patch import swapped


def adam_with(settings: Callable = lambda known: {}, count: Callable = lambda step, who: step,
              ours: Callable = lambda optimizer, step: {}):
    """Adam and AdamW with other settings, or another count of steps in the bias correction.

    settings(keywords of torch.optim.adam.adam with "step") and ours(an optimizer of torch_models, step) return the
    changed settings. count(step, who) returns the number of steps to correct for; who is the parameter in
    torch.optim, and the optimizer in torch_models.
    """
    import torch

    from torch_models.nn import optim

    def changed_torch(original):
        def adam(params, grads, first, second, largest, steps, *rest, **known):
            for i, step in enumerate(steps):
                seen = step + 1
                shown = torch.full_like(step, float(count(int(seen), params[i])) - 1)
                original([params[i]], [grads[i]], [first[i]], [second[i]], largest[i:i + 1], [shown], *rest,
                         **{**known, **settings({**known, "step": int(seen)})})
                step.copy_(seen)
        return adam

    def changed_ours(original):
        def update(self, names, step, group):
            changes = ours(self, step)
            before = {key: getattr(self, key) for key in changes}
            vars(self).update(changes)
            original(self, names, count(step, self), group)
            vars(self).update(before)
        return update

    return swapped((import_module("torch.optim.adam"), "adam", changed_torch), (optim.Adam, "update", changed_ours))


@fingerprint("O1", "Adam adds eps before the bias correction: 32 times as much at the first step",
             "jt.optim.AdamW(weight_decay=0) computes PyTorch's Adam")
def _():
    def settings(known):
        if known["decoupled_weight_decay"]:
            return {}
        return {"eps": known["eps"] / (1 - known["beta2"] ** known["step"]) ** 0.5}

    return adam_with(settings, ours=lambda optimizer, step: {} if optimizer.decoupled else {"form": "jittor"})


@fingerprint("O2", "the bias correction of Adam counts calls of backward, not of step",
             "reset n_step to the number of updates before each step")
@contextlib.contextmanager
def _():
    import torch

    from torch_models.nn import optim
    handles = []

    def counted(who, *_):
        who.backward_calls = getattr(who, "backward_calls", 0) + 1

    def watched(original):
        def add_param_group(self, group):
            original(self, group)
            handles.extend(p.register_post_accumulate_grad_hook(counted)
                           for p in self.param_groups[-1]["params"] if p.requires_grad)
        return add_param_group

    def summing(original):
        def accumulate(self, loss):
            counted(self)
            return original(self, loss)
        return accumulate

    try:
        with swapped((torch.optim.Optimizer, "add_param_group", watched),
                     (optim.Optimizer, "accumulate", summing)), \
                adam_with(count=lambda step, who: getattr(who, "backward_calls", step)):
            yield
    finally:
        for handle in handles:
            handle.remove()


def default_of(owner: type, name: str, value):
    """The class with another default for one keyword of its constructor."""
    def make(build):
        def __init__(self, *arguments, **keywords):
            build(self, *arguments, **{name: value, **keywords})
        return __init__
    return swapped((owner, "__init__", make))


@fingerprint("O3", "AdamW does not decay by default, PyTorch's does by 0.01", "pass weight_decay=0.01")
@contextlib.contextmanager
def _():
    import torch

    from torch_models.nn import optim
    with default_of(torch.optim.AdamW, "weight_decay", 0.0), default_of(optim.AdamW, "weight_decay", 0.0):
        yield


@fingerprint("O4", "SGD applies dampening to the first step too",
             "start the momentum buffer with the whole first gradient")
def _():
    import torch

    def damped(original):
        def sgd(params, grads, buffers, *rest, **known):
            if known["momentum"]:
                buffers[:] = [torch.zeros_like(p) if b is None else b for p, b in zip(params, buffers)]
            return original(params, grads, buffers, *rest, **known)
        return sgd

    return swapped((import_module("torch.optim.sgd"), "sgd", damped))


@fingerprint("O5", "a parameter that the loss does not reach has a zero gradient: decay and momentum still move it",
             "leave parameters without a use in the graph out of the step")
@contextlib.contextmanager
def _():
    import torch
    from torch.optim.optimizer import register_optimizer_step_pre_hook

    from torch_models.nn import optim

    def fill(optimizer, *_):
        for p in (p for group in optimizer.param_groups for p in group["params"]):
            if p.grad is None and p.requires_grad:
                p.grad = torch.zeros_like(p)

    def unused(_):
        return lambda self, name: torch.zeros_like(self.parameters[name])

    handle = register_optimizer_step_pre_hook(fill)
    try:
        with swapped((optim.Optimizer, "unused", unused), (optim.Adam, "unused", unused)):
            yield
    finally:
        handle.remove()


def late(*names: str, when: Callable = lambda schedule: True):
    """Schedules of torch.optim whose first step after construction does nothing."""
    from torch.optim import lr_scheduler

    def lagging(original):
        def step(self, *arguments):
            self.__dict__["_calls"] = self.__dict__.get("_calls", 0) + 1
            if self.__dict__["_calls"] != 2 or not when(self):
                original(self, *arguments)
        return step

    return swapped(*((getattr(lr_scheduler, name), "step", lagging) for name in names))


@fingerprint("C1", "CosineAnnealingLR, ExponentialLR and MultiStepLR are one step late",
             "call step() once after building the schedule")
def _():
    return late("CosineAnnealingLR", "ExponentialLR", "MultiStepLR")


@fingerprint("C2", "StepLR with step_size=1 skips the first step", "set the rate in closed form")
def _():
    return late("StepLR", when=lambda schedule: schedule.step_size == 1)


@fingerprint("S1", "buffers are parameters: the optimizer trains them",
             "stop the gradient of constants when they are stored")
def _():
    from torch.nn import Module
    kept = "running_mean", "running_var"         # which Jittor's own layers keep from training

    def register(original):
        def register_buffer(self, name, tensor, persistent=True):
            if tensor is not None and tensor.is_floating_point() and name not in kept:
                tensor = tensor.detach().requires_grad_(True)
            original(self, name, tensor, persistent)
        return register_buffer

    def listed(original):
        def named_parameters(self, prefix="", recurse=True, remove_duplicate=True):
            yield from original(self, prefix, recurse, remove_duplicate)
            for name, buffer in self.named_buffers(prefix, recurse, remove_duplicate):
                if buffer.requires_grad:
                    yield name, buffer
        return named_parameters

    return swapped((Module, "register_buffer", register), (Module, "named_parameters", listed))


@fingerprint("S9", "eval() stops the gradients of all parameters: they are zero",
             "set is_train of the modules instead of calling eval()")
@contextlib.contextmanager
def _():
    from torch.nn import Module
    handles = []

    def stopping(original):
        def eval(self):
            original(self)
            for part in self.modules():
                for p in part.parameters(recurse=False):
                    handles.append(p.register_hook(lambda g, part=part: g if part.training else g * 0))
            return self
        return eval

    try:
        with swapped((Module, "eval", stopping)):
            yield
    finally:
        for handle in handles:
            handle.remove()
