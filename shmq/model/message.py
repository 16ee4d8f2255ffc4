"""Message: what a producer sends. Its attributes are RocketMQ's, kept in the properties they travel in."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from shmq.model import properties as names
from shmq.model.message_ext import MessageExt as MessageExt
from shmq.model.properties import (
    check_separators,
    check_user_property,
    encode_properties,
    encode_text,
    join_keys,
    split_keys,
)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)


class Message:
    """One message to be sent: topic, body and properties.

    ``tags``, ``keys``, ``delay_level`` and ``wait_store_msg_ok`` are views of the properties TAGS, KEYS,
    DELAY and WAIT, ``delay`` and ``deliver_at`` of TIMER_DELAY_MS and TIMER_DELIVER_MS. Setting a reserved
    name through ``put_user_property`` raises ``MessageIllegal`` and changes nothing.
    Not safe for use by two threads at once; a message may be sent again after its send has ended.

    Most messages have a tag, keys and, once sent, a unique key, and nothing else: such a plain message keeps
    them in slots, and its dictionary is made when somebody looks at ``properties``.
    """

    __slots__ = ("_held", "_keys", "_tags", "_unique_key", "body", "flag", "topic", "transaction_id")

    def __init__(
        self,
        topic: str,
        body: bytes | bytearray | memoryview,
        tags: str | None = None,
        keys: str | Iterable[str] | None = None,
        *,
        flag: int = 0,
        delay_level: int = 0,
        delay: timedelta | None = None,
        deliver_at: datetime | None = None,
        wait_store_msg_ok: bool = True,
        properties: Mapping[str, str] | None = None,
    ) -> None:
        """Make a message; ``properties`` are user properties and checked like those put in later."""
        self.topic = topic
        self.body = body
        self.flag = flag
        self.transaction_id: str | None = None
        self._held: dict[str, str] | None = None
        """All properties, once somebody looked at them; the slots below then count no more."""
        self._unique_key: str | None = None
        self._tags = tags or None
        self._keys = keys if type(keys) is str else "" if keys is None else join_keys(keys)
        # What is printable has no separator in it: one look at each text in place of two.
        if (tags and not tags.isprintable()) or not self._keys.isprintable():
            check_separators(tags or "", self._keys)
        if delay_level:
            self.delay_level = delay_level
        if delay is not None:
            self.delay = delay
        if deliver_at is not None:
            self.deliver_at = deliver_at
        if not wait_store_msg_ok:
            self.wait_store_msg_ok = False
        if properties:
            for name, value in properties.items():
                self.put_user_property(name, value)

    def __repr__(self) -> str:
        """Show topic, flag, properties and the body's length."""
        body_bytes = len(self.body)
        return f"Message({self.topic!r}, flag={self.flag}, properties={self.properties}, body={body_bytes} B)"

    def __eq__(self, other: object) -> bool:
        """Equal when everything that would be sent is equal."""
        if not isinstance(other, Message):
            return NotImplemented
        return (self.topic, self.body, self.flag, self.properties) == (
            other.topic,
            other.body,
            other.flag,
            other.properties,
        )

    __hash__ = None  # type: ignore[assignment]  # mutable

    @property
    def properties(self) -> dict[str, str]:
        """All properties; the same dictionary each time."""
        held = self._held
        if held is None:
            held = {}
            if self._tags:
                held[names.TAGS] = self._tags
            if self._keys:
                held[names.KEYS] = self._keys
            self._held = held
            # Looked at last: an async send's thread may give the key in just this moment.
            if self._unique_key:
                held[names.UNIQ_KEY] = self._unique_key
        return held

    @properties.setter
    def properties(self, value: dict[str, str]) -> None:
        self._held = value

    @property
    def is_plain(self) -> bool:
        """Whether it has no property but tag, keys and unique key, for all that is known without looking."""
        return self._held is None

    @property
    def tags(self) -> str | None:
        """The message's one tag (property TAGS)."""
        return self._tags if self._held is None else self._held.get(names.TAGS)

    @tags.setter
    def tags(self, value: str | None) -> None:
        if self._held is not None:
            self._set(names.TAGS, value)
        else:
            check_separators(value or "")
            self._tags = value or None

    @property
    def keys(self) -> str | None:
        """Business keys separated by blanks, each found by queryMsgByKey (property KEYS)."""
        return self._keys or None if self._held is None else self._held.get(names.KEYS)

    @keys.setter
    def keys(self, value: str | Iterable[str] | None) -> None:
        joined = join_keys(value)
        if self._held is not None:
            self._set(names.KEYS, joined)
        else:
            check_separators(joined)
            self._keys = joined

    @property
    def key_list(self) -> list[str]:
        """The single keys."""
        return split_keys(self.keys)

    @property
    def delay_level(self) -> int:
        """Delay level 1..18, 0 for none (property DELAY)."""
        return int(self.get_property(names.DELAY) or 0)

    @delay_level.setter
    def delay_level(self, value: int) -> None:
        self._set(names.DELAY, str(value) if value else None)

    @property
    def delay(self) -> timedelta | None:
        """How long after its arrival it is delivered (property TIMER_DELAY_MS); takes the place of
        ``deliver_at``. A ``delay_level`` wins."""
        text = self.get_property(names.TIMER_DELAY_MS)
        return timedelta(milliseconds=int(text)) if text else None

    @delay.setter
    def delay(self, value: timedelta | None) -> None:
        self._set(names.TIMER_DELIVER_MS, None)
        self._set(names.TIMER_DELAY_MS, None if value is None else str(-(-value // _MS)))

    @property
    def deliver_at(self) -> datetime | None:
        """When it is delivered (property TIMER_DELIVER_MS), in UTC; in the past: at once. Set without a time
        zone it is local time. Takes the place of ``delay``; a ``delay_level`` wins."""
        text = self.get_property(names.TIMER_DELIVER_MS)
        return _EPOCH + timedelta(milliseconds=int(text)) if text else None

    @deliver_at.setter
    def deliver_at(self, value: datetime | None) -> None:
        self._set(names.TIMER_DELAY_MS, None)
        text = None if value is None else str(-(-(value.astimezone(UTC) - _EPOCH) // _MS))
        self._set(names.TIMER_DELIVER_MS, text)

    @property
    def wait_store_msg_ok(self) -> bool:
        """Whether the broker answers only after the configured flush and replication (property WAIT)."""
        return self._held is None or self._held.get(names.WAIT) != "false"

    @wait_store_msg_ok.setter
    def wait_store_msg_ok(self, value: bool) -> None:
        self._set(names.WAIT, None if value else "false")

    @property
    def unique_key(self) -> str | None:
        """The id the producer gave it (property UNIQ_KEY), once it was sent."""
        return self._unique_key if self._held is None else self._held.get(names.UNIQ_KEY)

    def give_unique_key(self, key: str) -> None:
        """Set the unique key; called by producers."""
        self._unique_key = key
        if self._held is not None:
            self._held[names.UNIQ_KEY] = key

    @property
    def user_properties(self) -> dict[str, str]:
        """The properties whose names are not reserved."""
        if self._held is None:
            return {}
        return {name: value for name, value in self.properties.items() if name not in names.RESERVED_NAMES}

    def put_user_property(self, name: str, value: str) -> None:
        """Set a user property; ``MessageIllegal`` for a reserved or blank name, a blank value, a separator
        inside."""
        check_user_property(name, value)
        self.properties[name] = value

    def get_property(self, name: str, default: str | None = None) -> str | None:
        """Return any property's value."""
        if self._held is None and name not in _PLAIN_NAMES:
            return default
        return self.properties.get(name, default)

    def encoded_properties(self) -> bytes:
        """Return all properties as they are stored: ``encode_properties`` of them, without making them."""
        held = self._held
        if held is not None:
            return encode_properties(held)
        tags, keys, unique = self._tags, self._keys, self._unique_key
        text = f"{names.TAGS}\x01{tags}\x02" if tags else ""
        if keys:
            text = f"{text}{names.KEYS}\x01{keys}\x02"
        return encode_text(f"{text}{names.UNIQ_KEY}\x01{unique}\x02" if unique else text)

    def text_length(self) -> int:
        """The characters of all names and values of properties."""
        if self._held is not None:
            return sum(len(name) + len(value) for name, value in self._held.items())
        values = ((names.TAGS, self._tags), (names.KEYS, self._keys), (names.UNIQ_KEY, self._unique_key))
        return sum(len(name) + len(value) for name, value in values if value)

    def _set(self, name: str, value: str | None) -> None:
        if value:
            check_separators(value)
            self.properties[name] = value
        elif self._held is not None:
            self._held.pop(name, None)


_PLAIN_NAMES = frozenset({names.TAGS, names.KEYS, names.UNIQ_KEY})


def all_plain(messages: Sequence[Message]) -> bool:
    """Tell whether all messages are plain; some nanoseconds each."""
    return [message._held for message in messages].count(None) == len(messages)


def plain_columns(messages: Sequence[Message]) -> tuple[list[str | None], list[str], list[str | None]]:
    """Return tags, keys (empty: none) and unique keys of plain messages."""
    return (
        [message._tags for message in messages],
        [message._keys for message in messages],
        [message._unique_key for message in messages],
    )


def give_unique_keys(messages: Sequence[Message], keys: Sequence[str]) -> None:
    """Set the unique keys of plain messages."""
    for message, key in zip(messages, keys, strict=True):
        message._unique_key = key
