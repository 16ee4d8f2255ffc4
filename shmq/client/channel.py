"""Channel: one blocking connection on which the calling thread itself writes and reads; and a small pool of
them.

No reader thread, no hop: a sync send costs one sendmsg and one recv beside the encoding. The kernel's socket
timeouts (SO_RCVTIMEO, SO_SNDTIMEO) are used, because Python's own would add a poll to every call. A channel
serves one thread at a time; the pool hands them out and knows the process it belongs to, so that a forked
child never shares its parent's connections. A late answer would be taken for the next one: after a timeout
the channel is closed.
"""

from __future__ import annotations

import os
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from shmq.base.errors import FrameFault, ShmqError
from shmq.client.addresses import Address, connect
from shmq.client.core_sharing import CoreSharing
from shmq.client.errors import RemotingError, RemotingTimeout
from shmq.client.spin import Spinner
from shmq.protocol.codes import RequestCode, ResponseCode
from shmq.protocol.command import RESPONSE_FLAG, Command, Serialization, decode_frame, encode_command
from shmq.protocol.frame import FRAME_BYTES_MAX, LENGTHS, LENGTHS_BYTES
from shmq.protocol.headers.share_core import ShareCoreHeader

READ_BYTES = 256 << 10
SMALL_READ = 16 << 10
IDLE_MAX = 8
"""Idle channels kept per address; more are closed when they come back."""
IDLE_CHECK_S = 0.5
"""A channel that rested longer is looked at for a hang-up before it is used."""
IDLE_CLOSE_S = 90.0
"""Servers close connections that rested for 120 s; ours go a little earlier."""

SHARE_TIMEOUT_S = 1.0
"""Asking for a shared core may take so long, and no longer than the call it follows."""

_ASLEEP = Spinner(0)
"""Never spins: on a shared core that would keep the worker from answering."""

Buffer = bytes | bytearray | memoryview
R = TypeVar("R")

_generation = 0
"""How often this process' ancestors have forked since the program began; a pool of another one is the
parent's. Asking the kernel for the pid at every send would cost more than the comparison."""


def _count_fork() -> None:
    global _generation
    _generation += 1


os.register_at_fork(after_in_child=_count_fork)

_TIMEVAL = struct.Struct("@ll")


def serialization_of(address: Address) -> Serialization:
    """Return the header codec for a server: CBOR where only shmq can be (a Unix socket), JSON everywhere
    else."""
    return Serialization.CBOR if address.is_unix else Serialization.JSON


def view_of(command: Command) -> memoryview:
    """Return a received command's body; empty when there is none."""
    body = command.body
    if body is None:
        return memoryview(b"")
    assert not isinstance(body, list), "received bodies are one view"
    return memoryview(body)


def limit_in_kernel(sock: socket.socket, option: int, limit_s: float) -> None:
    """Make the kernel give up reads (SO_RCVTIMEO) or writes (SO_SNDTIMEO) of a blocking socket after a time:
    they raise BlockingIOError then."""
    whole, part = divmod(max(limit_s, 0.001), 1)
    sock.setsockopt(socket.SOL_SOCKET, option, _TIMEVAL.pack(int(whole), int(part * 1e6)))


def send_all(sock: socket.socket, buffers: list[Buffer]) -> None:
    """Write all buffers, in as few system calls as the kernel allows."""
    sent = sock.sendmsg(buffers)
    if sent == sum(map(len, buffers)):
        return
    rest = memoryview(b"".join(buffers))[sent:]
    sock.sendall(rest)


def _never_quick(frame: Buffer, opaque: int) -> None:
    """Leave every answer to the codec."""


