"""A report as one HTML page that needs no other file and no network."""
import json
from html import escape

from parity.report import charts
from parity.report.report import READING, Report, explained, outcome, short, summary
from parity.report.style import CSS, SCRIPT
from parity.result import LEVELS, Row

KEY = """<p class="soft key"><b class="e">Blue</b> is the error of the Jittor twin. Grey is the noise: the error of
float32 PyTorch when weights and inputs move by one unit in the last place. The <b class="l">dashed</b> line is the
limit. The modules are in the order in which they run. <b class="c">Rings</b> mark modules over their limit.
<b class="c">Full dots</b> mark modules that are over it even with PyTorch's own inputs, so the fault is in
them.</p>"""

STEPS = """<p class="soft">One training step at a time: Jittor begins every step from PyTorch's state, and the updates
are compared.</p>"""
DRAWN = {"reason", "limit", "tensors", "curve", "first_divergence", "culprits", "size", "seconds", "map", "count"}
LONGEST_NOTE = 400


def render(report: Report) -> str:
    ids = {id(r): f"row-{number}" for number, r in enumerate(report.rows)}
    sections = [("matrix", "Models and levels", _matrix(report, ids)), ("failed", "What failed", _failed(report, ids)),
                ("explained", "Explanations", _explanations(report)),
                ("growth", "Error through depth", _growth(report, ids, "L3", KEY)),
                ("training", "Error along training", _growth(report, ids, "L6", STEPS)),
                ("faults", "Seeded faults", _faults(report)), ("rows", "Every comparison", _rows(report, ids)),
                ("environment", "Environment", _environment(report.attestation)),
                ("reading", "How to read this", _paragraphs(READING))]
    sections = [(name, heading, body) for name, heading, body in sections if body]
    links = "".join(f'<a href="#{name}">{heading}</a>' for name, heading, _ in sections)
    body = "".join(f'<section id="{name}"><h2>{heading}</h2>{inside}</section>' for name, heading, inside in sections)
    head = (f'<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
            f'<title>Parity: {report.verdict}</title><style>{CSS}</style>')
    return (f'<!doctype html><html lang="en"><head>{head}</head><body><main>{_header(report)}<nav>{links}</nav>{body}'
            f'</main><script>{SCRIPT}</script></body></html>\n')


def _paragraphs(texts) -> str:
    return "".join(f"<p>{escape(text)}</p>" for text in texts)


def _header(report: Report) -> str:
    found = report.attestation
    says = "The twins agree" if report.passed else "The twins do not agree"
    command = f'<p class="soft"><code>{escape(found["command"])}</code></p>' if "command" in found else ""
    made = f'{escape(found["made"])}, ' if "made" in found else ""
    frameworks = escape(", ".join(facts["framework"] for facts in found.get("facts", {}).values()))
    return (f'<header class="{report.verdict}"><h1>{says}</h1><p>{escape(summary(report))}.</p>'
            f'<p class="soft">{made}{frameworks}</p>{command}</header>')


def _matrix(report: Report, ids: dict) -> str:
    """The worst ratio by model and level; the bar is the error as a fraction of its limit."""
    cells, levels = report.cells(), [level for level in report.levels if level != "L0"]
    lines = dict.fromkeys((model, size) for model, size, level in cells if level != "L0")
    if not lines:
        return ""
    head = "".join(f"<th>{level}<small>{escape(LEVELS[level])}</small></th>" for level in levels)
    body = "".join(f"<tr><th>{escape(model)}{' <small>full size</small>' if size == 'full' else ''}</th>"
                   + "".join(_cell(cells.get((model, size, level)), ids) for level in levels) + "</tr>"
                   for model, size in lines)
    return (f'<div class="wide"><table class="matrix"><tr><th></th>{head}</tr>{body}</table></div><p class="soft">The '
            f'number is the worst ratio of error to noise, the bar how much of the limit that error uses.</p>')


