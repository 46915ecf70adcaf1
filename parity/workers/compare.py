"""The rules by which two float32 results count as equal: the error of one is compared with the noise of the other.

The truth is PyTorch in float64. The noise is the largest error of float32 PyTorch when weights and inputs move by
one unit in the last place. A fixed tolerance would fail correct gradients of a deep network and pass wrong
parameters of a shallow one.
"""
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

PERTURBATIONS = 8      # how often weights and inputs are moved by one unit in the last place to measure the noise
FACTORS = {False: (8, 4), True: (16, 8)}      # gradient or update?: (times the noise, times PyTorch's own error)
VACUOUS = 0.01                                # relative noise from which on a comparison shows nothing
FLOOR_ULPS = 4                                # the error that one elementwise function of Jittor's may make
NOTHING = 1e-10                               # a float64 gradient is zero up to this part of the largest gradient
NEARLY_NOTHING = 1e-5                         # the same gradient in float32 may be up to this part of the largest


@dataclass(frozen=True)
class Verdict:
    """The verdict on one tensor. Errors are relative to the root mean square of the truth.

    error: of the candidate (Jittor); own: of float32 PyTorch; noise: the largest of float32 PyTorch on perturbed
    inputs; limit: the largest `error` that passes; reason: why the tensor failed, "" if it passed.
    """
    error: float
    own: float
    noise: float
    limit: float
    reason: str = ""

    @property
    def passed(self) -> bool:
        return not self.reason

    @property
    def ratio(self) -> float:
        """The error divided by the noise, or by float32 PyTorch's own error if that is larger."""
        return over(self.error, max(self.noise, self.own))


def over(error: float, noise: float) -> float:
    return error / noise if noise else (0.0 if error == 0 else float("inf"))


def is_gradient(name: str) -> bool:
    """Tensors named "gradient …" are compared as gradients."""
    return name.startswith("gradient ")


def is_update(name: str) -> bool:
    """Tensors named "update …" are compared as updates: what training changed in all of a network."""
    return name.startswith("update ")


def rms(a) -> float:
    a = np.asarray(a, np.float64)
    return float(np.sqrt(np.mean(np.square(a)))) if a.size else 0.0


def masks_differ(values, truth) -> str:
    """How the shapes or the places of NaN, +Inf and -Inf differ; "" if they do not."""
    values, truth = np.asarray(values), np.asarray(truth)
    if values.shape != truth.shape:
        return f"shape {values.shape} instead of {truth.shape}"
    for kind, test in (("NaN", np.isnan), ("+Inf", np.isposinf), ("-Inf", np.isneginf)):
        if not np.issubdtype(truth.dtype, np.floating):
            break
        wrong = test(values) != test(truth)
        if wrong.any():
            where = tuple(int(i) for i in np.argwhere(wrong)[0])
            expected = "unexpected" if test(np.asarray(values[where])) else "missing"
            return f"{int(wrong.sum())} of {wrong.size} elements: {expected} {kind}, first at {where}"
    return ""


def error(values, truth, gradient: bool = False, update: bool = False) -> float:
    """max|values - truth| / rms(truth); infinite if shapes or the non-finite elements differ.

    Gradients use the ninth decile of |values - truth| instead of the maximum: if a rounding error flips the sign of
    one ReLU or the winner of one max-pool, some elements of a correct gradient are far off. Updates use the root mean
    square: the first steps of Adam follow the sign of the gradient, so an element whose gradient is nearly zero may
    go the other way.
    """
    if masks_differ(values, truth):
        return np.inf
    values, truth = np.asarray(values, np.float64), np.asarray(truth, np.float64)
    finite = np.isfinite(truth)
    difference, truth = np.abs(values[finite] - truth[finite]), truth[finite]
    if not difference.size:
        return 0.0
    size = rms(difference) if update else np.quantile(difference, 0.9) if gradient else difference.max()
    if not size < np.inf:
        return np.inf
    return over(float(size), rms(truth))


