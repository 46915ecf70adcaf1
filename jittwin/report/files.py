"""The files of an assessment: a table, a JSON file with everything, and a page with thumbnails."""
import csv
import io
import json
from pathlib import Path

from jittwin.atomic import atomic_write, write_file
from jittwin.metrics.assessment import Assessment
from jittwin.metrics.metric import MARK
from jittwin.report.page import page

PAGE, TABLE, JSON = "index.html", "scores.csv", "scores.json"


def as_csv(found: Assessment) -> str:
    """CSV; the names of untrained metrics' columns say so."""
    untrained = {metric.info.name for metric in found.metrics if metric.random}
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(name + MARK * (name in untrained) for name in found.rows[0])
    writer.writerows([f"{value:.6f}" if isinstance(value, float) else value for value in row.values()]
                     for row in found.rows)
    return stream.getvalue()


def as_json(found: Assessment) -> str:
    """JSON of everything."""
    metrics = {metric.info.name: found.summary(metric) for metric in found.metrics}
    return json.dumps({"metrics": metrics, "seconds": round(found.seconds, 3), "images": found.rows,
                       "failed": found.failed}, indent=1, ensure_ascii=False) + "\n"


def write_report(folder: Path, found: Assessment) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_file(folder / TABLE, as_csv(found))
    write_file(folder / JSON, as_json(found))
    with atomic_write(folder / PAGE) as stream:     # thumbnails take megabytes, which need not be there at once
        for part in page(found):
            stream.write(part.encode())