def _cell(r: Row | None, ids: dict) -> str:
    if r is None:
        return '<td class="none"></td>'
    limit = float(r.detail.get("limit", 0) or 0)
    used = min(1.0, r.error / limit) if limit else float(not r.passed)
    tip = escape(f"{r.mode}: error {short(r.error)}, noise {short(r.noise)}, limit {short(limit)}", quote=True)
    return (f'<td class="{r.verdict}" title="{tip}"><a href="#{ids[id(r)]}">{outcome(r) if r.passed else "fail"}'
            f'<span class="bar"><i style="width:{used:.0%}"></i></span></a></td>')


def _failed(report: Report, ids: dict) -> str:
    lines = [f'<li><a href="#{ids[id(r)]}">{escape(r.model)} {r.level} {escape(r.mode)}</a>: '
             f'{escape(explained(r).splitlines()[0])}</li>' for r in report.failed]
    if not lines and report.attestation.get("verdict") != "pass":
        lines = [f"<li>environment: {escape(report.attestation.get('reason', 'see below'))}</li>"]
    return f"<ul>{''.join(lines)}</ul>" if lines else ""


def _growth(report: Report, ids: dict, level: str, key: str) -> str:
    """The curve of each model's worst row of this level, with the key; "" if no row has a curve."""
    worst: dict[str, Row] = {}
    for r in report.rows:
        if r.level == level and len(r.detail.get("curve", ())) > 2 and (r.model not in worst or (r.passed, -r.ratio) <
                                                   (worst[r.model].passed, -worst[r.model].ratio)):
            worst[r.model] = r
    figures = [f'<figure>{_curve(r)}<figcaption><a href="#{ids[id(r)]}">{escape(r.model)}, {escape(r.mode)}</a>: '
               f'{_verdict(r)}, ratio {short(r.ratio)}</figcaption></figure>'
               for r in worst.values()]
    return key + f'<div class="charts">{"".join(figures)}</div>' if figures else ""


def _verdict(r: Row) -> str:
    return f'<span class="{"good" if r.passed else "bad"}">{r.verdict}</span>'


def _curve(r: Row) -> str:
    return charts.growth(r.detail["curve"], r.detail.get("first_divergence") or "", r.detail.get("culprits") or ())


def _rows(report: Report, ids: dict) -> str:
    parts = []
    for model in dict.fromkeys(r.model for r in report.rows):
        names = "level, mode", "worst tensor", "error", "noise", "ratio", ""
        head = "".join(f"<span>{name}</span>" for name in names)
        parts.append(f'<h3>{escape(model)}</h3><div class="head">{head}</div>')
        parts += [_row(r, ids[id(r)]) for r in report.rows if r.model == model]
    return "".join(parts)


def _row(r: Row, identity: str) -> str:
    size = " (full)" if r.detail.get("size") == "full" else ""
    cells = [f"<span>{r.level} {escape(r.mode)}{size}</span>", f'<span class="worst">{escape(r.worst)}</span>',
             *(f'<span class="number">{value}</span>' for value in (short(r.error), short(r.noise), outcome(r))),
             _verdict(r)]
    parts = [] if r.passed else [f'<pre class="bad">{escape(explained(r))}</pre>']
    if r.detail.get("curve"):
        parts.append(f'<figure class="whole">{_curve(r)}</figure>')
    parts += [_tensors(r), _map(r.detail.get("map")), _notes(r)]
    parts.append(f'<p class="soft">{escape(LEVELS.get(r.level, ""))}; {escape(r.dtype or "all types")}; '
                 f'{r.detail.get("count", 0)} tensors; {r.detail.get("seconds", 0)} s</p>')
    return (f'<details id="{identity}"{"" if r.passed else " open"}><summary>{"".join(cells)}</summary>'
            f'<div>{"".join(parts)}</div></details>')


def _tensors(r: Row) -> str:
    found = r.detail.get("tensors", [])
    if not found:
        return ""
    lines = [[escape(str(name)), *(short(v) for v in (error, noise, own, limit)), escape(str(reason))]
             for name, error, noise, own, limit, reason in found]
    head = ["worst tensors first", "error", "noise", "PyTorch's own error", "limit", ""]
    return _table(head, lines, numbers=(1, 2, 3, 4))


def _map(found: dict | None) -> str:
    if not found or not found.get("error"):
        return ""
    return (f'<figure class="whole">{charts.heat(found["error"])}<figcaption>where the error of '
            f'{escape(str(found.get("name", "")))} sits</figcaption></figure>')


