"""A report as one HTML file: no script, nothing from elsewhere."""

from __future__ import annotations

import math
from html import escape
from typing import Any, Final

_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 760, 260, 56, 30
_WORDS: Final = {0: ("met", "SLO met"), 3: ("open", "No verdict on the server")}
_STYLE: Final = """
:root { color-scheme: light dark; --line: #2563eb; --second: #d97706; --grid: #8883; --bad: #dc2626; --good: #16a34a }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 860px; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.4rem } h2 { font-size: 1.05rem; margin-top: 2rem }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { text-align: right; padding: .25rem .5rem; border-bottom: 1px solid var(--grid) }
th:first-child, td:first-child { text-align: left }
.verdict { padding: .7rem 1rem; border-left: 5px solid var(--bad); background: #8881 }
.met { border-color: var(--good) } .open { border-color: var(--second) }
svg { width: 100%; height: auto; font: 11px system-ui, sans-serif } svg text { fill: currentColor }
.grid { stroke: var(--grid) } .slo { stroke: var(--bad); stroke-dasharray: 5 4 }
.a { stroke: var(--line); fill: none; stroke-width: 2 } .b { stroke: var(--second); fill: none; stroke-width: 2 }
.key-a { color: var(--line) } .key-b { color: var(--second) } .key-slo { color: var(--bad) }
"""


def page_of(report: dict[str, Any]) -> str:
    """The page."""
    mark, word = _WORDS.get(report["exit_code"], ("missed", "SLO missed"))
    slo = report["settings"]["slo_ms"]
    parts = [
        f"<h1>Load test of {escape(report['settings']['host'])}</h1><p>{escape(report['date'])}</p>",
        f'<p class="verdict {mark}"><b>{word}.</b> {escape(report["verdict"])}</p>',
        "<h2>Latency by percentile</h2>",
        _key(("a", "latency"), ("slo", f"{slo:g} ms")),
        percentile_plot(report["histogram_us"], slo),
        "<h2>Latency by kind of request, ms</h2>",
        _latencies(report),
        "<h2>Second by second</h2>",
        _key(("a", "p50"), ("b", "p99"), ("slo", f"{slo:g} ms")),
        time_plot(report["seconds"], slo),
        _errors(report["errors"]),
        "<h2>Rates, client, server</h2>",
        _pairs(_facts(report)),
        "<h2>Settings and machine</h2>",
        _pairs(report["settings"] | report["machine"]),
    ]
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Load test: {word}</title>'
    return f"{head}<style>{_STYLE}</style>" + "\n".join(parts) + "</html>\n"


def _latencies(report: dict[str, Any]) -> str:
    names = list(report["latency_ms"])
    rows = [
        [v["name"], v["ok"], v["errors"], v["bytes"], *v["latency_ms"].values()] for v in report["variants"]
    ]
    total = ["all", report["ok"], sum(e["count"] for e in report["errors"].values()), ""]
    rows.append([*total, *report["latency_ms"].values()])
    return _table(["", "ok", "errors", "bytes", *names], rows)


def _errors(errors: dict[str, Any]) -> str:
    rows = [[kind, found["count"], "; ".join(found["examples"])] for kind, found in errors.items()]
    return "<h2>Errors</h2>" + (_table(["kind", "count", "seen"], rows) if rows else "<p>None.</p>")


def _facts(report: dict[str, Any]) -> dict[str, Any]:
    rate, client = report["rate"], report["client"]
    return {
        "requests/s asked": rate["asked"] or "closed loop",
        "requests/s sent": rate["sent"],
        "requests/s answered rightly": rate["ok"],
        "CPU share of the client": client["cpu_share"],
        "share of time the client waited for its core": client["wait_share"],
        "requests left late, p99, ms": client["lag_p99_ms"],
        "requests left late, at most, ms": client["lag_max_ms"],
        "requests not sent": client["unsent"],
    } | {f"server: {name}": value for name, value in report["server"].items()}


# ---- plots ----


def percentile_plot(buckets: list[Any], slo_ms: float) -> str:
    """Latency over percentile; every step to the right is another nine."""
    n = sum(count for _, count in buckets)
    if not n:
        return "<p>No latencies.</p>"
    nines = max(2.0, math.log10(n) + 0.0001)
    points, seen = [], 0
    for us, count in buckets:
        at = -math.log10(1 - seen / n) if seen else 0.0
        seen += count
        until = nines if seen == n else min(nines, -math.log10(1 - seen / n))
        points += [(at / nines, us / 1_000), (until / nines, us / 1_000)]
    ticks = [(0.0, "0"), (math.log10(2) / nines, "50 %")]
    ticks += [(k / nines, f"{100 - 10.0 ** (2 - k):.10g} %") for k in range(1, int(nines) + 1)]
    return _plot([("a", points)], ticks, slo_ms)


def time_plot(seconds: list[dict[str, Any]], slo_ms: float) -> str:
    """p50 and p99 of each second."""
    if not seconds:
        return "<p>No latencies.</p>"
    last = max(1, seconds[-1]["second"])
    lines = [
        (css, [(s["second"] / last, s[name]) for s in seconds]) for css, name in (("a", "p50"), ("b", "p99"))
    ]
    step = max(1, round(last / 10))
    return _plot(lines, [(at / last, f"{at} s") for at in range(0, last + 1, step)], slo_ms)


def _plot(
    lines: list[tuple[str, list[tuple[float, float]]]], ticks: list[tuple[float, str]], slo_ms: float
) -> str:
    """An SVG; x in 0 to 1, y in milliseconds on a logarithmic scale."""
    ys = [max(y, 0.001) for _, points in lines for _, y in points] + [slo_ms]
    low, high = math.floor(math.log10(min(ys))), math.ceil(math.log10(max(ys)) + 1e-9)
    high = max(high, low + 1)

    def x(share: float) -> float:
        return _LEFT + share * (_WIDTH - _LEFT - 24)

    def y(ms: float) -> float:
        share = (math.log10(max(ms, 0.001)) - low) / (high - low)
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _BOTTOM - 12)

    parts = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">']
    for decade in range(low, high + 1):
        at = y(10.0**decade)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - 24}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{10.0**decade:g} ms</text>')
    for share, label in ticks:
        parts.append(f'<text x="{x(share):.1f}" y="{_HEIGHT - 10}" text-anchor="middle">{label}</text>')
    at = y(slo_ms)
    parts.append(f'<line class="slo" x1="{_LEFT}" x2="{_WIDTH - 24}" y1="{at:.1f}" y2="{at:.1f}"/>')
    for css, points in lines:
        path = " ".join(f"{x(px):.1f},{y(py):.1f}" for px, py in points)
        parts.append(f'<polyline class="{css}" points="{path}"/>')
    return "".join([*parts, "</svg>"])


# ---- tables ----


def _key(*entries: tuple[str, str]) -> str:
    return "<p>" + " ".join(f'<span class="key-{css}">━</span> {text}' for css, text in entries) + "</p>"


def _pairs(values: dict[str, Any]) -> str:
    return _table(["", ""], [[name.replace("_", " "), value] for name, value in values.items()])


def _table(head: list[str], rows: list[list[Any]]) -> str:
    lines = ["<tr>" + "".join(f"<th>{escape(name)}</th>" for name in head) + "</tr>"]
    lines += ["<tr>" + "".join(f"<td>{escape(_text(cell))}</td>" for cell in row) + "</tr>" for row in rows]
    return f"<table>{''.join(lines)}</table>"


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.3f}".rstrip("0").rstrip(".")
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
