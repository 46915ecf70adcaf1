"""L7: the data that reach the networks.

The same files, seeds and epochs give both twins the same batches, whatever the number of threads and the position at
which a run resumes. The same random numbers augment them alike. Texts become the token ids that transformers makes.
"""
import numpy as np

from parity.case import Case, arrays_for, load, prepared
from parity.result import Row, failure, row
from parity.workers.compare import Verdict, equal, near
from parity.workers.oracle import Twins
from parity.workers.side import Arrays, Side, group

ULPS = 1       # the error that scaling a picture to [-1, 1] may make


def check(case: Case, size: str, mode: str, twins: Twins) -> list[Row]:
    """Compare the batches of a case that has `delivered`, the token ids of one that has `tokenized`, or else the
    outputs for injected random numbers."""
    stage = (batches if hasattr(case, "delivered") else
             tokens if hasattr(case, "tokenized") else outputs)
    return [stage(case, size, mode, twins)]


def delivered(side: Side, arrays: Arrays, case: dict, mode: str):
    """In a worker: see the `delivered` of the case."""
    return load(case).delivered(side, group(arrays, "inputs"), mode)


def batches(case: Case, size: str, mode: str, twins: Twins) -> Row:
    """Every batch of both twins against the one that the PyTorch twin makes with one thread and without resuming."""
    arrays = {f"inputs/{name}": a for name, a in case.inputs(size, mode).items()}
    found = twins.both(delivered, arrays, case=case.reference(), mode=mode)
    verdicts, (truth, names) = {}, found["torch"]
    for side, (seen, seen_names) in found.items():
        if truth.keys() != seen.keys() or any(seen_names[key] != names[first(key)] for key in seen_names):
            return failure(case.name, "L7", mode, f"{side} delivers other samples", case.dtype)
        verdicts |= {f"{side} {name}": judged(a, truth[first(name)]) for name, a in seen.items()}
    return row(case.name, "L7", mode, verdicts, case.dtype, size=size)


def first(name: str) -> str:
    """The name of the same batch as one thread makes it."""
    return name.replace("3 threads", "1 threads")


def judged(candidate: np.ndarray, truth: np.ndarray) -> Verdict:
    floating = candidate.dtype == truth.dtype and np.issubdtype(truth.dtype, np.floating)
    return near(candidate, truth, ULPS) if floating else equal(candidate, truth)


def tokenized(side: Side, arrays: Arrays, case: dict, mode: str) -> Arrays:
    """In a worker: see the `tokenized` of the case."""
    return load(case).tokenized(side, group(arrays, "inputs"), mode)


def expected_tokens(side: Side, arrays: Arrays, case: dict, mode: str) -> Arrays:
    """In PyTorch's worker: see the `expected` of the case."""
    return load(case).expected(group(arrays, "inputs"), mode)


def tokens(case: Case, size: str, mode: str, twins: Twins) -> Row:
    """The ids that both twins get for a text, against those of transformers: the twins share one tokenizer, so
    comparing them with each other would show nothing."""
    arrays = {f"inputs/{name}": a for name, a in case.inputs(size, mode).items()}
    truth, _ = twins.torch.call(expected_tokens, arrays, case=case.reference(), mode=mode)
    found = twins.both(tokenized, arrays, case=case.reference(), mode=mode)
    if wrong := [side for side, (seen, _) in found.items() if seen.keys() != truth.keys()]:
        return failure(case.name, "L7", mode, f"{wrong[0]} has other arrays", case.dtype)
    verdicts = {f"{side} {name}": equal(a, truth[name]) for side, (seen, _) in found.items()
                for name, a in seen.items()}
    return row(case.name, "L7", mode, verdicts, case.dtype, size=size)


def augmented(side: Side, arrays: Arrays, case: dict, size: str, mode: str) -> Arrays:
    """In a worker: the outputs of the case."""
    case = load(case)
    module, inputs = prepared(side, arrays, case, size, mode)
    return {name: side.host(tensor) for name, tensor in case.run(side, module, inputs, mode).items()}


def outputs(case: Case, size: str, mode: str, twins: Twins) -> Row:
    """The outputs must agree within PyTorch's noise; those in the case's `exact`, which only move data, exactly."""
    found = twins.compare(augmented, arrays_for(case, twins, size, mode), case=case.reference(), size=size, mode=mode)
    verdicts = found.verdicts()
    for name in case.exact:
        verdicts[name] = equal(found.candidate[name], found.truth[name].astype(np.float32))
    return row(case.name, "L7", mode, verdicts, case.dtype, size=size)
