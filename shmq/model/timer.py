"""Messages for any moment: when one is due, what the broker adds to it while it waits, and the handle by
which it is taken back.

    TIMER_DELAY_SEC, TIMER_DELAY_MS, TIMER_DELIVER_MS   what a client asks for; the first that is there counts
    TIMER_OUT_MS                 the moment in ms, set by the broker; who has it does not wait again
    TIMER_DEL_UNIQKEY            "topic+unique key" of a waiting message: this one cancels it

    recall handle   URL-safe base64 of "v1 <topic> <broker name> <ms> <unique key>"

Apache RocketMQ 5.3: HookUtils.java, TimerMessageStore.java, RecallMessageHandle.java. Pure, any process.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import NamedTuple

from shmq.base.errors import IllegalOperation, MessageIllegal
from shmq.model.properties import (
    REAL_QUEUE_ID,
    REAL_TOPIC,
    TIMER_DEL_UNIQKEY,
    TIMER_DELAY_MS,
    TIMER_DELAY_SEC,
    TIMER_DELIVER_MS,
    TIMER_OUT_MS,
    encode_properties,
)

TIMER_PROPERTIES = (TIMER_DELAY_SEC, TIMER_DELAY_MS, TIMER_DELIVER_MS)
"""In the order in which they are looked at."""

_HANDLE_VERSION = "v1"
_OUT_MS = f"{TIMER_OUT_MS}\x01".encode()
_CANCELS = f"{TIMER_DEL_UNIQKEY}\x01".encode()
_REAL_TOPIC = f"{REAL_TOPIC}\x01".encode()
_USUAL = re.compile(rb"\x02" + _OUT_MS + rb"([0-9]{1,18})\x02" + _REAL_TOPIC + rb"([^\x02]+)\x02")
"""As `waiting_properties` writes them behind others."""


class TimerWish(NamedTuple):
    """When a message wants to be delivered: so many ms after its arrival, or at a moment in ms; and which
    waiting message it cancels then ("" for none)."""

    delay_ms: int
    deliver_ms: int
    cancels: str = ""

    def due_ms(self, now_ms: int) -> int:
        """The moment, for a message that arrives now."""
        return self.deliver_ms or now_ms + self.delay_ms


def wish_of(properties: Mapping[str, str]) -> TimerWish | None:
    """Read what a message asks for; None when it is for now, or has waited already. MessageIllegal for what
    is no number."""
    if TIMER_OUT_MS in properties:
        return None
    for name in TIMER_PROPERTIES:
        text = properties.get(name)
        if text is None:
            continue
        if not re.fullmatch(r"-?[0-9]{1,18}", text):
            raise MessageIllegal(f"property {name}: {text!r} is no whole number")
        number = int(text)
        cancels = properties.get(TIMER_DEL_UNIQKEY, "")
        if name == TIMER_DELIVER_MS:
            return TimerWish(0, max(1, number), cancels)
        return TimerWish(number * 1000 if name == TIMER_DELAY_SEC else number, 0, cancels)
    return None


def waiting_properties(topic: str, queue_id: int, due_ms: int) -> bytes:
    """Return what is added to the properties of a message that waits: when and where it belongs."""
    return encode_properties({TIMER_OUT_MS: str(due_ms), REAL_TOPIC: topic, REAL_QUEUE_ID: str(queue_id)})


class WaitingTimer(NamedTuple):
    """What the wheel wants to know of a waiting message."""

    due_ms: int
    cancels: bool
    real_topic: str


def waiting_timer(properties: bytes) -> WaitingTimer | None:
    """Read it from the encoded properties, without taking all of them apart; None without TIMER_OUT_MS."""
    usual = _USUAL.search(properties)
    if usual is not None and _CANCELS not in properties:
        return WaitingTimer(int(usual[1]), False, str(usual[2], "utf-8", "replace"))
    due = _value(properties, _OUT_MS)
    if not due.isdigit() or len(due) > 18:
        return None
    topic = _value(properties, _REAL_TOPIC).decode("utf-8", "replace")
    return WaitingTimer(int(due), _value(properties, _CANCELS) != b"", topic)


def _value(properties: bytes, start: bytes) -> bytes:
    """The value behind `name 0x01`; b"" without that property."""
    at = 0 if properties.startswith(start) else properties.find(b"\x02" + start) + 1
    if not at and not properties.startswith(start):
        return b""
    at += len(start)
    end = properties.find(b"\x02", at)
    return properties[at:] if end < 0 else properties[at:end]


def cancel_key(real_topic: str, unique_key: str) -> str:
    """Return the TIMER_DEL_UNIQKEY that cancels a message (5.3.2 and later; before, the bare unique key)."""
    return f"{real_topic}+{unique_key}"


class RecallHandle(NamedTuple):
    """Which waiting message is meant, and where it waits."""

    topic: str
    broker_name: str
    due_ms: int
    unique_key: str

    def encode(self) -> str:
        """Return its text."""
        text = f"{_HANDLE_VERSION} {self.topic} {self.broker_name} {self.due_ms} {self.unique_key}"
        return base64.urlsafe_b64encode(text.encode()).decode()

    @classmethod
    def decode(cls, text: str) -> RecallHandle:
        """Read one; IllegalOperation when it is none."""
        try:
            raw = base64.urlsafe_b64decode(text.encode()) if len(text) <= 4096 else b""
            version, topic, broker_name, due_ms, unique_key = raw.decode().split(" ")
        except (binascii.Error, UnicodeError, ValueError):
            version = due_ms = ""
        if version != _HANDLE_VERSION or not re.fullmatch(r"[0-9]{1,18}", due_ms):
            raise IllegalOperation(
                "the recall handle cannot be read: give the one of the message's send result, unchanged"
            )
        return cls(topic, broker_name, int(due_ms), unique_key)
