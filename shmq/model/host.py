"""Host addresses as records and message ids hold them.

    offset 0   address, 4 (IPv4) or 16 (IPv6) raw bytes
    offset n   port, i32 big-endian

An 8-byte host is IPv4, a 20-byte host IPv6; a record's sysFlag says which (``sys_flag.BORN_HOST_V6``,
``STORE_HOST_V6``). Pure functions, called by every process.
"""

import socket
import struct

HOST_V4_BYTES = 8
HOST_V6_BYTES = 20
UNIX_HOST = bytes((127, 0, 0, 1, 0, 0, 0, 0))
"""Born host of a client that came through a Unix socket: 127.0.0.1, port 0."""

_PORT = struct.Struct(">i")
assert _PORT.size == 4


def pack_host(address: str, port: int) -> bytes:
    """Return the 8 or 20 bytes of a numeric address and port; ``ValueError`` when the address is no
    number."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        return socket.inet_pton(family, address) + _PORT.pack(port)
    except (OSError, struct.error) as fault:
        raise ValueError(f"{address!r}, port {port!r}: not a numeric host address and port") from fault


def unpack_host(host: bytes | memoryview) -> tuple[str, int]:
    """Return ``(address, port)`` of 8 or 20 host bytes; ``ValueError`` for another length."""
    if len(host) == HOST_V4_BYTES:
        family = socket.AF_INET
    elif len(host) == HOST_V6_BYTES:
        family = socket.AF_INET6
    else:
        raise ValueError(f"a host has 8 or 20 bytes, not {len(host)}")
    return socket.inet_ntop(family, bytes(host[:-4])), int(_PORT.unpack(host[-4:])[0])


def host_text(host: bytes | memoryview) -> str:
    """Return ``address:port``, IPv6 addresses in brackets."""
    address, port = unpack_host(host)
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
