"""Command: one request or response, and its way to and from a frame.

    fields        JSON (0)    ROCKETMQ (1)    CBOR (2)
    code..remark  members     fixed part      array members
    typed header  extFields   ext block       ``fields`` array
    ext           extFields   ext block       ``ext`` map

A received command keeps its header raw (``ext`` or ``fields``) until ``read_header`` makes it typed; a
command to be sent holds the typed header. A response takes opaque and serialization from its request.
Sans-I/O, any process.
"""

import struct
from collections.abc import Callable
from enum import IntEnum
from itertools import count
from typing import Any, TypeVar

from shmq.base.errors import BrokerError, FrameFault
from shmq.protocol.binary_header import decode_binary_header, encode_binary_header
from shmq.protocol.cbor_header import decode_cbor_header, encode_cbor_header
from shmq.protocol.cbor_items import NULL, cbor_array
from shmq.protocol.codes import VERSION, LanguageCode, response_code_of
from shmq.protocol.frame import (
    FRAME_BYTES_MAX,
    HEADER_LENGTH_MASK,
    LENGTHS,
    LENGTHS_BYTES,
    SERIALIZATION_SHIFT,
)
from shmq.protocol.header_table import codec_of
from shmq.protocol.json_header import decode_json_header, encode_json_header
from shmq.protocol.known_json_sends import KnownJsonSends
from shmq.protocol.known_sends import SEND_CODE

Buffer = bytes | bytearray | memoryview
Body = Buffer | list[Buffer] | None
H = TypeVar("H")

RESPONSE_FLAG = 1
ONEWAY_FLAG = 2


class Serialization(IntEnum):
    """How a frame's header is written."""

    JSON = 0
    ROCKETMQ = 1
    CBOR = 2


_opaques = count()
_known_json_sends = KnownJsonSends()


def next_opaque() -> int:
    """Return a request id, counting up per process and wrapping within 31 bits."""
    return next(_opaques) & 0x7FFFFFFF


class Command:
    """One request or response. ``body`` is bytes-like, a list of byte buffers written one after another, or
    None."""

    __slots__ = (
        "body",
        "code",
        "ext",
        "fields",
        "flag",
        "header",
        "language",
        "opaque",
        "remark",
        "serialization",
        "version",
    )

    def __init__(
        self,
        code: int,
        flag: int = 0,
        opaque: int = 0,
        remark: str | None = None,
        body: Body = None,
        serialization: int = Serialization.CBOR,
        ext: dict[str, str] | None = None,
        fields: list[Any] | None = None,
        header: Any = None,
        language: int = LanguageCode.PYTHON,
        version: int = VERSION,
    ) -> None:
        """Set every part; ``request`` and ``response`` are the usual ways in."""
        self.code = code
        self.flag = flag
        self.opaque = opaque
        self.language = language
        self.version = version
        self.remark = remark
        self.ext = ext
        self.fields = fields
        self.header = header
        self.body = body
        self.serialization = serialization

    @classmethod
    def request(
        cls,
        code: int,
        header: object | None = None,
        body: Body = None,
        *,
        oneway: bool = False,
        ext: dict[str, str] | None = None,
        serialization: int = Serialization.CBOR,
    ) -> "Command":
        """Make a request with a fresh opaque."""
        return cls(
            code,
            flag=ONEWAY_FLAG if oneway else 0,
            opaque=next_opaque(),
            ext=ext,
            header=header,
            body=body,
            serialization=serialization,
        )

    def response(
        self,
        code: int,
        remark: str | None = None,
        header: object | None = None,
        body: Body = None,
        *,
        ext: dict[str, str] | None = None,
    ) -> "Command":
        """Make the response to this request."""
        return Command(
            code,
            flag=RESPONSE_FLAG,
            opaque=self.opaque,
            remark=remark,
            ext=ext,
            header=header,
            body=body,
            serialization=self.serialization,
        )

    def refusal(self, error: Exception) -> "Command":
        """Make the response that says why this request was not served; another's answer is passed on as it
        is."""
        remark = error.remark if isinstance(error, BrokerError) else str(error)
        return self.response(response_code_of(error), remark)

    @property
    def is_response(self) -> bool:
        """Tell a response from a request."""
        return bool(self.flag & RESPONSE_FLAG)

    @property
    def is_oneway(self) -> bool:
        """Tell whether this request must not be answered."""
        return bool(self.flag & ONEWAY_FLAG)

    def read_header(self, header_class: type[H]) -> H:
        """Return the received header as ``header_class``; ``InvalidParameter`` names a wrong or missing
        field."""
        codec = codec_of(header_class)
        header: H
        if self.fields is not None:
            header = codec.from_fields(self.fields)
        else:
            header = codec.from_ext(self.ext or {})
        return header

    def ext_value(self, name: str) -> str | None:
        """Return a value of the raw ext map."""
        return self.ext.get(name) if self.ext else None

    def body_bytes(self) -> bytes:
        """Return the body as one bytes object, empty when there is none."""
        body = self.body
        if body is None:
            return b""
        return b"".join(body) if isinstance(body, list) else bytes(body)

    def __repr__(self) -> str:
        """Show what kind of command it is, without its body."""
        kind = "response" if self.is_response else "oneway" if self.is_oneway else "request"
        content = self.header or self.fields or self.ext
        return f"Command({kind} code={self.code} opaque={self.opaque} remark={self.remark!r} {content})"


