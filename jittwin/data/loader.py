"""Batches whose content depends only on (seed, epoch, index), prepared ahead of use by a few threads.

Both twins, and a resumed run, see the same bytes.
"""
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from jittwin.draws import Draws
from jittwin.errors import UserError
from jittwin.processes import share_of

SHUFFLES = ("reference", "philox", None)


class Loader:
    """Batches of a dataset with `get(index, draws) -> dict` of arrays and a `name`.

    shuffle: 'reference' is Jittor's order: epoch `first_epoch` takes the first permutation of
    default_rng(1), the next epoch the second, and so on; each training phase starts again with the
    first. 'philox' keys the order by (seed, epoch). None keeps the dataset's order.
    workers: number of threads, 0 for min(4, cpus); they decode at most `workers + batch_size`
    samples ahead of the consumer. rank, processes: this process gets its rows of every batch, see
    jittwin.processes.Share, and decodes no others. UserError: an illegal argument.
    """

    def __init__(self, dataset, batch_size: int, seed: int = 0, workers: int = 0,
                 drop_last: bool = True, shuffle: str | None = "reference", first_epoch: int = 1,
                 rank: int = 0, processes: int = 1):
        if shuffle not in SHUFFLES:
            raise UserError(f"shuffle={shuffle}: must be one of {', '.join(map(str, SHUFFLES))}")
        if batch_size < 1 or (drop_last and batch_size > len(dataset)):
            raise UserError(f"batch_size={batch_size}: must be 1..{len(dataset)}, the number of samples")
        if workers < 0:
            raise UserError(f"workers={workers}: must be at least 1, or 0 for min(4, cores)")
        self.dataset, self.batch_size, self.seed, self.drop_last = dataset, batch_size, seed, drop_last
        self.shuffle, self.first_epoch = shuffle, first_epoch
        self.workers = workers or min(4, os.cpu_count() or 1)
        self.rank, self.processes = rank, processes

    def __len__(self) -> int:
        """Batches per epoch."""
        full, rest = divmod(len(self.dataset), self.batch_size)
        return full + bool(rest and not self.drop_last)

    def order(self, epoch: int) -> np.ndarray:
        """Sample indices of an epoch, in the order they are taken."""
        count = len(self.dataset)
        if self.shuffle is None:
            return np.arange(count)
        if self.shuffle == "philox":
            return Draws(self.seed, epoch).permutation("order", count)
        stream = np.random.default_rng(1)
        for _ in range(epoch - self.first_epoch):
            stream.permutation(count)
        return stream.permutation(count)

    def epoch(self, epoch: int, start: int = 0, end: int | None = None) -> Iterator[dict]:
        """Yield the batches of `epoch` from number `start` to `end`, without it; others are not decoded.

        A batch holds the samples' arrays, stacked along a new first axis; name, a list[str]; and, if there are several
        processes, share: which rows of the whole batch these are. Errors of the dataset are raised here.
        """
        order = self.order(epoch)[:len(self) * self.batch_size]
        places = range(start, len(self) if end is None else min(end, len(self)))
        whole = [order[place * self.batch_size:(place + 1) * self.batch_size] for place in places]
        shares = [share_of(self.rank, self.processes, len(indices)) for indices in whole]
        own = [indices[share.taken] for indices, share in zip(whole, shares)]
        waiting = (index for indices in own for index in indices)
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="loader")
        ahead: deque[Future] = deque()

        def refill():
            while len(ahead) < self.workers + self.batch_size and (index := next(waiting, None)) is not None:
                ahead.append(pool.submit(self.dataset.get, int(index), Draws(self.seed, epoch, int(index))))

        try:
            refill()
            for indices, share in zip(own, shares):
                samples = []
                for _ in indices:
                    samples.append(ahead.popleft().result())
                    refill()
                yield {**collate(samples), **({"share": share} if self.processes > 1 else {})}
        finally:  # also when the consumer stops early
            pool.shutdown(cancel_futures=True)


def collate(samples: list[dict]) -> dict:
    """Stack the samples' arrays, key by key, and list their names. Raises UserError when sizes differ."""
    batch = {key: [sample[key] for sample in samples] for key in samples[0]}
    for key in (key for key in batch if key != "name"):
        sizes = {np.shape(array)[::-1]: name for array, name in zip(batch[key], batch["name"])}
        if len(sizes) > 1:
            seen = " but ".join(f"'{name}' is {'x'.join(map(str, size))}" for size, name in sizes.items())
            raise UserError(f"{seen}; a batch needs one size of {key}: use batch_size=1")
        batch[key] = np.stack(batch[key])
    return batch