def named_error(name: str, values, truth) -> float:
    """The `error` of a tensor, which is a gradient, an update or neither by its name."""
    return error(values, truth, is_gradient(name), is_update(name))


def perturb(arrays: Mapping[str, np.ndarray], number: int) -> dict[str, np.ndarray]:
    """Perturbation `number`: a copy in which every floating-point element moves up or down by one unit in the last
    place, but for 0 and the largest numbers, which stand for infinity in masks. Number 0 changes nothing."""
    if not number:
        return dict(arrays)
    generator = np.random.Generator(np.random.Philox(number))
    return {name: _moved(a, generator) if a.dtype in (np.float32, np.float64) else a
            for name, a in arrays.items()}


def _moved(a, generator) -> np.ndarray:
    shape, a = np.shape(a), np.ascontiguousarray(a)     # which gives a scalar a dimension
    bits = a.view(np.int32 if a.dtype == np.float32 else np.int64)
    step = generator.integers(0, 2, a.shape, np.uint8).astype(bits.dtype) * 2 - 1
    return (bits + step * ((a != 0) & (np.abs(a) < np.finfo(a.dtype).max))).view(a.dtype).reshape(shape)


def floor(name: str, truth) -> float:
    """The error of FLOOR_ULPS units in the last place of float32. It is allowed even if the noise is less.

    0 if the truth is all zeros: then only zeros are right.
    """
    if not np.any(truth):
        return 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        single = np.asarray(truth, np.float32)
        ulp = np.where(np.isfinite(single), np.spacing(np.abs(single)), 0).astype(np.float64)
    return FLOOR_ULPS * named_error(name, np.asarray(truth, np.float64) + ulp, truth)


def judge(name: str, candidate, truth, own: float, noise: float) -> Verdict:
    """The rules for one tensor; `own` and `noise` are errors of float32 PyTorch."""
    seen = named_error(name, candidate, truth)
    if is_update(name) and noise >= VACUOUS:
        # A perturbation may activate a ReLU that was never active before. Adam has no second moments of its weights
        # and takes whole steps, which measured the noise wrongly. PyTorch's own float32 error takes its place.
        noise = own
    times_noise, times_own = FACTORS[is_gradient(name) or is_update(name)]
    limit = max(times_noise * noise, times_own * own, floor(name, truth))
    if seen <= limit and noise < VACUOUS:
        return Verdict(seen, own, noise, limit)
    reason = masks_differ(candidate, truth)
    if not reason and seen <= limit:
        reason = f"noise {noise:.1e} hides the signal: nothing is shown"
    return Verdict(seen, own, noise, limit, reason or f"error {seen:.2e} is over its limit {limit:.2e}")


def is_discrete(array) -> bool:
    """Integers and booleans: indices, labels, masks."""
    return not np.issubdtype(np.asarray(array).dtype, np.floating)


def judge_discrete(candidate, truth, unsure) -> Verdict:
    """The rule where rounding decides between values: argmax, round, comparisons.

    An element may flip only if float32 PyTorch flips it too when its inputs move by one unit in the last place
    (`unsure`). The error is the fraction of elements that flip, the noise the fraction that may.
    """
    reason = masks_differ(candidate, truth)
    if reason:
        return Verdict(np.inf, 0.0, 0.0, 0.0, reason)
    flips, noise = np.asarray(candidate) != truth, float(np.mean(unsure)) if np.size(unsure) else 0.0
    wrong = int(np.count_nonzero(flips & ~unsure))
    reason = f"{wrong} of {flips.size} elements differ where PyTorch is sure" if wrong else ""
    if not reason and flips.size and np.all(unsure):
        reason = "PyTorch itself is sure of no element: nothing is shown"
    return Verdict(float(np.mean(flips)) if flips.size else 0.0, 0.0, noise, noise, reason)


