"""The CommitLog record: one stored message, byte for byte as RocketMQ keeps it.

    offset  size  field                          all big-endian, signed; offsets for IPv4 hosts
    0       4     total size, this field included
    4       4     magic: V1 DAA320A7, V2 DAA320AB, blank CBD43194
    8       4     body CRC-32 & 0x7FFFFFFF
    12      4     queue id
    16      4     flag (the user's)
    20      8     queue offset                   stamped under the append lock
    28      8     physical offset                stamped under the append lock
    36      4     sysFlag, see ``sys_flag``
    40      8     born timestamp, ms
    48      8     born host (20 when IPv6), see ``host``
    56      8     store timestamp, ms            stamped under the append lock
    64      8     store host (20 when IPv6)
    72      4     reconsume times
    76      8     prepared transaction offset
    84      4+B   body length, body
    88+B    1+T   topic length (V2: 2 bytes), topic
    89+B+T  2+P   properties length, properties, see ``properties``

Fields up to the born timestamp are at the same place in every variant. ``encode_record`` leaves the three
stamped fields zero; ``stamp_record`` fills them. Pure functions on buffers: clients encode, workers stamp,
everybody reads.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

from shmq.base.checksum import body_crc
from shmq.base.errors import MessageIllegal
from shmq.model.host import HOST_V4_BYTES, HOST_V6_BYTES, UNIX_HOST
from shmq.model.properties import PROPERTIES_BYTES_MAX
from shmq.model.sys_flag import BORN_HOST_V6, STORE_HOST_V6

Buffer = bytes | bytearray | memoryview

MAGIC_V1 = -626843481
MAGIC_V2 = -626843477
BLANK_MAGIC = -875286124
BLANK_BYTES_MIN = 8
"""Bytes of a blank's header, and the least that stays free behind the last record of a full segment."""

TOTAL_SIZE_AT = 0
MAGIC_AT = 4
BODY_CRC_AT = 8
QUEUE_ID_AT = 12
FLAG_AT = 16
QUEUE_OFFSET_AT = 20
PHYSICAL_OFFSET_AT = 28
SYS_FLAG_AT = 36
BORN_TIMESTAMP_AT = 40
BORN_HOST_AT = 48
STORE_TIMESTAMP_AT = 56
STORE_HOST_AT = 64
RECONSUME_TIMES_AT = 72
PREPARED_TRANSACTION_OFFSET_AT = 76
BODY_LENGTH_AT = 84
BODY_AT = 88
"""Positions from STORE_TIMESTAMP_AT on hold for an IPv4 born host, from RECONSUME_TIMES_AT on for two IPv4
hosts."""

RECORD_OVERHEAD_V1 = 91
"""Bytes of a V1 record with IPv4 hosts beside body, topic and properties."""

TOPIC_LENGTH_V1_MAX = 127

_I32 = struct.Struct(">i")
_I64 = struct.Struct(">q")
_U16 = struct.Struct(">H")
_SIZE_AND_MAGIC = struct.Struct(">ii")
_OFFSETS = struct.Struct(">qq")
_PREFIXES = {
    (born, store): struct.Struct(f">iiiiiqqiq{born}sq{store}siqi")
    for born in (HOST_V4_BYTES, HOST_V6_BYTES)
    for store in (HOST_V4_BYTES, HOST_V6_BYTES)
}
_PREFIX_V4 = _PREFIXES[HOST_V4_BYTES, HOST_V4_BYTES]
_HOST_FLAGS = BORN_HOST_V6 | STORE_HOST_V6
_PREFIXES_BY_FLAGS = {
    0: _PREFIX_V4,
    BORN_HOST_V6: _PREFIXES[HOST_V6_BYTES, HOST_V4_BYTES],
    STORE_HOST_V6: _PREFIXES[HOST_V4_BYTES, HOST_V6_BYTES],
    _HOST_FLAGS: _PREFIXES[HOST_V6_BYTES, HOST_V6_BYTES],
}
_TOPIC_LENGTH_V1 = [bytes((length,)) for length in range(TOPIC_LENGTH_V1_MAX + 1)]
assert _PREFIX_V4.size == BODY_AT


