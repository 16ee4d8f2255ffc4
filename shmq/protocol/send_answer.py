"""The one answer that is made most often, packed in one step: a send was stored.

To a CBOR client:

    frame lengths (8) | 87 01 00 01   array of 7: version 1, SUCCESS, response flag
                      | 1a opaque     u32
                      | f6            no remark
                      | 8b 01 60      array of 11: header version 1, empty msgId
                      | 1a queue id   u32
                      | 1b queue offset        u64
                      | f6 f6 f6 f6 f6         transactionId, batchUniqId, recallHandle, MSG_REGION, TRACE_ON
                      | 1b physical offset     u64
                      | f6, f4 or f5  flushed: not told, false, true
                      | f6            no ext

The same command as ``Command.response(SUCCESS, header=SendMessageResponseHeader(...))`` encodes to, with
numbers in fixed widths (any CBOR reader takes them); it costs a tenth. To a JSON client of any language the
very bytes of that command, at a third of the cost. Packed by workers; clients unpack the first.
"""

from __future__ import annotations

import struct

from shmq.protocol.codes import VERSION, LanguageCode, ResponseCode
from shmq.protocol.command import RESPONSE_FLAG, Serialization
from shmq.protocol.frame import LENGTHS, LENGTHS_BYTES, SERIALIZATION_SHIFT

_ANSWER = struct.Struct(">8s5sI5sI1sQ6sQ2s")
_HEADER_BYTES = _ANSWER.size - LENGTHS_BYTES
_LENGTHS = LENGTHS.pack(4 + _HEADER_BYTES, Serialization.CBOR << SERIALIZATION_SHIFT | _HEADER_BYTES)
_START = b"\x87\x01\x00\x01\x1a"
_FIELDS = b"\xf6\x8b\x01\x60\x1a"
_U64 = b"\x1b"
_ABSENT = b"\xf6\xf6\xf6\xf6\xf6\x1b"
_FIXED = (_LENGTHS, _START, _FIELDS, _U64, _ABSENT)
_ENDS = {None: b"\xf6\xf6", False: b"\xf4\xf6", True: b"\xf5\xf6"}
_FLUSHED = {end: flushed for flushed, end in _ENDS.items()}


def pack_send_answer(
    opaque: int, queue_id: int, queue_offset: int, physical_offset: int, flushed: bool | None = None
) -> bytes:
    """Return the whole frame; ``struct.error`` for a negative number (opaque may be one: ask before)."""
    return _ANSWER.pack(
        *(_LENGTHS, _START, opaque, _FIELDS, queue_id, _U64, queue_offset, _ABSENT, physical_offset),
        _ENDS[flushed],
    )


def unpack_send_answer(
    frame: bytes | bytearray | memoryview,
) -> tuple[int, int, int, int, bool | None] | None:
    """Return what `pack_send_answer` was given; None for any frame that is not one of its own making.

    What it returns is what the codec would read; a number that the codec refuses is None, too.
    """
    if len(frame) != _ANSWER.size:
        return None
    lengths, start, opaque, fields, queue_id, u64, queue_offset, absent, physical_offset, end = (
        _ANSWER.unpack(frame)
    )
    if (lengths, start, fields, u64, absent) != _FIXED or end not in _FLUSHED:
        return None
    if (opaque | queue_id) >> 31 or (queue_offset | physical_offset) >> 63:
        return None
    return opaque, queue_id, queue_offset, physical_offset, _FLUSHED[end]


_JSON_START = f'{{"code":{ResponseCode.SUCCESS:d},"extFields":{{"msgId":"'
_JSON_MIDDLE = f'"}},"flag":{RESPONSE_FLAG},"language":"{LanguageCode.PYTHON.name}","opaque":'
_JSON_END = f',"serializeTypeCurrentRPC":"JSON","version":{VERSION}}}'


def pack_json_send_answer(
    opaque: int, msg_id: str, queue_id: int, queue_offset: int, transaction_id: str, msg_region: str
) -> bytes:
    """Return the whole frame. The texts have only characters that JSON writes as they are; TRACE_ON is
    true."""
    header = (
        f'{_JSON_START}{msg_id}","queueId":"{queue_id}","queueOffset":"{queue_offset}",'
        f'"transactionId":"{transaction_id}","MSG_REGION":"{msg_region}","TRACE_ON":"true'
        f"{_JSON_MIDDLE}{opaque}{_JSON_END}"
    ).encode()
    return LENGTHS.pack(4 + len(header), len(header)) + header
