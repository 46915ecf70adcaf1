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
            for name in group["params"]:
                gradient = self.gradients.get(name)
                if gradient is None:
                    gradient = self.unused(name)
                if gradient is not None:
                    self.steps[name] += 1
                    self.update(name, gradient, group)
        self.gradients = {}

    def unscale(self, scaler) -> bool:
        """Divide the gradients by the scaler's factor, which then changes.

        If any of them is not finite, the result is False, and they are dropped.
        """
        finite = all(bool(g.isfinite().all()) for g in self.gradients.values())
        self.gradients = {name: g * (1 / scaler.scale) for name, g in self.gradients.items()} if finite else {}
        scaler.after(finite)
        return finite

    def clip(self, limit: float) -> None:
        """Scale all gradients so that their joint norm is at most `limit`."""
        norms = torch._foreach_norm(list(self.gradients.values()))
        factor = limit / (torch.linalg.vector_norm(torch.stack(norms)) + 1e-6)
        if factor < 1:
            self.gradients = {name: g * factor for name, g in self.gradients.items()}

    def unused(self, name: str):
        """The gradient of a parameter that the loss does not reach; None to leave the parameter unchanged."""
        return None

    def update(self, name: str, gradient, group: dict) -> None:
        """Change one parameter by its gradient. Each optimizer overrides this with its rule."""
        raise NotImplementedError

    def moment(self, name: str, quantity: str):
        if quantity not in self.moments[name]:
            self.moments[name][quantity] = torch.zeros_like(self.parameters[name])
        return self.moments[name][quantity]

    def state(self) -> dict[str, np.ndarray]:
        arrays = {}
        for name in self.names:
            arrays[f"{name}/step"] = np.array(self.steps[name], np.int64)
            for quantity, value in self.moments[name].items():
                arrays[f"{name}/{quantity}"] = value.cpu().numpy().copy()
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

    def update(self, name, gradient, group):
        parameter = self.parameters[name]
        gradient = gradient + group["weight_decay"] * parameter
        if self.momentum:
            buffer = self.moment(name, "momentum_buffer")
            if self.steps[name] == 1:
                buffer.copy_(gradient)
            else:
                buffer.mul_(self.momentum).add_(gradient)
            gradient = gradient + self.momentum * buffer if self.nesterov else buffer
        parameter.sub_(group["lr"] * gradient)


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

    def update(self, name, gradient, group):
        (beta1, beta2), step, parameter = self.betas, self.steps[name], self.parameters[name]
        if self.decoupled:
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
        elif group["weight_decay"]:
            gradient = gradient + group["weight_decay"] * parameter
        first = self.moment(name, "exp_avg").lerp_(gradient, 1 - beta1) if beta1 else gradient
        second = self.moment(name, "exp_avg_sq").mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        root = (1 - beta2 ** step) ** 0.5
        eps = self.eps / root if self.form == "jittor" else self.eps
        parameter.addcdiv_(first, (second.sqrt() / root).add_(eps), value=-group["lr"] / (1 - beta1 ** step))


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, arXiv 1711.05101)."""

    decoupled = True

    def __init__(self, groups, betas=(0.9, 0.999), eps: float = 1e-8, weight_decay: float = 0.01):
        super().__init__(groups, betas, eps, weight_decay)
