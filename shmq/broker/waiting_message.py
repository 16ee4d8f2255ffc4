"""One record of the timers' queue, taken apart: for those who look for it, list it, or change it. Pure."""

from __future__ import annotations

from typing import NamedTuple

from shmq.base.errors import MessageIllegal
from shmq.model.names import TIMER_TOPIC
from shmq.model.properties import (
    REAL_QUEUE_ID,
    REAL_TOPIC,
    TIMER_DEL_UNIQKEY,
    TIMER_OUT_MS,
    UNIQ_KEY,
    decode_properties,
)
from shmq.model.record import RecordFields, parse_record


class WaitingMessage(NamedTuple):
    """One record of the timers' queue."""

    record: memoryview
    fields: RecordFields
    properties: dict[str, str]
    due_ms: int

    @property
    def body(self) -> memoryview:
        """Its body as it is stored."""
        return self.record[self.fields.body_at : self.fields.body_at + self.fields.body_length]

    @property
    def physical_offset(self) -> int:
        """Where it is."""
        return self.fields.physical_offset

    @property
    def topic(self) -> str:
        """The message's own topic."""
        return self.properties.get(REAL_TOPIC, "")

    @property
    def queue_id(self) -> int:
        """The message's own queue."""
        text = self.properties.get(REAL_QUEUE_ID, "")
        return int(text) if text.isdecimal() else 0

    @property
    def unique_key(self) -> str:
        """Its key, of one that cancels: the key of the cancelled one."""
        return self.properties.get(UNIQ_KEY, "")

    @property
    def cancels(self) -> str:
        """The key of what it cancels, "" for an ordinary message."""
        return self.properties.get(TIMER_DEL_UNIQKEY, "")


def waiting_message(record: memoryview) -> WaitingMessage | None:
    """Read a record; None when it is not of the timers' queue."""
    try:
        fields = parse_record(record)
    except MessageIllegal:
        return None
    if record[fields.topic_at : fields.topic_at + fields.topic_length] != TIMER_TOPIC.encode():
        return None
    properties = decode_properties(record[fields.properties_at : fields.end])
    due = properties.get(TIMER_OUT_MS, "")
    return WaitingMessage(record, fields, properties, int(due)) if due.isdecimal() else None
