"""RocketMQ's config files as text: what fastjson 1.2 prints with its pretty format.

```text
{                                      a map or object: each member on a line of its own, one tab per level,
        "dataVersion":{                    no blank after the colon, no line end after the last brace
                "counter":7
        },
        "offsetTable":{
                "orders@g1":{0:15,1:7          a map with whole numbers as keys: unquoted, all on one line,
                }                              but the closing brace on the next
        },
        "groupTopicMap":{"g1":["orders"]}  sets on one line; empty ones as {} and []
}
```
Apache RocketMQ 5.3, ConfigManager.java and RemotingSerializable.java (fastjson MapSerializer). Pure; the
coordinator writes with it, tests read it back with `protocol.fastjson`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson


@dataclass(frozen=True, slots=True)
class Prepared:
    """Text made beforehand, so that a table with thousands of rows can be written at each change."""

    text: str


def prepared_row(key: str, value: Mapping[str, Any], depth: int) -> Prepared:
    """The text of one member of a table whose braces stand `depth` levels deep."""
    line_end = "\n" + "\t" * (depth + 1)
    parts = [line_end, orjson.dumps(key).decode(), ":"]
    _write(value, line_end, parts)
    return Prepared("".join(parts))


def prepared_table(rows: Iterable[Prepared], depth: int) -> Prepared:
    """The text of a table of such rows, in the order given."""
    text = ",".join(row.text for row in rows)
    return Prepared("{" + text + ("\n" + "\t" * depth if text else "") + "}")


def pretty_json(value: Mapping[str, Any]) -> bytes:
    """The file content of a config object; members come in the order given, so the caller sorts them."""
    parts: list[str] = []
    _write(value, "\n", parts)
    return "".join(parts).encode("utf-8", "surrogatepass")


def _write(value: Any, line_end: str, parts: list[str]) -> None:
    """Append the text of `value`; `line_end` is a line end with the tabs of the present level."""
    if isinstance(value, Prepared):
        parts.append(value.text)
    elif isinstance(value, Mapping):
        _write_map(value, line_end, parts)
    elif isinstance(value, list | tuple):
        parts.append("[")
        for i, item in enumerate(value):
            parts.append("," if i else "")
            _write(item, line_end, parts)
        parts.append("]")
    else:
        parts.append(orjson.dumps(value).decode())


def _write_map(value: Mapping[Any, Any], line_end: str, parts: list[str]) -> None:
    inner = line_end + "\t"
    parts.append("{")
    separator = ""
    for key, member in value.items():
        parts.append(separator)
        separator = ","
        if isinstance(key, str):
            parts.append(inner)
            parts.append(orjson.dumps(key).decode())
        else:
            parts.append(str(key))
        parts.append(":")
        _write(member, inner, parts)
    if value:
        parts.append(line_end)
    parts.append("}")
