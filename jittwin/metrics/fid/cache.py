"""Statistics of picture sets that were computed before, keyed by the contents of every file and by what was asked."""
import hashlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

from jittwin.errors import UserError
from jittwin.metrics.fid.statistics import Statistics, read_statistics, write_statistics

VARIABLE = "JITTWIN_STATISTICS"    # folder to use instead of the default


def folder() -> Path:
    return Path(os.environ.get(VARIABLE) or Path.home() / ".cache/jittwin/statistics")


def cached(key: dict, compute: Callable[[], Statistics]) -> Statistics:
    """What `compute` returned for this key at some time. A damaged file is computed and written again.

    Where nothing can be written (a full disk, a home without write permission) the result is only returned.
    """
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    path = folder() / f"{name}.npz"
    if path.exists():
        try:
            return read_statistics(path)
        except UserError:
            path.unlink(missing_ok=True)
    statistics = compute()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_statistics(path, statistics)
    except (OSError, UserError) as error:
        print(f"statistics not kept for the next time: {error}; {VARIABLE} names another folder", file=sys.stderr)
    return statistics
