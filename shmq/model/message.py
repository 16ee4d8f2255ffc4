"""Message: what a producer sends. Its attributes are RocketMQ's, kept in the properties they travel in."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta

from shmq.model import properties as names
from shmq.model.message_ext import MessageExt as MessageExt
from shmq.model.properties import check_separators, check_user_property, join_keys, split_keys

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)


class Message:
    """One message to be sent: topic, body and properties.

    ``tags``, ``keys``, ``delay_level`` and ``wait_store_msg_ok`` are views of the properties TAGS, KEYS,
    DELAY and WAIT, ``delay`` and ``deliver_at`` of TIMER_DELAY_MS and TIMER_DELIVER_MS. Setting a reserved
    name through ``put_user_property`` raises ``MessageIllegal`` and changes nothing.
    Not safe for use by two threads at once; a message may be sent again after its send has ended.
    """

    __slots__ = ("body", "flag", "properties", "topic", "transaction_id")

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
        self.properties: dict[str, str] = {}
        self.transaction_id: str | None = None
        if tags:
            self.tags = tags
        if keys:
            self.keys = join_keys(keys)
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
    def tags(self) -> str | None:
        """The message's one tag (property TAGS)."""
        return self.properties.get(names.TAGS)

    @tags.setter
    def tags(self, value: str | None) -> None:
        self._set(names.TAGS, value)

    @property
    def keys(self) -> str | None:
        """Business keys separated by blanks, each found by queryMsgByKey (property KEYS)."""
        return self.properties.get(names.KEYS)

    @keys.setter
    def keys(self, value: str | Iterable[str] | None) -> None:
        self._set(names.KEYS, join_keys(value))

    @property
    def key_list(self) -> list[str]:
        """The single keys."""
        return split_keys(self.keys)

    @property
    def delay_level(self) -> int:
        """Delay level 1..18, 0 for none (property DELAY)."""
        return int(self.properties.get(names.DELAY) or 0)

    @delay_level.setter
    def delay_level(self, value: int) -> None:
        self._set(names.DELAY, str(value) if value else None)

    @property
    def delay(self) -> timedelta | None:
        """How long after its arrival it is delivered (property TIMER_DELAY_MS); takes the place of
        ``deliver_at``. A ``delay_level`` wins."""
        text = self.properties.get(names.TIMER_DELAY_MS)
        return timedelta(milliseconds=int(text)) if text else None

    @delay.setter
    def delay(self, value: timedelta | None) -> None:
        self._set(names.TIMER_DELIVER_MS, None)
        self._set(names.TIMER_DELAY_MS, None if value is None else str(-(-value // _MS)))

    @property
    def deliver_at(self) -> datetime | None:
        """When it is delivered (property TIMER_DELIVER_MS), in UTC; in the past: at once. Set without a time
        zone it is local time. Takes the place of ``delay``; a ``delay_level`` wins."""
        text = self.properties.get(names.TIMER_DELIVER_MS)
        return _EPOCH + timedelta(milliseconds=int(text)) if text else None

    @deliver_at.setter
    def deliver_at(self, value: datetime | None) -> None:
        self._set(names.TIMER_DELAY_MS, None)
        text = None if value is None else str(-(-(value.astimezone(UTC) - _EPOCH) // _MS))
        self._set(names.TIMER_DELIVER_MS, text)

    @property
    def wait_store_msg_ok(self) -> bool:
        """Whether the broker answers only after the configured flush and replication (property WAIT)."""
        return self.properties.get(names.WAIT) != "false"

    @wait_store_msg_ok.setter
    def wait_store_msg_ok(self, value: bool) -> None:
        self._set(names.WAIT, None if value else "false")

    @property
    def unique_key(self) -> str | None:
        """The id the producer gave it (property UNIQ_KEY), once it was sent."""
        return self.properties.get(names.UNIQ_KEY)

    @property
    def user_properties(self) -> dict[str, str]:
        """The properties whose names are not reserved."""
        return {name: value for name, value in self.properties.items() if name not in names.RESERVED_NAMES}

    def put_user_property(self, name: str, value: str) -> None:
        """Set a user property; ``MessageIllegal`` for a reserved or blank name, a blank value, a separator
        inside."""
        check_user_property(name, value)
        self.properties[name] = value

    def get_property(self, name: str, default: str | None = None) -> str | None:
        """Return any property's value."""
        return self.properties.get(name, default)

    def _set(self, name: str, value: str | None) -> None:
        if value:
            check_separators(value)
            self.properties[name] = value
        else:
            self.properties.pop(name, None)
