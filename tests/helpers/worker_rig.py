"""A page, a store and real worker processes without a supervisor, and a coordinator of a hundred lines.

For tests of the worker alone. The stand-in coordinator knows topics, groups and nothing of membership rules:
tests set what it answers. Everything lives in one temporary folder; `close` takes all of it away.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from shmq.base.runtime_dir import internal_socket
from shmq.model.consumer_group import SubscriptionGroupConfig
from shmq.model.settings import BrokerSettings
from shmq.model.subscription import build_subscription
from shmq.model.topic_config import TopicConfig
from shmq.net.connection import Connection
from shmq.net.limits import ConnectionLimits
from shmq.net.listener import bind_tcp, bind_unix, serve
from shmq.protocol.bodies.heartbeat import subscription_json
from shmq.protocol.codes import ResponseCode
from shmq.protocol.command import Command, decode_frame, encode_command
from shmq.protocol.frame import FrameDecoder
from shmq.protocol.headers.pull import PullMessageHeader
from shmq.protocol.headers.send import SendMessageV2Header
from shmq.protocol.internal import (
    ClientHeader,
    ForwardAnswerHeader,
    GroupChangedHeader,
    GroupState,
    InternalCode,
    OffsetSlotsHeader,
    ResolveGroupHeader,
    ResolveTopicHeader,
    Snapshot,
    TopicChangedHeader,
)
from shmq.shm.append_lock import create_semaphore, unlink_semaphore
from shmq.shm.boot import FIRST_WORKER_SLOT, ChildBoot, ChildRole
from shmq.shm.control_page import ControlPage, PageState
from shmq.shm.directory import DirectoryView, DirectoryWriter
from shmq.shm.doorbell import Doorbell
from shmq.shm.page_layout import FLUSHED_POSITION, SLOT_COUNT, VISIBLE_WORD, WRITE_POSITION
from shmq.shm.worker_slots import SlotState, SlotTable, process_start_time
from shmq.store.checksums import LogChecksums
from shmq.store.flusher import Flusher
from shmq.store.names import StoreLayout
from shmq.store.segment_allocator import SegmentAllocator
from shmq.store.segment_descriptors import SegmentDescriptors
from tests.helpers.waiting import wait_until

CHILD = "import pickle, sys; from shmq.worker.main import run; run(pickle.load(sys.stdin.buffer))"

SMALL = BrokerSettings(
    broker_name="rig",
    broker_ip1="127.0.0.1",
    broker_workers=1,
    mapped_file_size_commit_log=64 << 20,
    mapped_file_size_consume_queue=6000 * 20,
    queue_slots=1024,
    offset_slots=1024,
    zero_ahead_bytes=0,
)


class StandInCoordinator:
    """Answers workers from a few dictionaries; runs its own loop in a thread."""

    def __init__(self, path: Path, page: ControlPage) -> None:
        self.topics: dict[str, TopicConfig] = {}
        self.groups: dict[str, GroupState] = {}
        self.events: list[tuple[int, Any]] = []
        self.answers: list[int] = []
        self.keep: dict[int, ForwardAnswerHeader] = {}
        self.auto_create = True
        self.answer_forwards = True
        self._writer = DirectoryWriter(page)
        self._view = DirectoryView(page)
        self._path = path
        self._links: list[Connection] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._listening = bind_unix(self._path, mode=0o600)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.call_soon(serve, self._loop, self._listening, self._make)
        self._loop.run_forever()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    def _make(self) -> Connection:
        return Connection(
            self._on_command, self._gone, ConnectionLimits(idle_s=1e9), on_open=self._links.append
        )

    def _gone(self, link: Connection) -> None:
        if link in self._links:
            self._links.remove(link)

    def break_links(self) -> None:
        self._loop.call_soon_threadsafe(lambda: [link.abort("test") for link in list(self._links)])

    def pause(self) -> None:
        """Be away: no new links, the old ones broken."""
        self._loop.call_soon_threadsafe(self._loop.remove_reader, self._listening)
        self._path.rename(self._path.with_suffix(".away"))
        self.break_links()

    def resume(self) -> None:
        """Be there again."""
        self._path.with_suffix(".away").rename(self._path)
        self._loop.call_soon_threadsafe(serve, self._loop, self._listening, self._make)

    def stop(self) -> None:
        def end() -> None:
            for link in list(self._links):
                link.abort("test ends")
            self._loop.remove_reader(self._listening)
            self._loop.call_later(0.02, self._loop.stop)

        self._loop.call_soon_threadsafe(end)
        self._thread.join(5)
        self._listening.close()
        self._path.unlink(missing_ok=True)

    # -- what it knows -------------------------------------------------------------------------------------

    def add_topic(self, name: str, queues: int = 4, perm: int = 6) -> TopicConfig:
        config = TopicConfig(name, queues, queues, perm)
        self._writer.add_queues(name, 0, [(0, 0)] * queues)
        self.topics[name] = config
        return config

    def add_group(
        self, name: str, subscriptions: dict[str, str] | None = None, members: int = 1
    ) -> GroupState:
        wanted = subscriptions or {}
        state = GroupState(
            SubscriptionGroupConfig(name).to_json(),
            members=members if wanted else 0,
            message_model="CLUSTERING" if wanted else None,
            subscriptions={t: subscription_json(build_subscription(t, e, 1)) for t, e in wanted.items()},
        )
        self.groups[name] = state
        return state

    def tell_topic(self, config: TopicConfig, deleted: bool = False) -> None:
        body = b"" if deleted else orjson.dumps(config.to_json())
        self._tell(InternalCode.TOPIC_CHANGED, TopicChangedHeader(config.topic_name, deleted), body)

    def tell_group(self, name: str) -> None:
        self._tell(InternalCode.GROUP_CHANGED, GroupChangedHeader(name, False), self.groups[name].encode())

    def push(self, conn_id: int, frame: bytes) -> None:
        self._tell(InternalCode.PUSH, ClientHeader(conn_id), frame, oneway=True)

    def _tell(self, code: int, header: object, body: bytes, oneway: bool = False) -> None:
        def tell() -> None:
            for link in self._links:
                link.send(Command.request(code, header, body, oneway=oneway))

        answered = len(self.answers) + (0 if oneway else len(self._links))
        self._loop.call_soon_threadsafe(tell)
        wait_until(lambda: len(self.answers) >= answered, 5, "workers acknowledge the change")

    # -- serving -------------------------------------------------------------------------------------------

    def _on_command(self, link: Connection, command: Command) -> None:
        if command.is_response:
            self.answers.append(command.code)
            return
        answer = self._answer(command)
        if answer is not None and not command.is_oneway:
            link.send(answer)

    def _answer(self, command: Command) -> Command | None:
        ok = ResponseCode.SUCCESS
        match command.code:
            case InternalCode.WORKER_HELLO:
                topics = {name: config.to_json() for name, config in self.topics.items()}
                snapshot = Snapshot(topics, dict(self.groups), True, 120_000)
                self.events.append((command.code, None))
                return command.response(ok, body=snapshot.encode())
            case InternalCode.RESOLVE_TOPIC:
                header = command.read_header(ResolveTopicHeader)
                config = self.topics.get(header.topic)
                if config is None and self.auto_create and header.create:
                    config = self.add_topic(header.topic, header.default_topic_queue_nums)
                if config is None:
                    return command.response(ResponseCode.TOPIC_NOT_EXIST, f"no topic {header.topic}")
                return command.response(ok, body=orjson.dumps(config.to_json()))
            case InternalCode.RESOLVE_GROUP:
                group = command.read_header(ResolveGroupHeader).group
                if group not in self.groups and self.auto_create:
                    self.add_group(group)
                if group not in self.groups:
                    return command.response(ResponseCode.SUBSCRIPTION_GROUP_NOT_EXIST, f"no group {group}")
                return command.response(ok, body=self.groups[group].encode())
            case InternalCode.OFFSET_SLOTS:
                wanted = command.read_header(OffsetSlotsHeader)
                self._view.catch_up()
                if self._view.offset_slot(wanted.group, wanted.topic, 0) is None:
                    self._writer.add_offsets(
                        wanted.group, wanted.topic, 0, self.topics[wanted.topic].queue_nums
                    )
                return command.response(ok)
            case InternalCode.FORWARD:
                client = decode_frame(command.body_bytes())
                self.events.append((command.code, client.code))
                if not self.answer_forwards:
                    return None
                reply = client.response(ok, f"forwarded {client.code}")
                body = None if client.is_oneway else list(encode_command(reply))
                return command.response(
                    ok, header=self.keep.get(client.code, ForwardAnswerHeader()), body=body
                )
            case _:
                content = command.fields if command.fields is not None else command.body_bytes()
                self.events.append((command.code, content))
                return command.response(ok)


class WorkerRig:
    """Everything around the workers under test."""

    def __init__(self, folder: Path, settings: BrokerSettings = SMALL, workers: int = 1) -> None:
        self.folder = folder
        self.settings = replace(settings, runtime_dir=str(folder))
        self.root = folder / "store"
        self.layout = StoreLayout.of(self.root, self.settings)
        self.layout.make_folders()
        self.name = f"/shmq-rig-{os.getpid()}-{secrets.token_hex(4)}"
        self.page = ControlPage.create(
            self.name, queue_slots=settings.queue_slots, offset_slots=settings.offset_slots, store_identity=1
        )
        sync = settings.flush_disk_type.value == "SYNC_FLUSH"
        self.page.words[VISIBLE_WORD] = FLUSHED_POSITION if sync else WRITE_POSITION
        self.page.state = PageState.OK
        self.semaphore = create_semaphore(self.name, self.page)
        self.bells = [Doorbell.create() for _ in range(SLOT_COUNT)]
        self.slots = SlotTable(self.page)
        self.descriptors = SegmentDescriptors(self.layout)
        self.allocator = SegmentAllocator(
            self.layout, self.page, self.bells, self.descriptors, zero_ahead_bytes=settings.zero_ahead_bytes
        )
        self.allocator.prepare()
        self.allocator.start()
        self.flusher = Flusher(
            self.layout,
            self.page,
            self.bells,
            self.descriptors,
            self.settings,
            checksums=LogChecksums(self.layout, self.descriptors),
            on_wake=self.allocator.wake,
        )
        self.flusher.start()
        self.coordinator = StandInCoordinator(internal_socket(folder, settings.broker_name), self.page)
        self.unix_path = folder / "front.sock"
        self._unix = bind_unix(self.unix_path)
        self._tcp = bind_tcp("127.0.0.1", 0)
        self.tcp_port: int = self._tcp.getsockname()[1]
        self.settings = replace(self.settings, listen_port=self.tcp_port)
        self._handoffs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(workers)]
        self._supervisor_end, self._supervisor_write = os.pipe()
        self.workers: list[subprocess.Popen[bytes] | None] = [None] * workers

    def start(self) -> WorkerRig:
        self.coordinator.start()
        for index in range(len(self.workers)):
            self.start_worker(index)
        for index in range(len(self.workers)):
            slot = self.slots[FIRST_WORKER_SLOT + index]
            wait_until(lambda slot=slot: slot.state == SlotState.SERVING, 20, "worker serves")
        return self

    def start_worker(self, index: int) -> None:
        boot = self.boot(index)
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD], stdin=subprocess.PIPE, pass_fds=boot.descriptors()
        )
        self.slots[boot.slot].fill(child.pid, process_start_time(child.pid))
        assert child.stdin is not None
        with child.stdin as pipe:
            pipe.write(pickle.dumps(boot))
        self.workers[index] = child

    def boot(self, index: int) -> ChildBoot:
        return ChildBoot(
            role=ChildRole.WORKER,
            slot=FIRST_WORKER_SLOT + index,
            index=index,
            settings=self.settings,
            store_root=self.root,
            page_name=self.name,
            semaphore_name=self.semaphore,
            bell_fds=tuple(bell.fileno() for bell in self.bells),
            supervisor_fd=self._supervisor_end,
            status_fd=-1,
            runtime_dir=self.folder,
            listener_fds=(self._unix.fileno(), self._tcp.fileno()),
            handoff_fds=tuple(pair[0].fileno() for pair in self._handoffs),
            handoff_in_fd=self._handoffs[index][1].fileno(),
        )

    def client(self, *, tcp: bool = False) -> Client:
        return Client(("127.0.0.1", self.tcp_port) if tcp else self.unix_path)

    def close(self) -> list[int]:
        """Stop everything and return the workers' exit codes."""
        codes = []
        for child in self.workers:
            if child is not None and child.poll() is None:
                child.send_signal(signal.SIGTERM)
        for child in self.workers:
            if child is not None:
                try:
                    codes.append(child.wait(10))
                except subprocess.TimeoutExpired:
                    child.kill()
                    codes.append(child.wait())
        self.coordinator.stop()
        self.flusher.stop()
        self.allocator.stop()
        self.descriptors.close()
        for closing in (self._unix, self._tcp, *(end for pair in self._handoffs for end in pair)):
            closing.close()
        for bell in self.bells:
            bell.close()
        os.close(self._supervisor_end)
        os.close(self._supervisor_write)
        self.page.close()
        ControlPage.unlink(self.name)
        unlink_semaphore(self.semaphore)
        return codes


