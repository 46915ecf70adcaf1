"""Specimens of fingerprints.training."""
import numpy as np

from specimens.record import specimen


def torch_steps(optimizer, loss, steps: int = 3):
    """Minimise loss() for a few steps."""
    for _ in range(steps):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()


def jittor_steps(optimizer, loss, steps: int = 3):
    for _ in range(steps):
        optimizer.step(loss())


def leaf(x):
    """A torch parameter with the values of x."""
    return x.clone().requires_grad_(True)


@specimen("O1", x=(4,), slope=(4,))
class AdamOfSmallGradients:
    def torch(x, slope):
        import torch
        p = leaf(x)
        torch_steps(torch.optim.Adam([p], lr=0.1), lambda: (p * slope * 1e-7).sum())
        return {"moved": p - x}

    def jittor(x, slope):
        from jt_models.boot import jt
        p = x.clone()
        jittor_steps(jt.optim.Adam([p], lr=0.1), lambda: (p * slope * 1e-7).sum())
        return {"moved": p - x}


@specimen("O2", x=(4,), parts=(3, 4))
class AccumulatedGradients:
    def torch(x, parts):
        import torch
        p = leaf(x)
        optimizer = torch.optim.AdamW([p], lr=1.0, weight_decay=0.0)
        for _ in range(2):
            optimizer.zero_grad()
            for part in parts:
                (p * part).sum().backward()
            optimizer.step()
        return {"moved": p - x}

    def jittor(x, parts):
        from jt_models.boot import jt
        p = x.clone()
        optimizer = jt.optim.AdamW([p], lr=1.0, weight_decay=0.0)
        for _ in range(2):
            for i in range(3):
                optimizer.backward((p * parts[i]).sum())
            optimizer.step()
        return {"moved": p - x}


@specimen("O3", x=10 * np.ones(4), slope=(4,))
class DecayByDefault:
    def torch(x, slope):
        import torch
        p = leaf(x)
        torch_steps(torch.optim.AdamW([p], lr=0.1), lambda: (p * slope).sum())
        return {"p": p}

    def jittor(x, slope):
        from jt_models.boot import jt
        p = x.clone()
        jittor_steps(jt.optim.AdamW([p], lr=0.1), lambda: (p * slope).sum())
        return {"p": p}


@specimen("O4", x=(4,), slope=(4,))
class DampedMomentum:
    def torch(x, slope):
        import torch
        p = leaf(x)
        torch_steps(torch.optim.SGD([p], lr=0.1, momentum=0.9, dampening=0.5), lambda: (p * slope).sum())
        return {"moved": p - x}

    def jittor(x, slope):
        from jt_models.boot import jt
        p = x.clone()
        jittor_steps(jt.optim.SGD([p], lr=0.1, momentum=0.9, dampening=0.5), lambda: (p * slope).sum())
        return {"moved": p - x}


@specimen("O5", x=(4,), idle=(4,))
class UnusedParameter:
    def torch(x, idle):
        import torch
        p, q = leaf(x), leaf(idle)
        torch_steps(torch.optim.SGD([p, q], lr=0.1, weight_decay=0.1), lambda: (p * p).sum())
        return {"p": p, "idle": q}

    def jittor(x, idle):
        from jt_models.boot import jt
        p, q = x.clone(), idle.clone()
        jittor_steps(jt.optim.SGD([p, q], lr=0.1, weight_decay=0.1), lambda: (p * p).sum())
        return {"p": p, "idle": q}


def rates(schedule, current, steps: int = 6) -> np.ndarray:
    """The learning rate after 0, 1, … steps of the schedule."""
    found = [current()]
    for _ in range(steps):
        schedule.step()
        found.append(current())
    return np.array(found)


def torch_rates(kind: str, **settings) -> np.ndarray:
    import torch
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    schedule = getattr(torch.optim.lr_scheduler, kind)(optimizer, **settings)
    return rates(schedule, lambda: optimizer.param_groups[0]["lr"])


def jittor_rates(kind: str, **settings) -> np.ndarray:
    from jt_models.boot import jt
    optimizer = jt.optim.SGD([jt.zeros(1)], lr=0.1)
    schedule = getattr(jt.lr_scheduler, kind)(optimizer, **settings)
    return rates(schedule, lambda: optimizer.lr)


@specimen("C1")
class LateSchedules:
    def torch():
        return {"cosine": torch_rates("CosineAnnealingLR", T_max=10),
                "exponential": torch_rates("ExponentialLR", gamma=0.5),
                "milestones": torch_rates("MultiStepLR", milestones=[2, 4])}

    def jittor():
        return {"cosine": jittor_rates("CosineAnnealingLR", T_max=10),
                "exponential": jittor_rates("ExponentialLR", gamma=0.5),
                "milestones": jittor_rates("MultiStepLR", milestones=[2, 4])}


@specimen("C2")
class StepEveryEpoch:
    def torch():
        return {"rates": torch_rates("StepLR", step_size=1, gamma=0.5)}

    def jittor():
        return {"rates": jittor_rates("StepLR", step_size=1, gamma=0.5)}


@specimen("S1", x=(3, 4), weight=(4,), scale=(4,))
class TrainedBuffer:
    def torch(x, weight, scale):
        import torch

        class Net(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.weight = torch.nn.Parameter(weight.clone())
                self.register_buffer("scale", scale.clone())

            def forward(self, x):
                return x * self.weight * self.scale

        net = Net()
        torch_steps(torch.optim.SGD(net.parameters(), lr=0.1), lambda: net(x).sum(), 1)
        return {"weight": net.weight, "scale": net.scale}

    def jittor(x, weight, scale):
        from jt_models.boot import jt, nn

        class Net(nn.Module):
            def __init__(self):
                self.weight = weight.clone()
                self.scale = scale.clone()

            def execute(self, x):
                return x * self.weight * self.scale

        net = Net()
        jittor_steps(jt.optim.SGD(net.parameters(), lr=0.1), lambda: net(x).sum(), 1)
        return {"weight": net.weight, "scale": net.scale}


@specimen("S9", x=(3, 4), weight=(2, 4))
class GradientsInEvaluation:
    def torch(x, weight):
        import torch
        layer = torch.nn.Linear(4, 2, bias=False)
        layer.weight = torch.nn.Parameter(weight)
        layer.eval()
        return {"slope": torch.autograd.grad(layer(x).sum(), layer.weight)[0]}

    def jittor(x, weight):
        from jt_models.boot import jt, nn
        layer = nn.Linear(4, 2, bias=False)
        layer.weight = weight
        layer.eval()
        return {"slope": jt.grad(layer(x).sum(), layer.weight)}
