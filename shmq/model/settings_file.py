"""Properties files as Java writes and reads them: `key=value` lines, comments, escapes, continued lines.

Used for broker.conf, namesrv.conf, and for the bodies of requests 25/26 and 318/319. Pure: text in, entries
out. Facts: java.util.Properties. Unlike Java, text is UTF-8 and blanks at the end of a value are dropped
(nobody means them).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

_ESCAPES = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_SPLIT = re.compile(r"((?:\\.|[^\\=:\s])*)[ \t\f]*[=:]?[ \t\f]*(.*)", re.DOTALL)


class Entry(NamedTuple):
    """One `key=value` and the line (counted from 1) it begins on."""

    key: str
    value: str
    line: int


def parse_properties(content: str) -> Iterator[Entry]:
    """Every entry of a properties file in the order of the file; a later entry of the same key wins."""
    for line_number, line in _logical_lines(content):
        matched = _SPLIT.fullmatch(line)
        if matched is not None and matched[1]:
            yield Entry(_unescape(matched[1]), _unescape(matched[2]).rstrip(), line_number)


def format_properties(entries: Iterable[tuple[str, str]]) -> str:
    """Entries as the text of a properties file, one line each."""
    return "".join(f"{key}={_escape(value)}\n" for key, value in entries)


def _logical_lines(content: str) -> Iterator[tuple[int, str]]:
    """Lines without comments and blanks; an odd number of backslashes at the end continues a line."""
    pending, began = "", 0
    for line_number, raw in enumerate(re.split(r"\r\n|\r|\n", content), start=1):
        line = raw.lstrip(" \t\f\ufeff")
        if not pending:
            if not line or line[0] in "#!":
                continue
            began = line_number
        backslashes = len(line) - len(line.rstrip("\\"))
        if backslashes % 2:
            pending += line[:-1]
            continue
        yield began, pending + line
        pending = ""
    if pending:
        yield began, pending


def _unescape(text: str) -> str:
    return _ESCAPE.sub(_unescape_one, text)


def _unescape_one(matched: re.Match[str]) -> str:
    escaped = matched[1]
    if len(escaped) == 5:
        return chr(int(escaped[1:], 16))
    return _ESCAPES.get(escaped, escaped)


def _escape(value: str) -> str:
    escaped = value.replace("\\", "\\\\")
    for letter, character in _ESCAPES.items():
        escaped = escaped.replace(character, f"\\{letter}")
    return "\\" + escaped if escaped[:1] == " " else escaped