def encode_record(
    *,
    topic: bytes,
    body: Buffer,
    properties: bytes,
    queue_id: int,
    born_timestamp: int,
    flag: int = 0,
    sys_flag: int = 0,
    born_host: bytes = UNIX_HOST,
    store_host: bytes = UNIX_HOST,
    reconsume_times: int = 0,
    prepared_transaction_offset: int = 0,
) -> bytearray:
    """Return one unstamped record: queue offset, physical offset and store timestamp are zero.

    Hosts are 8 or 20 bytes; their sysFlag bits are set here. Topics over 127 bytes take the V2 form. Limits
    of body and properties are the caller's business; a number out of its range is ``MessageIllegal``.
    """
    topic_length = len(topic)
    if topic_length <= TOPIC_LENGTH_V1_MAX:
        magic, topic_head = MAGIC_V1, _TOPIC_LENGTH_V1[topic_length]
    else:
        magic, topic_head = MAGIC_V2, _U16.pack(topic_length)
    prefix = _PREFIX_V4
    if len(born_host) != HOST_V4_BYTES or len(store_host) != HOST_V4_BYTES:
        prefix = _PREFIXES[len(born_host), len(store_host)]
        sys_flag |= BORN_HOST_V6 if len(born_host) == HOST_V6_BYTES else 0
        sys_flag |= STORE_HOST_V6 if len(store_host) == HOST_V6_BYTES else 0
    body_length = len(body)
    size = prefix.size + body_length + len(topic_head) + topic_length + 2 + len(properties)
    try:
        head = prefix.pack(
            *(size, magic, body_crc(body), queue_id, flag, 0, 0, sys_flag, born_timestamp, born_host),
            *(0, store_host, reconsume_times, prepared_transaction_offset, body_length),
        )
        return bytearray().join((head, body, topic_head, topic, _U16.pack(len(properties)), properties))
    except struct.error as fault:
        raise MessageIllegal(f"a number of the message does not fit its field: {fault}") from fault


def stamp_record(
    record: bytearray | memoryview,
    position: int,
    queue_offset: int,
    physical_offset: int,
    store_timestamp: int,
) -> None:
    """Fill the three fields only the holder of the append lock knows, of the record at ``position``."""
    _OFFSETS.pack_into(record, position + QUEUE_OFFSET_AT, queue_offset, physical_offset)
    born_v6 = record[position + SYS_FLAG_AT + 3] & BORN_HOST_V6
    _I64.pack_into(record, position + STORE_TIMESTAMP_AT + (12 if born_v6 else 0), store_timestamp)


def encode_blank(size: int) -> bytes:
    """Return the 8-byte head of the filler that covers the last ``size`` bytes of a segment."""
    return _SIZE_AND_MAGIC.pack(size, BLANK_MAGIC)


def record_size(buffer: Buffer, position: int = 0) -> int:
    """Return the total size that the record at ``position`` claims, unchecked."""
    return int(_I32.unpack_from(buffer, position)[0])


class RecordFields(NamedTuple):
    """Where the parts of one record are and what its fixed fields hold; positions are absolute in the
    buffer."""

    size: int
    magic: int
    body_crc: int
    queue_id: int
    flag: int
    queue_offset: int
    physical_offset: int
    sys_flag: int
    born_timestamp: int
    born_host: bytes
    store_timestamp: int
    store_host: bytes
    reconsume_times: int
    prepared_transaction_offset: int
    body_length: int
    body_at: int
    topic_at: int
    topic_length: int
    properties_at: int
    properties_length: int

    @property
    def end(self) -> int:
        """First byte behind the properties."""
        return self.properties_at + self.properties_length


_make_fields = RecordFields._make


