"""Pass a connection to another process: its descriptor (SCM_RIGHTS), one per message of a socket pair."""

from __future__ import annotations

import os
import socket

RECEIVE_BATCH_MAX = 64
"""Descriptors taken per turn, so that a flood of them cannot starve the clients already served."""


def give(sender: socket.socket, connection: socket.socket) -> bool:
    """Write ``connection``'s descriptor and close it here; False: keep it, the pair is full or gone."""
    try:
        socket.send_fds(sender, [b"c"], [connection.fileno()])
    except (BlockingIOError, ConnectionError):
        return False
    connection.close()
    return True


def take_some(receiver: socket.socket) -> list[socket.socket]:
    """Read descriptors that lie in a pair, at most ``RECEIVE_BATCH_MAX``, without waiting.

    Its worker does it, or the supervisor while there is none.
    """
    taken: list[socket.socket] = []
    while len(taken) < RECEIVE_BATCH_MAX:
        try:
            data, fds, _, _ = socket.recv_fds(receiver, 1, 1, socket.MSG_DONTWAIT)
        except BlockingIOError:
            break
        if not data:
            break
        for fd in fds:
            os.set_blocking(fd, False)
            taken.append(socket.socket(fileno=fd))
    return taken
