"""One HTML page per durability class, whole in one file: tables, goals, drawings, machine and settings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape

from bench.durability import NOT_THERE_YET, Durability
from bench.report import svg
from bench.report.figures import FIGURES, disturbance, table
from bench.result import Row
from bench.results import Results
from bench.systems import SYSTEMS
from histogram import Histogram

STYLE = """
body { font: 15px/1.45 sans-serif; max-width: 70em; margin: 2em auto; padding: 0 1em; color: #222 }
table { border-collapse: collapse; margin: .6em 0 } th, td { padding: .15em .7em; text-align: right;
border-bottom: 1px solid #ddd } th:first-child, td:first-child { text-align: left } .yes { color: #1a7f37 }
.no { color: #b3261e } .warn { color: #9a6700 } dl { display: grid; grid-template-columns: max-content auto;
gap: .1em 1em } dd { margin: 0 } svg { display: block; margin: .8em 0 }
"""
TAIL = (50, 75, 90, 95, 99, 99.5, 99.9, 99.95, 99.99)
"""Percentiles of a latency curve; the x axis is one in how many operations is slower."""
MICROSECONDS = svg.Axis("us", logarithmic=True)


def page(results: Results, kind: Durability) -> str:
    """The page of one class."""
    rows = results.of_class(kind)
    parts = [
        f"<h1>shmq and its peers: durability class {escape(kind.value)}</h1>",
        f"<p>Every system here acknowledges a message when it is {escape(kind.promise)}. ",
        "Other classes have pages of their own; systems are compared only within a class. ",
        *(f"Class <b>{other.value}</b>: {escape(reason)}. " for other, reason in NOT_THERE_YET.items()),
        "</p>",
        "<h2>Where and how</h2>",
        _facts(results.machine | results.run),
        *(_sweep(name, found) for name, found in _sweeps(rows).items()),
        *map(_row, rows),
        "<h2>Systems</h2>",
        _facts({name: SYSTEMS[name].title for name in SYSTEMS if any(name in row.systems for row in rows)}),
        "<h2>Settings</h2>",
        *(
            f"<h3>{escape(server)}</h3>{_facts(settings)}"
            for server, settings in results.settings.get(kind, {}).items()
        ),
    ]
    head = f'<meta charset="utf-8"><title>shmq bench: {escape(kind.value)}</title><style>{STYLE}</style>'
    return f"<!doctype html><html lang=en><head>{head}</head><body>{''.join(parts)}</body></html>"


def _facts(facts: Mapping[str, str]) -> str:
    items = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts.items())
    return f"<dl>{items}</dl>"


def _row(row: Row) -> str:
    parts = [f"<h2>{escape(row.workload.name)}: {escape(row.workload.title)}</h2>", _table(row)]
    for goal, verdict in row.verdicts:
        colour = "yes" if verdict.startswith("reached") else "no" if verdict.startswith("NOT") else "warn"
        parts.append(f'<div class="{colour}">{escape(goal)}: {escape(verdict)}</div>')
    for system, reason in row.missing.items():
        parts.append(f'<div class="warn">missing: {escape(system)}: {escape(reason)}</div>')
    if warning := disturbance(row):
        parts.append(f'<div class="warn">{escape(warning)}</div>')
    metric = row.workload.metric
    bars = {
        system: [*row.values(system, metric).values()] for system in row.systems if row.values(system, metric)
    }
    parts.append(
        svg.bars(f"{FIGURES[metric].heading}, median and range of rounds", bars, FIGURES[metric].text)
    )
    parts.append(_tails(row))
    return "".join(parts)


def _table(row: Row) -> str:
    head, *lines = table(row)
    body = "".join(f"<tr>{_cells('td', line)}</tr>" for line in lines)
    return f"<table><tr>{_cells('th', head)}</tr>{body}</table>"


def _cells(tag: str, texts: Iterable[str]) -> str:
    return "".join(f"<{tag}>{escape(text)}</{tag}>" for text in texts)


def _tails(row: Row) -> str:
    """Latency curves: how long one operation in so many takes at least."""
    series = {name: _tail(histogram) for name in row.systems if (histogram := row.latency(name)).total}
    x = svg.Axis("one operation in ... is slower", logarithmic=True)
    return svg.lines("latency, all rounds together", x, MICROSECONDS, series)


def _tail(histogram: Histogram) -> list[tuple[float, float]]:
    """Only percentiles that enough values stand behind."""
    return [
        (100 / (100 - percent), histogram.percentile(percent) / 1000)
        for percent in TAIL
        if histogram.total * (100 - percent) >= 100
    ]


def _sweeps(rows: list[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        if row.workload.sweep:
            found.setdefault(row.workload.sweep[0], []).append(row)
    return {name: members for name, members in found.items() if len(members) > 1}


def _sweep(name: str, rows: list[Row]) -> str:
    """One curve per system over the x values of a sweep's rows."""
    metric = rows[0].workload.metric
    systems = dict.fromkeys(system for row in rows for system in row.systems)
    series = {system: sorted(_points(rows, system, metric)) for system in systems}
    y = svg.Axis(FIGURES[metric].heading, logarithmic=metric != "rate")
    return svg.lines(name, svg.Axis(name.rpartition(" against ")[2], logarithmic=True), y, series)


def _points(rows: list[Row], system: str, metric: str) -> Iterable[tuple[float, float]]:
    for row in rows:
        median = row.median(system, metric)
        if median is not None and row.workload.sweep is not None:
            yield row.workload.sweep[1], median
