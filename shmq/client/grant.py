"""ReaderGrant: this process' permission to read one local broker's store directly, and the maps it got.

One connection to `<broker>.grant.sock` per broker; the grant lives exactly as long. The control page is
mapped once; CommitLog segments and ConsumeQueue files are asked for when first needed and kept in an LRU,
because each Python map holds a descriptor. `_lock` guards the connection; lookups of maps that are held need
no lock. When the connection ends, or the broker retires the page, the grant is dead: every map is let go
(views handed out stay valid, their memory lives as long as they do) and the reader pulls by socket until a
new one is given.
"""

from __future__ import annotations

import mmap
import os
import select
import socket
import threading
import time
from collections import OrderedDict
from pathlib import Path

from shmq.base.errors import Unavailable
from shmq.base.runtime_dir import grant_socket
from shmq.client.addresses import Address, connect
from shmq.client.errors import RemotingError
from shmq.model.message_queue import MessageQueue
from shmq.model.unit import UNIT_BYTES
from shmq.protocol.codes import RequestCode, ResponseCode, error_of
from shmq.protocol.command import Command, decode_frame, encode_command
from shmq.protocol.frame import FrameDecoder
from shmq.protocol.grant import (
    LOG,
    FileRequest,
    GrantReaderAnswer,
    GrantReaderHeader,
    decode_grants,
    encode_file_requests,
)
from shmq.shm.control_page import ControlPage, PageState
from shmq.shm.directory import DirectoryView
from shmq.shm.page_layout import (
    FILES_UNLINKED,
    LAYOUT_VERSION_NOW,
    MIN_OFFSET,
    PAGE_ID,
    POLICY_EPOCH,
    STATE,
)
from shmq.shm.queue_table import QueueRef, QueueTable

MAPS_MAX = 256
DESCRIPTORS_MAX = 253
ANSWER_LIMIT_S = 3.0
LOOK_S = 0.01
"""How long a dead connection may go unnoticed; the page's own state is looked at for every batch."""
READABLE = frozenset({PageState.OK, PageState.FLUSH_FAILED, PageState.READ_ONLY})
"""Page states in which what is visible may be read."""

FileMap = memoryview


class GrantLost(Unavailable):
    """The grant's connection is gone or its page retired: pull by socket, ask again later."""


