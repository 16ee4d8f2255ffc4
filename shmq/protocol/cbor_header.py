"""Serialization 2: shmq's own header, a positional CBOR array (RFC 8949).

    [1, code, flag, opaque, remark | null, fields | null, ext | null]

    1        version of this array; later versions only add members at its end
    fields   the typed header's own positional array, see ``header_table``
    ext      map of texts beside the typed header

Read hardened: definite lengths only, nesting of at most three, no tags, no duplicate keys, no byte left
over. The values of ``fields`` may be null, bool, int, text and bytes, which the typed header checks one by
one. Language and version are implied (PYTHON, ``codes.VERSION``).
"""

import secrets
from typing import Any

import cbor2

from shmq.base.errors import FrameFault
from shmq.protocol.cbor_items import NULL, cbor_array_head, cbor_integer, cbor_text, cbor_text_map
from shmq.protocol.known_sends import SEND_CODE, KnownSends

CBOR_HEADER_VERSION = 1
MEMBERS = 7
DEPTH_MAX = 3

CborParts = tuple[int, int, int, str | None, list[Any] | None, dict[str, str] | None]
"""code, flag, opaque, remark, fields, ext"""


def _refuse_tag(*_: object) -> object:
    raise ValueError("tags are not allowed")


_REFUSED_TAGS = dict.fromkeys(
    (0, 1, 2, 3, 4, 5, 25, 28, 29, 30, 35, 36, 37, 52, 54, 100, 256, 258, 260, 261, 1004, 43000, 55799),
    _refuse_tag,
)
"""Every tag the library would make an object of; the hook refuses all others."""

_BEHIND = [secrets.randbits(63) | 1 << 62]
_GUARD = cbor_integer(_BEHIND[0])
_PAIR = cbor_array_head(2)
"""The library ignores bytes behind an item and does not tell how many it took. So the header is read as the
first of two items, the second being a number nobody can guess: if anything stands between, the second item
is another."""

_known_sends = KnownSends()
"""Sends are nearly all that a worker reads, and nearly all bytes of their headers are the same."""

_PREFIX = cbor_array_head(MEMBERS) + cbor_integer(CBOR_HEADER_VERSION)


def encode_cbor_header(
    code: int, flag: int, opaque: int, remark: str | None, fields: bytes, ext: dict[str, str] | None
) -> bytes:
    """Return the header bytes; ``fields`` is the typed header's array as an item, or ``NULL``."""
    return b"".join(
        (
            _PREFIX,
            cbor_integer(code),
            cbor_integer(flag),
            cbor_integer(opaque),
            NULL if remark is None else cbor_text(remark),
            fields,
            NULL if ext is None else cbor_text_map(ext),
        )
    )


def decode_cbor_header(header: memoryview) -> CborParts:
    """Read header bytes; ``FrameFault`` for anything but the array described above."""
    data = bytes(header)
    send = _known_sends.read(data)
    if send is not None:
        return SEND_CODE, 0, send[0], None, send[1], None
    parts = _decode_any(data)
    if parts[0] == SEND_CODE and parts[4] is not None:
        _known_sends.learn(data, parts[4])
    return parts


def _decode_any(header: bytes) -> CborParts:
    """Read any header by the general decoder."""
    try:
        array, *behind = cbor2.loads(
            b"".join((_PAIR, header, _GUARD)),
            tag_hook=_refuse_tag,
            semantic_decoders=_REFUSED_TAGS,
            max_depth=DEPTH_MAX,
            allow_indefinite=False,
            allow_duplicate_keys=False,
            strict_hashable_types=True,
        )
    except Exception as fault:  # cbor2 raises ValueErrors and others of its own; all mean the same here
        raise FrameFault(f"CBOR header cannot be read: {fault}") from fault
    if behind != _BEHIND:
        raise FrameFault("CBOR header has bytes left over")
    if type(array) is not list or len(array) < MEMBERS:
        raise FrameFault(f"CBOR header is not an array of at least {MEMBERS} members")
    version, code, flag, opaque, remark, fields, ext, *_ = array
    if not (type(version) is type(code) is type(flag) is type(opaque) is int) or version < 1:
        raise FrameFault("CBOR header: version, code, flag and opaque must be numbers")
    low, high = -0x80000000, 0x7FFFFFFF
    if not (low <= code <= high and low <= flag <= high and low <= opaque <= high):
        raise FrameFault("CBOR header: code, flag and opaque must fit 32 bits")
    if remark is not None and type(remark) is not str:
        raise FrameFault("CBOR header: remark must be a text")
    if fields is not None and type(fields) is not list:
        raise FrameFault("CBOR header: fields must be an array")
    if ext is not None and (
        type(ext) is not dict or any(type(v) is not str for pair in ext.items() for v in pair)
    ):
        raise FrameFault("CBOR header: ext must be a map of texts")
    return code, flag, opaque, remark, fields, ext
