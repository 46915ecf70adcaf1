"""Optimizers with one interface and one state format in both twins.

Groups are dicts with `params` (tensors by name), `lr` and, if the rule has it, `weight_decay`.
State is exchanged as arrays named "<parameter>/<quantity>".
Jittor's own optimizers differ from PyTorch's in several ways [O1-O6]; none is used here.
"""
import numpy as np

from jt_models.boot import jt
from jt_models.nn.kernels.adam import adam


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
            for name in group["params"]:
                gradient = self.gradients.get(name)
                if gradient is None:
                    gradient = self.unused(name)
                if gradient is not None:
                    self.steps[name] += 1
                    self.update(name, gradient, group)
        self.gradients = {}
        jt.sync_all()

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
        squares = [(g * g).reshape(g.shape[0], -1).sum(1).sum() for g in self.gradients.values()]
        factor = limit / (float(np.sqrt(sum(float(s.numpy()[0]) for s in squares))) + 1e-6)
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
            self.moments[name][quantity] = jt.zeros(self.parameters[name].shape).stop_grad()
        return self.moments[name][quantity]

    def state(self) -> dict[str, np.ndarray]:
        arrays = {}
        for name in self.names:
            arrays[f"{name}/step"] = np.array(self.steps[name], np.int64)
            for quantity, value in self.moments[name].items():
                arrays[f"{name}/{quantity}"] = value.numpy()
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

    def update(self, name, gradient, group):
        parameter = self.parameters[name]
        gradient = gradient + group["weight_decay"] * parameter
        if self.momentum:
            buffer = gradient
            if self.steps[name] > 1:
                buffer = self.momentum * self.moment(name, "momentum_buffer") + gradient
            self.moments[name]["momentum_buffer"] = buffer.detach()
            gradient = gradient + self.momentum * buffer if self.nesterov else buffer
        parameter.update(parameter - group["lr"] * gradient)


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

    def update(self, name, gradient, group):
        (beta1, beta2), step, parameter = self.betas, self.steps[name], self.parameters[name]
        root = (1 - beta2 ** step) ** 0.5
        decay = group["weight_decay"]
        scalars = np.array([1 - group["lr"] * decay if self.decoupled else 1.0, 0.0 if self.decoupled else decay,
                            1 - beta1, beta2, 1 - beta2, group["lr"] / (1 - beta1 ** step), root,
                            self.eps / root if self.form == "jittor" else self.eps], np.float32)
        before = self.moment(name, "exp_avg") if beta1 else gradient
        updated, first, second = adam(parameter, gradient, before, self.moment(name, "exp_avg_sq"), jt.array(scalars))
        self.moments[name] = {"exp_avg": first.stop_grad()} if beta1 else {}
        self.moments[name]["exp_avg_sq"] = second.stop_grad()
        parameter.update(updated)


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, arXiv 1711.05101) [O3]."""

    decoupled = True

    def __init__(self, groups, betas=(0.9, 0.999), eps: float = 1e-8, weight_decay: float = 0.01):
        super().__init__(groups, betas, eps, weight_decay)