class Channel:
    """One connection with one request under way."""

    def __init__(
        self,
        address: Address,
        timeout_s: float,
        broker_user: str | None = None,
        *,
        spin_ns: int = 0,
        shares_core: bool = False,
    ) -> None:
        """Connect; ConnectFailed or NoPermission when that is not possible."""
        self.address = address
        self.idle_since = time.monotonic()
        self._serialization = serialization_of(address)
        self._sock = connect(address, timeout_s, broker_user)
        self._sock.settimeout(None)
        self._timeout_s = 0.0
        self._opaque = 0
        self._spinner = Spinner(spin_ns)
        self._sharing = CoreSharing(self._share_core) if shares_core else None

    def next_opaque(self) -> int:
        """Return the id of the next request on this channel."""
        self._opaque = (self._opaque + 1) & 0x7FFFFFFF
        return self._opaque

    def call(self, command: Command, timeout_s: float) -> Command:
        """Send a request and return its response; RemotingTimeout or RemotingError end the channel."""
        command.opaque = self.next_opaque()
        command.serialization = self._serialization
        return self.exchange(encode_command(command), command.opaque, timeout_s)

    def exchange(self, frame: list[Buffer], opaque: int, timeout_s: float) -> Command:
        """Send a ready frame whose request id is `opaque` and return the response; errors as in `call`."""
        response = self.exchange_quickly(frame, opaque, timeout_s, _never_quick)
        assert isinstance(response, Command)
        return response

    def exchange_quickly(
        self, frame: list[Buffer], opaque: int, timeout_s: float, read: Callable[[Buffer, int], R | None]
    ) -> R | Command:
        """Like `exchange`, but first let `read` make what it wants of the answer's frame; None: decode it."""
        sharing = self._sharing
        if sharing is None:
            return self._exchange(frame, opaque, timeout_s, read, self._spinner)
        try:
            spinner = _ASLEEP if sharing.begin() else self._spinner
            answer = self._exchange(frame, opaque, timeout_s, read, spinner)
        finally:
            sharing.end()
        sharing.answered()
        return answer

    def _share_core(self, cpu: int) -> bool:
        """Ask the worker to run on a core, -1: anywhere. Whatever goes wrong ends this channel at most."""
        command = Command.request(RequestCode.SHARE_CORE, ShareCoreHeader(cpu))
        command.opaque = self.next_opaque()
        command.serialization = self._serialization
        try:
            answer = self._exchange(
                encode_command(command),
                command.opaque,
                min(SHARE_TIMEOUT_S, self._timeout_s),
                _never_quick,
                self._spinner,
            )
        except ShmqError:
            return False
        assert isinstance(answer, Command)
        return answer.code == ResponseCode.SUCCESS

    def _exchange(
        self,
        frame: list[Buffer],
        opaque: int,
        timeout_s: float,
        read: Callable[[Buffer, int], R | None],
        spinner: Spinner,
    ) -> R | Command:
        try:
            self._set_timeout(timeout_s)
            send_all(self._sock, frame)
            while True:
                answer = self._receive(spinner)
                quick = read(answer, opaque)
                if quick is not None:
                    return quick
                response = decode_frame(answer)
                if response.opaque == opaque and response.flag & RESPONSE_FLAG:
                    return response
        except BlockingIOError:
            self.close()
            raise RemotingTimeout(
                f"{self.address} did not answer within {timeout_s * 1000:.0f} ms; the request may still have "
                "been carried out"
            ) from None
        except OSError as error:
            self.close()
            raise RemotingError(f"the connection to {self.address} broke: {error}") from error
        except BaseException:  # interrupted or undecodable: the answer still to come belongs to nobody
            self.close()
            raise

    def _receive(self, spinner: Spinner) -> bytes | memoryview:
        """Read exactly one frame. Small ones come with the first recv; of larger ones the rest is read into
        place."""
        sock = self._sock
        data = spinner.receive(sock, SMALL_READ)
        if data is None:
            data = sock.recv(SMALL_READ)
        while len(data) < LENGTHS_BYTES:
            more = sock.recv(SMALL_READ) if data else b""
            if not more:
                raise RemotingError(f"{self.address} closed the connection before it answered")
            data += more
        size = LENGTHS.unpack_from(data)[0] + 4
        if not LENGTHS_BYTES <= size <= FRAME_BYTES_MAX:
            raise FrameFault(
                f"{self.address} sent a frame of {size} bytes, at most {FRAME_BYTES_MAX} are possible"
            )
        if len(data) == size:
            return data
        if len(data) > size:
            raise FrameFault(f"{self.address} sent {len(data) - size} bytes more than one answer")
        frame = memoryview(bytearray(size))
        got = len(data)
        frame[:got] = data
        while got < size:
            count = sock.recv_into(frame[got:])
            if not count:
                raise RemotingError(f"{self.address} closed the connection within an answer")
            got += count
        return frame

    def send_oneway(self, command: Command, timeout_s: float) -> None:
        """Send a request that gets no answer."""
        self._set_timeout(timeout_s)
        command.serialization = self._serialization
        try:
            send_all(self._sock, encode_command(command))
        except OSError as error:
            self.close()
            raise RemotingError(f"the connection to {self.address} broke: {error}") from error

    def is_alive(self) -> bool:
        """Tell whether the peer has neither hung up nor sent something that nobody asked for."""
        try:
            self._sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def _set_timeout(self, timeout_s: float) -> None:
        """Make the kernel give up after `timeout_s`; skipped when it is the same as last time."""
        if timeout_s != self._timeout_s:
            limit_in_kernel(self._sock, socket.SO_RCVTIMEO, timeout_s)
            limit_in_kernel(self._sock, socket.SO_SNDTIMEO, timeout_s)
            self._timeout_s = timeout_s

    @property
    def closed(self) -> bool:
        """Tell whether this channel can no longer be used."""
        return self._sock.fileno() < 0

    def close(self) -> None:
        """Close; again is harmless."""
        self._sock.close()


