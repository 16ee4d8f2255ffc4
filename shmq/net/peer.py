"""Who is at the other end of a connection: address for TCP, process and user for Unix sockets."""

from __future__ import annotations

import os
import socket
import struct
from typing import NamedTuple

from shmq.model.host import UNIX_HOST, host_text, pack_host

_CREDENTIALS = struct.Struct("3i")
"""struct ucred of SO_PEERCRED: pid, uid, gid of the process that connected."""


class Peer(NamedTuple):
    """The other end; ``text`` is what logs and admin answers show, ``born_host`` what its messages store."""

    kind: str
    text: str
    born_host: bytes = UNIX_HOST
    pid: int = 0
    uid: int = -1
    gid: int = -1

    @property
    def is_unix(self) -> bool:
        """True for a peer on this host whose process and user the kernel vouches for."""
        return self.kind == "unix"


UNKNOWN_PEER = Peer("unknown", "unknown")


def peer_of(sock: socket.socket) -> Peer:
    """Read the peer of a connected socket. Raises OSError when the peer is already gone.

    A Unix peer has no address: its messages store 127.0.0.1 with port 0.
    """
    if sock.family == socket.AF_UNIX:
        pid, uid, gid = _CREDENTIALS.unpack(
            sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        )
        return Peer("unix", f"unix:{pid}", pid=pid, uid=uid, gid=gid)
    address, port = sock.getpeername()[:2]
    born_host = pack_host(address.removeprefix("::ffff:").partition("%")[0], port)
    return Peer("tcp", host_text(born_host), born_host)


def is_own_user(peer: Peer) -> bool:
    """True when a Unix peer runs as this process's user or as root."""
    return peer.is_unix and peer.uid in (0, os.geteuid())
