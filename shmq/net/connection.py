"""One client connection: bytes in, Commands out of them; Commands in, bytes out.

Used by the worker, the coordinator and the NameServer alike, always inside that process's event loop
thread; no locks. Nothing else in shmq writes to a client's socket.

Writing: replies are buffers (head, then the body's memoryviews) and leave in one ``writev``, so that message
bodies are not copied in user space. What is answered while frames of one read are served, or while the owner
has corked his outbox, leaves together: many replies cost one system call.

Back-pressure: a peer that does not take its replies is no longer read from (``pause_writing`` of asyncio),
what it had sent waits undecoded, and it is closed when what was under way to it passes
``ConnectionLimits.write_bytes_max``. A frame that cannot be decoded closes this connection only, with a
counted and logged reason.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, cast

from shmq.base import log
from shmq.base.errors import RemoteFault
from shmq.net.frame_filler import DIRECT_BYTES, FrameFiller
from shmq.net.limits import ConnectionLimits
from shmq.net.log_rate import LogRate
from shmq.net.outbox import Outbox
from shmq.net.peer import UNKNOWN_PEER, Peer, peer_of
from shmq.protocol.command import Command, decode_frame, encode_command
from shmq.protocol.frame import FrameDecoder

Buffer = bytes | bytearray | memoryview
OnCommand = Callable[["Connection", Command], None]
OnClose = Callable[["Connection"], None]
OnOpen = Callable[["Connection"], None]
Count = Callable[[str, int], None]

_logger = log.get(__name__)
_faults = LogRate(_logger)
_ids = itertools.count(1)


def _count_nothing(_name: str, _n: int) -> None:
    """Stand in for a process's counters where it keeps none."""


def _greet_nobody(_connection: Connection) -> None:
    """Stand in where nobody wants to know of new connections."""


class Traffic:
    """What moved over the connections of one owner since it was last asked; too frequent for ``count``."""

    __slots__ = ("bytes_in", "bytes_out", "frames_in", "frames_out")

    def __init__(self) -> None:
        """Begin at zero."""
        self.bytes_in = self.bytes_out = self.frames_in = self.frames_out = 0

    def take(self) -> dict[str, int]:
        """Return the counts under their counters' names and begin anew."""
        counts = {name: getattr(self, name) for name in self.__slots__}
        self.bytes_in = self.bytes_out = self.frames_in = self.frames_out = 0
        return counts