def parse_record(buffer: Buffer, position: int = 0, end: int | None = None) -> RecordFields:
    """Take a record apart without copying its variable parts; ``MessageIllegal`` when it does not hold
    together.

    Checked: magic, every length inside ``end`` and inside the record, total size equal to the sum of the
    parts. Not checked: the body CRC (``check_record`` does).
    """
    limit = len(buffer) if end is None else end
    if limit - position < RECORD_OVERHEAD_V1:
        raise MessageIllegal(f"{limit - position} bytes left: too few for a record")
    flags = buffer[position + SYS_FLAG_AT + 3] & _HOST_FLAGS
    prefix = _PREFIXES_BY_FLAGS[flags] if flags else _PREFIX_V4
    if flags and prefix.size + 3 > limit - position:
        raise MessageIllegal(f"{limit - position} bytes left: too few for a record with IPv6 hosts")
    head = prefix.unpack_from(buffer, position)
    size, magic = head[0], head[1]
    if magic == MAGIC_V1:
        topic_length_bytes = 1
    elif magic == MAGIC_V2:
        topic_length_bytes = 2
    else:
        raise MessageIllegal(f"magic {magic & 0xFFFFFFFF:08X} is no record's")
    if size > limit - position:
        raise MessageIllegal(f"record size {size} does not fit the {limit - position} bytes left")
    record_end = position + size
    body_length = head[14]
    body_at = position + prefix.size
    topic_at = body_at + body_length + topic_length_bytes
    if body_length < 0 or topic_at + 2 > record_end:
        raise MessageIllegal(f"body length {body_length} does not fit a record of {size} bytes")
    topic_length = buffer[topic_at - 1]
    if topic_length_bytes == 2:
        topic_length |= buffer[topic_at - 2] << 8
    elif topic_length > TOPIC_LENGTH_V1_MAX:
        raise MessageIllegal(f"topic length {topic_length} is over {TOPIC_LENGTH_V1_MAX}")
    properties_at = topic_at + topic_length + 2
    if properties_at > record_end:
        raise MessageIllegal(f"topic length {topic_length} does not fit a record of {size} bytes")
    properties_length = buffer[properties_at - 2] << 8 | buffer[properties_at - 1]
    if properties_length > PROPERTIES_BYTES_MAX or properties_at + properties_length != record_end:
        raise MessageIllegal(f"properties length {properties_length} does not end a record of {size} bytes")
    return _make_fields((*head, body_at, topic_at, topic_length, properties_at, properties_length))


def properties_of(record: memoryview) -> memoryview:
    """Return the encoded properties of one whole record: a short way for filters, which look at many.

    ``MessageIllegal`` when the record does not hold together.
    """
    if _SIZE_AND_MAGIC.unpack_from(record)[1] != MAGIC_V1 or record[SYS_FLAG_AT + 3] & _HOST_FLAGS:
        fields = parse_record(record)
        return record[fields.properties_at : fields.end]
    length_at = BODY_AT + _I32.unpack_from(record, BODY_LENGTH_AT)[0]
    if not BODY_AT <= length_at < len(record):
        raise MessageIllegal("the body is longer than its record")
    begin = length_at + 3 + record[length_at]
    if begin > len(record) or begin + (record[begin - 2] << 8 | record[begin - 1]) != len(record):
        raise MessageIllegal("the lengths inside a record do not add up to its size")
    return record[begin:]


def check_record(buffer: Buffer, position: int, end: int, *, check_crc: bool = True) -> int:
    """Return the size of the whole, sound record at ``position``, 0 for a blank, -1 for anything else.

    Bytes at and beyond ``end`` are never looked at. An empty body needs no CRC, as in RocketMQ.
    """
    if end - position < BLANK_BYTES_MIN:
        return -1
    if _SIZE_AND_MAGIC.unpack_from(buffer, position)[1] == BLANK_MAGIC:
        return 0
    try:
        fields = parse_record(buffer, position, end)
    except MessageIllegal:
        return -1
    if check_crc and fields.body_length:
        body = memoryview(buffer)[fields.body_at : fields.body_at + fields.body_length]
        if body_crc(body) != fields.body_crc:
            return -1
    return fields.size


def iter_records(buffer: Buffer) -> Iterator[memoryview]:
    """Yield a view of each record of concatenated records; ``MessageIllegal`` at the first that does not
    fit."""
    view = memoryview(buffer)
    position, end = 0, len(view)
    while position < end:
        size = record_size(view, position) if end - position >= 4 else 0
        if size < RECORD_OVERHEAD_V1 or size > end - position:
            raise MessageIllegal(f"record size {size} does not fit the {end - position} bytes left")
        yield view[position : position + size]
        position += size
