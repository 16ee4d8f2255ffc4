"""OutgoingBatch: many messages of one topic on their way to one queue, prepared together.

Made once per batch; retries reuse it, so every attempt carries the same unique keys and compressed bodies.
Two wire forms: log-ready CommitLog records for a local shmq broker (`model/record.py`; by numpy from
`NUMPY_FROM` messages on, which is also where the broker's own fast path begins), RocketMQ's batch elements
for all others.
"""

from __future__ import annotations

from collections.abc import Sequence

from shmq.base.clock import now_ms
from shmq.client.outgoing import Body, compressed, ordered
from shmq.client.producer_config import ProducerConfig
from shmq.model import properties as names
from shmq.model.message import Message, all_plain, give_unique_keys, plain_columns
from shmq.model.message_id import KeyBlock, unique_key, unique_key_block
from shmq.model.properties import encode_properties
from shmq.model.record import encode_record
from shmq.protocol.bodies.batch import BatchElement, encode_batch_elements

NUMPY_FROM = 16


class OutgoingBatch:
    """The prepared messages; `keys` are their unique keys in order."""

    __slots__ = (
        "_block",
        "_bodies",
        "_business_keys",
        "_flags",
        "_shared",
        "_sys_flags",
        "born_timestamp",
        "keys",
        "messages",
        "topic",
    )

    def __init__(self, messages: Sequence[Message], config: ProducerConfig, *, may_compress: bool) -> None:
        """Prepare checked messages of one topic. RocketMQ's own batches are never compressed."""
        self.topic = messages[0].topic
        self.messages = messages
        self.born_timestamp = now_ms()
        self._bodies: list[Body] = [message.body for message in messages]
        self._flags = [message.flag for message in messages]
        self._sys_flags = [0] * len(messages)
        if may_compress:
            self._compress(config)
        self._shared: bytes | None = None
        """Properties of all messages but for the unique key and `_business_keys`, when they are the same."""
        self._business_keys: bytes | None = None
        """The texts of KEYS back to back, when they differ but are equally long; KEYS is then not in
        `_shared`."""
        self._block: KeyBlock | None = None
        self.keys = self._give_keys_to_plain() or self._give_keys()

    def _compress(self, config: ProducerConfig) -> None:
        limit = config.compress_msg_body_over_howmuch
        for place, body in enumerate(self._bodies):
            if len(body) >= limit:
                self._bodies[place], self._sys_flags[place] = compressed(body, config)

    def _give_keys_to_plain(self) -> list[str]:
        """Give plain messages without a unique key a block of them; an empty list when they are not that."""
        messages, count = self.messages, len(self.messages)
        if count > KeyBlock.COUNT_MAX or not all_plain(messages):
            return []
        tags, business, unique = plain_columns(messages)
        if unique.count(None) != count:
            return []
        self._block = unique_key_block()
        prefix = self._block.prefix
        keys = [prefix + suffix for suffix in _suffixes(count)]
        give_unique_keys(messages, keys)
        if tags.count(tags[0]) == count:
            shared = {names.TAGS: tags[0]} if tags[0] else {}
            if business.count(business[0]) == count:
                if business[0]:
                    shared[names.KEYS] = business[0]
                self._shared = encode_properties(shared)
            elif (joined := "".join(business)).isascii() and set(map(len, business)) == {len(business[0])}:
                self._shared = encode_properties(shared)
                self._business_keys = joined.encode()
        return keys

    def _give_keys(self) -> list[str]:
        """Give every message its unique key; fresh ones come as a block, whose text numpy writes."""
        held = [message.properties for message in self.messages]
        for properties in held:
            properties.pop(names.SHMQ_SEQUENCE, None)
        first, count = held[0], len(held)
        alike = held.count(first) == count
        fresh = names.UNIQ_KEY not in first if alike else not any(names.UNIQ_KEY in p for p in held)
        if fresh and count <= KeyBlock.COUNT_MAX:
            if alike:
                self._shared = encode_properties(ordered(first))
            self._block = unique_key_block()
            prefix = self._block.prefix
            keys = [prefix + suffix for suffix in _suffixes(count)]
        else:
            keys = [properties.get(names.UNIQ_KEY) or unique_key() for properties in held]
        for message, key in zip(self.messages, keys, strict=True):
            message.give_unique_key(key)
        return keys

    def number(self, sequence: str) -> None:
        """Give the batch its sequence, on its first message. Before the first attempt."""
        self.messages[0].properties[names.SHMQ_SEQUENCE] = sequence
        self._shared = None

    def _rows(self) -> list[bytes]:
        """Return each message's encoded properties, the key among them."""
        if all_plain(self.messages):
            columns = plain_columns(self.messages)
            return [_plain_text(*row).encode() for row in zip(*columns, strict=True)]
        return [encode_properties(ordered(message.properties)) for message in self.messages]

    def records(self, queue_id: int) -> tuple[Body, list[int]]:
        """Return log-ready records back to back, and their sizes."""
        topic = self.topic.encode()
        if len(self.messages) >= NUMPY_FROM:
            from shmq.model.batch_encoder import encode_batch

            return encode_batch(
                topic=topic,
                queue_id=queue_id,
                bodies=self._bodies,
                properties=self._shared if self._shared is not None else self._rows(),
                born_timestamp=self.born_timestamp,
                keys=self._block if self._shared is not None else None,
                business_keys=self._business_keys if self._shared is not None else None,
                flags=self._flags,
                sys_flags=self._sys_flags,
            )
        records = [
            encode_record(
                topic=topic,
                body=body,
                properties=properties,
                queue_id=queue_id,
                born_timestamp=self.born_timestamp,
                flag=flag,
                sys_flag=sys_flag,
            )
            for body, properties, flag, sys_flag in zip(
                self._bodies, self._rows(), self._flags, self._sys_flags, strict=True
            )
        ]
        return b"".join(records), list(map(len, records))

    def elements(self) -> bytes:
        """Return RocketMQ's batch body."""
        rows = zip(self._bodies, self._rows(), self._flags, strict=True)
        return encode_batch_elements(BatchElement(*row) for row in rows)


def _plain_text(tags: str | None, keys: str, unique: str | None) -> str:
    """Return the stored form of a plain message's properties, in the order of a log-ready record."""
    head = f"TAGS\x01{tags}\x02UNIQ_KEY\x01{unique}\x02" if tags else f"UNIQ_KEY\x01{unique}\x02"
    return f"{head}KEYS\x01{keys}\x02" if keys else head


_SUFFIXES: list[str] = []
"""The last four characters of a block's keys, "0000" on: made once, grown as larger batches come."""


def _suffixes(count: int) -> list[str]:
    """Return the endings of the first `count` keys of a block; two threads may both grow the list,
    harmlessly."""
    global _SUFFIXES
    made = _SUFFIXES
    if len(made) < count:
        made = _SUFFIXES = [f"{place:04X}" for place in range(count)]
    return made[:count]
