"""Optimizers with one interface and one state format in both twins.

Groups are dicts with `params` (tensors by name), `lr` and, if the rule has it, `weight_decay`.
State is exchanged as arrays named "<parameter>/<quantity>".
"""
import numpy as np
import torch


class Optimizer:
    """The base of all optimizers. It computes gradients of its own parameters only, and sums them until `apply`."""

    quantities: tuple[str, ...] = ()

    def __init__(self, groups: list[dict], weight_decay: float = 0.0):
        self.groups = [{"weight_decay": weight_decay, **group} for group in groups]
        self.names = [name for group in self.groups for name in group["params"]]
        if len(set(self.names)) != len(self.names):
            raise ValueError("a parameter appears twice in the optimizer's groups")
        self.parameters = {name: p for group in self.groups for name, p in group["params"].items()}
        self.moments = {name: {} for name in self.names}
        self.steps = dict.fromkeys(self.names, 0)
        self.gradients = {}

    def accumulate(self, loss) -> None:
        """Add the gradients of `loss` and free its graph, each intermediate result as soon as it was used."""
        gradients = torch.autograd.grad(loss, list(self.parameters.values()), allow_unused=True)
        for name, gradient in zip(self.names, gradients):
            if gradient is not None:
                before = self.gradients.get(name)
                self.gradients[name] = gradient if before is None else before + gradient

    @torch.no_grad()
    def apply(self, clip: float | None = None) -> None:
        """Update the parameters that have a gradient, and drop the gradients. clip: see `clip`."""
        if clip is not None:
            self.clip(clip)
        for group in self.groups:
            batches = {}
            for name in group["params"]:
                if name not in self.gradients:
                    self.gradients[name] = self.unused(name)
                if self.gradients[name] is not None:
                    self.steps[name] += 1
                    batches.setdefault(self.steps[name], []).append(name)
            for step, names in batches.items():
                self.update(names, step, group)
        self.gradients = {}

    def unscale(self, scaler) -> bool:
        """Divide the gradients by the scaler's factor, which then changes.

        If any of them is not finite, the result is False, and they are dropped.
        """
        found = [g.isfinite().all() for g in self.gradients.values()]
        finite = not found or bool(torch.stack(found).all())        # one number is read back, not one per gradient
        self.gradients = {name: g * (1 / scaler.scale) for name, g in self.gradients.items()} if finite else {}
        scaler.after(finite)
        return finite

    def clip(self, limit: float) -> None:
        """Scale all gradients so that their joint norm is at most `limit`."""
        gradients = list(self.gradients.values())
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        factor = limit / (norm + 1e-6)
        factor = torch.where(factor < 1, factor, 1.0)       # 1 too if the norm is not a number
        self.gradients = dict(zip(self.gradients, torch._foreach_mul(gradients, factor)))

    def unused(self, name: str):
        """The gradient of a parameter that the loss does not reach; None to leave the parameter unchanged."""
        return None

    def update(self, names: list[str], step: int, group: dict) -> None:
        """Change parameters of a group by their gradients, in their step number `step`. Each optimizer overrides this
        with its rule."""
        raise NotImplementedError

    def of(self, names: list[str]) -> tuple[list, list]:
        """Parameters and their gradients, whose elements lie in memory in the order of the parameter's."""
        parameters = [self.parameters[name] for name in names]
        return parameters, [g if g.stride() == p.stride() else torch.empty_like(p).copy_(g)
                            for p, g in zip(parameters, (self.gradients[name] for name in names))]

    def moment(self, name: str, quantity: str):
        if quantity not in self.moments[name]:
            self.moments[name][quantity] = torch.zeros_like(self.parameters[name])
        return self.moments[name][quantity]

    def state(self) -> dict[str, np.ndarray]:
        arrays = {}
        for name in self.names:
            arrays[f"{name}/step"] = np.array(self.steps[name], np.int64)
            moments = self.moments[name]
            for quantity in (each for each in self.quantities if each in moments):
                arrays[f"{name}/{quantity}"] = moments[quantity].cpu().numpy().copy()
        return arrays

    def load_state(self, arrays: dict[str, np.ndarray]) -> None:
        for name in self.names:
            self.steps[name] = int(arrays[f"{name}/step"])
            for quantity in self.quantities:
                if f"{name}/{quantity}" in arrays:
                    self.moment(name, quantity).copy_(torch.as_tensor(arrays[f"{name}/{quantity}"]))


class SGD(Optimizer):
    """Stochastic gradient descent with momentum. The first step uses the whole gradient."""

    quantities = ("momentum_buffer",)

    def __init__(self, groups, momentum: float = 0.0, nesterov: bool = False, weight_decay: float = 0.0):
        super().__init__(groups, weight_decay)
        self.momentum = momentum
        self.nesterov = nesterov

    def update(self, names, step, group):
        parameters, gradients = self.of(names)
        gradients = torch._foreach_add(gradients, torch._foreach_mul(parameters, group["weight_decay"]))
        if self.momentum:
            buffers = [self.moment(name, "momentum_buffer") for name in names]
            torch._foreach_mul_(buffers, self.momentum if step > 1 else 0.0)
            torch._foreach_add_(buffers, gradients)
            ahead = torch._foreach_mul(buffers, self.momentum)
            gradients = torch._foreach_add(gradients, ahead) if self.nesterov else buffers
        torch._foreach_sub_(parameters, torch._foreach_mul(gradients, group["lr"]))


class Adam(Optimizer):
    """Adam (Kingma and Ba 2015, arXiv 1412.6980).

    form="torch": steps are counted per parameter, epsilon is added after bias correction, and parameters without a
    gradient do not change. form="jittor" is the rule with which APF-GAN was trained: all parameters have one count of
    steps, epsilon is added before bias correction, and a parameter that the loss does not reach has a zero gradient.
    With beta1 = 0 the first moment is the gradient, so it is not stored.
    """

    quantities = ("exp_avg", "exp_avg_sq")
    decoupled = False

    def __init__(self, groups, betas=(0.9, 0.999), eps: float = 1e-8, weight_decay: float = 0.0,
                 form: str = "torch"):
        super().__init__(groups, weight_decay)
        self.betas = betas
        self.eps = eps
        self.form = form

    def unused(self, name):
        return torch.zeros_like(self.parameters[name]) if self.form == "jittor" else None

    def update(self, names, step, group):
        (beta1, beta2), decay = self.betas, group["weight_decay"]
        parameters, gradients = self.of(names)
        if decay and not self.decoupled:
            gradients, decay = torch._foreach_add(gradients, torch._foreach_mul(parameters, decay)), 0.0
        root = (1 - beta2 ** step) ** 0.5
        # With beta1 = 0 the rule would store the gradient as the first moment: it stores it where it already is.
        firsts = [self.moment(name, "exp_avg") for name in names] if beta1 else gradients
        rule = torch._fused_adamw_ if self.decoupled else torch._fused_adam_
        rule(parameters, gradients, firsts, [self.moment(name, "exp_avg_sq") for name in names], [],
             [torch.full((), step, dtype=torch.float32)] * len(names), lr=group["lr"], beta1=beta1, beta2=beta2,
             weight_decay=decay, eps=self.eps / root if self.form == "jittor" else self.eps,
             amsgrad=False, maximize=False)


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, arXiv 1711.05101)."""

    decoupled = True

    def __init__(self, groups, betas=(0.9, 0.999), eps: float = 1e-8, weight_decay: float = 0.01):
        super().__init__(groups, betas, eps, weight_decay)