def encode_command(command: Command) -> list[Buffer]:
    """Return the frame as buffers for one writev: lengths and header first, then the body's buffers uncopied.

    ``FrameFault`` when the frame would be over 16 MiB or the header does not fit its serialization.
    """
    header = _HEADER_ENCODERS[command.serialization](command)
    body = command.body
    if body is None:
        buffers: list[Buffer] = []
    elif isinstance(body, list):
        buffers = [*body]
    else:
        buffers = [body] if body else []
    length = 4 + len(header) + sum(map(len, buffers))
    if length + 4 > FRAME_BYTES_MAX:
        raise FrameFault(f"frame of {length + 4} bytes is over the limit of {FRAME_BYTES_MAX}")
    word = command.serialization << SERIALIZATION_SHIFT | len(header)
    return [LENGTHS.pack(length, word) + header, *buffers]


def decode_frame(frame: memoryview | bytes | bytearray) -> Command:
    """Read one whole frame, its length field included; the body stays a view into it. ``FrameFault`` if
    broken."""
    view = memoryview(frame)
    if len(view) < LENGTHS_BYTES:
        raise FrameFault(f"a frame has at least {LENGTHS_BYTES} bytes, not {len(view)}")
    length, word = LENGTHS.unpack_from(view)
    header_end = LENGTHS_BYTES + (word & HEADER_LENGTH_MASK)
    if length + 4 != len(view) or header_end > len(view):
        raise FrameFault(
            f"frame of {len(view)} bytes has the lengths {length} and {word & HEADER_LENGTH_MASK}"
        )
    serialization = word >> SERIALIZATION_SHIFT
    header = view[LENGTHS_BYTES:header_end]
    body = view[header_end:] if header_end < len(view) else None
    if serialization == Serialization.CBOR:
        code, flag, opaque, remark, fields, ext = decode_cbor_header(header)
        return Command(code, flag, opaque, remark, body, serialization, ext, fields)
    if serialization == Serialization.JSON:
        raw = bytes(header)
        send = _known_json_sends.read(raw)
        if send is not None:
            opaque, language, version, fields = send
            sent = (SEND_CODE, 0, opaque, None, body, serialization, None, fields)
            return Command(*sent, language=language, version=version)
        parts = decode_json_header(header)
        if parts[0] == SEND_CODE:
            _known_json_sends.learn(raw, parts)
    elif serialization == Serialization.ROCKETMQ:
        parts = decode_binary_header(header)
    else:
        raise FrameFault(f"serialization {serialization} is unknown; known are 0 JSON, 1 ROCKETMQ, 2 CBOR")
    code, flag, opaque, language, version, remark, ext = parts
    return Command(code, flag, opaque, remark, body, serialization, ext, language=language, version=version)


def _outgoing_ext(command: Command) -> dict[str, str] | None:
    """Return the text map of header and ext together, as JSON and binary headers carry it."""
    if command.header is None:
        return command.ext
    ext = codec_of(type(command.header)).to_ext(command.header)
    if command.ext:
        ext.update(command.ext)
    return ext


def _encode_json(command: Command) -> bytes:
    return encode_json_header(
        *(command.code, command.flag, command.opaque, command.language, command.version, command.remark),
        _outgoing_ext(command),
    )


def _encode_binary(command: Command) -> bytes:
    return encode_binary_header(
        *(command.code, command.flag, command.opaque, command.language, command.version, command.remark),
        _outgoing_ext(command),
    )


def _encode_cbor(command: Command) -> bytes:
    header = command.header
    try:
        if header is not None:
            fields = codec_of(type(header)).to_cbor(header)
        else:
            fields = NULL if command.fields is None else cbor_array(command.fields)
        return encode_cbor_header(
            command.code, command.flag, command.opaque, command.remark, fields, command.ext
        )
    except struct.error as fault:
        raise FrameFault(f"a number of command {command.code} is over 64 bits: {fault}") from fault


_HEADER_ENCODERS: dict[int, Callable[[Command], bytes]] = {
    Serialization.JSON: _encode_json,
    Serialization.ROCKETMQ: _encode_binary,
    Serialization.CBOR: _encode_cbor,
}