class ReaderGrant:
    """The page and the file maps of one broker, read-only."""

    def __init__(self, unix_socket: str, broker_name: str, group: str, broker_user: str | None) -> None:
        """Ask for the grant. Errors: `Unavailable` kinds and BrokerError; all mean socket pull."""
        path = grant_socket(Path(unix_socket).parent, broker_name)
        self._lock = threading.Lock()
        self._sock = connect(Address(str(path)), ANSWER_LIMIT_S, broker_user)
        self._decoder = FrameDecoder()
        self._maps: OrderedDict[FileRequest, FileMap] = OrderedDict()
        try:
            header = GrantReaderHeader(group=group, layout_version=LAYOUT_VERSION_NOW)
            answer, descriptors = self._ask(Command.request(RequestCode.GRANT_READER, header))
            self.answer = answer.read_header(GrantReaderAnswer)
            try:
                self.page = ControlPage.from_fd(descriptors[0], readonly=True)
            finally:
                _close_all(descriptors)
        except BaseException:
            self._sock.close()
            raise
        self.directory = DirectoryView(self.page)
        self._table = QueueTable(self.page)
        self._files_unlinked = self.page.words[FILES_UNLINKED]
        self._looked_s = 0.0
        self._stood = True

    @property
    def usable(self) -> bool:
        """Tell whether the page may still be believed: the connection stands, state and page id are the
        granted."""
        words = self.page.words
        return words[STATE] in READABLE and words[PAGE_ID] == self.answer.page_id and self.stands

    @property
    def policy_epoch(self) -> int:
        """Return the number that each change of topics, groups, offsets and permissions moves on."""
        return self.page.words[POLICY_EPOCH]

    def queue(self, queue: MessageQueue) -> QueueRef | None:
        """Return the slot and generation of a queue as the directory names it now."""
        with self._lock:
            self.directory.catch_up()
            return self.directory.queue(queue.topic, queue.queue_id)

    @property
    def stands(self) -> bool:
        """Tell `alive` as of at most `LOOK_S` ago: asking the kernel gives the interpreter lock away, and
        getting it back from a busy listener thread can take longer than a thousand reads."""
        now = time.monotonic()
        if now - self._looked_s > LOOK_S:
            self._looked_s = now
            self._stood = self.alive
        return self._stood

    @property
    def alive(self) -> bool:
        """Tell whether the connection still stands: any event on it means the end, the broker sends nothing
        unasked. Any thread: one poller must not be asked by two."""
        number = self._sock.fileno()
        if number < 0:
            return False
        poller = select.poll()
        poller.register(number, select.POLLIN)
        return not poller.poll(0)

    def file(self, request: FileRequest) -> FileMap | None:
        """Return the map of one file, asking the broker when it is not held; None when there is no such
        file."""
        held = self._maps.get(request)
        if held is not None:
            return held
        with self._lock:
            held = self._maps.get(request)
            if held is None:
                held = self._fetch(request)
                if held is not None:
                    self._maps[request] = held
                    while len(self._maps) > MAPS_MAX:
                        self._maps.popitem(last=False)
            return held

    def drop_deleted(self) -> None:
        """Let go of files that retention has deleted: their disk space is free only when no map is left.

        One load when there are none; before every pull.
        """
        unlinked = self.page.words[FILES_UNLINKED]
        if unlinked == self._files_unlinked:
            return
        with self._lock:
            self._files_unlinked = unlinked
            self.directory.catch_up()
            for request in [request for request in self._maps if self._is_deleted(request)]:
                del self._maps[request]

    def _is_deleted(self, request: FileRequest) -> bool:
        """Whether everything in a file lies below what is kept."""
        if request.kind == LOG:
            return request.file_start + self.answer.log_file_size <= self.page.words[MIN_OFFSET]
        ref = self.directory.queue(request.topic, request.queue_id)
        end = (request.file_start + self.answer.queue_file_size) // UNIT_BYTES
        return ref is None or end <= self._table.min(ref.slot)

    def _fetch(self, request: FileRequest) -> FileMap | None:
        command = Command.request(RequestCode.GRANT_FILES, None, encode_file_requests([request]))
        answer, descriptors = self._ask(command)
        try:
            if not decode_grants(answer.body_bytes())[0]:
                return None
            size = os.fstat(descriptors[0]).st_size
            return memoryview(mmap.mmap(descriptors[0], size, access=mmap.ACCESS_READ))
        finally:
            _close_all(descriptors)

    def _ask(self, command: Command) -> tuple[Command, list[int]]:
        """Send one request and read its answer with the descriptors beside it; one at a time."""
        descriptors: list[int] = []
        try:
            self._sock.settimeout(ANSWER_LIMIT_S)
            self._sock.sendall(b"".join(encode_command(command)))
            while True:
                data, received, _, _ = socket.recv_fds(self._sock, 65536, DESCRIPTORS_MAX)
                descriptors += received
                if not data:
                    raise RemotingError("the broker closed the grant connection")
                for frame in self._decoder.feed(data):
                    response = decode_frame(frame)
                    if response.opaque != command.opaque:
                        continue
                    if response.code != ResponseCode.SUCCESS:
                        raise error_of(response.code, response.remark)
                    return response, descriptors
        except OSError as error:
            _close_all(descriptors)
            self.close()
            raise GrantLost(f"the grant connection broke: {error}") from error
        except BaseException:
            _close_all(descriptors)
            raise

    def close(self) -> None:
        """End the grant and let go of every map."""
        self._sock.close()
        self._maps.clear()


def _close_all(descriptors: list[int]) -> None:
    """Close received descriptors: a map holds its own."""
    for descriptor in descriptors:
        os.close(descriptor)
    descriptors.clear()
