"""Java properties text, as the configuration requests 25 and 26 carry it. Pure.

One `key=value` per line; `#` and `!` begin comments; `\\`, line ends and characters outside Latin-1 are
escaped (`\\uXXXX`). RocketMQ's readers take blanks around the key and after `=`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from shmq.base.errors import InvalidParameter

_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)")
_LETTERS = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}


def parse_properties(body: bytes | memoryview) -> dict[str, str]:
    """Read `key=value` lines; InvalidParameter when it is no such text."""
    try:
        text = bytes(body).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidParameter("the configuration is not UTF-8 text of key=value lines") from error
    found: dict[str, str] = {}
    for line in text.splitlines():
        stripped = line.strip()
        if not stripped or stripped[0] in "#!":
            continue
        key, equals, value = stripped.partition("=")
        if not equals or not key.strip():
            raise InvalidParameter(f"configuration line {stripped[:80]!r}: write key=value")
        found[_unescaped(key.strip())] = _unescaped(value.strip())
    return found


def properties_text(values: Mapping[str, str]) -> str:
    """Write one line per value, in the order given."""
    return "".join(f"{_escaped(key)}={_escaped(value)}\n" for key, value in values.items())


def _unescaped(text: str) -> str:
    def plain(found: re.Match[str]) -> str:
        escape = found[1]
        return chr(int(escape[1:], 16)) if len(escape) > 1 else _LETTERS.get(escape, escape)

    return _ESCAPE.sub(plain, text)


def _escaped(text: str) -> str:
    plain = text.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")
    return "".join(c if c <= "\xff" else _units(c) for c in plain)


def _units(character: str) -> str:
    raw = character.encode("utf-16-be")
    return "".join(f"\\u{raw[i : i + 2].hex()}" for i in range(0, len(raw), 2))
