"""The table on the terminal: one block per row, printed when it is done."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.report import figures
from bench.result import Row

WIDTH = 170


def console() -> Console:
    """A console whose lines are not broken when they go into a file."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH)


def print_row(row: Row, out: Console) -> None:
    """Print one row: its systems, its goals, what is missing, what disturbed it."""
    out.print(
        f"\n[bold]{escape(row.workload.name)}[/]  {escape(row.workload.title)}  \\[{row.durability.value}]"
    )
    if row.turns:
        head, *lines = figures.table(row)
        shown = Table(*map(escape, head))
        for column in shown.columns[1:]:
            column.justify = "right"
        for line in lines:
            shown.add_row(*map(escape, line))
        out.print(shown)
    for goal, verdict in row.verdicts:
        out.print(f"  goal {escape(goal)}: {escape(verdict)}")
    if row.took_s:
        out.print(f"  took {row.took_s:.0f} s")
    for system, reason in row.missing.items():
        out.print(f"  missing {escape(system)}: {escape(reason)}")
    if warning := figures.disturbance(row):
        out.print(f"  [yellow]{warning}[/]")
