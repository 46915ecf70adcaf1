"""The files of an assessment: a table, a JSON file with all numbers, a page with thumbnails, and a folder of maps."""
import csv
import io
import json
import math
from dataclasses import asdict
from pathlib import Path, PurePosixPath

import numpy as np

from jittwin.atomic import atomic_write, write_file
from jittwin.imaging import save_image
from jittwin.metrics.agreement import LEVEL, RESAMPLES, SEED, Agreement
from jittwin.metrics.assessment import Assessment
from jittwin.metrics.metric import MARK
from jittwin.metrics.ranking import Ranked
from jittwin.report.page import page

PAGE, TABLE, JSON, MAPS = "index.html", "scores.csv", "scores.json", "maps"


def as_csv(found: Assessment) -> str:
    """CSV of all rows; the column of an untrained metric has "(random weights)" in its name."""
    untrained = {metric.info.name for metric in found.metrics if metric.random}
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(name + MARK * (name in untrained) for name in found.rows[0])
    writer.writerows([f"{value:.6f}" if isinstance(value, float) else value for value in row.values()]
                     for row in found.rows)
    return stream.getvalue()


def as_json(found: Assessment) -> str:
    """JSON of the summaries, all rows, and what there is to know about metrics and unreadable pictures."""
    metrics = {metric.info.name: found.summary(metric) for metric in found.metrics}
    content = {"metrics": metrics, "seconds": round(found.seconds, 3), "images": found.rows, "failed": found.failed}
    if found.notes:
        content["notes"] = found.notes
    if found.agreement:
        content["against"] = _agreement(found.agreement)
    if found.ranking:
        content["ranking"] = [_ranked(each) for each in found.ranking]
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _agreement(found: Agreement) -> dict:
    """What is not defined is null."""
    groups = [asdict(group) | {"group": group.name} for group in found.groups]
    for group in groups:
        for measures in group["measures"].values():
            for estimate in measures.values():
                estimate |= {name: None for name, value in estimate.items() if math.isnan(value)}
    return {"file": found.file, "column": found.column, "level": LEVEL, "resamples": RESAMPLES, "seed": SEED,
            "groups": groups, "pictures_without_vote": found.unrated, "votes_without_picture": found.unused}


def _ranked(found: Ranked) -> dict:
    return {"prompt": found.prompt, "images": [row["image"] for row in found.rows], "ranks": found.ranks}


class Report:
    """A folder with a report: maps are written while pictures are scored, the other files at the end."""

    def __init__(self, folder: Path):
        self.folder, self.maps = folder, {}

    def write_map(self, metric: str, picture: str, drawn: np.ndarray) -> None:
        """Write a metric's map of a picture, uint8 (h, w) or (h, w, 3), as maps/METRIC/PICTURE.png."""
        # A name may hold "..", if the picture lies outside the current folder.
        parts = [part for part in PurePosixPath(picture.lstrip("/")).parts if part not in ("..", ".")]
        path = Path(MAPS, metric, *parts[:-1], f"{parts[-1]}.png")
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        save_image(self.folder / path, drawn)
        self.maps[metric, picture] = path.as_posix()

    def write(self, found: Assessment) -> None:
        """Write the table, the JSON file and the page."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_file(self.folder / TABLE, as_csv(found))
        write_file(self.folder / JSON, as_json(found))
        with atomic_write(self.folder / PAGE) as stream:     # in pieces, because thumbnails may take megabytes
            for part in page(found, self.maps):
                stream.write(part.encode())
