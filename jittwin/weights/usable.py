"""Whether a network can compute with the numbers of an array."""
import numpy as np

from jittwin.errors import UserError


def checked(array, name: str, where: str = "", floating: bool = True) -> np.ndarray:
    """The array, if a network can compute with it.

    where: its file. floating: whether it must hold floating-point numbers. UserError: integers where these are
    expected, or NaN or infinity.
    """
    array, named = np.asarray(array), f"{where}: {name}" if where else name
    if floating and array.dtype.kind in "iub":
        raise UserError(f"{named} holds {array.dtype}, where floating-point numbers are "
                        "expected: the weights are quantised or damaged; give the ones before quantisation")
    if not is_finite(array):
        count = array.size - np.count_nonzero(np.isfinite(array))
        raise UserError(f"{named} holds {count} NaN or infinite numbers of {array.size}: "
                        "the training diverged, or the file is damaged; give an earlier checkpoint")
    return array


def is_finite(array: np.ndarray) -> bool:
    """Whether an array has neither NaN nor infinity; integers have none."""
    if not array.size or array.dtype.kind in "iub":
        return True
    if array.dtype.kind == "f":     # faster, and without memory for a mask
        return bool(np.isfinite(array.max()) and np.isfinite(array.min()))
    return bool(np.isfinite(array).all())
