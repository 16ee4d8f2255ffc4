"""The process a filter function runs in: a sandbox of rlimits, no environment, no descriptors but one socket.

    python -I -S -B function_child.py <socket fd> <file> <memory bytes> <CPU s> <uid or -1> <worker's pid>
                                      <sys.path as JSON>

The code of `file` defines `wants(message) -> bool`; it gets a `MessageExt`. On the socket, integers big
endian:

    request   u32 records, then of each: u32 size, bytes
    answer    u32 length, then 0 and one byte a record: 0 no, 1 yes, 2 the function raised
                        or 1 and a text: the code cannot be loaded

It has no right to make processes or files, to use more memory than it was given, or more CPU time for one
request; the kernel ends it otherwise, and it dies with its worker. As root it becomes another user first. All
this bounds mistakes; it is no prison: whoever may install a function is trusted.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import socket
import struct
import sys
from collections.abc import Callable
from typing import Any

_U32 = struct.Struct(">I")
NO, YES, RAISED = 0, 1, 2
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38


def main(arguments: list[str]) -> None:
    """Limit this process, load the function, judge until the socket ends."""
    fd, path, memory, cpu_s, uid, worker, paths = arguments
    sys.path[:] = json.loads(paths)
    libc = ctypes.CDLL(None, use_errno=True)
    from shmq.model.message_ext import MessageExt

    with open(path, encoding="utf-8") as file:
        source = file.read()
    _limit(int(memory), int(uid))
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # the kernel forgets it when the user changes
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if os.getppid() != int(worker):
        return
    sock = socket.socket(fileno=int(fd))
    _more_cpu(int(cpu_s))
    try:
        wants = load(source, path)
    except BaseException as error:
        why = f"{type(error).__name__}: {error}{_unreadable(error)}"
        _answer(sock, b"\x01" + why.encode("utf-8", "replace")[:2000])
        return
    _answer(sock, b"\x00")
    while (records := _request(sock)) is not None:
        _more_cpu(int(cpu_s))
        _answer(sock, b"\x00" + bytes(_verdict(wants, MessageExt, record) for record in records))


def _unreadable(error: BaseException) -> str:
    """For a module that is not found: the folders of modules that this user may not read."""
    if not isinstance(error, ImportError):
        return ""
    closed = [entry for entry in sys.path if not os.access(entry, os.R_OK | os.X_OK)]
    return f" (user id {os.getuid()} cannot read {', '.join(closed)})" if closed else ""


def load(source: str, name: str) -> Callable[[Any], object]:
    """Run the code and return its function `wants`."""
    space: dict[str, Any] = {"__name__": "filter"}
    exec(compile(source, name, "exec"), space)
    wants = space.get("wants")
    if not callable(wants):
        raise TypeError("the code defines no function wants(message)")
    return wants  # type: ignore[no-any-return]


def _limit(memory: int, uid: int) -> None:
    for what, most in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 16),
        (resource.RLIMIT_NPROC, 0),
    ):
        resource.setrlimit(what, (most, most))
    os.chdir("/")
    if uid >= 0:
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)


def _more_cpu(seconds: int) -> None:
    """Allow so much CPU time from now on: at its end the kernel sends SIGXCPU."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    most = int(used.ru_utime + used.ru_stime) + 1 + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (most, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def _verdict(wants: Callable[[Any], object], message: Callable[[bytes], Any], record: bytes) -> int:
    try:
        return YES if wants(message(record)) else NO
    except Exception:
        return RAISED


def _answer(sock: socket.socket, payload: bytes) -> None:
    sock.sendall(_U32.pack(len(payload)) + payload)


def _request(sock: socket.socket) -> list[bytes] | None:
    """Read one request; None at the end of the socket."""
    head = _exactly(sock, _U32.size)
    if head is None:
        return None
    records = []
    for _ in range(_U32.unpack(head)[0]):
        size = _exactly(sock, _U32.size)
        record = None if size is None else _exactly(sock, _U32.unpack(size)[0])
        if record is None:
            return None
        records.append(record)
    return records


def _exactly(sock: socket.socket, count: int) -> bytes | None:
    data = bytearray()
    while len(data) < count:
        piece = sock.recv(min(count - len(data), 1 << 20))
        if not piece:
            return None
        data += piece
    return bytes(data)


if __name__ == "__main__":
    main(sys.argv[1:])
