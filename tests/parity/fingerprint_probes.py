"""What test_fingerprints.py runs in the PyTorch worker. Names are bound as users bind them."""
from contextlib import nullcontext
from functools import cache

from parity import fingerprints


@cache
def module():
    """A module that calls functions in every way there is."""
    import torch
    from torch.nn import functional as F
    from torch.nn.functional import interpolate
    absolute, resize = torch.abs, interpolate

    class Mixed(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = torch.nn.BatchNorm2d(2)

        def forward(self, x):
            return {"bound": absolute(x), "method": x.abs(), "operator": abs(x), "loss": F.l1_loss(x, 0 * x),
                    "resized": resize(x, scale_factor=2), "norm": self.norm(x)}
    return Mixed


def means(side, arrays, ids: str = ""):
    """The mean of x, its gradient, and the mean over the axes 0 and 2."""
    import torch
    x = torch.as_tensor(arrays["x"]).requires_grad_(True)
    with fingerprints.applied(ids) if ids else nullcontext():
        mean, rows = x.mean(), torch.mean(x, (0, 2), keepdim=True)
    gradient, = torch.autograd.grad(mean, x)
    return {"mean": side.host(mean), "rows": side.host(rows), "gradient": side.host(gradient)}


def outputs(side, arrays, ids: str = ""):
    """Of the mixed module, its running variance, and the gradient of the sum of its absolute values."""
    import torch
    net, x = module()(), torch.as_tensor(arrays["x"]).requires_grad_(True)
    if ids:
        with fingerprints.applied(ids):
            found = net(x)
            loss = found["bound"].sum() + found["method"].sum() + found["operator"].sum()
    else:
        found = net(x)
        loss = found["bound"].sum() + found["method"].sum() + found["operator"].sum()
    gradient, = torch.autograd.grad(loss, x)
    return {**{name: side.host(tensor) for name, tensor in found.items()}, "gradient": side.host(gradient),
            "running_var": side.host(net.norm.running_var)}


def attributes(side, arrays):
    """How many attributes of PyTorch each fingerprint leaves changed; fails where one cannot be entered."""
    import torch
    from torch.optim import lr_scheduler
    from torch_models.nn import layers, optim
    owners = [torch, torch.nn.functional, torch.Tensor, torch.nn.Module, lr_scheduler, torch.optim.AdamW, optim.Adam,
              optim.AdamW, optim.Optimizer, layers.BatchNorm2d, lr_scheduler.StepLR,
              torch.nn.modules.dropout._DropoutNd]
    before, left = [dict(vars(owner)) for owner in owners], {}
    for id in fingerprints.FINGERPRINTS:
        with fingerprints.applied(id):
            torch.nn.functional.relu(torch.zeros(2))
        left[id] = sum(before[i].get(name) is not value for i, owner in enumerate(owners)
                       for name, value in vars(owner).items() if not name.startswith("__"))
    return {}, left


def unchanged(side, arrays):
    """Whether a function computes the same after a context was left by an exception."""
    import torch
    x = torch.as_tensor(arrays["x"])
    before = torch.round(x)
    try:
        with fingerprints.applied("F8"):
            inside = torch.round(x)
            raise KeyError
    except KeyError:
        pass
    return {"before": side.host(before), "inside": side.host(inside), "after": side.host(torch.round(x))}
