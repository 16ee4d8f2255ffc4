"""Asking who listens on a name server's port: one of ours, or something else.

A plain blocking exchange of one frame; called at the start by the supervisor and by `shmq-shutdown`.
"""

from __future__ import annotations

import contextlib
import socket

from shmq.base.errors import ShmqError
from shmq.protocol.codes import RequestCode, ResponseCode
from shmq.protocol.command import Command, Serialization, decode_frame, encode_command
from shmq.protocol.frame import FrameDecoder

LIMIT_S = 2.0
OWN_KEY = b"runtimeDir="
"""A setting only shmq's name server has: its answer to GET_NAMESRV_CONFIG tells it from Apache's."""


def is_name_server(address: tuple[str, int] | str) -> bool:
    """True when a shmq name server answers at a TCP address or Unix socket path within two seconds."""
    family = socket.AF_UNIX if isinstance(address, str) else _family(address[0])
    request = Command.request(RequestCode.GET_NAMESRV_CONFIG, serialization=Serialization.JSON)
    with contextlib.suppress(OSError, ShmqError), socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.settimeout(LIMIT_S)
        sock.connect(address)
        sock.sendall(b"".join(encode_command(request)))
        answer = _read_one(sock)
        return answer is not None and answer.code == ResponseCode.SUCCESS and OWN_KEY in answer.body_bytes()
    return False


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _read_one(sock: socket.socket) -> Command | None:
    decoder = FrameDecoder()
    while data := sock.recv(65536):
        for frame in decoder.feed(data):
            return decode_frame(frame)
    return None
