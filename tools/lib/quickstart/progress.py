"""What is shown while it runs, and the table at the end."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from histogram import Histogram
from quickstart.verify import Verdict

console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)


@dataclass(slots=True)
class Figures:
    """What the processes measured."""

    send_seconds: float = 0.0
    consume_first: float = 0.0
    consume_last: float = 0.0
    latencies_ms: Histogram = field(default_factory=Histogram)

    def add_consumer(self, first: float, last: float, counts: dict[str, int]) -> None:
        """Join one consumer's figures; times are 0 when it got nothing."""
        if first:
            self.consume_first = min(first, self.consume_first or first)
            self.consume_last = max(last, self.consume_last)
            self.latencies_ms.merge({int(bucket): count for bucket, count in counts.items()})


class Bars:
    """Two progress bars on a terminal; a line every tenth of the way elsewhere."""

    def __init__(self, total: int) -> None:
        """Start at zero of `total` messages."""
        self.total = total
        self._tenth = 0
        columns = (
            TextColumn("{task.description:<9}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        self._bars = Progress(*columns, console=console, disable=not sys.stdout.isatty())
        self._sent = self._bars.add_task("produced", total=total)
        self._got = self._bars.add_task("consumed", total=total)

    def __enter__(self) -> Bars:
        """Show the bars."""
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave them standing as they are."""
        self._bars.stop()

    def update(self, *, sent: int | None = None, got: int | None = None) -> None:
        """Move to these numbers of messages."""
        if sent is not None:
            self._bars.update(self._sent, completed=sent)
        if got is not None:
            self._bars.update(self._got, completed=got)
            if self._bars.disable and self.total and got * 10 // self.total > self._tenth:
                self._tenth = got * 10 // self.total
                print(f"consumed {got:,} of {self.total:,}", flush=True)


def show_table(verdict: Verdict, figures: Figures) -> None:
    """Print what came out."""
    consume_seconds = figures.consume_last - figures.consume_first
    latency = figures.latencies_ms.percentiles()
    table = Table(show_header=False, title="quick start", title_justify="left")
    rows = {
        "files": f"{verdict.files:,}",
        "messages": f"{verdict.messages:,}",
        "bytes": f"{verdict.bytes:,}",
        "messages/s in": _rate(verdict.messages, figures.send_seconds),
        "messages/s out": _rate(verdict.messages, consume_seconds),
        "latency ms (send call to listener)": ", ".join(f"{name} {value}" for name, value in latency.items()),
        "delivered twice": f"{verdict.duplicates:,}",
        "mismatches": f"{len(verdict.problems):,}",
    }
    for name, value in rows.items():
        table.add_row(name, value)
    console.print(table)
    for problem in verdict.problems[:20]:
        print(f"MISMATCH {problem}")


def _rate(count: int, seconds: float) -> str:
    return f"{count / seconds:,.0f}" if seconds > 0 else "-"
