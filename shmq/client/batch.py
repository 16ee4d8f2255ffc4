"""Batches: which messages may go together, and the splitter for long lists. Pure.

A batch is one request to one queue; its members get consecutive queue offsets and are separate messages for
consumers. At most 4 MiB encoded (Apache RocketMQ 5.3, MessageBatch.java).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from shmq.base.errors import ClientFault
from shmq.model import properties as names
from shmq.model.message import Message, all_plain
from shmq.model.names import is_retry_topic

MEMBER_OVERHEAD = 20
SPLIT_BYTES = 4 << 20


def check_batch(messages: Sequence[Message]) -> None:
    """Refuse what may not be one batch: no member, mixed topics or WAIT flags, delays, retry topics."""
    if not messages:
        raise ClientFault("an empty batch: nothing was sent")
    first = messages[0]
    topics = [message.topic for message in messages]
    alike = all_plain(messages) or [m.properties for m in messages].count(first.properties) == len(messages)
    # Comparing whole lists is so much quicker that only what differs is looked at one by one.
    for message in messages[:1] if alike and topics.count(first.topic) == len(topics) else messages:
        if message.topic != first.topic:
            raise ClientFault(f"a batch has one topic; this one names {first.topic!r} and {message.topic!r}")
        if message.wait_store_msg_ok != first.wait_store_msg_ok:
            raise ClientFault("all messages of a batch must have the same wait_store_msg_ok")
        if message.delay_level > 0 or has_timer(message):
            raise ClientFault("a delayed message cannot be part of a batch: send it alone")
    if is_retry_topic(first.topic):
        raise ClientFault("messages for a retry topic cannot be sent as a batch")


def has_timer(message: Message) -> bool:
    """Tell whether a message asks for delivery at a later moment."""
    if message.is_plain:
        return False
    held = message.properties
    return names.TIMER_DELIVER_MS in held or names.TIMER_DELAY_SEC in held or names.TIMER_DELAY_MS in held


def message_size(message: Message) -> int:
    """Return the size RocketMQ's documented splitter counts: topic, body, properties and 20 bytes."""
    return len(message.topic) + len(message.body) + message.text_length() + MEMBER_OVERHEAD


class MessageSplitter(Iterator[list[Message]]):
    """Cuts a long list into lists that each fit one batch, in order; one oversize message comes alone."""

    def __init__(self, messages: Sequence[Message], limit_bytes: int = SPLIT_BYTES) -> None:
        """Split `messages` at `limit_bytes` by `message_size`."""
        self._messages = messages
        self._limit_bytes = limit_bytes
        self._next = 0

    def __next__(self) -> list[Message]:
        """Return the next list; StopIteration after the last message."""
        start = self._next
        if start >= len(self._messages):
            raise StopIteration
        total, end = 0, start
        while end < len(self._messages):
            size = message_size(self._messages[end])
            if end > start and total + size > self._limit_bytes:
                break
            total += size
            end += 1
            if size > self._limit_bytes:
                break
        self._next = end
        return list(self._messages[start:end])
