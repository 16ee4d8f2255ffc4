"""A page, a store and a real coordinator process without a supervisor; its workers are sockets in the test.

For tests of the coordinator alone. Everything lives in one temporary folder; `close` takes all of it away.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from shmq.base.runtime_dir import grant_socket, internal_socket
from shmq.model.settings import BrokerSettings
from shmq.net.listener import bind_unix
from shmq.protocol import internal
from shmq.protocol.codes import ResponseCode
from shmq.protocol.command import Command, Serialization, decode_frame, encode_command
from shmq.protocol.frame import FrameDecoder
from shmq.protocol.internal import InternalCode, Snapshot
from shmq.shm.append_lock import create_semaphore, unlink_semaphore
from shmq.shm.boot import COORDINATOR_SLOT, FIRST_WORKER_SLOT, ChildBoot, ChildRole
from shmq.shm.control_page import ControlPage, PageState
from shmq.shm.directory import DirectoryView
from shmq.shm.doorbell import Doorbell
from shmq.shm.page_layout import SLOT_COUNT, VISIBLE_WORD, WRITE_POSITION
from shmq.shm.worker_slots import SlotState, SlotTable, process_start_time
from shmq.store.names import StoreLayout

from .waiting import wait_until

CHILD = "import pickle, sys; from shmq.coordinator.main import run; run(pickle.load(sys.stdin.buffer))"

SMALL = BrokerSettings(
    broker_name="rig",
    broker_ip1="127.0.0.1",
    listen_port=10911,
    mapped_file_size_commit_log=1 << 20,
    mapped_file_size_consume_queue=6000 * 20,
    queue_slots=2048,
    offset_slots=2048,
    flush_consumer_offset_interval=50,
)


@contextlib.contextmanager
def running_coordinator(folder: Path, settings: BrokerSettings | None = None) -> Iterator[CoordinatorRig]:
    """A started coordinator that is closed at the end, whatever happens."""
    made = CoordinatorRig(folder, settings or SMALL)
    try:
        yield made.start()
    finally:
        made.close()


class CoordinatorRig:
    """Everything around the coordinator under test."""

    def __init__(self, folder: Path, settings: BrokerSettings = SMALL) -> None:
        self.folder = folder
        self.settings = replace(settings, runtime_dir=str(folder))
        self.root = folder / "store"
        self.layout = StoreLayout.of(self.root, self.settings)
        self.layout.make_folders()
        self.name = f"/shmq-rig-{os.getpid()}-{secrets.token_hex(4)}"
        self.page = ControlPage.create(
            self.name, queue_slots=settings.queue_slots, offset_slots=settings.offset_slots, store_identity=1
        )
        self.page.words[VISIBLE_WORD] = WRITE_POSITION
        self.page.state = PageState.OK
        self.semaphore = create_semaphore(self.name, self.page)
        self.bells = [Doorbell.create() for _ in range(SLOT_COUNT)]
        self.slots = SlotTable(self.page)
        self.directory = DirectoryView(self.page)
        self._internal = bind_unix(internal_socket(folder, settings.broker_name), mode=0o600)
        self._grant = bind_unix(grant_socket(folder, settings.broker_name))
        self._supervisor_end, self._supervisor_write = os.pipe()
        self.process: subprocess.Popen[bytes] | None = None
        self._workers: list[FakeWorker] = []

    def start(self, *, faults: str = "") -> CoordinatorRig:
        """Start (or start again) the coordinator and wait until it serves."""
        boot = ChildBoot(
            role=ChildRole.COORDINATOR,
            slot=COORDINATOR_SLOT,
            index=0,
            settings=self.settings,
            store_root=self.root,
            page_name=self.name,
            semaphore_name=self.semaphore,
            bell_fds=tuple(bell.fileno() for bell in self.bells),
            supervisor_fd=self._supervisor_end,
            status_fd=-1,
            runtime_dir=self.folder,
            grant_fd=self._grant.fileno(),
            internal_fd=self._internal.fileno(),
        )
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD],
            stdin=subprocess.PIPE,
            pass_fds=boot.descriptors(),
            env={**os.environ, "SHMQ_FAULTS": faults},
        )
        slot = self.slots[COORDINATOR_SLOT]
        slot.empty()
        slot.fill(child.pid, process_start_time(child.pid))
        assert child.stdin is not None
        with child.stdin as pipe:
            pipe.write(pickle.dumps(boot))
        self.process = child
        wait_until(
            lambda: slot.state == SlotState.SERVING or child.poll() is not None, 20, "coordinator serves"
        )
        return self

    def kill(self) -> None:
        """End the coordinator as a crash does."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """Ask the coordinator to leave; its exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(10)

    def lose_supervisor(self) -> None:
        """Close the write end of the supervisor pipe, as the supervisor's death would."""
        os.close(self._supervisor_write)
        self._supervisor_write = -1

    def occupy(self, index: int = 0) -> None:
        """Let the page say that this test process is worker `index`."""
        slot = self.slots[FIRST_WORKER_SLOT + index]
        slot.fill(os.getpid(), process_start_time(os.getpid()))

    def worker(self, index: int = 0, *, hello: bool = True) -> FakeWorker:
        """Connect as worker `index`; with `hello` it also says so and ends its replay."""
        worker = FakeWorker(
            internal_socket(self.folder, self.settings.broker_name), FIRST_WORKER_SLOT + index
        )
        self._workers.append(worker)
        if hello:
            worker.hello()
            worker.tell(InternalCode.REPLAY_DONE)
        return worker

    @property
    def grant_path(self) -> Path:
        return grant_socket(self.folder, self.settings.broker_name)

    def close(self) -> None:
        for worker in self._workers:
            worker.close()
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for closing in (self._internal, self._grant):
            closing.close()
        for bell in self.bells:
            bell.close()
        os.close(self._supervisor_end)
        if self._supervisor_write >= 0:
            os.close(self._supervisor_write)
        self.page.close()
        ControlPage.unlink(self.name)
        unlink_semaphore(self.semaphore)