class Connection(asyncio.Protocol):
    """asyncio protocol of one peer; ``id`` is unique within this process.

    ``on_open`` is called when the peer is known, ``on_command`` for every decoded command in the order of
    arrival, ``on_close`` once, after the last command; none may block. ``count(name, n)`` receives counts
    under the names of ``shm/counters.py``.
    """

    __slots__ = (
        "__weakref__",
        "_backlog",
        "_count",
        "_decoder",
        "_deferred",
        "_limits",
        "_loop",
        "_on_close",
        "_on_command",
        "_on_open",
        "_out",
        "_out_bytes",
        "_outbox",
        "_traffic",
        "_transport",
        "_write_paused",
        "close_reason",
        "id",
        "last_active_s",
        "last_frame",
        "peer",
        "state",
    )

    def __init__(
        self,
        on_command: OnCommand,
        on_close: OnClose,
        limits: ConnectionLimits,
        *,
        on_open: OnOpen = _greet_nobody,
        count: Count = _count_nothing,
        traffic: Traffic | None = None,
        outbox: Outbox | None = None,
    ) -> None:
        """Make the protocol object; asyncio calls ``connection_made`` when the socket is ready."""
        self.id = next(_ids)
        self.peer: Peer = UNKNOWN_PEER
        self.close_reason: str | None = None
        self.last_active_s = 0.0
        self.last_frame: memoryview = memoryview(b"")
        """The frame of the command being handled, for handlers that pass it on whole."""
        self.state: Any = None
        """Free for the owner: what its handlers remember about this client."""
        self._on_command = on_command
        self._on_close = on_close
        self._on_open = on_open
        self._limits = limits
        self._count = count
        self._traffic = traffic or Traffic()
        self._outbox = outbox or Outbox()
        self._out: list[Buffer] = []
        """Collected while the outbox is corked."""
        self._out_bytes = 0
        self._decoder = FrameDecoder(limits.frame_bytes_max)
        self._transport: asyncio.Transport | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._write_paused = False
        self._backlog: list[memoryview] = []
        """Whole frames received that wait until the peer takes its replies; at most one read's worth."""
        self._deferred: deque[Callable[[], None]] = deque()
        """Later answers that wait for the same."""

    # -- called by the event loop --------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Learn the peer and set the marks of back-pressure."""
        self._transport = cast(asyncio.Transport, transport)
        self._loop = asyncio.get_running_loop()
        self.last_active_s = self._loop.time()
        sock: socket.socket = transport.get_extra_info("socket")
        try:
            self.peer = peer_of(sock)
            if not self.peer.is_unix:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except (OSError, ValueError) as error:
            self.close(f"peer left before it was greeted: {error}")
            return
        self._transport.set_write_buffer_limits(
            high=self._limits.write_pause_bytes, low=self._limits.write_resume_bytes
        )
        self._count("connections_opened", 1)
        self._on_open(self)

    def data_received(self, data: bytes) -> None:
        """Decode the whole frames in hand and pass their commands on."""
        self._note_read(len(data))
        try:
            frames = self._decoder.feed(data)
        except RemoteFault as fault:
            self._bad_frame(fault)
        else:
            if self._decoder.missing >= DIRECT_BYTES and self._transport is not None:
                self._transport.set_protocol(FrameFiller(self, self._decoder, self._arrived))
            self._traffic.frames_in += len(frames)
            self._serve(frames)

    def _arrived(self, count: int) -> None:
        """Some bytes of a large frame were read right into it."""
        self._note_read(count)
        frame = self._decoder.arrived(count)
        if frame is not None:
            if self._transport is not None:
                self._transport.set_protocol(self)
            self._traffic.frames_in += 1
            self._serve([frame])

    def _note_read(self, count: int) -> None:
        assert self._loop is not None
        self.last_active_s = self._loop.time()
        self._traffic.bytes_in += count

    def _bad_frame(self, fault: RemoteFault) -> None:
        self._count("frames_bad", 1)
        self.abort(f"bad frame: {fault}", level=logging.WARNING)

    def _serve(self, frames: list[memoryview]) -> None:
        """Pass the commands of frames on, in order; stop where the peer stops taking replies.

        This is the edge of the loop: whatever a frame or a handler does wrong costs this connection at most.
        """
        try:
            with self._outbox:
                for place, frame in enumerate(frames):
                    if self._write_paused:
                        self._backlog += frames[place:]
                        return
                    self.last_frame = frame
                    self._on_command(self, decode_frame(frame))
                    if self.close_reason is not None:
                        return
        except RemoteFault as fault:
            self._bad_frame(fault)
        except Exception as error:
            log.event(_logger, logging.ERROR, "command_failed", exc_info=True, peer=self.peer.text)
            self.abort(f"internal error: {error!r}", level=logging.ERROR)

    def pause_writing(self) -> None:
        """The peer does not read: stop reading from it."""
        self._write_paused = True
        self._count("reads_paused", 1)
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """The peer caught up: serve what it had sent, then read from it again."""
        self._write_paused = False
        assert self._loop is not None
        self.last_active_s = self._loop.time()
        self._loop.call_soon(self._catch_up)

    def _catch_up(self) -> None:
        """Serve what waited; when that fills the peer's buffers again, the next resume goes on."""
        with self._outbox:
            while self._deferred and not self._write_paused and self.close_reason is None:
                self._deferred.popleft()()
        backlog, self._backlog = self._backlog, []
        if backlog and self.close_reason is None:
            self._serve(backlog)
        transport = self._transport
        if transport is not None and not self._write_paused and not transport.is_closing():
            transport.resume_reading()

    def eof_received(self) -> bool:
        """Close when the peer half-closes: RocketMQ's clients never do so with a reply outstanding."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the transport and tell the owner, once."""
        if self.close_reason is None:
            self.close_reason = "peer closed" if exc is None else f"connection broke: {exc}"
        self._count("connections_closed", 1)
        log.event(_logger, logging.DEBUG, "connection_closed", peer=self.peer.text, reason=self.close_reason)
        self._transport = None
        self.last_frame = memoryview(b"")
        self._deferred.clear()
        self._backlog.clear()
        self._on_close(self)

    # -- called by the owner, in the loop's thread -----------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """True while replies can still be sent."""
        return self._transport is not None and self.close_reason is None

    @property
    def is_congested(self) -> bool:
        """True while the peer does not take its replies."""
        return self._write_paused

    @property
    def waiting_bytes(self) -> int:
        """Bytes handed over that the kernel has not taken yet."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def when_writable(self, answer: Callable[[], None]) -> None:
        """Run ``answer``, now or when the peer takes replies again; never, when it is gone by then.

        For answers that come later than their request and may be large: held pulls, requests that had to ask.
        """
        if self._write_paused:
            self._deferred.append(answer)
        else:
            answer()

    def send(self, command: Command) -> None:
        """Send one command; silently nothing when the peer is gone (its reply has no reader any more)."""
        if self._transport is not None and self.close_reason is None:
            self.send_raw(encode_command(command))

    def send_raw(self, buffers: Sequence[Buffer]) -> None:
        """Send already encoded frames. The buffers must stay unchanged until the kernel took them."""
        transport = self._transport
        if transport is None or self.close_reason is not None:
            return
        assert self._loop is not None
        self.last_active_s = self._loop.time()
        size = len(buffers[0]) if len(buffers) == 1 else sum(map(len, buffers))
        traffic = self._traffic
        traffic.frames_out += 1
        traffic.bytes_out += size
        if not self._outbox.corks:
            self._write(transport, buffers)
            return
        if not self._out:
            self._outbox.waiting.append(self)
        self._out += buffers
        self._out_bytes += size
        if self._out_bytes > self._limits.write_pause_bytes:
            self.write_out()

    def write_out(self) -> None:
        """Hand what was collected to the transport, in one call."""
        buffers, self._out, self._out_bytes = self._out, [], 0
        if buffers and self._transport is not None:
            self._write(self._transport, buffers)

    def _write(self, transport: asyncio.Transport, buffers: Sequence[Buffer]) -> None:
        transport.writelines(buffers)
        if self._write_paused and transport.get_write_buffer_size() > self._limits.write_bytes_max:
            self._count("peers_dropped", 1)
            self.abort("peer does not read its replies", level=logging.WARNING)

    def close(self, reason: str) -> None:
        """Close after what was already sent has left; no command is delivered any more."""
        if self._transport is None or self.close_reason is not None:
            return
        self.write_out()
        if self.close_reason is None:
            self.close_reason = reason
            self._transport.close()

    def abort(self, reason: str, *, level: int = logging.INFO) -> None:
        """Close at once, dropping what waits to be sent, and log why."""
        if self._transport is None or self.close_reason is not None:
            return
        self.close_reason = reason
        self._out.clear()
        _faults.event(level, "connection_aborted", peer=self.peer.text, reason=reason)
        self._transport.abort()
