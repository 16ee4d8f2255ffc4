"""MessageExt: a received message, read lazily from its record.

The view holds one record (``record`` layout) and decodes a part when it is asked for. Records of direct
pull lie in the consumer's own maps, those of a socket pull in the response's buffer; either stays valid as
long as the view.
"""

from shmq.base.checksum import body_crc
from shmq.model import properties as names
from shmq.model.compression import decompress
from shmq.model.host import host_text
from shmq.model.message_id import offset_message_id
from shmq.model.properties import decode_properties, split_keys
from shmq.model.record import (
    Buffer,
    RecordFields,
    iter_records,
    parse_record,
)
from shmq.model.sys_flag import COMPRESSED


class MessageExt:
    """A stored message with where and when it was stored.

    ``topic``, ``broker_name`` and ``properties`` may be overwritten: a retry message gets its original
    topic back before user code sees it. Everything else is read from the record. Construction checks that
    the record holds together (``MessageIllegal`` otherwise), except for its body CRC: ``body_crc_ok`` does.
    """

    __slots__ = ("_body", "_fields", "_properties", "_record", "_topic", "broker_name")

    def __init__(self, record: Buffer, broker_name: str = "") -> None:
        """Look at one whole record; nothing is copied."""
        self._record = record
        self._fields: RecordFields = parse_record(record)
        self._properties: dict[str, str] | None = None
        self._body: bytes | None = None
        self._topic: str | None = None
        self.broker_name = broker_name

    def __repr__(self) -> str:
        """Show id, place and body length."""
        return (
            f"MessageExt({self.msg_id}, topic={self.topic!r}, queue_id={self.queue_id},"
            f" queue_offset={self.queue_offset}, body={self._fields.body_length} B)"
        )

    @property
    def record(self) -> Buffer:
        """The record itself."""
        return self._record

    @property
    def topic(self) -> str:
        """Topic as stored, or as overwritten."""
        if self._topic is None:
            fields = self._fields
            self._topic = str(
                self._record[fields.topic_at : fields.topic_at + fields.topic_length], "utf-8", "replace"
            )
        return self._topic

    @topic.setter
    def topic(self, value: str) -> None:
        self._topic = value

    @property
    def properties(self) -> dict[str, str]:
        """All properties; the same dictionary each time."""
        if self._properties is None:
            self._properties = decode_properties(self._record[self._fields.properties_at : self._fields.end])
        return self._properties

    @property
    def body(self) -> bytes:
        """The body as the producer gave it, decompressed; copied out of the record on first use
        (``stored_body`` is the view)."""
        if self._body is None:
            stored = self.stored_body
            self._body = decompress(stored, self.sys_flag) if self.sys_flag & COMPRESSED else bytes(stored)
        return self._body

    @property
    def stored_body(self) -> memoryview:
        """The body as stored."""
        fields = self._fields
        record = self._record
        view = record if type(record) is memoryview else memoryview(record)
        return view[fields.body_at : fields.body_at + fields.body_length]

    def body_crc_ok(self) -> bool:
        """Tell whether the stored body still has the CRC-32 it was stored with."""
        return not self._fields.body_length or body_crc(self.stored_body) == self._fields.body_crc

    @property
    def msg_id(self) -> str:
        """The producer's unique key, else the offset id."""
        return self.properties.get(names.UNIQ_KEY) or self.offset_msg_id

    @property
    def offset_msg_id(self) -> str:
        """The broker's id: store host and physical offset."""
        return offset_message_id(self._fields.store_host, self._fields.physical_offset)

    @property
    def tags(self) -> str | None:
        """The message's tag."""
        return self.properties.get(names.TAGS)

    @property
    def keys(self) -> str | None:
        """Business keys separated by blanks."""
        return self.properties.get(names.KEYS)

    @property
    def key_list(self) -> list[str]:
        """The single keys."""
        return split_keys(self.keys)

    @property
    def queue_id(self) -> int:
        """Queue of the topic it is in."""
        return self._fields.queue_id

    @property
    def queue_offset(self) -> int:
        """Index in its queue."""
        return self._fields.queue_offset

    @property
    def physical_offset(self) -> int:
        """Byte address in the broker's CommitLog."""
        return self._fields.physical_offset

    @property
    def store_size(self) -> int:
        """Bytes of the whole record."""
        return self._fields.size

    @property
    def flag(self) -> int:
        """The user's 32-bit flag."""
        return self._fields.flag

    @property
    def sys_flag(self) -> int:
        """Bits of ``sys_flag``."""
        return self._fields.sys_flag

    @property
    def body_crc(self) -> int:
        """CRC-32 of the stored body, 31 bits."""
        return self._fields.body_crc

    @property
    def born_timestamp(self) -> int:
        """Producer's wall clock at sending, ms."""
        return self._fields.born_timestamp

    @property
    def born_host(self) -> str:
        """Producer's ``address:port``."""
        return host_text(self._fields.born_host)

    @property
    def store_timestamp(self) -> int:
        """Broker's clock at storing, ms; never falls within one CommitLog."""
        return self._fields.store_timestamp

    @property
    def store_host(self) -> str:
        """Broker's ``address:port``."""
        return host_text(self._fields.store_host)

    @property
    def reconsume_times(self) -> int:
        """How often its consumption was retried."""
        return self._fields.reconsume_times

    @property
    def prepared_transaction_offset(self) -> int:
        """Physical offset of the half message of a committed transactional message, else 0."""
        return self._fields.prepared_transaction_offset

    @property
    def transaction_id(self) -> str | None:
        """The id of the transaction it belongs to; None for an ordinary message."""
        return self.properties.get(names.TRANSACTION_ID)

    @property
    def wait_store_msg_ok(self) -> bool:
        """Whether the producer waited for flush and replication."""
        return self.properties.get(names.WAIT) != "false"

    def get_property(self, name: str, default: str | None = None) -> str | None:
        """Return any property's value."""
        return self.properties.get(name, default)


def decode_messages(buffer: Buffer, broker_name: str = "") -> list[MessageExt]:
    """Return views of all messages of a pull response's body; ``MessageIllegal`` when one does not hold
    together."""
    return [MessageExt(record, broker_name) for record in iter_records(buffer)]