class FakeWorker:
    """A worker's end of the internal protocol: calls, oneways, and what the coordinator asked meanwhile."""

    def __init__(self, path: Path, slot: int) -> None:
        self.slot = slot
        self.asked: list[Command] = []
        """Requests of the coordinator, oldest first; all but those in `silent` are answered at once."""
        self.silent = False
        self.keep: dict[str, bytes] = {}
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(path))
        self._decoder = FrameDecoder(128 << 20)
        self._answers: dict[int, Command] = {}

    def hello(self) -> Snapshot:
        answer = self.call(InternalCode.WORKER_HELLO, internal.WorkerHelloHeader(self.slot, os.getpid()))
        return Snapshot.decode(answer.body_bytes())

    def open_client(self, conn_id: int, peer: str = "10.0.0.9:4711") -> None:
        header = internal.ClientOpenedHeader(conn_id, "tcp", peer, -1, -1, -1)
        self.tell(InternalCode.CLIENT_OPENED, header)

    def close_client(self, conn_id: int) -> None:
        self.tell(InternalCode.CLIENT_CLOSED, internal.ClientClosedHeader(conn_id))

    def tell(self, code: int, header: object | None = None, body: Any = None) -> None:
        self._send(Command.request(code, header, body, oneway=True))

    def call(self, code: int, header: object | None = None, body: Any = None, limit_s: float = 10) -> Command:
        request = Command.request(code, header, body)
        self._send(request)
        return self.answer_to(request, limit_s)

    def answer_to(self, request: Command, limit_s: float = 10) -> Command:
        while request.opaque not in self._answers:
            self.pump(limit_s)
        return self._answers.pop(request.opaque)

    def start_forward(self, conn_id: int, request: Command) -> Command:
        """Pass a client's request on without waiting; the FORWARD is returned for `answer_to`."""
        forward = Command.request(
            InternalCode.FORWARD, internal.ForwardHeader(conn_id), list(encode_command(request))
        )
        self._send(forward)
        return forward

    def forward(
        self, conn_id: int, code: int, header: object | None = None, body: Any = None, **more: Any
    ) -> Command:
        """Pass a client's request on and return the answer the client would see; notes are kept."""
        more.setdefault("serialization", Serialization.JSON)
        return self.finish(self.start_forward(conn_id, Command.request(code, header, body, **more)))

    def finish(self, forward: Command) -> Command:
        answer = self.answer_to(forward)
        assert answer.code == ResponseCode.SUCCESS, answer
        note = answer.read_header(internal.ForwardAnswerHeader)
        if note.keep_key is not None and note.keep is None:
            self.keep.pop(note.keep_key, None)
        elif note.keep_key is not None and note.keep is not None:
            self.keep[note.keep_key] = bytes(note.keep)
        return decode_frame(answer.body_bytes()) if answer.body else answer

    def take(self, code: int, limit_s: float = 10) -> Command:
        """The oldest request of that code the coordinator made, waiting for one."""
        while not (found := [command for command in self.asked if command.code == code]):
            self.pump(limit_s)
        self.asked.remove(found[0])
        return found[0]

    def pushed(self, limit_s: float = 10) -> tuple[int, Command]:
        """The next frame pushed to a client: (conn_id, its command)."""
        push = self.take(InternalCode.PUSH, limit_s)
        return push.read_header(internal.ClientHeader).conn_id, decode_frame(push.body_bytes())

    def pump(self, limit_s: float) -> None:
        """Read once; TimeoutError when nothing comes."""
        self._socket.settimeout(limit_s)
        data = self._socket.recv(1 << 18)
        if not data:
            raise ConnectionResetError("the coordinator closed the link")
        for frame in self._decoder.feed(data):
            command = decode_frame(frame)
            if command.is_response:
                self._answers[command.opaque] = command
                continue
            self.asked.append(command)
            if not command.is_oneway and not self.silent:
                self._send(command.response(ResponseCode.SUCCESS))

    def _send(self, command: Command) -> None:
        self._socket.sendall(b"".join(bytes(part) for part in encode_command(command)))

    def close(self) -> None:
        self._socket.close()
