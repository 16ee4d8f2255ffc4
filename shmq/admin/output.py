"""What a command returns, and the only place that prints it: a table, plain lines, or one JSON document.

Tables keep mqadmin's columns and `#` headers, so that scripts around it go on working. Results go to stdout,
everything else to stderr. Nothing is ever cut: a name that is longer than its column widens the column.

    {"apiVersion": 1, "kind": "TopicList", "items": [...], "errors": [...]}      --json
    one object a line                                                            --json of a stream
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

API_VERSION = 1
Item = dict[str, Any]


class Column(NamedTuple):
    """A table column: its header, the item key it shows, its least width, and how a value becomes text."""

    header: str
    key: str
    width: int = 0
    text: Callable[[Any], str] = str


class Failure(NamedTuple):
    """One target of several that could not be asked."""

    target: str
    code: int
    text: str


@dataclass(slots=True)
class Report:
    """The result of a command.

    kind     name of the JSON document
    items    what --json prints, keys lowerCamel as on the wire
    columns  the table over the items; None: `lines` is the whole text form
    lines    text after the table (a footer), or in its place
    errors   targets that failed; any of them makes the exit code PARTIAL
    more     further members of the JSON document
    """

    kind: str
    items: list[Item]
    columns: tuple[Column, ...] | None = None
    lines: list[str] = field(default_factory=list)
    errors: list[Failure] = field(default_factory=list)
    more: Item = field(default_factory=dict)


@dataclass(slots=True)
class Stream:
    """A result without end: printed as it comes, each item as (text line, JSON object)."""

    items: Iterable[tuple[str, Item]]


def show(result: Report | Stream, *, as_json: bool, headers: bool = True) -> None:
    """Print a command's result to stdout, and its partial failures to stderr."""
    if isinstance(result, Stream):
        for line, item in result.items:
            print(json.dumps(item, ensure_ascii=False) if as_json else line, flush=True)
        return
    if as_json:
        print(_document(result))
    else:
        for line in table_lines(result, headers):
            print(line)
        for failure in result.errors:
            print(f"{failure.target}: {failure.text}", file=sys.stderr)


def _document(report: Report) -> str:
    document = {
        "apiVersion": API_VERSION,
        "kind": report.kind,
        "items": report.items,
        "errors": [failure._asdict() for failure in report.errors],
        **report.more,
    }
    return json.dumps(document, ensure_ascii=False, indent=2)


def table_lines(report: Report, headers: bool = True) -> Iterator[str]:
    """The text form of a report, line by line."""
    if report.columns is not None:
        rows = [[column.text(item[column.key]) for column in report.columns] for item in report.items]
        titles = [[column.header for column in report.columns]] if headers else []
        widths = [
            max([column.width, *(len(row[place]) for row in titles + rows)])
            for place, column in enumerate(report.columns)
        ]
        for row in titles + rows:
            yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
    yield from report.lines


def local_time(milliseconds: int) -> str:
    """A table's time: local zone with milliseconds, as mqadmin prints it; empty for 0."""
    if milliseconds <= 0:
        return ""
    moment = datetime.fromtimestamp(milliseconds / 1000)
    return f"{moment:%Y-%m-%d %H:%M:%S},{milliseconds % 1000:03d}"


def local_second(milliseconds: int) -> str:
    """The same without milliseconds; N/A for 0."""
    return local_time(milliseconds).partition(",")[0] or "N/A"


def rfc3339(milliseconds: int) -> str | None:
    """JSON's readable time, beside the ...Ms integer; null for 0."""
    if milliseconds <= 0:
        return None
    return datetime.fromtimestamp(milliseconds / 1000).astimezone().isoformat(timespec="milliseconds")
