"""Where to connect: address forms, the search for a name server, and who may stand behind a Unix socket.

Name server search order, first hit wins: the address set in code; `$SHMQ_NAMESRV`; `$NAMESRV_ADDR`; the
`namesrv.sock` of the first runtime folder that has one (`base/runtime_dir.py`); 127.0.0.1:9876 when somebody
listens there.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import socket
import stat
import struct
from typing import NamedTuple

from shmq.base.errors import InvalidParameter, NoPermission
from shmq.base.runtime_dir import NAMESRV_SOCKET, find_socket
from shmq.client.errors import NO_NAME_SERVER, ClientError, ConnectFailed

UNIX_PREFIX = "unix:"
DEFAULT_NAMESRV = "127.0.0.1:9876"

UNIX_SEND_BUFFER_BYTES = 1 << 20
"""Room for a whole batch on its way (the system may allow less): with its usual 208 KiB the sender of 1,000
messages of 256 B sleeps twice in every batch, which costs a third of the rate."""

_UCRED = struct.Struct("=iII")
"""SO_PEERCRED: pid, uid, gid of who made the listening socket."""


class Address(NamedTuple):
    """One endpoint: a Unix socket's path, or host and port (then `port` > 0)."""

    host: str
    port: int = 0

    @property
    def is_unix(self) -> bool:
        """Tell whether this is a Unix socket of this host; such servers speak CBOR headers."""
        return self.port == 0

    def __str__(self) -> str:
        """Return the form `parse_address` reads."""
        return f"{self.host}:{self.port}" if self.port else UNIX_PREFIX + self.host


def parse_address(text: str) -> Address:
    """Read `unix:/path`, `host:port` or `[v6]:port`; InvalidParameter for anything else."""
    text = text.strip()
    if text.startswith(UNIX_PREFIX):
        return Address(text.removeprefix(UNIX_PREFIX))
    host, _, port = text.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise InvalidParameter(f"{text!r} is no address: write host:port or unix:/path")
    return Address(host.strip("[]"), int(port))


def parse_addresses(text: str) -> list[Address]:
    """Read a list separated by `;` (RocketMQ's form; empty parts are skipped)."""
    return [parse_address(part) for part in text.split(";") if part.strip()]


def name_server_addresses(configured: str | None) -> list[Address]:
    """Return the name servers to use, by the search order above; ClientError 10004 when there is none."""
    for text in (configured, os.environ.get("SHMQ_NAMESRV"), os.environ.get("NAMESRV_ADDR")):
        if text and text.strip():
            return parse_addresses(text)
    if found := find_socket(NAMESRV_SOCKET):
        return [Address(str(found))]
    default = parse_address(DEFAULT_NAMESRV)
    if _somebody_listens(default):
        return [default]
    raise ClientError(
        NO_NAME_SERVER,
        "no name server address: none given in code or in NAMESRV_ADDR, no namesrv.sock in a runtime folder "
        "and "
        f"nobody listens at {DEFAULT_NAMESRV}. Start a broker (shmq-broker) or set namesrv_addr",
    )


def _somebody_listens(address: Address) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(0.5)
        return probe.connect_ex((address.host, address.port)) == 0


def connect(address: Address, timeout_s: float, broker_user: str | None = None) -> socket.socket:
    """Return a connected stream socket, TCP_NODELAY on; ConnectFailed or NoPermission say why not.

    A Unix server must be root, this user or `broker_user`: anybody may bind a socket in a shared folder.
    """
    family = socket.AF_UNIX if address.is_unix else socket.AF_INET6 if ":" in address.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.settimeout(timeout_s)
        if address.is_unix:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, UNIX_SEND_BUFFER_BYTES)
            sock.connect(address.host)
            _check_server(sock, address, broker_user)
        else:
            sock.connect((address.host, address.port))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError as error:
        sock.close()
        if error.errno in (errno.EACCES, errno.EPERM) and address.is_unix:
            raise NoPermission(_refusal(address.host)) from None
        raise ConnectFailed(f"connect to {address} failed: {error}. Is the server running?") from error
    except BaseException:
        sock.close()
        raise
    return sock


def _check_server(sock: socket.socket, address: Address, broker_user: str | None) -> None:
    """Refuse a server that is neither root, nor us, nor the configured broker user."""
    uid = peer_uid(sock)
    trusted = {0, os.getuid()}
    if broker_user is not None:
        try:
            trusted.add(pwd.getpwnam(broker_user).pw_uid)
        except KeyError:
            raise InvalidParameter(f"the broker user {broker_user!r} does not exist on this host") from None
    if uid not in trusted:
        raise NoPermission(
            f"the server behind {address} runs as uid {uid}, which is neither root, this user nor the "
            "configured "
            "broker_user (SHMQ_BROKER_USER): not used"
        )


def peer_uid(sock: socket.socket) -> int:
    """Return the uid that made the listening socket at the other end."""
    uid: int = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))[1]
    return uid


def _refusal(path: str) -> str:
    """Say which group opens the socket, and how to join it."""
    user = _user_name(os.getuid())
    try:
        found = os.stat(path)
        group = grp.getgrgid(found.st_gid).gr_name
        mode = stat.S_IMODE(found.st_mode)
    except (OSError, KeyError):
        return (
            f"permission denied on {path}, and {user} cannot read its folder: ask for access to that folder"
        )
    return (
        f"permission denied on {path} (mode {mode:04o}, group {group}): user {user} must join the group "
        f"{group!r} (as root: usermod -aG {group} {user}, then log in again)"
    )


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def is_local_host(host: str) -> bool:
    """Tell whether `host` is an address of this machine: only such a one can be bound.

    A route of another host's broker may name a socket path that exists here too; then it must not be used.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((host, 0))
        except OSError:
            return False
        return True
