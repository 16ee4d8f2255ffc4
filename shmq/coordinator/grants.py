"""The grant socket: read-only descriptors of the control page and of store files for consumers of this host.

asyncio's transports pass no descriptors, so these connections are plain non-blocking sockets with a reader
callback. The CommitLog holds every topic: a grant is only for peers that may read all of it: root, the
broker's own user, and members of the groups in `readerGroups`, as the kernel says. A grant lives as long as
its connection. Everything is bounded: readers, bytes of a request, descriptors of an answer; a peer that
does not take its answer is disconnected. Coordinator's loop only; the requests themselves are in
`protocol/grant.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import grp
import logging
import os
import socket
import struct
from collections.abc import Callable, Collection

from shmq.base import log
from shmq.base.errors import InvalidParameter, NoPermission, RequestNotSupported, ShmqError, SystemBusy
from shmq.broker.live_settings import LiveSettings
from shmq.broker.queues import Queues
from shmq.model.names import WAITING_TOPICS
from shmq.net.listener import accept_some
from shmq.net.peer import Peer, is_own_user, peer_of
from shmq.protocol.codes import RequestCode, ResponseCode
from shmq.protocol.command import Command, decode_frame, encode_command
from shmq.protocol.frame import FrameDecoder
from shmq.protocol.grant import (
    LOG,
    FileRequest,
    GrantReaderAnswer,
    GrantReaderHeader,
    decode_file_requests,
    encode_grants,
)
from shmq.shm import page_layout as at
from shmq.shm.control_page import ControlPage, open_page_fd
from shmq.store.names import StoreLayout

READERS_MAX = 1024
REQUEST_BYTES_MAX = 256 * 1024
_RECEIVE_BYTES = 64 * 1024
_SO_PEERGROUPS = 59
"""Linux: the supplementary groups of the process that connected; Python has no name for it."""
_PEERGROUPS_BYTES = 1024
"""As much as Python lets a socket option have."""

_logger = log.get(__name__)


class GrantServer:
    """Accepts readers and answers them."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listening: socket.socket,
        page: ControlPage,
        page_name: str,
        layout: StoreLayout,
        queues: Queues,
        settings: LiveSettings,
        count: Callable[[str, int], None],
    ) -> None:
        """`listening` is the bound socket, not blocking; `start` begins to accept."""
        self._loop = loop
        self._listening = listening
        self._page = page
        self._page_name = page_name
        self._layout = layout
        self._queues = queues
        self._settings = settings
        self._count = count
        self._readers: set[_Reader] = set()
        settings.on_change.append(self._judge_again)

    def start(self) -> None:
        """Begin to accept."""
        self._loop.add_reader(self._listening, self._on_readable)

    def stop(self) -> None:
        """Accept nobody any more and end all grants."""
        self._loop.remove_reader(self._listening)
        for reader in list(self._readers):
            reader.close("broker stops")

    def _on_readable(self) -> None:
        for sock in accept_some(self._listening):
            if len(self._readers) >= READERS_MAX:
                self._count("grants_refused", 1)
                sock.close()
                continue
            with contextlib.suppress(OSError):  # it left before it was greeted
                self._readers.add(_Reader(self, sock, self._loop))

    def end_grants(self, pids: Collection[int], reason: str) -> int:
        """End the grants of these processes, which then let go of every map; return how many there were."""
        ended = [reader for reader in self._readers if reader.peer.pid in pids]
        for reader in ended:
            reader.close(reason)
        return len(ended)

    def _judge_again(self) -> None:
        """Settings have changed: end the grants of those who may not read any more."""
        enabled = self._settings.now.direct_pull_enable
        for reader in list(self._readers):
            if reader.granted and not (enabled and self._may_read_all(reader)):
                reader.close("grant withdrawn")

    def forget(self, reader: _Reader) -> None:
        """A reader's connection ended, and its grant with it."""
        self._readers.discard(reader)

    # -- requests --

    def grant_reader(self, reader: _Reader, command: Command) -> tuple[Command, list[int]]:
        """GRANT_READER: the page, for those who may read everything."""
        header = command.read_header(GrantReaderHeader)
        settings = self._settings.now
        try:
            if not settings.direct_pull_enable:
                raise NoPermission("direct pull is switched off (directPullEnable=false)")
            if not self._may_read_all(reader):
                raise NoPermission(
                    f"uid {reader.peer.uid} may not read the whole store: join a group of readerGroups "
                    f"({settings.reader_groups or 'none'})"
                )
            if header.layout_version != at.LAYOUT_VERSION_NOW:
                raise NoPermission(f"the control page has layout {at.LAYOUT_VERSION_NOW}: pull by socket")
        except NoPermission:
            self._count("grants_refused", 1)
            raise
        reader.granted = True
        self._count("grants", 1)
        log.event(_logger, logging.INFO, "reader_granted", group=header.group, pid=reader.peer.pid)
        answer = GrantReaderAnswer(
            page_id=self._page.page_id,
            layout_version=at.LAYOUT_VERSION_NOW,
            broker_name=settings.broker_name,
            log_file_size=self._layout.segment_bytes,
            queue_file_size=self._layout.queue_file_bytes,
        )
        return command.response(ResponseCode.SUCCESS, header=answer), [open_page_fd(self._page_name)]

    def _may_read_all(self, reader: _Reader) -> bool:
        if is_own_user(reader.peer):
            return True
        wanted = set()
        for name in filter(None, map(str.strip, self._settings.now.reader_groups.split(","))):
            with contextlib.suppress(KeyError):  # a group that does not exist has no members
                wanted.add(grp.getgrnam(name).gr_gid)
        return bool(wanted and wanted.intersection(reader.groups()))

    def grant_files(self, reader: _Reader, command: Command) -> tuple[Command, list[int]]:
        """GRANT_FILES: the files that exist among those asked for."""
        if not reader.granted:
            raise NoPermission("ask for a reader grant first (GRANT_READER)")
        try:
            wanted = decode_file_requests(command.body_bytes())
        except ValueError as error:
            raise InvalidParameter(str(error)) from None
        found = [self._open(request) for request in wanted]
        body = encode_grants([fd >= 0 for fd in found])
        return command.response(ResponseCode.SUCCESS, body=body), [fd for fd in found if fd >= 0]

    def _open(self, request: FileRequest) -> int:
        """A read-only descriptor, -1 when there is no such file. Names come from the page, not the peer."""
        if request.kind == LOG:
            path = self._layout.segment_path(request.file_start)
        else:
            ref = self._queues.ref(request.topic, request.queue_id)
            if ref is None or request.topic in WAITING_TOPICS:
                return -1
            path = self._layout.queue_file_path(ref.topic, ref.queue_id, request.file_start)
        try:
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return -1
        except OSError as error:
            raise SystemBusy(f"{path.name} cannot be opened now: {error.strerror}") from None

    requests = {RequestCode.GRANT_READER: grant_reader, RequestCode.GRANT_FILES: grant_files}


