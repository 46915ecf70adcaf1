"""Truth and noise of a function, measured in the PyTorch worker, and the pair of workers that compares the twins."""
import hashlib
import json
from collections.abc import Callable, MutableMapping, Sequence

import numpy as np

from jittwin.weights import content_hash
from parity.workers.compare import PERTURBATIONS, Comparison, is_discrete, named_error, perturb
from parity.workers.side import Arrays, Side, group, grouped
from parity.workers.worker import Worker, reference, resolve


def widened(arrays: Arrays) -> Arrays:
    return {name: a.astype(np.float64) if a.dtype == np.float32 else a for name, a in arrays.items()}


def compute(side: Side, arrays: Arrays, function: str, arguments: dict) -> tuple[Arrays, dict]:
    """One run of `function`."""
    result = resolve(function)(side, dict(arrays), **arguments)
    return result if isinstance(result, tuple) else (result, {})


def measure(side: Side, arrays: Arrays, function: str, arguments: dict,
            perturbations: int = PERTURBATIONS) -> tuple[Arrays, dict]:
    """PyTorch only: the arrays "truth/…" in float64 and, for integers and booleans, "unsure/…", the elements that a
    float32 run changed. Also the errors of float32 PyTorch by name: "own" as it is, and "noise", the largest over the
    perturbations of all floating-point arrays by one unit in the last place.
    """
    with side.double():
        truth, values = compute(side, widened(arrays), function, arguments)
    own, noise = {}, dict.fromkeys(truth, 0.0)
    unsure = {name: np.zeros(a.shape, bool) for name, a in truth.items() if is_discrete(a)}
    for number in range(perturbations + 1):
        results, _ = compute(side, perturb(arrays, number), function, arguments)
        for name, value in results.items():
            if name in truth:
                seen = named_error(name, value, truth[name])
                own.setdefault(name, seen)
                noise[name] = max(noise[name], seen if number else 0.0)
                if name in unsure and value.shape == truth[name].shape:
                    unsure[name] |= value != truth[name]
    return ({**grouped("truth", truth), **grouped("unsure", unsure)},
            {"own": own, "noise": noise, "values": values})


def idle(side: Side, arrays: Arrays) -> Arrays:
    """In a worker: nothing, after the framework was set up."""
    return {}


class Twins:
    """Both workers, each started when first needed. twin: a folder with another copy of `jt_models`; see Worker.

    device: of the twin that is checked. PyTorch, with which it is compared, computes on the CPU. backend: "torch" puts
    PyTorch in the place of the Jittor twin, to check another device.
    """

    def __init__(self, twin=None, paths: Sequence[str] = (), device: str = "cpu", backend: str = "jittor"):
        self.paths, self.twin, self.device, self.backend = tuple(paths), twin, device, backend
        self.workers: dict[str, Worker] = {}
        self.known: MutableMapping[str, tuple[Arrays, dict]] = {}

    @property
    def torch(self) -> Worker:
        return self._worker("torch", None)

    @property
    def jittor(self) -> Worker:
        return self._worker("jittor", self.twin)

    def _worker(self, name: str, twin) -> Worker:
        """A live worker; one that has died is replaced."""
        if name in self.workers and self.workers[name].process.poll() is not None:
            self.workers.pop(name).close()
        if name not in self.workers:
            framework, device = (self.backend, self.device) if name == "jittor" else (name, "cpu")
            self.workers[name] = Worker(framework, twin, self.paths, device)
        return self.workers[name]

    def ready(self) -> None:
        """Set up the twin that is checked. UserError: it cannot use its device."""
        self.jittor.call(idle)

    def renew(self) -> None:
        """Call this after a failed call: a worker that died or has not answered is replaced when next needed."""
        for name, worker in list(self.workers.items()):
            if worker.pending or worker.process.poll() is not None:
                self.workers.pop(name).close()

    def replace_jittor(self, twin) -> None:
        """Go on with another copy of the Jittor twin; PyTorch's results are kept."""
        self.twin = twin
        if "jittor" in self.workers:
            self.workers.pop("jittor").close()

    def compare(self, function: Callable | str, arrays: Arrays, /, perturbations: int = PERTURBATIONS,
                keep: bool = True, **arguments) -> Comparison:
        """Run `function` in Jittor, and in PyTorch for truth and noise, at the same time.

        keep: keep PyTorch's results, for a comparison with another Jittor twin.
        """
        key = self._key(function, arrays, perturbations, arguments)
        jittor = self.jittor                    # kept here: the property would replace one that dies meanwhile
        jittor.start(function, arrays, **arguments)
        if key not in self.known:
            torch = self.torch
            torch.start(measure, arrays, function=function, arguments=arguments, perturbations=perturbations)
            self.known[key] = torch.finish()
        truth, measured = self.known[key] if keep else self.known.pop(key)
        candidate, values = jittor.finish()
        return Comparison(candidate, group(truth, "truth"), measured["own"], measured["noise"], values,
                          group(truth, "unsure"))

    def both(self, function: Callable | str, arrays: Arrays | None = None, /,
             **arguments) -> dict[str, tuple[Arrays, dict]]:
        """The results of one function in both workers, by framework."""
        workers = {"torch": self.torch, "jittor": self.jittor}
        for worker in workers.values():
            worker.start(function, arrays, **arguments)
        return {name: worker.finish() for name, worker in workers.items()}

    @staticmethod
    def _key(*parts) -> str:
        parts = [content_hash(part) if isinstance(part, dict) and part and all(
            isinstance(a, np.ndarray) for a in part.values()) else part for part in parts]
        return hashlib.sha256(json.dumps(parts, sort_keys=True, default=reference).encode()).hexdigest()

    def close(self) -> None:
        for worker in self.workers.values():
            worker.close()
        self.workers = {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
