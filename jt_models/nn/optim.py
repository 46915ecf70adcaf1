"""Optimizers with one interface and one state format in both twins.

Groups are dicts with `params` (tensors by name), `lr` and, if the rule has it, `weight_decay`.
State is exchanged as arrays named "<parameter>/<quantity>".
Jittor's own optimizers differ from PyTorch's in several ways [O1-O6]; none is used here.
"""
import numpy as np

from jt_models.boot import jt
from jt_models.nn.kernels import lists


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
        reached = [name for name in self.names if _has_consumer(self.parameters[name])]
        gradients = jt.grad(loss, [self.parameters[name] for name in reached], retain_graph=False)
        for name, gradient in zip(reached, gradients):
            before = self.gradients.get(name)
            self.gradients[name] = gradient if before is None else before + gradient
        jt.sync_all()

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
        # The host decides: compiled with fast arithmetic, kernels may take every number for finite.
        finite = all(bool(np.isfinite(g.numpy()).all()) for g in self.gradients.values())
        self.gradients = {name: g * (1 / scaler.scale) for name, g in self.gradients.items()} if finite else {}
        scaler.after(finite)
        return finite

    def clip(self, limit: float) -> None:
        """Scale all gradients so that their joint norm is at most `limit`."""
        factor = lists.clip_factor(list(self.gradients.values()), limit)
        self.gradients = {name: g * factor for name, g in self.gradients.items()}

    def unused(self, name: str):
        """The gradient of a parameter that the loss does not reach; None to leave the parameter unchanged."""
        return None

    def update(self, names: list[str], step: int, group: dict) -> None:
        """Change parameters of a group by their gradients, in their step number `step`. Each optimizer overrides this
        with its rule."""
        raise NotImplementedError

    def of(self, names: list[str]) -> tuple[list, list]:
        """Parameters and their gradients."""
        return [self.parameters[name] for name in names], [self.gradients[name] for name in names]

    def moment(self, name: str, quantity: str):
        if quantity not in self.moments[name]:
            self.moments[name][quantity] = jt.zeros(self.parameters[name].shape).stop_grad()
        return self.moments[name][quantity]

    def state(self) -> dict[str, np.ndarray]:
        arrays = {}
        for name in self.names:
            arrays[f"{name}/step"] = np.array(self.steps[name], np.int64)
            moments = self.moments[name]
            for quantity in (each for each in self.quantities if each in moments):
                arrays[f"{name}/{quantity}"] = moments[quantity].numpy()
        return arrays

    def load_state(self, arrays: dict[str, np.ndarray]) -> None:
        for name in self.names:
            self.steps[name] = int(arrays[f"{name}/step"])
            for quantity in self.quantities:
                if f"{name}/{quantity}" in arrays:
                    self.moments[name][quantity] = jt.array(arrays[f"{name}/{quantity}"]).stop_grad()


def _has_consumer(parameter) -> bool:
    """Whether a pending graph uses the parameter. If none does, jt.grad returns zeros instead of None [S14, O5].

    Only Jittor's debug line says it: "Var(id:liveness:...:i<inputs>:o<outputs>:...)".
    """
    return ":o0:" not in parameter.debug_msg()


class SGD(Optimizer):
    """Stochastic gradient descent with momentum. The first step uses the whole gradient [O4]."""

    quantities = ("momentum_buffer",)

    def __init__(self, groups, momentum: float = 0.0, nesterov: bool = False, weight_decay: float = 0.0):
        super().__init__(groups, weight_decay)
        self.momentum = momentum
        self.nesterov = nesterov

    def update(self, names, step, group):
        buffers = [[self.moment(name, "momentum_buffer") for name in names]] if self.momentum else []
        momentum = self.momentum if step > 1 else 0.0
        lists.sgd([*self.of(names), *buffers], [group["lr"], group["weight_decay"], momentum,
                                                self.momentum if self.nesterov else 0.0])


class Adam(Optimizer):
    """Adam (Kingma and Ba 2015, arXiv 1412.6980) [O1, O2].

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
        return jt.zeros(self.parameters[name].shape) if self.form == "jittor" else None

    def update(self, names, step, group):
        (beta1, beta2), decay = self.betas, group["weight_decay"]
        root = (1 - beta2 ** step) ** 0.5
        moments = ("exp_avg_sq", "exp_avg") if beta1 else ("exp_avg_sq",)
        lists.adam([*self.of(names), *([self.moment(name, quantity) for name in names] for quantity in moments)],
                   [1 - group["lr"] * decay if self.decoupled else 1.0, 0.0 if self.decoupled else decay,
                    1 - beta1, beta2, 1 - beta2, group["lr"] / (1 - beta1 ** step), root,
                    self.eps / root if self.form == "jittor" else self.eps])


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, arXiv 1711.05101) [O3]."""

    decoupled = True

    def __init__(self, groups, betas=(0.9, 0.999), eps: float = 1e-8, weight_decay: float = 0.01):
        super().__init__(groups, betas, eps, weight_decay)
