"""What several processes share while they train or measure together: rows of batches, and results."""
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

TYPES = ("float32", "float64", "int32", "int64", "uint8")      # of the arrays that `gathered` takes


@dataclass(frozen=True)
class Share:
    """The rows of a batch of `total` that one of `processes` processes computes: `rows` of them from `first` on.

    A process without a row computes the first one all the same, because every process takes part in every exchange,
    and its result counts nothing.
    """

    first: int
    rows: int
    total: int
    processes: int

    @property
    def weight(self) -> float:
        """Factor of this process's loss. With it the mean of all processes' losses is the loss of the whole batch."""
        return self.rows * self.processes / self.total

    @property
    def taken(self) -> slice:
        """The rows that are computed."""
        return slice(self.first, self.first + self.rows) if self.rows else slice(0, 1)


def share_of(rank: int, processes: int, total: int) -> Share:
    """Contiguous parts that differ by one row at most."""
    first, last = (total * which // processes for which in (rank, rank + 1))
    return Share(first, last - first, total, processes)


def part_of(backend, count: int) -> tuple[int, int]:
    """(first, end) of the items, of `count`, that this process takes."""
    share = share_of(backend.rank, backend.world_size, count)
    return share.first, share.first + share.rows


def gathered(backend, parts: Sequence[np.ndarray]) -> np.ndarray:
    """The rows of all parts of all processes as one array, in the order of the processes; a process may have none.

    All parts have the same number of dimensions, sizes behind the first axis, and one type of TYPES.
    """
    own = np.concatenate(parts) if len(parts) else None
    if backend.world_size == 1:
        if own is None:
            raise ValueError("no rows to gather")
        return own
    facts = np.zeros((backend.world_size, 10), np.float64)    # rows, type, dimensions, sizes
    if own is not None:
        facts[backend.rank, :3] = len(own), TYPES.index(own.dtype.name), own.ndim
        facts[backend.rank, 3:2 + own.ndim] = own.shape[1:]
    facts = backend.all_reduce(facts).astype(np.int64)
    known = facts[int(facts[:, 0].argmax())]
    first, count = facts[:backend.rank, 0].sum(), facts[:, 0].sum()
    whole = np.zeros((count, *known[3:2 + known[2]]), np.float64)
    if own is not None:
        whole[first:first + len(own)] = own
    return backend.all_reduce(whole).astype(TYPES[known[1]])


def gathered_values(backend, value) -> list:
    """The value of every process, in the order of the processes; a value is what JSON can say."""
    text = np.frombuffer(json.dumps(value, default=lambda scalar: scalar.item()).encode(), np.uint8)
    ends = np.cumsum(gathered(backend, [np.array([len(text)], np.int64)]))[:-1]
    return [json.loads(part.tobytes()) for part in np.split(gathered(backend, [text]), ends)]


def whole_batch(backend, values: np.ndarray) -> np.ndarray:
    """The values (B, …) of all rows of the batch in double precision, from those of this process's rows.

    Outside a shared batch the values themselves. Every process knows the shares, so that one exchange is enough.
    """
    share = backend.share
    if share is None:
        return values
    whole = np.zeros((share.total, *values.shape[1:]), np.float64)
    whole[share.first:share.first + share.rows] = values[:share.rows]
    return backend.all_reduce(whole)


def largest(backend, values: np.ndarray) -> int:
    """The largest of the whole numbers (B,), of which the rows of the batch have one each."""
    return int(whole_batch(backend, values).max())


def differing(backend, facts: Mapping[str, str]) -> str | None:
    """The name of the first fact in which this process differs from another; None if all agree.

    Every process gives the same names in the same order.
    """
    digests = (hashlib.sha256(text.encode()).digest() for text in facts.values())
    numbers = np.array([[int.from_bytes(digest[:4], "little") for digest in digests]], np.int64)
    everyone = gathered(backend, [numbers])
    return next((name for name, column in zip(facts, everyone.T) if len(set(column.tolist())) > 1), None)
