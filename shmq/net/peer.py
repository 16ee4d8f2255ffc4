"""Who is at the other end of a connection: address for TCP, process and user for Unix sockets."""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path
from typing import NamedTuple

from shmq.model.host import UNIX_HOST, host_text, pack_host

_CREDENTIALS = struct.Struct("3i")
"""struct ucred of SO_PEERCRED: pid, uid, gid of the process that connected."""


_STATE, _FLAGS = 0, 6
"""Places in /proc/pid/stat, counted from behind the name (proc_pid_stat(5))."""
_EXITING = 0x4


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


def has_ended(peer: Peer) -> bool:
    """Tell whether the process behind a Unix connection has ended, or can run no further instruction of its
    own.

    At the end of a process's connections the kernel may still be taking it down: its flags say so before the
    first descriptor is closed (PF_EXITING, Linux include/linux/sched.h). In doubt it lives: it may be hidden
    from us (hidepid), or its number may already be another's.
    """
    if not peer.is_unix or peer.pid <= 0:
        return False
    try:
        os.kill(peer.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    try:
        status = Path(f"/proc/{peer.pid}/stat").read_text()
    except OSError:
        return False
    fields = status.rpartition(")")[2].split()  # the name before it may hold anything
    return fields[_STATE] in "ZX" or bool(int(fields[_FLAGS]) & _EXITING)


def is_own_user(peer: Peer) -> bool:
    """True when a Unix peer runs as this process's user or as root."""
    return peer.is_unix and peer.uid in (0, os.geteuid())