def _notes(r: Row) -> str:
    """A table of the other details of a row."""
    notes = [[escape(key.replace("_", " ")), escape(json.dumps(value, ensure_ascii=False)[:LONGEST_NOTE])]
             for key, value in r.detail.items() if key not in DRAWN and value not in ({}, [], "", None)]
    return _table(["also recorded", ""], notes) if notes else ""


def _environment(found: dict) -> str:
    facts = found.get("facts", {})
    if not facts:
        return f'<pre class="bad">{escape(found.get("reason", "nothing was attested"))}</pre>'
    names = list(facts)
    owed = [[f"{escape(entry['promise'])} <small>{escape(entry['id'])}</small>",
             *(f'<span class="bad">no: {escape(entry[n])}</span>' if entry[n] else '<span class="good">yes</span>'
               for n in names)] for entry in found["owed"]]
    recorded = [[escape(key), *(escape(str(facts[n].get(key, ""))) for n in names)] for key in facts[names[0]]]
    return (_table(["must hold", *names], owed) + "<h3>Recorded</h3>"
            + _table(["", *names], recorded, marked=[len(set(line[1:])) > 1 for line in recorded]))


def _table(head, lines, numbers=(), marked=()) -> str:
    def line(tag, cells, mark=False):
        inside = "".join(f'<{tag} class="number">{cell}</{tag}>' if k in numbers else f"<{tag}>{cell}</{tag}>"
                         for k, cell in enumerate(cells))
        return f'<tr class="differs">{inside}</tr>' if mark else f"<tr>{inside}</tr>"
    body = "".join(line("td", cells, bool(marked) and marked[k]) for k, cells in enumerate(lines))
    return f'<div class="wide"><table>{line("th", head)}{body}</table></div>'


def _faults(report: Report) -> str:
    """How many of the faults put into the Jittor twin each level notices, and which no level notices."""
    extras = report.extras
    if "kill_rate" not in extras:
        return ""
    mutants, levels = extras.get("mutants", []), extras.get("by_level", {})
    lines = [[f"{level} {escape(LEVELS[level])}", found["mutants"], found["killed"], found["alone"],
              f'{found["kill_rate"]:.0%}<span class="bar"><i style="width:{found["kill_rate"]:.0%}"></i></span>']
             for level, found in levels.items()]
    head = ["level", "faults it was shown", "noticed", "noticed by it alone", "kill rate"]
    parts = [f'<p>{len(mutants)} faults were put into the Jittor twin, one at a time: <b>{extras["kill_rate"]:.1%}</b> '
             'of those that change a result are noticed.</p>', _table(head, lines, numbers=(1, 2, 3, 4))]
    parts += [f'<p class="bad">{escape(objection)}</p>' for objection in extras.get("objections", [])]
    missed = [m for m in mutants if m["verdict"] != "killed"]
    if missed:
        parts += ["<h3>Not noticed</h3>", _mutants(missed, "because", lambda m: m["explanation"])]
    noticed = _mutants([m for m in mutants if m["verdict"] == "killed"], "noticed by",
                       lambda m: f'{m["first"]}, {m["killed_by"][m["first"]]}')
    parts.append(f'<details><summary class="plain">Every fault that is noticed</summary><div>{noticed}</div></details>')
    return "".join(parts)


def _mutants(mutants: list[dict], last: str, tell) -> str:
    return _table(["fault", "catalogue", "what is wrong", last],
                  [[f'<code>{escape(m["name"])}</code>', escape(m["id"]), escape(m["why"]), escape(tell(m))]
                   for m in mutants])


def _explanations(report: Report) -> str:
    """The known difference between the frameworks that explains each failure."""
    parts = []
    for found in report.extras.get("explanations", ()):
        where = escape(" ".join(filter(None, (found["model"], found["level"], found["mode"]))))
        named = f"<b>{escape(found['named'])}</b> explains it" if found["named"] else "no known difference explains it"
        parts.append(f"<p>{where}: {named}</p><pre>{escape(found['text'])}</pre>")
    return "".join(parts)
