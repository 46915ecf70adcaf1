"""A cache of statistics of picture sets, keyed by the contents of all files and by the settings of the measurement."""
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
    """The cached statistics for this key; if there are none, or the file is damaged, they are computed and written.

    If nothing can be written (a full disk, no permission), a line on stderr says so and the result is returned.
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
        print(f"statistics are not cached: {error}; set {VARIABLE} to another folder", file=sys.stderr)
    return statistics
