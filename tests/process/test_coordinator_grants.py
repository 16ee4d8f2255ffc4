"""The grant socket of a real coordinator: read-only descriptors for readers of this host."""

from __future__ import annotations

import mmap
import os
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from shmq.protocol.codes import RequestCode, ResponseCode
from shmq.protocol.command import Command, decode_frame, encode_command
from shmq.protocol.frame import FrameDecoder
from shmq.protocol.grant import (
    FILES_MAX,
    FileRequest,
    GrantReaderAnswer,
    GrantReaderHeader,
    decode_grants,
    encode_file_requests,
)
from shmq.protocol.headers.admin import CreateTopicHeader
from shmq.shm.control_page import ControlPage
from shmq.shm.page_layout import LAYOUT_VERSION_NOW
from tests.helpers.coordinator_rig import SMALL, CoordinatorRig, running_coordinator


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[CoordinatorRig]:
    with running_coordinator(tmp_path) as made:
        yield made


class Reader:
    """A direct reader's end of the grant socket."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(str(path))
        self.socket.settimeout(10)

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def call(
        self, code: int, header: object | None = None, body: bytes | None = None
    ) -> tuple[Command, list[int]]:
        request = Command.request(code, header, body)
        self.socket.sendall(b"".join(bytes(part) for part in encode_command(request)))
        data, descriptors, _, _ = socket.recv_fds(self.socket, 1 << 16, FILES_MAX)
        if not data:
            raise ConnectionResetError("the coordinator closed the connection")
        (frame,) = FrameDecoder().feed(data)
        return decode_frame(frame), list(descriptors)

    def grant(self, layout_version: int = LAYOUT_VERSION_NOW) -> tuple[Command, list[int]]:
        return self.call(RequestCode.GRANT_READER, GrantReaderHeader("g", layout_version))

    def files(self, *wanted: FileRequest) -> tuple[Command, list[int]]:
        return self.call(RequestCode.GRANT_FILES, body=encode_file_requests(wanted))


def test_the_page_is_granted_for_reading_only(rig: CoordinatorRig) -> None:
    with Reader(rig.grant_path) as reader:
        answer, (fd,) = reader.grant()
        found = answer.read_header(GrantReaderAnswer)
        assert found == GrantReaderAnswer(
            rig.page.page_id, LAYOUT_VERSION_NOW, "rig", 1 << 20, rig.layout.queue_file_bytes
        )
        page = ControlPage.from_fd(fd)
        assert page.page_id == rig.page.page_id
        page.close()
        with pytest.raises(PermissionError):
            mmap.mmap(fd, 4096, access=mmap.ACCESS_WRITE)
        os.close(fd)


def test_files_are_granted_in_order_and_missing_ones_are_named(rig: CoordinatorRig) -> None:
    worker = rig.worker()
    header = CreateTopicHeader("orders", "TBW102", 2, 2, 6)
    assert worker.forward(1, RequestCode.UPDATE_AND_CREATE_TOPIC, header).code == 0
    rig.layout.segment_path(0).write_bytes(b"log segment 0")
    rig.layout.segment_path(1 << 20).write_bytes(b"log segment 1")
    path = rig.layout.queue_file_path("orders", 1, 0)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"units")
    with Reader(rig.grant_path) as reader:
        os.close(reader.grant()[1][0])
        answer, descriptors = reader.files(
            FileRequest("log", "", 0, 1 << 20),
            FileRequest("queue", "orders", 0, 0),
            FileRequest("queue", "orders", 1, 0),
            FileRequest("queue", "nosuch", 0, 0),
            FileRequest("queue", "../commitlog", 0, 0),
            FileRequest("queue", "orders", 99, 0),
            FileRequest("log", "", 0, 7),
            FileRequest("log", "", 0, 0),
        )
        assert decode_grants(answer.body_bytes()) == [True, False, True, False, False, False, False, True]
        assert [os.pread(fd, 100, 0) for fd in descriptors] == [b"log segment 1", b"units", b"log segment 0"]
        for fd in descriptors:
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.write(fd, b"x")
            os.close(fd)


@pytest.mark.long
def test_as_many_files_as_one_message_carries(rig: CoordinatorRig) -> None:
    for n in range(FILES_MAX):
        rig.layout.segment_path(n << 20).write_bytes(b"%d" % n)
    with Reader(rig.grant_path) as reader:
        os.close(reader.grant()[1][0])
        answer, descriptors = reader.files(*(FileRequest("log", "", 0, n << 20) for n in range(FILES_MAX)))
        assert answer.code == 0 and len(descriptors) == FILES_MAX
        assert os.pread(descriptors[-1], 10, 0) == b"%d" % (FILES_MAX - 1)
        for fd in descriptors:
            os.close(fd)
        answer, none = reader.files(*(FileRequest("log", "", 0, 0) for _ in range(FILES_MAX + 1)))
        assert answer.code == ResponseCode.INVALID_PARAMETER and none == []
    assert rig.process is not None
    left = len(os.listdir(f"/proc/{rig.process.pid}/fd"))
    assert left < FILES_MAX


@pytest.mark.long
def test_no_files_without_a_grant_and_no_grant_for_another_layout(rig: CoordinatorRig) -> None:
    with Reader(rig.grant_path) as reader:
        answer, none = reader.files(FileRequest("log", "", 0, 0))
        assert answer.code == ResponseCode.NO_PERMISSION and none == []
        answer, none = reader.grant(LAYOUT_VERSION_NOW + 1)
        assert answer.code == ResponseCode.NO_PERMISSION and none == []
        answer, none = reader.call(RequestCode.SEND_MESSAGE)
        assert answer.code == ResponseCode.REQUEST_CODE_NOT_SUPPORTED and none == []
        answer, descriptors = reader.grant()
        assert answer.code == 0
        os.close(descriptors[0])


@pytest.mark.long
def test_direct_pull_can_be_switched_off(tmp_path: Path) -> None:
    rig = CoordinatorRig(tmp_path, replace(SMALL, direct_pull_enable=False))
    try:
        rig.start()
        with Reader(rig.grant_path) as reader:
            answer, none = reader.grant()
            assert answer.code == ResponseCode.NO_PERMISSION and "directPullEnable" in (answer.remark or "")
            assert none == []
    finally:
        rig.close()


@pytest.mark.long
@pytest.mark.parametrize(
    "rubbish", [b"\xff" * 64, b"\0\0\0\0\0\0\0\0", b"\0\0\0\x08\x02\0\0\4\xff\xff\xff\xff"]
)
def test_a_broken_frame_ends_that_connection_only(rig: CoordinatorRig, rubbish: bytes) -> None:
    with Reader(rig.grant_path) as good:
        os.close(good.grant()[1][0])
        with Reader(rig.grant_path) as bad:
            bad.socket.sendall(rubbish)
            assert bad.socket.recv(10) == b""
        assert good.files(FileRequest("log", "", 0, 0))[0].code == 0


@pytest.mark.long
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
@pytest.mark.parametrize(("reader_groups", "code"), [("", 16), ("nosuchgroup", 16), ("daemon", 0)])
def test_other_users_need_a_group_of_reader_groups(reader_groups: str, code: int) -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to other users
        rig = CoordinatorRig(Path(folder), replace(SMALL, reader_groups=reader_groups))
        try:
            rig.start()
            Path(folder).chmod(0o711)
            rig.grant_path.chmod(0o666)
            pid = os.fork()
            if pid == 0:
                os._exit(_code_as_another_user(rig.grant_path))
            _, status = os.waitpid(pid, 0)
            assert os.waitstatus_to_exitcode(status) == code
        finally:
            rig.close()


def _code_as_another_user(path: Path) -> int:
    """Ask for a grant as user nobody whose supplementary group is daemon (1)."""
    try:
        os.setgroups([1])
        os.setgid(65534)
        os.setuid(65534)
        with Reader(path) as reader:
            return reader.grant()[0].code
    except OSError:
        return 99
