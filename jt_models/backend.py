"""The Jittor side of jittwin.backend.Backend."""
import ctypes
import importlib
import resource

import numpy as np

from jittwin.backend import PRECISIONS, trim
from jittwin.errors import UserError, choose_from
from jittwin.models.catalog import WHERE
from jittwin.weights.state import check_state, matches, value_of
from jt_models import boot, self_check
from jt_models.boot import jt
from jt_models.nn import ops, optim, processes
from jt_models.nn.kernels import lists
from jt_models.nn.kernels.kernel import form

OPTIMIZERS = {"sgd": optim.SGD, "adam": optim.Adam, "adamw": optim.AdamW}


class Backend:
    name = "jittor"

    def __init__(self):
        self.rank = 0
        self.world_size = 1
        self.device = "cpu"

    @property
    def share(self):
        return processes.share()

    def usable(self, device):
        if device == "cpu" or jt.flags.nvcc_path:
            return ""
        why = boot.cuda_missing() or "Jittor was imported without CUDA: start the program with JITTWIN_CUDA=1"
        return f"device {device}: {why}, or use --device cpu"

    def connect(self, device: str = "cpu"):
        self.rank, self.world_size = processes.connect(device)

    def setup(self, device: str = "cpu", seed: int = 0, precision: str = "float32", threads: int | None = None,
              compiled: bool = False):
        if reason := self.usable(device):
            raise UserError(reason)
        form()      # an illegal JITTWIN_KERNELS is told before any work
        self.device, jt.flags.use_cuda = device, int(device == "cuda")
        if threads:
            # OMP_NUM_THREADS would have no effect: libgomp read it when it was loaded.
            ctypes.CDLL("libgomp.so.1").omp_set_num_threads(threads)
        self.set_precision(precision)
        self.connect(device)
        self.seed(seed)
        if device == "cuda" and (reason := self_check.failure()):
            raise UserError(f"device cuda: {reason}; set JITTWIN_KERNELS=portable, use --device cpu or --backend torch")

    def set_precision(self, precision):
        if precision not in PRECISIONS:
            raise UserError(f"unknown precision {precision!r}{choose_from(precision, PRECISIONS)}")
        ops.set_precision(precision)

    def asarray(self, array, dtype=None):
        # Jittor turns 64-bit arrays into 32-bit ones unless the dtype is given [P6].
        return jt.array(np.ascontiguousarray(array), dtype=dtype or str(np.asarray(array).dtype))

    def image(self, pixels, rows, columns, shape):
        # No value between the rows and columns is stored: each is read from the next one, if it is read at all.
        at = [jt.array(np.searchsorted(kept, np.arange(size)).clip(0, len(kept) - 1).astype(np.int32))
              for kept, size in zip((rows, columns), shape)]
        planes = self.asarray(pixels.transpose(2, 0, 1)[None])
        return planes.reindex([*planes.shape[:2], *shape], ["i0", "i1", "@e0(i2)", "@e1(i3)"], extras=at)

    def numpy(self, tensor):
        return tensor.numpy()

    def scalar(self, tensor):
        return float(np.asarray(tensor.numpy()).reshape(()))

    def build(self, name, config, *parts, **options):
        module, kind = WHERE[name]
        return getattr(importlib.import_module(f"jt_models.{module}"), kind)(config, *parts, **options)

    def state_shapes(self, name, config, **options):
        # Jittor allocates an array when its values are needed, and here they are not.
        return _shapes(self.build(name, config, **options))

    def no_grad(self):
        return ops.no_grad()

    def train_mode(self, module, flag):
        # module.eval() would also stop the gradients of every parameter [S9].
        for part in module.modules():
            part.is_train = flag

    def infer_only(self, module):
        self.train_mode(module, False)

    def parameters(self, module, trainable_only=True):
        buffers = _recorded(module, "buffer_names") if trainable_only else ()
        return {name: value for name, value in module.state_dict().items()
                if name not in buffers and (value.requires_grad or not trainable_only)}

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
        shapes, state = _shapes(module), self.state(module, exclude) if averages is None else averages
        return {name: value.numpy().reshape(shapes[name]) for name, value in state.items()}

    def load_numpy(self, module, arrays, allow_missing=(), allow_unexpected=()):
        state, shapes = module.state_dict(), _shapes(module)
        for name in check_state(shapes, arrays, allow_missing, allow_unexpected):
            # Without the cast a file's element type would replace the parameter's [S4].
            value = value_of(arrays, name, "float" in str(state[name].dtype))
            state[name].update(jt.array(np.atleast_1d(value).astype(str(state[name].dtype))))
        jt.sync_all()
        jt.gc()  # frees the replaced values, which Jittor's allocator would keep

    def optimizer_state(self, optimizer):
        return optimizer.state()

    def load_optimizer_state(self, optimizer, arrays):
        optimizer.load_state(arrays)

    def copy(self, tensor):
        value = tensor.detach().copy()
        value.sync()    # see nn.ops.assign
        return value

    def follow(self, averages, values, weight):
        lists.follow(averages, values, weight)

    def seed(self, value, share=None):
        processes.set_share(share)
        # jt.set_global_seed would also seed Python's and NumPy's generators.
        jt.sync_all()
        jt.set_seed(value)
        ops.seed_dropout(value)

    def randn(self, shape):
        return ops.randn(shape)

    def synchronize(self):
        jt.sync_all(True)

    def memory(self):
        if self.device == "cuda":
            return jt.get_mem_info().total_cuda_used
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    def free_memory(self):
        jt.sync_all(True)
        jt.gc()
        trim()

    def all_reduce(self, array):
        if self.world_size == 1:
            return array
        # Jittor's sum over processes does not know int64.
        given = array.astype(np.float64) if array.dtype == np.int64 else array
        return processes.all_sum(self.asarray(given)).numpy().astype(array.dtype)


def _recorded(module, kind: str) -> set[str]:
    """The names in the state that the parts of a module have recorded: "buffer_names" or "scalar_names"."""
    return {f"{path}.{name}" if path else name for path, part in module.named_modules()
            for name in getattr(part, kind, ())}


def _shapes(module) -> dict[str, tuple[int, ...]]:
    """The shapes of the state. Jittor has no scalars [P10]; those of a module are recorded."""
    scalars = _recorded(module, "scalar_names")
    return {name: () if name in scalars else tuple(value.shape) for name, value in module.state_dict().items()}
