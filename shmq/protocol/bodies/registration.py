"""Body of REGISTER_BROKER 103: the topics a broker has, plain or compressed.

Compressed (zlib): i32-prefixed DataVersion JSON, i32 count of topics, each an i32-prefixed text ``name read
write perm filterType [attributes JSON]``, then an i32-prefixed filter server list; what follows (5.x queue
mappings) is not read. Apache RocketMQ 5.3, RegisterBrokerBody.java. Read by name servers, written by
brokers.
"""

import struct
import zlib
from dataclasses import dataclass, field

from shmq.base.errors import RemoteFault
from shmq.model.data_version import DataVersion
from shmq.model.topic_config import TopicConfig
from shmq.protocol.bodies.dialect import Body, dumps, loads, reads
from shmq.protocol.bodies.topics import TopicTable, topic_table_json, topic_table_of

DECOMPRESSED_BYTES_MAX = 64 * 1024 * 1024
"""A registration that unpacks to more is refused."""

_LENGTH = struct.Struct(">i")


@dataclass(slots=True)
class RegisterBrokerBody:
    """A broker's topics (all, or only the changed ones) and filter servers."""

    topic_table: TopicTable = field(default_factory=TopicTable)
    filter_servers: list[str] = field(default_factory=list)


def encode_register_broker(body: RegisterBrokerBody) -> bytes:
    """Return the plain body."""
    members = {
        "filterServerList": body.filter_servers,
        "topicConfigSerializeWrapper": topic_table_json(body.topic_table),
    }
    return dumps(members)


@reads("REGISTER_BROKER body")
def decode_register_broker(body: Body | None) -> RegisterBrokerBody:
    """Read the plain body; an empty one means no topics."""
    if not body:
        return RegisterBrokerBody()
    members = loads(body)
    return RegisterBrokerBody(
        topic_table=topic_table_of(members.get("topicConfigSerializeWrapper") or {}),
        filter_servers=list(map(str, members.get("filterServerList") or ())),
    )


@reads("compressed REGISTER_BROKER body")
def decode_compressed_register_broker(body: Body | None) -> RegisterBrokerBody:
    """Read the compressed body."""
    pieces = _Pieces(_unpacked(body or b""))
    data_version = DataVersion.from_json(loads(pieces.next_bytes()))
    topics = (_topic_of(str(pieces.next_bytes(), "utf-8")) for _ in range(pieces.next_number()))
    table = TopicTable({config.topic_name: config for config in topics}, data_version)
    servers = pieces.next_bytes() if pieces.left else b"[]"
    return RegisterBrokerBody(table, list(map(str, loads(servers))))


def _unpacked(body: Body) -> bytes:
    decoder = zlib.decompressobj()
    try:
        plain = decoder.decompress(body, DECOMPRESSED_BYTES_MAX)
    except zlib.error as fault:
        raise RemoteFault(f"compressed REGISTER_BROKER body is damaged: {fault}") from fault
    if not decoder.eof:
        raise RemoteFault(
            f"REGISTER_BROKER body is cut short or unpacks to over {DECOMPRESSED_BYTES_MAX} bytes"
        )
    return plain


def _topic_of(text: str) -> TopicConfig:
    name, read, write, perm, filter_type, *attributes = text.split(" ", 5)
    members = {
        "topicName": name,
        "readQueueNums": read,
        "writeQueueNums": write,
        "perm": perm,
        "topicFilterType": filter_type,
        "attributes": loads(attributes[0].encode()) if attributes and attributes[0] else {},
    }
    return TopicConfig.from_json(members)


class _Pieces:
    """Reads length-prefixed pieces of a buffer one after another."""

    def __init__(self, buffer: bytes) -> None:
        self._view = memoryview(buffer)
        self._position = 0

    @property
    def left(self) -> int:
        return len(self._view) - self._position

    def next_number(self) -> int:
        if self.left < _LENGTH.size:
            raise RemoteFault("REGISTER_BROKER body ends inside a number")
        (number,) = _LENGTH.unpack_from(self._view, self._position)
        self._position += _LENGTH.size
        return int(number)

    def next_bytes(self) -> memoryview:
        length = self.next_number()
        if not 0 <= length <= self.left:
            raise RemoteFault(f"REGISTER_BROKER body: a piece of {length} bytes does not fit")
        piece = self._view[self._position : self._position + length]
        self._position += length
        return piece