class Client:
    """A blocking connection: commands out, commands in, matched by the test itself."""

    def __init__(self, address: Path | tuple[str, int]) -> None:
        if isinstance(address, tuple):
            self.socket = socket.create_connection(address)
        else:
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.connect(str(address))
        self.socket.settimeout(10)
        self._decoder = FrameDecoder(128 << 20)
        self._ready: list[Command] = []

    def send(self, command: Command) -> None:
        self.socket.sendall(b"".join(bytes(part) for part in encode_command(command)))

    def receive(self, timeout_s: float = 10) -> Command:
        self.socket.settimeout(timeout_s)
        while not self._ready:
            data = self.socket.recv(1 << 18)
            if not data:
                raise ConnectionResetError("the worker closed the connection")
            self._ready += map(decode_frame, self._decoder.feed(data))
        return self._ready.pop(0)

    def call(self, command: Command, timeout_s: float = 10) -> Command:
        self.send(command)
        answer = self.receive(timeout_s)
        assert answer.is_response and answer.opaque == command.opaque
        return answer

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextlib.contextmanager
def running_rig(settings: BrokerSettings = SMALL, workers: int = 1, topics: int = 1) -> Iterator[WorkerRig]:
    """A started rig with topics `T0`, `T1` ... of four queues; checks that the workers end well."""
    folder = Path(tempfile.mkdtemp(prefix="shmq-rig-"))
    rig = WorkerRig(folder, settings, workers)
    try:
        for n in range(topics):
            rig.coordinator.add_topic(f"T{n}", 4)
        yield rig.start()
    finally:
        codes = rig.close()
        shutil.rmtree(folder)
    assert codes == [0] * len(codes)


def send_request(
    topic: str = "T0",
    body: bytes = b"hello",
    *,
    queue_id: int = 0,
    properties: str = "UNIQ_KEY\x01K1\x02WAIT\x01true\x02",
    code: int = 310,
    serialization: int = 2,
    **changes: Any,
) -> Command:
    """A send as a client makes it; `changes` replace header fields."""
    header = SendMessageV2Header("PG", topic, "TBW102", 4, queue_id, 0, 1_700_000_000_000, 0, properties)
    for name, value in changes.items():
        setattr(header, name, value)
    return Command.request(code, header, body, serialization=serialization)


def pull_request(
    topic: str = "T0",
    queue_offset: int = 0,
    *,
    group: str = "CG",
    queue_id: int = 0,
    count: int = 32,
    sys_flag: int = 4,
    suspend_ms: int = 0,
    expression: str | None = "*",
    serialization: int = 0,
    **changes: Any,
) -> Command:
    """A pull with its own subscription; JSON by default: RocketMQ's limits hold for it."""
    header = PullMessageHeader(
        group, topic, queue_id, queue_offset, count, sys_flag, -1, suspend_ms, 0, expression
    )
    for name, value in changes.items():
        setattr(header, name, value)
    return Command.request(11, header, serialization=serialization)
