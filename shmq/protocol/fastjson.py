"""A tolerant JSON reader for what fastjson writes and standard JSON forbids (bodies and headers of RocketMQ).

Beyond RFC 8259 it takes: member names that are bare integers (kept as ``int``), bare words, or whole
objects (a MessageQueue object becomes a ``MessageQueue``, any other a tuple of its sorted items); single
quotes; a comma too many; reference objects ``{"$ref":"$.a.b"}``, replaced by what their path leads to. Of
duplicate names the last wins. Pure; ``ValueError`` says where the text cannot be read.
"""

import re
from collections.abc import Hashable
from typing import Any

from shmq.model.message_queue import MessageQueue
from shmq.protocol.json_references import resolve

DEPTH_MAX = 64

_BLANK = re.compile(r"[ \t\r\n]*")
_NUMBER = re.compile(r"-?\d{1,400}(\.\d{1,400})?([eE][+-]?\d{1,4})?")
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
    if reader.has_references:
        resolve(value)
    return value


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
        self.take(_BLANK)
        return self.text[self.position : self.position + 1]

    def take(self, pattern: re.Pattern[str]) -> str | None:
        """Return what matches here and step over it."""
        match = pattern.match(self.text, self.position)
        if match is None:
            return None
        self.position = match.end()
        return match.group()

    def value(self, depth: int) -> Any:
        if depth > DEPTH_MAX:
            raise self.fault(f"nesting over {DEPTH_MAX}")
        first = self.peek()
        if first == "{":
            return self.object(depth)
        if first == "[":
            return self.array(depth)
        if first in _PLAIN:
            return self.string(first)
        number = self.take(_NUMBER)
        if number is not None:
            return int(number) if number.lstrip("-").isdigit() else float(number)
        word = self.take(_WORD)
        if word in _WORDS:
            return _WORDS[word]
        raise self.fault("no value")

    def items_until(self, close: str) -> Any:
        """Yield once per item, with the cursor at it; step over commas and the closing bracket."""
        self.position += 1
        first_item = True
        while (mark := self.peek()) != close:
            if mark == "," and not first_item:
                self.position += 1
                if self.peek() == close:
                    break
            elif not first_item:
                raise self.fault("no comma")
            first_item = False
            yield
        self.position += 1

    def object(self, depth: int) -> dict[Any, Any]:
        members: dict[Any, Any] = {}
        for _ in self.items_until("}"):
            name = self.name(depth)
            if self.peek() != ":":
                raise self.fault("no colon after a name")
            self.position += 1
            members[name] = self.value(depth + 1)
        self.has_references = self.has_references or "$ref" in members
        return members

    def array(self, depth: int) -> list[Any]:
        return [self.value(depth + 1) for _ in self.items_until("]")]

    def name(self, depth: int) -> Hashable:
        first = self.peek()
        if first in _PLAIN:
            return self.string(first)
        if first == "{":
            return _object_name(self.value(depth + 1))
        name = self.take(_NUMBER) or self.take(_WORD)
        if name is None:
            raise self.fault("no member name")
        return int(name) if name.lstrip("-").isdigit() else name

    def string(self, quote: str) -> str:
        pieces = []
        self.position += 1
        while True:
            pieces.append(self.take(_PLAIN[quote]) or "")
            mark = self.text[self.position : self.position + 2]
            if mark[:1] == quote:
                self.position += 1
                return "".join(pieces).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
            if len(mark) < 2:
                raise self.fault("text without its closing quote")
            self.position += 2
            code = self.take(_HEX4) if mark[1] == "u" else None
            pieces.append(chr(int(code, 16)) if code else _ESCAPES.get(mark[1], mark[1]))


def _object_name(members: dict[Any, Any]) -> Hashable:
    """Return the hashable form of an object that is a member's name."""
    if members.keys() == {"topic", "brokerName", "queueId"} and type(members["queueId"]) is int:
        return MessageQueue(str(members["topic"]), str(members["brokerName"]), members["queueId"])
    return tuple(sorted((str(name), str(value)) for name, value in members.items()))
