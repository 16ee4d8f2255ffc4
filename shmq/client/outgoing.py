"""Outgoing: one message on its way: checked, with its unique key, compressed, its properties encoded.

Made once per send call, before the first attempt, in the calling thread; retries reuse it, so all attempts
carry the same key and nothing is compressed twice. The caller's message keeps its own body.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TypeVar

from shmq.base.clock import now_ms
from shmq.base.errors import ClientFault, MessageIllegal
from shmq.client.producer_config import ProducerConfig
from shmq.client.send_result import Durability
from shmq.model import properties as names
from shmq.model.compression import COMPRESSION_FLAGS, compress
from shmq.model.message import Message
from shmq.model.message_id import unique_key
from shmq.model.names import check_sendable_topic, check_topic, with_namespace
from shmq.model.properties import encode_properties
from shmq.model.sys_flag import COMPRESSED
from shmq.model.wait_for import wait_text

Body = bytes | bytearray | memoryview
BODY_TYPES = frozenset({bytes, bytearray, memoryview})

LONE_PROPERTIES = frozenset(
    {
        *(names.DELAY, names.TIMER_DELAY_SEC, names.TIMER_DELAY_MS, names.TIMER_DELIVER_MS),
        *(names.TRANSACTION_PREPARED, names.PRODUCER_GROUP, names.RETRY_TOPIC),
        *(names.MSG_TYPE, names.CORRELATION_ID),
    }
)
"""A message with one of these needs a broker rule of its own and never travels in a batch."""

REPLY = "reply"
"""MSG_TYPE of the answer to a request."""


class Outgoing:
    """What a send needs of one message."""

    __slots__ = ("body", "born_timestamp", "message", "properties", "sys_flag", "topic", "unique_key")

    def __init__(self, message: Message, config: ProducerConfig) -> None:
        """Check the message and prepare it; MessageIllegal and InvalidParameter say what is allowed."""
        check_sendable(message, config.max_message_size)
        if not message.is_plain:
            # Of an earlier send, or of a message that is passed on.
            message.properties.pop(names.SHMQ_SEQUENCE, None)
        key = message.unique_key
        if key is None:
            key = unique_key()
            message.give_unique_key(key)
        self.message = message
        self.topic = message.topic
        self.unique_key = key
        self.body: Body = message.body
        self.sys_flag = 0
        if len(message.body) >= config.compress_msg_body_over_howmuch:
            self.body, self.sys_flag = compressed(message.body, config)
        self.properties = message.encoded_properties()
        self.born_timestamp = now_ms()

    def number(self, sequence: str) -> None:
        """Give the message its sequence. Before the first attempt."""
        self.message.properties[names.SHMQ_SEQUENCE] = sequence
        self.properties = encode_properties(self.message.properties)


def compressed(body: Body, config: ProducerConfig) -> tuple[bytes, int]:
    """Return a body compressed as configured, and the sysFlag bits that say so."""
    flag = COMPRESSION_FLAGS.get(config.compress_type)
    if flag is None:
        allowed = ", ".join(COMPRESSION_FLAGS)
        raise ClientFault(f"compress_type {config.compress_type!r} is unknown; allowed: {allowed}")
    return compress(body, flag, config.compress_level), COMPRESSED | flag


def ordered(properties: dict[str, str]) -> dict[str, str]:
    """Return properties in the order of a log-ready record: TAGS, then UNIQ_KEY, then the rest."""
    first = {name: properties[name] for name in (names.TAGS, names.UNIQ_KEY) if name in properties}
    return {**first, **properties}


Given = TypeVar("Given", Message, Message | Sequence[Message])


def placed(message: Given, namespace: str | None) -> Given:
    """Return what is sent in a namespace: copies whose topic is the one that brokers know.

    The sender's own messages keep their topic. Copies share their properties, so that the sender finds the
    unique key there, as without a namespace.
    """
    if not namespace:
        return message
    if isinstance(message, Message):
        return _placed(message, namespace)
    return [_placed(one, namespace) for one in message]


def _placed(message: Message, namespace: str) -> Message:
    copy = Message(with_namespace(namespace, message.topic), message.body, flag=message.flag)
    copy.properties = message.properties
    return copy


def is_reply(message: Message) -> bool:
    """Tell whether a message is the answer to a request, which has a request code of its own."""
    return not message.is_plain and message.properties.get(names.MSG_TYPE) == REPLY


def ask_for(message: Message | Sequence[Message], wanted: Durability | None) -> None:
    """Note in a message, or in all of a batch, what its sender waits for; None: as it is."""
    if wanted is None:
        return
    text = wait_text(wanted.local, max(wanted.replicas, wanted.replicas_flushed))
    for one in (message,) if isinstance(message, Message) else message:
        one.properties[names.SHMQ_WAIT_FOR] = text


def travels_alone(message: Message) -> bool:
    """Tell whether a message may not be part of a batch."""
    return not message.is_plain and not LONE_PROPERTIES.isdisjoint(message.properties)


@lru_cache(maxsize=4096)
def _check_topic(topic: str) -> None:
    """Check a topic's name; only a good one is remembered."""
    check_topic(topic)
    check_sendable_topic(topic)


def check_all_sendable(messages: Sequence[Message], max_message_size: int) -> None:
    """Check many messages of one topic; the usual case, all of them fine, costs a few nanoseconds each."""
    bodies = [message.body for message in messages]
    if BODY_TYPES.issuperset(map(type, bodies)):
        sizes = list(map(len, bodies))
        if min(sizes) and max(sizes) <= max_message_size:
            _check_topic(messages[0].topic)
            return
    for message in messages:
        check_sendable(message, max_message_size)


def check_sendable(message: Message, max_message_size: int) -> None:
    """Refuse what no broker would take: topic rules, empty or oversize body."""
    _check_topic(message.topic)
    body = message.body
    # A set of types is looked into in no time; the union would be built anew for every message.
    if type(body) not in BODY_TYPES and not isinstance(body, bytes | bytearray | memoryview):
        raise MessageIllegal(f"the body must be bytes, not {type(body).__name__}: encode text first")
    if not body:
        raise MessageIllegal("the body is empty: at least one byte is needed")
    if len(body) > max_message_size:
        raise MessageIllegal(
            f"the body has {len(body)} bytes, at most {max_message_size} are allowed (max_message_size)"
        )
