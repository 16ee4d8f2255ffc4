"""SendTemplate: the frame of SEND_MESSAGE_V2 (310) for one topic, ready but for what each message differs in.

Only for CBOR connections. Writing a typed header costs a sync send a fifth of its time, though nine in ten of
its bytes are always the same. So the codec is asked once, with numbers and a text nobody would send, and the
header is cut where these stand; afterwards a frame is one join:

    lengths | piece 0 | opaque u32 | piece 1 | queueId u32 | piece 2 | sysFlag u32 | piece 3 | born u64
    | piece 4 | flag u32 | piece 5 | properties, length u16 | piece 6 | body

Numbers are written in their full width, which CBOR allows for any value. Pure.
"""

from __future__ import annotations

import struct

from shmq.client.outgoing import Outgoing
from shmq.protocol.codes import RequestCode
from shmq.protocol.command import Command, Serialization, encode_command
from shmq.protocol.frame import FRAME_BYTES_MAX, LENGTHS, LENGTHS_BYTES, SERIALIZATION_SHIFT
from shmq.protocol.headers.send import SendMessageV2Header

Buffer = bytes | bytearray | memoryview

_U32 = struct.Struct(">BI")
_U64 = struct.Struct(">BQ")
_TEXT = struct.Struct(">BH")
_U32_HEAD, _U64_HEAD, _TEXT_HEAD = 0x1A, 0x1B, 0x79
_CBOR = Serialization.CBOR << SERIALIZATION_SHIFT

_OPAQUE, _QUEUE_ID, _SYS_FLAG, _FLAG = 0x7A5C3E11, 0x4A5C3E10, 0x6A5C3E12, 0x3A5C3E15
_BORN = 0x5A5C3E134A5C3E14
_PROPERTIES = "\x03shmq\x03" * 50
"""Stand-ins: wide enough for full-width heads, and found nowhere else in a header."""


class SendTemplate:
    """One producer group's send requests to one topic."""

    __slots__ = ("_pieces", "_size")

    def __init__(self, header: SendMessageV2Header) -> None:
        """Cut the header of a request that has group, topic and default topic of `header`."""
        header.queue_id, header.sys_flag, header.flag = _QUEUE_ID, _SYS_FLAG, _FLAG
        header.born_timestamp = _BORN
        header.properties = _PROPERTIES
        command = Command.request(RequestCode.SEND_MESSAGE_V2, header)
        command.opaque = _OPAQUE
        text = _PROPERTIES.encode()
        rest = bytes(encode_command(command)[0][LENGTHS_BYTES:])
        pieces = []
        for mark in (
            _U32.pack(_U32_HEAD, _OPAQUE),
            _U32.pack(_U32_HEAD, _QUEUE_ID),
            _U32.pack(_U32_HEAD, _SYS_FLAG),
            _U64.pack(_U64_HEAD, _BORN),
            _U32.pack(_U32_HEAD, _FLAG),
            _TEXT.pack(_TEXT_HEAD, len(text)) + text,
        ):
            piece, found, rest = rest.partition(mark)
            assert found, "the CBOR codec writes numbers and texts in another form than this template"
            pieces.append(piece)
        self._pieces = (*pieces, rest)
        widths = 4 * _U32.size + _U64.size + _TEXT.size
        self._size = widths + sum(map(len, self._pieces))

    def frame(self, outgoing: Outgoing, queue_id: int, opaque: int) -> list[Buffer] | None:
        """Return the frame of one message; None when a number of it needs the ordinary codec."""
        flag, properties, body = outgoing.message.flag, outgoing.properties, outgoing.body
        header_size = self._size + len(properties)
        size = 4 + header_size + len(body)
        if not 0 <= flag <= 0x7FFFFFFF or not 0 <= queue_id <= 0x7FFFFFFF or size > FRAME_BYTES_MAX - 4:
            return None
        p0, p1, p2, p3, p4, p5, p6 = self._pieces
        head = b"".join(
            (
                LENGTHS.pack(size, _CBOR | header_size),
                p0,
                _U32.pack(_U32_HEAD, opaque),
                p1,
                _U32.pack(_U32_HEAD, queue_id),
                p2,
                _U32.pack(_U32_HEAD, outgoing.sys_flag),
                p3,
                _U64.pack(_U64_HEAD, outgoing.born_timestamp),
                p4,
                _U32.pack(_U32_HEAD, flag),
                p5,
                _TEXT.pack(_TEXT_HEAD, len(properties)),
                properties,
                p6,
            )
        )
        return [head, body]
