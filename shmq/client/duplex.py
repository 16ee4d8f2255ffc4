"""DuplexChannel: one connection with any number of requests under way, answered through callbacks.

Used for everything that is not a plain blocking call: heartbeats (the broker pushes requests to the
connection that beat), held pulls, asynchronous sends. Any thread writes, one at a time (`_writing`); one
reader thread decodes, runs the callback of each response, and hands pushed requests to `on_request`.
Callbacks run on the reader thread and must not block. A request whose time is over fails with RemotingTimeout
within a second after it; its late answer is dropped.

While requests are under way the reader sits in one blocking read, with the kernel's time limit: every system
call gives the interpreter away and has to get it back, which takes milliseconds beside a busy thread.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import socket
import sys
import threading
import time
from collections.abc import Callable
from io import FileIO
from typing import NamedTuple

from shmq.base import log
from shmq.client.addresses import Address, connect
from shmq.client.channel import READ_BYTES, limit_in_kernel, send_all, serialization_of
from shmq.client.errors import RemotingError, RemotingTimeout
from shmq.client.future import SendFuture
from shmq.protocol.command import Command, decode_frame, encode_command
from shmq.protocol.frame import FrameDecoder

Reply = Callable[[Command | None, Exception | None], None]
"""Called once per request with the response, or with None and the error."""

LOOK_S = 1.0
"""How often the reader looks for requests whose time is over, while there are any."""
SEND_LIMIT_S = 10.0
"""A peer that takes no bytes for this long is given up."""

BELL_RING = (1).to_bytes(8, sys.byteorder)
"""What an eventfd takes and gives."""

_LOG = log.get(__name__)


class _Waiting(NamedTuple):
    """A request under way."""

    reply: Reply
    deadline: float


class DuplexChannel:
    """A connection with its reader thread."""

    def __init__(
        self,
        address: Address,
        timeout_s: float,
        broker_user: str | None,
        *,
        on_request: Callable[[DuplexChannel, Command], None],
        on_close: Callable[[DuplexChannel], None],
    ) -> None:
        """Connect and start reading; errors as in `addresses.connect`."""
        self.address = address
        self._serialization = serialization_of(address)
        self._on_request = on_request
        self._on_close = on_close
        self._sock = connect(address, timeout_s, broker_user)
        self._sock.settimeout(None)
        limit_in_kernel(self._sock, socket.SO_SNDTIMEO, SEND_LIMIT_S)
        limit_in_kernel(self._sock, socket.SO_RCVTIMEO, LOOK_S)
        self._writing = threading.Lock()
        self._opaques = itertools.count(1)
        self._waiting: dict[int, _Waiting] = {}
        self._closed = False
        self._bell = FileIO(os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC), "r+")
        self._dozing = False
        """The reader sleeps without a limit, because nothing was under way: ring it when that changes."""
        self._reader = threading.Thread(target=self._read, name=f"shmq-read-{address}", daemon=True)
        self._reader.start()

    @property
    def closed(self) -> bool:
        """Tell whether this connection can no longer be used."""
        return self._closed

    def send(self, command: Command, timeout_s: float, reply: Reply) -> None:
        """Send a request; `reply` is called once, on the reader thread, also when sending fails."""
        opaque = next(self._opaques) & 0x7FFFFFFF
        command.opaque = opaque
        self._waiting[opaque] = _Waiting(reply, time.monotonic() + timeout_s)
        if (
            self._closed and self._waiting.pop(opaque, None) is not None
        ):  # else `_break` has failed it already
            reply(None, RemotingError(f"the connection to {self.address} is closed"))
            return
        if self._dozing:
            self._dozing = False
            self._ring()
        self._write(command)

    def send_oneway(self, command: Command) -> None:
        """Send a request or a response that gets no answer; a broken connection is not reported here."""
        self._write(command)

    def call(self, command: Command, timeout_s: float) -> Command:
        """Send a request over this very connection and wait. Never call it from a callback: it would wait for
        itself."""
        if threading.current_thread() is self._reader:
            raise AssertionError("a blocking call on the reader thread would wait for itself")
        future: SendFuture[Command] = SendFuture()

        def settle(response: Command | None, error: Exception | None) -> None:
            if response is not None:
                future.set_result(response)
            else:
                future.set_exception(error or RemotingError("no response"))

        self.send(command, timeout_s, settle)
        return future.result(timeout_s + 2 * LOOK_S)

    def _write(self, command: Command) -> None:
        command.serialization = self._serialization
        buffers = encode_command(command)
        try:
            with self._writing:
                send_all(self._sock, buffers)
        except OSError as error:
            self._break(RemotingError(f"the connection to {self.address} broke: {error}"))

    def _read(self) -> None:
        """Decode frames until the connection ends; look for expired requests in between."""
        decoder = FrameDecoder()
        error: Exception = RemotingError(f"{self.address} closed the connection")
        poller = select.poll()
        try:
            poller.register(self._sock, select.POLLIN)
            poller.register(self._bell, select.POLLIN)
            while not self._closed:
                if not self._waiting and not self._doze(poller):
                    continue
                try:
                    data = self._sock.recv(READ_BYTES)
                except BlockingIOError:
                    self._expire()
                    continue
                if not data:
                    break
                for frame in decoder.feed(data):
                    self._dispatch(decode_frame(frame))
        except (OSError, ValueError) as broken:
            error = RemotingError(f"the connection to {self.address} broke: {broken}")
        except Exception as unreadable:  # the edge of the reader thread: whoever waits must hear of it
            _LOG.exception("reading from %s failed", self.address)
            error = unreadable
        self._break(error)
        self._sock.close()
        self._bell.close()

    def _doze(self, poller: select.poll) -> bool:
        """Sleep while nothing is under way; True when there is something to read."""
        self._dozing = True  # stored before looking: a request added now sees it and rings
        if self._waiting:
            self._dozing = False
            return False
        ready = poller.poll()
        self._dozing = False
        if any(descriptor == self._bell.fileno() for descriptor, _ in ready):
            self._hush()
        return any(descriptor == self._sock.fileno() for descriptor, _ in ready)

    def _ring(self) -> None:
        """Wake the reader; it may be gone already, then there is nobody to wake."""
        with contextlib.suppress(ValueError, OSError):
            self._bell.write(BELL_RING)

    def _hush(self) -> None:
        """Empty the bell."""
        self._bell.read(len(BELL_RING))

    def _dispatch(self, command: Command) -> None:
        """Run a response's callback, or hand a pushed request on. Their errors end neither thread nor
        connection."""
        try:
            if command.is_response:
                waiting = self._waiting.pop(command.opaque, None)
                if waiting is not None:
                    waiting.reply(command, None)
            else:
                self._on_request(self, command)
        except Exception:
            _LOG.exception("handling a frame of %s failed", self.address)

    def _expire(self) -> None:
        """Fail the requests whose time is over."""
        now = time.monotonic()
        for opaque in [key for key, waiting in list(self._waiting.items()) if waiting.deadline <= now]:
            waiting = self._waiting.pop(opaque, None)
            if waiting is not None:
                self._fail(waiting, RemotingTimeout(f"{self.address} did not answer in time"))

    def _break(self, error: Exception) -> None:
        """End the connection once: fail all that wait, tell the owner. The reader closes the descriptor."""
        with self._writing:
            if self._closed:
                return
            self._closed = True
            with contextlib.suppress(OSError):  # it may be gone already
                self._sock.shutdown(socket.SHUT_RDWR)
        while self._waiting:
            try:
                self._fail(self._waiting.popitem()[1], error)
            except KeyError:  # another thread took the last one
                break
        self._on_close(self)

    @staticmethod
    def _fail(waiting: _Waiting, error: Exception) -> None:
        try:
            waiting.reply(None, error)
        except Exception:
            _LOG.exception("a reply callback raised")

    def close(self) -> None:
        """Close; requests under way fail. Again is harmless."""
        self._break(RemotingError(f"the connection to {self.address} was closed by this client"))

    def forget_after_fork(self) -> None:
        """In a forked child: close the descriptor only; the connection stays the parent's."""
        self._closed = True
        self._waiting.clear()
        self._sock.close()
        self._bell.close()
