"""Listening sockets: bind or inherit them, and accept in a bounded way.

The supervisor and the NameServer bind (or inherit from systemd); workers only accept. Sockets made here do
not block and are not inherited across exec unless their owner passes them on purpose.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import grp
import logging
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

from shmq.base import log
from shmq.base.errors import ConfigFault, Unavailable

BACKLOG = 1024
ACCEPT_BATCH_MAX = 64
"""Connections taken per loop turn, so that a flood of connects cannot starve the clients already served."""
UNIX_PATH_BYTES_MAX = 107
"""sun_path holds 108 bytes with its final NUL."""

_logger = log.get(__name__)
_PASSING_ERRORS = frozenset({errno.ECONNABORTED, errno.EINTR, errno.EPROTO, errno.EPERM})


def bind_unix(path: Path, *, mode: int = 0o660, group: str | None = None) -> socket.socket:
    """Bind a Unix stream socket at ``path``, replacing one that nobody listens on any more.

    Raises ConfigFault for a path the kernel cannot take or an unknown group, Unavailable when somebody is
    listening there already.
    """
    if len(os.fsencode(path)) > UNIX_PATH_BYTES_MAX:
        raise ConfigFault(
            f"socket path {path} has more than {UNIX_PATH_BYTES_MAX} bytes: use a shorter folder"
        )
    _remove_dead_socket(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    old_mask = os.umask(0o177)  # closed to others until mode and group are right
    try:
        sock.bind(str(path))
    finally:
        os.umask(old_mask)
    try:
        if group is not None:
            os.chown(path, -1, grp.getgrnam(group).gr_gid)
        os.chmod(path, mode)
    except KeyError:
        sock.close()
        path.unlink()
        raise ConfigFault(f"socket group {group!r} does not exist on this host: create it first") from None
    sock.listen(BACKLOG)
    sock.setblocking(False)
    return sock


def _remove_dead_socket(path: Path) -> None:
    """Unlink a socket file whose listener is gone; refuse when it still answers or is no socket."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise ConfigFault(f"{path} exists and is not a socket: move it away")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
            return
    raise Unavailable(f"another process is listening on {path}: stop it or choose another broker name")


def bind_tcp(host: str, port: int) -> socket.socket:
    """Bind a TCP socket; port 0 takes a free one. Raises Unavailable when the port is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise Unavailable(f"{host}:{port} is taken by another process") from error
        raise ConfigFault(f"cannot listen on {host}:{port}: {error.strerror}") from error
    sock.setblocking(False)
    return sock


def adopt(fd: int) -> socket.socket:
    """Wrap an inherited listening descriptor (from systemd or from the supervisor)."""
    sock = socket.socket(fileno=fd)
    sock.setblocking(False)
    return sock


def accept_some(listening: socket.socket, limit: int = ACCEPT_BATCH_MAX) -> list[socket.socket]:
    """Accept until nothing is left or ``limit`` is reached; the sockets do not block.

    Raises OSError only for errors that will not pass by themselves (EMFILE, ENFILE, ENOMEM, a closed
    listener), with what was accepted before it left to the next call.
    """
    taken: list[socket.socket] = []
    while len(taken) < limit:
        try:
            sock, _ = listening.accept()
        except BlockingIOError:
            break
        except OSError as error:
            if error.errno in _PASSING_ERRORS:
                continue
            if taken:
                break
            raise
        sock.setblocking(False)
        taken.append(sock)
    return taken


def serve(
    loop: asyncio.AbstractEventLoop, listening: socket.socket, factory: Callable[[], asyncio.Protocol]
) -> Callable[[], None]:
    """Accept on ``listening`` and give each connection to a new protocol; returns the function that stops it.

    For processes that serve alone (NameServer, coordinator); workers spread connections and use their own
    acceptor.
    """
    greeting: set[asyncio.Task[None]] = set()

    async def greet(sock: socket.socket) -> None:
        try:
            await loop.connect_accepted_socket(factory, sock)
        except OSError as error:
            sock.close()
            log.event(_logger, logging.INFO, "connection_lost_while_greeting", reason=str(error))

    def on_readable() -> None:
        try:
            taken = accept_some(listening)
        except OSError as error:
            log.event(_logger, logging.ERROR, "accept_failed", reason=str(error))
            loop.remove_reader(listening)
            loop.call_later(1.0, lambda: listening.fileno() >= 0 and loop.add_reader(listening, on_readable))
            return
        for sock in taken:
            task = loop.create_task(greet(sock))
            greeting.add(task)
            task.add_done_callback(greeting.discard)

    def stop() -> None:
        if listening.fileno() >= 0:
            loop.remove_reader(listening)

    loop.add_reader(listening, on_readable)
    return stop
