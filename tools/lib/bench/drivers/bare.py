"""The bare limits, as a system beside the others: what a send, a batch, a read cost at the very least here.

send     a blocking Unix-socket round trip of two Python processes pinned to two cores; option `synced`: and
         one fdatasync of a record's bytes in a preallocated, zeroed file
batch    making messages and encoding them as a log-ready batch, sent nowhere
read     copying memory from a buffer larger than the caches
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

from bench.drivers import driver
from bench.drivers.driver import KEY_EVERY, KEYS, TAG, Handler, Settle
from shmq.client.outgoing_batch import OutgoingBatch
from shmq.client.producer_config import ProducerConfig
from shmq.model.message import Message

REPLY_BYTES = 100
REQUEST_OVERHEAD = 144
"""Header, frame and properties of one send, about."""
FILE_BYTES = 16 << 20
COPY_BYTES = 64 << 20
MESSAGE_BYTES = 256

ECHO_SERVER = """
import os, socket, sys
os.sched_setaffinity(0, {int(sys.argv[2])})
peer = socket.socket(fileno=int(sys.argv[1]))
size, reply = int(sys.argv[3]), bytes(int(sys.argv[4]))
request = bytearray(size)
while peer.recv_into(request, size, socket.MSG_WAITALL):
    peer.sendall(reply)
"""
"""The other process: takes a request, answers, both calls blocking."""


class Sender(driver.Sender):
    """A round trip, and a synced write if asked for."""

    def __init__(self, options: dict[str, Any]) -> None:
        """Nothing is opened before the first send says how large requests are."""
        self._file = _zeroed_file() if options.get("synced") else None
        self._position = 0
        self._socket: socket.socket | None = None
        self._server: subprocess.Popen[bytes] | None = None
        self._cores = sorted(os.sched_getaffinity(0))
        self._reply = bytearray(REPLY_BYTES)
        self._request = b""

    def _connect(self, size: int) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs:
            facts = (theirs.fileno(), self._cores[-1], size, REPLY_BYTES)
            command = [sys.executable, "-c", ECHO_SERVER, *map(str, facts)]
            self._server = subprocess.Popen(command, pass_fds=[theirs.fileno()])
        os.sched_setaffinity(0, {self._cores[0]})
        self._socket, self._request = ours, bytes(size)

    def send(self, body: bytes, number: int) -> object:
        """There and back; then to the disk."""
        del number
        if self._socket is None:
            self._connect(len(body) + REQUEST_OVERHEAD)
        assert self._socket is not None
        self._socket.sendall(self._request)
        self._socket.recv_into(self._reply, REPLY_BYTES, socket.MSG_WAITALL)
        if self._file is not None:
            os.pwrite(self._file, self._request, self._position)
            os.fdatasync(self._file)
            self._position = (self._position + len(self._request)) % (FILE_BYTES - len(self._request))
        return None

    def send_async(self, body: bytes, number: int) -> Settle:
        """Make and encode one message."""
        OutgoingBatch([_message(body, number)], CONFIG, may_compress=False).records(0)
        return _nothing

    def send_batch(self, bodies: list[bytes], number: int) -> Settle:
        """Make and encode a list of messages."""
        batch = [_message(body, number + place) for place, body in enumerate(bodies)]
        OutgoingBatch(batch, CONFIG, may_compress=False).records(0)
        return _nothing

    def close(self) -> None:
        """Close file and socket; the other process ends with it."""
        if self._file is not None:
            os.close(self._file)
        if self._socket is not None and self._server is not None:
            self._socket.close()
            self._server.wait()
            os.sched_setaffinity(0, set(self._cores))


CONFIG = ProducerConfig(compress_msg_body_over_howmuch=1 << 30)


def _message(body: bytes, number: int) -> Message:
    return Message("BenchBare", body, TAG, KEYS[number % KEY_EVERY])


def _nothing() -> None:
    return None


def _zeroed_file() -> int:
    """A descriptor of a file whose blocks exist and are zero, as a CommitLog segment's; it has no name."""
    with tempfile.TemporaryFile() as file:
        file.write(bytes(FILE_BYTES))
        file.flush()
        os.fsync(file.fileno())
        return os.dup(file.fileno())


class Driver(driver.Driver):
    """No address: there is no server."""

    def __init__(self, address: dict[str, str], options: dict[str, object]) -> None:
        """Note whether sends are synced."""
        del address
        self._options = options

    def make_topic(self, topic: str, queues: int) -> None:
        """There are none."""

    def sender(self, topic: str, queues: int) -> Sender:
        """A sender."""
        return Sender(self._options)

    def read_all(self, topic: str) -> Iterator[tuple[int, int]]:
        """Copy the buffer once; counted as messages of 256 B."""
        source, target = bytes(COPY_BYTES), memoryview(bytearray(COPY_BYTES))
        while True:
            target[:] = source
            yield COPY_BYTES // MESSAGE_BYTES, COPY_BYTES

    def subscribe(
        self, topic: str, group: str, handler: Handler
    ) -> contextlib.AbstractContextManager[object]:
        """There is nothing to subscribe to."""
        raise NotImplementedError("the bare limits have no subscriptions")
