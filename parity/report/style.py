"""The style sheet of the HTML page, for light and dark modes, and the script that opens the row of a link."""

CSS = """\
:root { color-scheme: light dark; --paper: #fbfbf9; --card: #fff; --ink: #1d2327; --soft: #667077; --line: #dfe3e2;
  --good: #1a7f4b; --good-soft: #e3f3ea; --bad: #c0352b; --bad-soft: #fbe5e2; --mark: #2b66b8; --limit: #b07a12;
  --noise: #9aa5ab44; }
@media (prefers-color-scheme: dark) { :root { --paper: #14181b; --card: #1c2226; --ink: #e4e8ea; --soft: #98a4ab;
  --line: #333c42; --good: #5fd39a; --good-soft: #16372a; --bad: #ff8a7e; --bad-soft: #4a211f; --mark: #7db2ff;
  --limit: #e0b050; --noise: #8a969d44; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 32px 24px 80px; }
h1 { font-size: 34px; line-height: 1.2; margin: 0; } h2 { font-size: 20px; margin: 44px 0 10px; }
h3 { font-size: 15px; margin: 24px 0 6px; } p { margin: 6px 0; max-width: 78ch; }
.soft, small { color: var(--soft); } code, .number, td.number { font-family: ui-monospace, monospace; font-size: 13px; }
a { color: inherit; text-decoration-color: var(--soft); } a:hover { text-decoration-color: currentColor; }
header { border-left: 6px solid var(--good); padding: 4px 0 4px 20px; } header.fail { border-color: var(--bad); }
.fail h1, .bad { color: var(--bad); } .pass h1, .good { color: var(--good); }
nav { margin-top: 14px; display: flex; flex-wrap: wrap; gap: 4px 18px; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: 14px; width: 100%; }
th, td { padding: 5px 9px; text-align: left; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-weight: 600; color: var(--soft); } .number { text-align: right; white-space: nowrap; }
.matrix td, .matrix th { border: 3px solid var(--paper); } .matrix th { vertical-align: bottom; font-size: 13px; }
.matrix th small { display: block; font-weight: 400; line-height: 1.15; }
.matrix td { padding: 0; text-align: center; background: var(--good-soft); min-width: 62px; }
.matrix td.none { background: none; } .matrix td.fail { background: var(--bad-soft); }
.matrix td a { display: block; padding: 6px 6px 4px; text-decoration: none; font: 13px ui-monospace, monospace; }
.matrix td.fail a { color: var(--bad); font-weight: 700; }
.bar { display: block; height: 3px; margin-top: 3px; background: color-mix(in srgb, var(--soft) 22%, transparent); }
.bar i { display: block; height: 3px; background: var(--good); } .fail .bar i { background: var(--bad); }
details { background: var(--card); border: 1px solid var(--line); border-radius: 6px; margin: 5px 0; }
summary { cursor: pointer; padding: 7px 12px; display: grid; gap: 12px; align-items: baseline;
  grid-template-columns: 132px 1fr 90px 90px 70px 50px; }
summary.plain { display: list-item; }
summary .worst { color: var(--soft); overflow: hidden; text-overflow: ellipsis; white-space: nowrap; font-size: 13px; }
details > div { padding: 4px 14px 14px; border-top: 1px solid var(--line); }
details:target { outline: 2px solid var(--mark); } pre { white-space: pre-wrap; font-size: 13px; margin: 8px 0; }
.head { display: grid; gap: 12px; padding: 0 13px; color: var(--soft); font-size: 13px;
  grid-template-columns: 132px 1fr 90px 90px 70px 50px; } .head span:nth-child(n+3) { text-align: right; }
summary span:nth-child(n+3) { text-align: right; }
.charts { display: grid; gap: 16px; grid-template-columns: repeat(auto-fit, minmax(420px, 1fr)); }
figure { margin: 0; background: var(--card); border: 1px solid var(--line); border-radius: 6px; padding: 10px 12px; }
figure.whole { border: 0; padding: 8px 0; } figcaption { font-size: 13px; color: var(--soft); }
svg text { fill: var(--soft); font: 11px system-ui, sans-serif; } svg.growth { width: 100%; height: auto; }
.grid { stroke: var(--line); } .noise { fill: var(--noise); } .limit { fill: none; stroke: var(--limit);
  stroke-dasharray: 5 4; stroke-width: 1.5; } .error { fill: none; stroke: var(--mark); stroke-width: 2; }
.point { fill: var(--mark); } .culprit, .over { fill: var(--bad); stroke: var(--bad); } .over { fill: var(--card); }
line.first { stroke: var(--bad); stroke-dasharray: 2 3; } text.first { fill: var(--bad); font-weight: 600; }
.heat { border: 1px solid var(--line); } .heat path { fill: var(--bad); }
.key b { font-weight: 600; } .key .e { color: var(--mark); } .key .l { color: var(--limit); }
.key .c { color: var(--bad); }
.differs { background: color-mix(in srgb, var(--limit) 14%, transparent); }
@media (max-width: 760px) { summary, .head { grid-template-columns: 92px 1fr 64px; }
  summary span:nth-child(3), summary span:nth-child(4), summary span:nth-child(6),

  .head span:nth-child(3), .head span:nth-child(4), .head span:nth-child(6) { display: none; }
  .charts { grid-template-columns: 1fr; } }
@media print { details { break-inside: avoid; } }
"""

# A row opens when a link to it is followed.
SCRIPT = """\
const open = () => { const row = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (row && row.tagName === "DETAILS") { row.open = true; row.scrollIntoView({ block: "center" }); } };
addEventListener("hashchange", open); open();
"""