class ChannelPool:
    """The idle channels of one process to one address."""

    def __init__(self, open_channel: Callable[[], Channel], idle_close_s: float = IDLE_CLOSE_S) -> None:
        """`open_channel` connects a new one; one that rested for `idle_close_s` is not used again."""
        self._open = open_channel
        self._idle_close_s = idle_close_s
        self._lock = threading.Lock()
        self._idle: deque[Channel] = deque()
        self._generation = _generation
        self._closed = False

    def call(self, command: Command, timeout_s: float) -> Command:
        """Send one request over an idle or a new channel and return the response."""
        channel = self._take()
        response = channel.call(command, timeout_s)
        self.put(channel)
        return response

    def exchange_quickly(
        self,
        frame_of: Callable[[int], list[Buffer]],
        timeout_s: float,
        read: Callable[[Buffer, int], R | None],
    ) -> R | Command:
        """Send the frame made for a request id over an idle or a new channel; see
        `Channel.exchange_quickly`."""
        channel = self._take()
        opaque = channel.next_opaque()
        response = channel.exchange_quickly(frame_of(opaque), opaque, timeout_s, read)
        self.put(channel)
        return response

    def send_oneway(self, command: Command, timeout_s: float) -> None:
        """Send one request without an answer."""
        channel = self._take()
        channel.send_oneway(command, timeout_s)
        self.put(channel)

    def _take(self) -> Channel:
        """Return the channel used last, if it still lives, else a new one."""
        if self._generation != _generation:
            self._forget_after_fork()
        while self._idle:
            try:
                channel = self._idle.pop()
            except IndexError:  # another thread was quicker
                break
            rested = time.monotonic() - channel.idle_since
            if rested < IDLE_CHECK_S or (rested < self._idle_close_s and channel.is_alive()):
                return channel
            channel.close()
        return self._open()

    def put(self, channel: Channel) -> None:
        """Keep a channel for the next call, or close it when enough rest or the pool is closed."""
        channel.idle_since = time.monotonic()
        if self._closed or channel.closed or len(self._idle) >= IDLE_MAX:
            channel.close()
        else:
            self._idle.append(channel)

    def _forget_after_fork(self) -> None:
        """In a forked child: drop the parent's descriptors (closing ours leaves the parent's connection
        alone)."""
        with self._lock:
            if self._generation != _generation:
                while self._idle:
                    self._idle.pop().close()
                self._generation = _generation

    def close(self) -> None:
        """Close the idle channels; one in use closes when its call ends."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()
