"""Attributes of a topic: the text an administrator sends (`+key=value,-key`), and what shmq supports.

Apache RocketMQ 5.3, TopicAttributes.java and AttributeUtil.java. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping

from shmq.base.errors import InvalidParameter

MESSAGE_TYPES = ("UNSPECIFIED", "NORMAL", "FIFO", "DELAY", "TRANSACTION", "MIXED")

_ALLOWED: dict[str, tuple[str, ...]] = {
    "queue.type": ("SimpleCQ",),
    "cleanup.policy": ("DELETE",),
    "message.type": MESSAGE_TYPES,
}
"""Values per key; a key without a list takes a whole number."""
_NUMBERS = frozenset({"reserve.time"})


def changed_attributes(attributes: Mapping[str, str], changes: str) -> dict[str, str]:
    """Apply `+key=value,-key` to attributes; InvalidParameter for another form."""
    result = dict(attributes)
    for change in filter(None, (part.strip() for part in changes.split(","))):
        key, equals, value = change[1:].partition("=")
        if change[0] == "+" and key and equals and value:
            result[key] = value
        elif change[0] == "-" and key and not equals:
            result.pop(key, None)
        else:
            raise InvalidParameter(
                f"attribute change {change!r}: write +key=value or -key, with commas between"
            )
    return result


def check_attributes(attributes: Mapping[str, str]) -> None:
    """Refuse keys and values this broker does not honour."""
    for key, value in attributes.items():
        if key in _NUMBERS:
            if not value.lstrip("-").isdecimal():
                raise InvalidParameter(f"attribute {key}={value}: a whole number is allowed")
        elif key not in _ALLOWED:
            known = ", ".join(sorted((*_ALLOWED, *_NUMBERS)))
            raise InvalidParameter(f"attribute {key}: unknown, allowed are {known}")
        elif value not in _ALLOWED[key]:
            raise InvalidParameter(f"attribute {key}={value}: allowed is {' or '.join(_ALLOWED[key])}")
