"""Serialization 1: the ROCKETMQ binary header (Apache RocketMQ 5.3, RocketMQSerializable.java).

    i16 code   i8 language   i16 version   i32 opaque   i32 flag           big-endian
    i32 remark length, remark                                              0: no remark
    i32 ext length, then until it is used up:
        i16 name length, name   i32 value length, value                    UTF-8; 0: no ext

The code travels in 16 bits: codes over 32,767 do not survive and are refused when written.
"""

import struct

from shmq.base.errors import FrameFault
from shmq.protocol.json_header import HeaderParts

_FIXED = struct.Struct(">hbhiii")
_LENGTH = struct.Struct(">i")
_NAME_LENGTH = struct.Struct(">h")
assert _FIXED.size == 17


def encode_binary_header(
    code: int,
    flag: int,
    opaque: int,
    language: int,
    version: int,
    remark: str | None,
    ext: dict[str, str] | None,
) -> bytes:
    """Return the header bytes; ``FrameFault`` when a number or name does not fit its field."""
    remark_bytes = remark.encode() if remark else b""
    pairs: list[bytes] = []
    try:
        for name, value in (ext or {}).items():
            name_bytes, value_bytes = name.encode(), value.encode()
            pairs += (
                _NAME_LENGTH.pack(len(name_bytes)),
                name_bytes,
                _LENGTH.pack(len(value_bytes)),
                value_bytes,
            )
        ext_bytes = b"".join(pairs)
        fixed = _FIXED.pack(code, language, version, opaque, flag, len(remark_bytes))
    except struct.error as fault:
        raise FrameFault(f"command {code} does not fit a ROCKETMQ binary header: {fault}") from fault
    return b"".join((fixed, remark_bytes, _LENGTH.pack(len(ext_bytes)), ext_bytes))


def decode_binary_header(header: memoryview) -> HeaderParts:
    """Read header bytes; ``FrameFault`` for a negative or too long length, bytes left over, or bad UTF-8."""
    try:
        code, language, version, opaque, flag, remark_length = _FIXED.unpack_from(header)
        position = _FIXED.size
        remark, position = _text(header, position, remark_length)
        (ext_length,) = _LENGTH.unpack_from(header, position)
        position += _LENGTH.size
        if ext_length != len(header) - position:
            raise FrameFault(
                f"binary header: ext block of {ext_length} bytes, but {len(header) - position} follow"
            )
        ext = {}
        while position < len(header):
            (name_length,) = _NAME_LENGTH.unpack_from(header, position)
            name, position = _text(header, position + 2, name_length)
            (value_length,) = _LENGTH.unpack_from(header, position)
            ext[name], position = _text(header, position + 4, value_length)
    except (struct.error, UnicodeDecodeError) as fault:
        raise FrameFault(f"binary header cannot be read: {fault}") from fault
    return code, flag, opaque, language, version, remark or None, ext or None


def _text(header: memoryview, position: int, length: int) -> tuple[str, int]:
    end = position + length
    if length < 0 or end > len(header):
        raise FrameFault(f"binary header: a text of {length} bytes does not fit")
    return str(header[position:end], "utf-8"), end
