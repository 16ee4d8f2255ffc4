"""A tolerant JSON reader for what fastjson writes and standard JSON forbids (Apache RocketMQ bodies and
headers).

Beyond RFC 8259 it takes: object keys that are bare integers (kept as ``int``), bare words, or whole objects
(a MessageQueue object becomes a ``MessageQueue``, any other a tuple of its sorted items); single quotes;
reference objects ``{"$ref":"$.a.b"}``, resolved by their path. Duplicate keys: the last wins. Pure;
``ValueError`` says where the text cannot be read.
"""

import re
from collections.abc import Hashable
from typing import Any

from shmq.model.message_queue import MessageQueue

DEPTH_MAX = 64

_BLANK = re.compile(r"[ \t\r\n]*")
_NUMBER = re.compile(r"-?\d{1,400}(?:\.\d{1,400})?(?:[eE][+-]?\d{1,4})?")
_WORD = re.compile(r"[A-Za-z_$][A-Za-z0-9_$.-]*")
_PLAIN = {'"': re.compile(r'[^"\\]*'), "'": re.compile(r"[^'\\]*")}
_HEX4 = re.compile(r"[0-9a-fA-F]{4}")
_ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "0": "\0"}
_WORDS: dict[str, object] = {"true": True, "false": False, "null": None, "NaN": None, "Infinity": None}


def loads(text: str | bytes | bytearray | memoryview) -> Any:
    """Return the value of one JSON text; nothing but blanks may follow it."""
    reader = _Reader(text if isinstance(text, str) else str(text, "utf-8"))
    value = reader.value(0)
    if reader.peek():
        raise reader.fault("text after the value")
    return _resolved(value, value, 0) if reader.has_references else value


class _Reader:
    """A cursor over one text."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0
        self.has_references = False

    def fault(self, what: str) -> ValueError:
        return ValueError(f"{what} at character {self.position}")

    def peek(self) -> str:
        """Skip blanks and return the next character, empty at the end."""
        match = _BLANK.match(self.text, self.position)
        assert match
        self.position = match.end()
        return self.text[self.position : self.position + 1]

    def match(self, pattern: re.Pattern[str]) -> str | None:
        match = pattern.match(self.text, self.position)
        if match is None:
            return None
        self.position = match.end()
        return match.group()

    def value(self, depth: int) -> Any:
        """Read one value of any kind."""
        if depth > DEPTH_MAX:
            raise self.fault(f"nesting over {DEPTH_MAX}")
        first = self.peek()
        if first == "{":
            return self.object(depth)
        if first == "[":
            return self.array(depth)
        if first in ('"', "'") and first:
            return self.string(first)
        number = self.match(_NUMBER)
        if number is not None:
            return int(number) if number.lstrip("-").isdigit() else float(number)
        word = self.match(_WORD)
        if word in _WORDS:
            return _WORDS[word]
        raise self.fault("no value")

    def object(self, depth: int) -> dict[Any, Any]:
        members: dict[Any, Any] = {}
        self.position += 1
        while (first := self.peek()) != "}":
            if members and first == ",":
                self.position += 1
                if self.peek() == "}":
                    break
            elif members:
                raise self.fault("no comma between members")
            name = self.name(depth)
            if self.peek() != ":":
                raise self.fault("no colon after a name")
            self.position += 1
            members[name] = self.value(depth + 1)
        self.position += 1
        self.has_references = self.has_references or "$ref" in members
        return members

    def name(self, depth: int) -> Hashable:
        first = self.peek()
        if first in ('"', "'") and first:
            return self.string(first)
        if first == "{":
            return _object_name(self.object(depth + 1))
        number = self.match(_NUMBER)
        if number is not None:
            return int(number) if number.lstrip("-").isdigit() else number
        word = self.match(_WORD)
        if word is None:
            raise self.fault("no member name")
        return word

    def array(self, depth: int) -> list[Any]:
        items: list[Any] = []
        self.position += 1
        while (first := self.peek()) != "]":
            if items and first == ",":
                self.position += 1
            elif items:
                raise self.fault("no comma between items")
            items.append(self.value(depth + 1))
        self.position += 1
        return items

    def string(self, quote: str) -> str:
        self.position += 1
        pieces = []
        while True:
            pieces.append(self.match(_PLAIN[quote]) or "")
            mark = self.text[self.position : self.position + 2]
            self.position += 1
            if mark[:1] == quote:
                return "".join(pieces).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
            if len(mark) < 2:
                raise self.fault("text without its closing quote")
            self.position += 1
            if mark[1] == "u":
                code = self.match(_HEX4)
                if code is None:
                    raise self.fault("\\u without four hex digits")
                pieces.append(chr(int(code, 16)))
            else:
                pieces.append(_ESCAPES.get(mark[1], mark[1]))


def _object_name(members: dict[Any, Any]) -> Hashable:
    """Return the hashable form of an object that is a member's name."""
    if members.keys() == {"topic", "brokerName", "queueId"} and type(members["queueId"]) is int:
        return MessageQueue(str(members["topic"]), str(members["brokerName"]), members["queueId"])
    return tuple(sorted((str(name), str(value)) for name, value in members.items()))


def _resolved(value: Any, root: Any, depth: int) -> Any:
    """Replace reference objects below ``value``; one that leads nowhere (or too deep) becomes None."""
    if depth > DEPTH_MAX:
        return None
    if isinstance(value, list):
        return [_resolved(item, root, depth + 1) for item in value]
    if not isinstance(value, dict):
        return value
    path = value.get("$ref")
    if isinstance(path, str) and len(value) == 1:
        return _resolved(_followed(path, root), root, depth + 1)
    return {name: _resolved(item, root, depth + 1) for name, item in value.items()}


def _followed(path: str, root: Any) -> Any:
    """Return what a path such as ``$.a.b[0]`` leads to, None when it leads nowhere."""
    found = root
    for step in re.findall(r"[^.\[\]]+", path.removeprefix("$")):
        if isinstance(found, list) and step.isdigit() and int(step) < len(found):
            found = found[int(step)]
        elif isinstance(found, dict):
            found = found.get(step, found.get(int(step)) if step.isdigit() else None)
        else:
            return None
    return found
