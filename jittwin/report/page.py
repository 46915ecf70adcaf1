"""Assessed pictures as one HTML page that needs no network and, except for maps, no other file."""
import base64
from collections.abc import Iterator, Mapping
from html import escape
from urllib.parse import quote

from jittwin.metrics.agreement import LEVEL, RESAMPLES, Estimate
from jittwin.metrics.assessment import Assessment
from jittwin.metrics.metric import MARK
from jittwin.metrics.ratings import AGREEMENT
from jittwin.report.charts import histogram

CSS = """body{font:14px/1.5 system-ui,sans-serif;margin:0 auto;max-width:1200px;padding:24px;color:#222}
h1{font-size:22px;margin:0}h2{font-size:16px;margin:32px 0 8px}p,.soft{color:#666}svg{max-width:720px;width:100%}
table{border-collapse:collapse}td,th{padding:2px 16px 2px 0;text-align:left}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(200px,1fr));gap:16px}
.card{content-visibility:auto;contain-intrinsic-size:200px 280px}.card img{max-width:100%;display:block}
.card b{font-size:16px}.prompt{font-style:italic;overflow-wrap:anywhere}.name{overflow-wrap:anywhere;font-size:12px}
.bars{display:flex;align-items:flex-end;height:28px;gap:2px}.bars i{flex:1;background:#2b6cb0;min-height:1px}"""
NUMBERS = ("mean", "std", "min", "max")


def page(found: Assessment, maps: Mapping[tuple[str, str], str]) -> Iterator[str]:
    """Yield the page in pieces: metrics, agreement with votes, histograms, and the pictures.

    The pictures are ranked by the first metric; those that are ranked by prompt are grouped by prompt.
    maps: paths relative to the page, by (metric, picture).
    """
    metrics = found.metrics
    first = metrics[0].info
    title = f"{len(found.rows)} pictures, ranked by {first.name}"
    yield (f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
           f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{CSS}</style></head><body>'
           f"<h1>{escape(title)}</h1>{_summary(found)}{_agreement(found)}")
    yield from (f"<p>{escape(note)}</p>" for note in found.notes)
    yield "<h2>Histogram</h2>"
    for metric in metrics:
        yield histogram(f"{metric.info.name}{mark(metric)}", metric.info.range,
                        [row[metric.info.name] for row in found.rows])
    for title, rows, ranks in _groups(found):
        yield f'<h2>{escape(title)}</h2><div class="cards">'
        for place, row in enumerate(rows):
            places = {name: f"{each[place]} of {len(rows)}" for name, each in ranks.items()}
            yield _card(place + 1, row, metrics, found.thumbnails[row["image"]], maps, places)
        yield "</div>"
    if found.failed:
        lines = "".join(f"<li>{escape(message)}</li>" for message in found.failed)
        yield f"<h2>{len(found.failed)} pictures could not be read</h2><ul>{lines}</ul>"
    yield "</body></html>\n"


def _groups(found) -> Iterator[tuple[str, list[dict], dict]]:
    """Title, pictures and their ranks by metric: per prompt, or of all pictures, without ranks."""
    if found.ranking:
        yield from ((f"{ranked.prompt or '(no text)'}", ranked.rows, ranked.ranks) for ranked in found.ranking)
    else:
        first = found.metrics[0].info
        yield ("Pictures, best first",
               sorted(found.rows, key=lambda row: row[first.name], reverse=first.better == "higher"), {})


def _agreement(found) -> str:
    """A row per metric and group of pictures."""
    if not found.agreement:
        return ""
    rows = "".join(
        f"<tr><th>{escape(metric.info.name)}{mark(metric)}</th><td>{escape(group.name)}</td><td>{group.count}</td>"
        + "".join(f"<td>{with_interval(group.measures[metric.info.name][name])}</td>" for name in AGREEMENT) + "</tr>"
        for metric in found.metrics for group in found.agreement.groups)
    heads = "".join(f"<th>{name}</th>" for name in ("metric", "of", "pictures", *map(str.upper, AGREEMENT)))
    return (f"<h2>Agreement with {escape(found.agreement.column)} of {escape(found.agreement.file)}</h2>"
            f"<table><tr>{heads}</tr>{rows}</table><p>{LEVEL:.0%} intervals of {RESAMPLES} resamples; "
            f"{len(found.agreement.unrated)} pictures have no vote and are excluded.</p>")


def with_interval(estimate: Estimate) -> str:
    """The value and its interval, "-" where it is not defined."""
    if estimate.value != estimate.value:
        return "-"
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


def mark(metric) -> str:
    return MARK if metric.random else ""


def _summary(found) -> str:
    """A table with one line per metric, and the provenance of each metric."""
    parts = []
    for metric in found.metrics:
        facts = found.summary(metric)
        numbers = "".join(f"<td>{facts[name]:.4f}{mark(metric)}</td>" for name in NUMBERS)
        parts.append(f"<tr><th>{escape(metric.info.name)}</th>{numbers}<td>{facts['n']}</td>"
                     f"<td>{escape(metric.info.summary)}; {facts['better']} is better, {facts['range']}</td></tr>")
    heads = "".join(f"<th>{name}</th>" for name in ("metric", *NUMBERS, "pictures", ""))
    made = ""
    for metric in found.metrics:
        facts = ", ".join(f"{name} {value}" for name, value in metric.provenance.items() if value != "")
        made += f"<p>{escape(f'{metric.info.name}: {facts}')}</p>"
    return f"<table><tr>{heads}</tr>{''.join(parts)}</table>{made}"


def _card(place: int, row: dict, metrics, jpeg: bytes, maps, places: Mapping[str, str]) -> str:
    source = f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
    values = "".join(_value(metric, row, places) + _bars(metric, row) + _map(metric, row, maps) for metric in metrics)
    prompt = f'<div class="prompt">{escape(row["prompt"])}</div>' if "prompt" in row and not places else ""
    if row.get("vote") is not None:
        values += f'<div>people <b>{row["vote"]:.2f}</b></div>'
    return (f'<div class="card"><img loading="lazy" alt="" src="{source}">{prompt}{values}'
            f'<div class="name soft">{place}. {escape(row["image"])} ({row["width"]}x{row["height"]})</div></div>')


def _value(metric, row: dict, places: Mapping[str, str]) -> str:
    """A score with its name and its place among pictures of its prompt; its tooltip explains metric and range."""
    info, value = metric.info, row[metric.info.name]
    about = f"{info.summary}, {info.range}, {info.better} is better"
    return (f'<div title="{escape(about)}">{escape(info.name)} <b>{value:.{info.digits}f}</b>{mark(metric)} '
            f"{escape(metric.describe(value))}{_place(places.get(info.name))}</div>")


def _place(place: str | None) -> str:
    return f' <span class="soft">rank {place}</span>' if place else ""


def _map(metric, row: dict, maps) -> str:
    path = maps.get((metric.info.name, row["image"]))
    return f'<img loading="lazy" alt="{escape(metric.info.name)}" src="{quote(path)}">' if path else ""


def _bars(metric, row: dict) -> str:
    """The metric's further numbers of a picture as bars, scaled to the largest of them."""
    if not metric.profile:
        return ""
    values = [row[name] for name in metric.profile]
    bars = "".join(f'<i title="{escape(name)}: {value:.1%}" style="height:{value / max(values):.0%}"></i>'
                   for name, value in zip(metric.profile, values))
    return f'<div class="bars">{bars}</div>'
