"""The table on the terminal: one block per row, printed when it is done."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.report.figures import FIGURES, advantage, cells, columns, disturbance, reference
from bench.result import Row

WIDTH = 170


def console() -> Console:
    """A console whose lines are not broken when they go into a file."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH)


def print_row(row: Row, out: Console) -> None:
    """Print one row: its systems, its goals, what is missing, what disturbed it."""
    names = columns(row)
    out.print(
        f"\n[bold]{escape(row.workload.name)}[/]  {escape(row.workload.title)}  \\[{row.durability.value}]"
    )
    if row.turns:
        table = Table(
            "system", *[FIGURES[name].heading for name in names], f"{reference(row)} is x times better"
        )
        for column in table.columns[1:]:
            column.justify = "right"
        for system in row.systems:
            table.add_row(escape(system), *cells(row, system), advantage(row, system))
        out.print(table)
    for goal, verdict in row.verdicts:
        out.print(f"  goal {escape(goal)}: {escape(verdict)}")
    for system, reason in row.missing.items():
        out.print(f"  missing {escape(system)}: {escape(reason)}")
    if warning := disturbance(row):
        out.print(f"  [yellow]{warning}[/]")
