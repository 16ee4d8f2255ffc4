"""Message ids: the broker's offset id and the producer's unique key (property UNIQ_KEY).

    offset id    hex of store host (8 or 20 bytes, see ``host``) + i64 physical offset     32 or 56 characters
    unique key   hex of address (4) + pid (2) + salt (4) + ms of the month (4) + counter (2)  32 characters

Both are upper-case hex (Apache RocketMQ 5.3, MessageDecoder.java, MessageClientIDSetter.java). Ids are
compared as opaque, case-sensitive texts.
"""

import itertools
import os
import secrets
import socket
import struct
import time
from datetime import datetime

from shmq.base.errors import InvalidParameter
from shmq.model.host import HOST_V4_BYTES, HOST_V6_BYTES

_OFFSET = struct.Struct(">q")
_HEX = [f"{byte:02X}" for byte in range(256)]
_OFFSET_ID_LENGTHS = (2 * (HOST_V4_BYTES + 8), 2 * (HOST_V6_BYTES + 8))


def offset_message_id(store_host: bytes | memoryview, physical_offset: int) -> str:
    """Return the offset id of the record at ``physical_offset`` of the broker at ``store_host`` (8 or 20
    bytes)."""
    return (bytes(store_host) + _OFFSET.pack(physical_offset)).hex().upper()


def parse_offset_message_id(message_id: str) -> tuple[bytes, int]:
    """Return ``(store host bytes, physical offset)``; ``InvalidParameter`` when the text is no offset id."""
    if len(message_id) not in _OFFSET_ID_LENGTHS:
        raise InvalidParameter(f"{message_id!r} is no offset message id: it must be 32 or 56 hex digits")
    try:
        raw = bytes.fromhex(message_id)
    except ValueError:
        raw = b""
    if 2 * len(raw) != len(message_id):
        raise InvalidParameter(f"{message_id!r} is no offset message id: it must be 32 or 56 hex digits")
    return raw[:-8], int(_OFFSET.unpack(raw[-8:])[0])


class KeyBlock:
    """Unique keys of one batch: a common prefix of 28 characters and a 16-bit index.

    The block has a salt of its own, so it needs no counter that threads share. A key's text is made when
    asked for.
    """

    __slots__ = ("prefix",)

    COUNT_MAX = 65536

    def __init__(self, prefix: str) -> None:
        """Keep the 28 characters all keys of the block begin with."""
        self.prefix = prefix

    def __getitem__(self, index: int) -> str:
        """Return key ``index``, 0..65535."""
        return f"{self.prefix}{index:04X}"


class UniqueKeys:
    """Generator of unique keys for this process; threads share it, a forked child gets a new salt.

    The time part follows the monotonic clock from an anchor, so that a wall clock set back cannot repeat a
    key: within one salt (milliseconds, 16-bit counter) only repeats at more than 65,536 keys per
    millisecond.
    """

    __slots__ = ("_base_ms", "_count", "_current", "_limit_ms", "_prefix")

    def __init__(self) -> None:
        """Anchor the clock and choose a salt."""
        self._count = itertools.count()
        self.anchor()

    def anchor(self) -> None:
        """Start anew: fresh salt, time counted from the first of this month (local time, as tools read it).

        Called at first use, after a fork and when a new month begins. Other threads see the change as one
        step: the text of salt and time is replaced whole.
        """
        now = datetime.now()
        month = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        next_month = month.replace(year=month.year + month.month // 12, month=month.month % 12 + 1)
        now_ms = time.monotonic_ns() // 1_000_000
        since_month_ms = int((now - month).total_seconds() * 1000)
        self._prefix = f"{_own_address().hex()}{os.getpid() & 0xFFFF:04x}{secrets.token_hex(4)}".upper()
        self._base_ms = now_ms - since_month_ms
        self._limit_ms = self._base_ms + int((next_month - month).total_seconds() * 1000)
        self._current = (now_ms, f"{self._prefix}{since_month_ms:08X}")

    def next(self) -> str:
        """Return one new key."""
        now_ms = time.monotonic_ns() // 1_000_000
        current_ms, start = self._current
        if now_ms != current_ms:
            start = self._start_at(now_ms)
        index = next(self._count)
        return start + _HEX[index >> 8 & 0xFF] + _HEX[index & 0xFF]

    def _start_at(self, now_ms: int) -> str:
        """Return the 28 characters all keys of this millisecond begin with, and keep them for the next
        key."""
        if now_ms >= self._limit_ms:
            self.anchor()
            return self._current[1]
        start = f"{self._prefix}{now_ms - self._base_ms:08X}"
        self._current = (now_ms, start)
        return start

    def block(self) -> KeyBlock:
        """Return a new block of keys for one batch."""
        start = self._start_at(time.monotonic_ns() // 1_000_000)
        return KeyBlock(f"{start[:12]}{secrets.token_hex(4).upper()}{start[20:]}")


def _own_address() -> bytes:
    """Return four bytes that tell hosts apart for a reader: an address of this host, else a fake one.

    Asks the routing table only (a datagram socket is connected, nothing is sent), never a name server: the
    host's own name may not resolve.
    """
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(("192.0.2.1", 9))
            return socket.inet_aton(probe.getsockname()[0])
    except OSError:
        return bytes((127, 0, 0, 1))


_keys: UniqueKeys | None = None


def unique_key() -> str:
    """Return one new UNIQ_KEY value; safe from any thread and after a fork."""
    return (_keys or _own_keys()).next()


def unique_key_block() -> KeyBlock:
    """Return a block of new UNIQ_KEY values for one batch; safe from any thread and after a fork."""
    return _own_keys().block()


def _own_keys() -> UniqueKeys:
    global _keys
    if _keys is None:
        _keys = UniqueKeys()
    return _keys


def _forget_keys() -> None:
    global _keys
    _keys = None


os.register_at_fork(after_in_child=_forget_keys)
