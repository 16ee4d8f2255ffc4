"""The tables of a Markdown page, kept between markers that name them: <!-- bench:NAME --> ... <!-- /bench
-->.

NAME is a durability class or, for rows that have a place of their own, `scaling`, `soak` or `stages`;
`machine`, what the classes were measured on; and `goals`, all of them at a glance, which only a run of all
targets replaces. What a run did not measure stays as it was.
"""

from __future__ import annotations

import itertools
import re
from pathlib import Path

from bench.catalogue import TARGETS
from bench.report import figures
from bench.result import Row
from bench.results import Results
from bench.scaling import SCALING

RUN_FACTS = ("shmq", "rounds", "seconds", "load")
OWN_KINDS = ("stages", "soak")
SCALING_NAMES = {workload.name for workload in SCALING}


def publish(results: Results, page: Path) -> list[str]:
    """Replace the marked parts of `page` by what this run has; return the names of those replaced."""
    text = page.read_text()
    replaced = []
    for name, content in sections(results).items():
        marked = re.search(rf"<!-- bench:{re.escape(name)} -->\n(.*?)<!-- /bench -->", text, re.DOTALL)
        if marked:
            text = f"{text[: marked.start(1)]}{content}\n{text[marked.end(1) :]}"
            replaced.append(name)
    page.write_text(text)
    return replaced


def sections(results: Results) -> dict[str, str]:
    """Marker name -> Markdown, for all that this run measured."""
    facts = results.machine | results.run
    found: dict[str, str] = {}
    for name, rows in itertools.groupby(sorted(results.rows, key=_place), _place):
        tables = [_table(row) for row in rows]
        if name in {kind.value for kind in results.classes}:
            found["machine"] = "\n".join(f"- {fact}: {value}" for fact, value in facts.items())
        else:
            tables.insert(0, ", ".join(f"{fact} {facts[fact]}" for fact in RUN_FACTS))
        found[name] = "\n\n".join(tables)
    if {workload.name for workload in TARGETS} <= {row.workload.name for row in results.rows}:
        found["goals"] = _goals(results.rows)
    return found


def _goals(rows: list[Row]) -> str:
    """Every goal with its verdict, those that were reached first."""
    lines = [(row.workload.name, goal, verdict) for row in rows for goal, verdict in row.verdicts]
    lines.sort(
        key=lambda line: not line[2].startswith("reached")
    )  # stable: in the order of the rows otherwise
    return "\n".join(
        ["| row | goal | |", "| --- | --- | --- |", *(f"| {' | '.join(line)} |" for line in lines)]
    )


def _place(row: Row) -> str:
    """The name of the marker it belongs under."""
    if row.workload.kind in OWN_KINDS:
        return row.workload.kind
    return "scaling" if row.workload.name in SCALING_NAMES else row.durability.value


def _table(row: Row) -> str:
    """A row's table under its title, its goals below."""
    head, *lines = figures.table(row)
    ruled = [head, ["---"] + ["--:"] * (len(head) - 1), *lines]
    table = "\n".join(f"| {' | '.join(line)} |" for line in ruled)
    notes = [f"- {goal}: {verdict}" for goal, verdict in row.verdicts]
    notes += [f"- missing: {system}: {reason}" for system, reason in row.missing.items()]
    title = f"**{row.workload.name}** {row.workload.title}"
    if len(row.workload.classes) > 1:
        title += f" ({row.durability.value})"
    parts = [title, table]
    return "\n\n".join([*parts, *(["\n".join(notes)] if notes else [])])
