"""Serialization 2: shmq's own header, a positional CBOR array (RFC 8949).

    [1, code, flag, opaque, remark | null, fields | null, ext | null]

    1        version of this array; later versions only add members at its end
    fields   the typed header's own positional array, see ``header_table``
    ext      map of texts beside the typed header

Read hardened: definite lengths only, nesting of at most three, no tags, no duplicate keys, no types but
null, bool, int, text and bytes, no byte left over. Language and version are implied (PYTHON,
``codes.VERSION``).
"""

from io import BytesIO
from threading import local
from typing import Any

import cbor2

from shmq.base.errors import FrameFault

CBOR_HEADER_VERSION = 1
DEPTH_MAX = 3

CborParts = tuple[int, int, int, str | None, list[Any] | None, dict[str, str] | None]
"""code, flag, opaque, remark, fields, ext"""

_SCALARS = frozenset({str, int, bool, bytes, type(None)})


def encode_cbor_header(
    code: int,
    flag: int,
    opaque: int,
    remark: str | None,
    fields: list[Any] | None,
    ext: dict[str, str] | None,
) -> bytes:
    """Return the header bytes."""
    return cbor2.dumps([CBOR_HEADER_VERSION, code, flag, opaque, remark, fields, ext])


def decode_cbor_header(header: memoryview) -> CborParts:
    """Read header bytes; ``FrameFault`` for anything but the array described above."""
    stream = BytesIO(header)
    try:
        decoder = _reader.decoder
        decoder.fp = stream
        array = decoder.decode()
    except Exception as fault:  # cbor2 raises ValueErrors and others of its own; all mean the same here
        _reader.renew()
        raise FrameFault(f"CBOR header cannot be read: {fault}") from fault
    if stream.tell() != len(header):
        raise FrameFault(f"CBOR header has {len(header) - stream.tell()} bytes left over")
    if type(array) is not list or len(array) < 7:
        raise FrameFault("CBOR header is not an array of at least 7 members")
    version, code, flag, opaque, remark, fields, ext, *_ = array
    if not (type(version) is type(code) is type(flag) is type(opaque) is int) or version < 1:
        raise FrameFault("CBOR header: version, code, flag and opaque must be numbers")
    if not (_fits(code) and _fits(flag) and _fits(opaque)):
        raise FrameFault("CBOR header: code, flag and opaque must fit 32 bits")
    if remark is not None and type(remark) is not str:
        raise FrameFault("CBOR header: remark must be a text")
    if fields is not None and (type(fields) is not list or not _SCALARS.issuperset(map(type, fields))):
        raise FrameFault("CBOR header: fields must be an array of plain values")
    if ext is not None and (
        type(ext) is not dict or any(type(v) is not str for pair in ext.items() for v in pair)
    ):
        raise FrameFault("CBOR header: ext must be a map of texts")
    return code, flag, opaque, remark, fields, ext


def _fits(number: int) -> bool:
    return -0x80000000 <= number <= 0x7FFFFFFF


def _refuse_tag(*_: object) -> object:
    raise ValueError("tags are not allowed")


_BUILT_IN_TAGS = (
    0,
    1,
    2,
    3,
    4,
    5,
    25,
    28,
    29,
    30,
    35,
    36,
    37,
    52,
    54,
    100,
    256,
    258,
    260,
    261,
    1004,
    43000,
    55799,
)


class _Reader(local):
    """One decoder per thread: making one costs as much as reading a header."""

    decoder: cbor2.CBORDecoder

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Start with a decoder that has no rest of a broken header in it."""
        self.decoder = cbor2.CBORDecoder(
            BytesIO(),
            tag_hook=_refuse_tag,
            semantic_decoders=dict.fromkeys(_BUILT_IN_TAGS, _refuse_tag),
            max_depth=DEPTH_MAX,
            allow_indefinite=False,
            allow_duplicate_keys=False,
            strict_hashable_types=True,
        )


_reader = _Reader()