def equal(candidate, truth) -> Verdict:
    """The rule for results that must be equal byte for byte: copies, conversions, indices, uint8."""
    candidate, truth = np.ascontiguousarray(candidate), np.ascontiguousarray(truth)
    if candidate.dtype == truth.dtype and candidate.shape == truth.shape:
        wrong = candidate.view(np.uint8) != truth.view(np.uint8) if truth.ndim else candidate != truth
        if not np.any(wrong):
            return Verdict(0.0, 0.0, 0.0, 0.0)
        reason = masks_differ(candidate, truth) or f"{np.count_nonzero(candidate != truth)} of {truth.size} differ"
    else:
        reason = f"{candidate.dtype} {candidate.shape} instead of {truth.dtype} {truth.shape}"
    seen = error(candidate, truth) if candidate.shape == truth.shape else np.inf
    return Verdict(seen, 0.0, 0.0, 0.0, reason)


def near(candidate, truth, ulps: int) -> Verdict:
    """The rule for results of a few roundings: each element may be off by `ulps` units in the last place."""
    candidate = np.asarray(candidate)
    with np.errstate(over="ignore"):
        truth = np.asarray(truth).astype(candidate.dtype)
    if reason := masks_differ(candidate, truth):
        return Verdict(np.inf, 0.0, 0.0, 0.0, reason)
    finite = np.isfinite(truth)
    units = np.spacing(np.abs(truth[finite])).astype(np.float64)
    off = np.abs(candidate[finite].astype(np.float64) - truth[finite]) / units
    limit = over(ulps * float(units.max(initial=0.0)), rms(truth[finite]))
    reason = "" if np.all(off <= ulps) else f"{np.sum(off > ulps)} of {off.size} are off by more than {ulps} ULP, " \
        f"at most by {off.max():.0f}"
    return Verdict(error(candidate, truth), 0.0, 0.0, limit, reason)


@dataclass
class Comparison:
    """The same function run by Jittor, by PyTorch in float64, and by PyTorch in float32 with perturbations."""

    candidate: dict[str, np.ndarray]
    truth: dict[str, np.ndarray]
    own: dict[str, float]
    noise: dict[str, float]
    values: dict                   # that the function returned besides arrays, in the Jittor worker
    unsure: dict[str, np.ndarray] = field(default_factory=dict)     # integer arrays: elements that PyTorch flips

    def verdicts(self, names: Iterable[str] | None = None) -> dict[str, Verdict]:
        """The verdicts by tensor. A tensor that only one twin returns fails.

        The gradient of a bias before a normalisation is zero but for rounding. Such a gradient is compared with the
        largest gradient.
        """
        wanted = list(dict.fromkeys([*self.truth, *self.candidate]) if names is None else names)
        sizes = {name: rms(self.truth[name]) for name in wanted if is_gradient(name) and name in self.truth}
        largest = max(sizes.values(), default=0.0)
        found = {}
        for name in wanted:
            if name not in self.truth or name not in self.candidate:
                side = "Jittor" if name in self.candidate else "PyTorch"
                found[name] = Verdict(np.inf, 0.0, 0.0, 0.0, f"only {side} returns it")
            elif sizes.get(name, 1.0) <= NOTHING * largest:
                found[name] = self._zero(name, largest)
            elif name in self.unsure:
                found[name] = judge_discrete(self.candidate[name], self.truth[name], self.unsure[name])
            else:
                found[name] = judge(name, self.candidate[name], self.truth[name], self.own[name], self.noise[name])
        return found

    def _zero(self, name: str, largest: float) -> Verdict:
        seen = over(float(np.abs(self.candidate[name]).max(initial=0.0)), largest)
        reason = "" if seen <= NEARLY_NOTHING else f"{seen:.1e} of the largest gradient where the truth is zero"
        return Verdict(seen, 0.0, 0.0, NEARLY_NOTHING, masks_differ(self.candidate[name], self.truth[name]) or reason)
