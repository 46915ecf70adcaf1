"""The PyTorch side of jittwin.backend.Backend."""
import importlib
import resource

import numpy as np
import torch

from jittwin.backend import PRECISIONS, trim
from jittwin.errors import UserError, choose_from
from jittwin.models.catalog import WHERE
from jittwin.weights.state import check_state, matches, value_of
from torch_models.nn import ops, optim, processes
from torch_models.nn.kernels.functions import placed

OPTIMIZERS = {"sgd": optim.SGD, "adam": optim.Adam, "adamw": optim.AdamW}


class Backend:
    name = "torch"

    def __init__(self):
        self.rank = 0
        self.world_size = 1
        self.device = "cpu"
        self._compiled = False

    @property
    def share(self):
        return processes.share()

    def usable(self, device):
        if device == "cuda" and not torch.cuda.is_available():
            return "device cuda: this PyTorch finds no usable GPU; use --device cpu"
        return ""

    def connect(self, device: str = "cpu"):
        self.rank, self.world_size = processes.connect(device)

    def setup(self, device: str = "cpu", seed: int = 0, precision: str = "float32", threads: int | None = None,
              compiled: bool = False):
        if reason := self.usable(device):
            raise UserError(reason)
        self.device = device
        self.set_precision(precision)
        if device == "cuda":
            # float32 means float32. By default cuDNN would round it to TF32, and bfloat16 is faster than that.
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        torch.set_default_device(None if device == "cpu" else device)     # any device slows every call down
        if threads:
            torch.set_num_threads(threads)
        self.connect(device)
        self.seed(seed)
        if compiled:
            _try_to_compile()
        self._compiled = compiled

    def set_precision(self, precision):
        if precision not in PRECISIONS:
            raise UserError(f"unknown precision {precision!r}{choose_from(precision, PRECISIONS)}")
        ops.set_precision(precision)

    def asarray(self, array, dtype=None):
        tensor = placed(np.asarray(array, order="C"), self.device)
        return tensor if dtype is None else tensor.to(getattr(torch, dtype))

    def image(self, pixels, rows, columns, shape):
        # PyTorch copies an image to this layout before it resizes it.
        image = np.zeros((*shape, pixels.shape[2]), pixels.dtype)
        image[np.ix_(rows, columns)] = pixels
        return placed(image, self.device).permute(2, 0, 1)[None]

    def numpy(self, tensor):
        return tensor.detach().cpu().numpy()

    def scalar(self, tensor):
        return float(tensor.detach())

    def build(self, name, config, *parts, **options):
        module, kind = WHERE[name]
        network = getattr(importlib.import_module(f"torch_models.{module}"), kind)(config, *parts, **options)
        if self.device == "cuda" and isinstance(network, torch.nn.Module):
            network.to(memory_format=torch.channels_last)       # in which a GPU convolves fastest
        return network

    def state_shapes(self, name, config, **options):
        with torch.device("meta"):
            module = self.build(name, config, **options)
        return {key: tuple(value.shape) for key, value in module.state_dict().items()}

    def no_grad(self):
        return ops.no_grad()

    def train_mode(self, module, flag):
        module.train(flag)

    def infer_only(self, module):
        self.train_mode(module, False)
        if self._compiled:
            for part in (module, *module.children()):       # CLIP and others are asked for the features of a part
                part.compile()

    def parameters(self, module, trainable_only=True):
        return {name: p for name, p in module.named_parameters() if p.requires_grad or not trainable_only}

    def optimizer(self, kind, groups, **hyper):
        return OPTIMIZERS[kind](groups, **hyper)

    def step(self, optimizer, loss, clip=None, accumulate=False, scaler=None):
        optimizer.accumulate(loss if scaler is None else loss * scaler.scale)
        if not accumulate:
            self.average_gradients(optimizer)
            if scaler is None or optimizer.unscale(scaler):
                optimizer.apply(clip)

    def average_gradients(self, optimizer):
        if self.world_size > 1:
            gradients = optimizer.gradients
            optimizer.gradients = dict(zip(gradients, processes.average(gradients.values())))

    def set_lr(self, optimizer, lr):
        rates = lr if isinstance(lr, list) else [lr] * len(optimizer.groups)
        for group, rate in zip(optimizer.groups, rates, strict=True):
            group["lr"] = rate

    def state(self, module, exclude=()):
        return {name: value for name, value in module.state_dict().items() if not matches(name, exclude)}

    def state_numpy(self, module, exclude=(), averages=None):
        state = self.state(module, exclude) if averages is None else averages
        return {name: value.detach().cpu().numpy().copy() for name, value in state.items()}

    def load_numpy(self, module, arrays, allow_missing=(), allow_unexpected=()):
        state = module.state_dict()
        shapes = {name: tuple(value.shape) for name, value in state.items()}
        with torch.no_grad():
            for name in check_state(shapes, arrays, allow_missing, allow_unexpected):
                state[name].copy_(torch.as_tensor(value_of(arrays, name, state[name].is_floating_point())))

    def optimizer_state(self, optimizer):
        return optimizer.state()

    def load_optimizer_state(self, optimizer, arrays):
        optimizer.load_state(arrays)

    def copy(self, tensor):
        return tensor.detach().to(torch.float32 if tensor.is_floating_point() else tensor.dtype, copy=True)

    def follow(self, averages, values, weight):
        torch._foreach_lerp_(averages, [value.to(torch.float32) for value in values], weight)

    def seed(self, value, share=None):
        processes.set_share(share)
        torch.manual_seed(value)
        ops.seed_dropout(value)

    def randn(self, shape):
        return ops.randn(shape)

    def synchronize(self):
        if self.device == "cuda":
            torch.cuda.synchronize()

    def memory(self):
        if self.device == "cuda":
            return torch.cuda.max_memory_allocated()
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    def free_memory(self):
        if self.device == "cuda":
            torch.cuda.empty_cache()
        trim()

    def all_reduce(self, array):
        if self.world_size == 1:
            return array
        return self.numpy(processes.all_sum(self.asarray(array)))


def _try_to_compile() -> None:
    """UserError: torch.compile does not work here, for want of a compiler for example."""
    try:
        torch.compile(torch.neg)(torch.ones(2))
    except Exception as error:          # of classes of the compiler's own
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"--compile: torch.compile does not work here ({reason}): leave it out") from error
