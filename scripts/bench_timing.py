"""How the measures of scripts/bench.py are timed, and their part of the machine's peak."""
import time
from collections.abc import Callable
from statistics import median

from jittwin.backend import load_backend

# Where and in which type of products the measures compute, a label map, and whether networks are compiled.
HOW = {"device": "cpu", "dtype": "float32", "label": None, "compiled": False}
TIMED: list[Callable] = []                  # what was timed last
LARGE = {"cpu": 1024, "cuda": 8192}         # sides of the matrices whose product shows the peak


def ready(name: str):
    # Earlier checkouts know no other device, and do not compile networks.
    backend = load_backend(name) if HOW["device"] == "cpu" else load_backend(name, HOW["device"])
    backend.setup(device=HOW["device"], precision=HOW["dtype"], **({"compiled": True} if HOW["compiled"] else {}))
    return backend


def infer_only(backend, module) -> None:
    """As Backend.infer_only, which earlier checkouts do not have."""
    if HOW["compiled"]:
        backend.infer_only(module)
    else:
        backend.train_mode(module, False)


def timed(action, warm: int, times: int) -> dict[str, float]:
    """Median wall and CPU seconds of `action`, which must wait until its results are computed."""
    for _ in range(warm):
        action()
    walls, cpus = [], []
    for _ in range(times):
        wall, cpu = time.perf_counter(), time.process_time()
        action()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    TIMED[:] = [action]
    return {"seconds": median(walls), "cpu": median(cpus)}


def products_and_peak() -> dict[str, float]:
    """Of PyTorch: how many multiplications and additions what was timed has in products, attention and convolutions,
    and how many a CPU second, or second of a GPU, a product of two large matrices reaches, by PyTorch's library or as a
    convolution, the faster one. Counting takes memory, so the measure's own has to be known before."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode
    with FlopCounterMode(display=False) as counter:
        TIMED[0]()
    side = LARGE[HOW["device"]]
    unit, clock = ("cpu", time.process_time) if HOW["device"] == "cpu" else ("seconds", time.perf_counter)
    a = torch.ones(side, side, device=HOW["device"], dtype=getattr(torch, HOW["dtype"]))
    column, row = a[:, :, None, None], a[None, :, :, None]

    def rate(product) -> float:
        product()
        begun = clock()
        for _ in range(5):
            product()
            if HOW["device"] == "cuda":
                torch.cuda.synchronize()
        return 5 * 2 * side ** 3 / (clock() - begun)

    ways = (lambda: torch.matmul(a, a)), (lambda: torch.nn.functional.conv2d(row, column))
    return {"operations": counter.get_total_flops(), f"peak {unit}": max(map(rate, ways))}
