"""The tables of a Markdown page, kept between markers that name them: <!-- bench:NAME --> ... <!-- /bench
-->.

NAME is a durability class, `machine` or `stages`. What a run did not measure stays as it was.
"""

from __future__ import annotations

import re
from pathlib import Path

from bench.report import figures
from bench.result import Row
from bench.results import Results

STAGES = "stages"


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
    found = {"machine": "\n".join(f"- {name}: {value}" for name, value in facts.items())}
    for kind in results.classes:
        rows = [row for row in results.of_class(kind) if row.workload.kind != STAGES]
        if rows:
            found[kind.value] = "\n\n".join(map(_table, rows))
    stages = [row for row in results.rows if row.workload.kind == STAGES]
    if stages:
        found[STAGES] = "\n\n".join(_table(row) for row in stages)
    return found


def _table(row: Row) -> str:
    """A row's table under its title, its goals below."""
    head, *lines = figures.table(row)
    ruled = [head, ["---"] + ["--:"] * (len(head) - 1), *lines]
    table = "\n".join(f"| {' | '.join(line)} |" for line in ruled)
    notes = [f"- {goal}: {verdict}" for goal, verdict in row.verdicts]
    notes += [f"- missing: {system}: {reason}" for system, reason in row.missing.items()]
    parts = [f"**{row.workload.name}** {row.workload.title}", table]
    return "\n\n".join([*parts, *(["\n".join(notes)] if notes else [])])