class _Reader:
    """One connection on the grant socket."""

    def __init__(self, server: GrantServer, sock: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        """Greet an accepted socket; OSError when the peer is gone already."""
        self.granted = False
        self._server = server
        self._sock = sock
        self._loop = loop
        self._decoder = FrameDecoder(REQUEST_BYTES_MAX)
        self.peer: Peer = peer_of(sock)
        loop.add_reader(sock, self._on_readable)

    def groups(self) -> list[int]:
        """The peer's group ids, its own and the supplementary ones (of more than 256 only its own)."""
        try:
            raw = self._sock.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _PEERGROUPS_BYTES)
        except OSError:
            raw = b""
        return [self.peer.gid, *(number for (number,) in struct.iter_unpack("I", raw))]

    def _on_readable(self) -> None:
        try:
            data = self._sock.recv(_RECEIVE_BYTES)
            if not data:
                self.close("peer closed")
                return
            for frame in self._decoder.feed(data):
                self._serve(decode_frame(frame))
        except (BlockingIOError, InterruptedError):
            return
        except (ShmqError, OSError) as error:
            self.close(str(error))
        except Exception as error:  # the edge of a connection: a defect costs this reader, not the process
            log.event(_logger, logging.ERROR, "grant_failed", exc_info=True)
            self.close(repr(error))

    def _serve(self, command: Command) -> None:
        descriptors: list[int] = []
        try:
            serve = GrantServer.requests.get(RequestCode(command.code)) if command.code in _CODES else None
            if serve is None:
                raise RequestNotSupported(f"request code {command.code} is not served on the grant socket")
            answer, descriptors = serve(self._server, self, command)
        except ShmqError as error:
            answer = command.refusal(error)
        try:
            self._send(answer, descriptors)
        finally:
            for fd in descriptors:
                os.close(fd)

    def _send(self, answer: Command, descriptors: list[int]) -> None:
        """Send an answer whole; OSError when the peer does not take it (its buffer is full)."""
        frame = b"".join(encode_command(answer))
        sent = socket.send_fds(self._sock, [frame], descriptors) if descriptors else self._sock.send(frame)
        if sent != len(frame):
            raise OSError("the peer does not read its answers")

    def close(self, reason: str) -> None:
        """End the connection. Twice is harmless."""
        if self._sock.fileno() < 0:
            return
        log.event(_logger, logging.INFO, "reader_left", pid=self.peer.pid, reason=reason)
        self._loop.remove_reader(self._sock)
        self._sock.close()
        self._server.forget(self)


_CODES = frozenset(map(int, GrantServer.requests))
