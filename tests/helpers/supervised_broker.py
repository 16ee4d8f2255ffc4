"""A real broker for one test: `shmq-broker` as its own process, private folders, free ports, raw frames."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from shmq.base.runtime_dir import page_name
from shmq.model.message_ext import decode_messages
from shmq.protocol.codes import RequestCode
from shmq.protocol.command import Command, Serialization, decode_frame, encode_command
from shmq.protocol.frame import FrameDecoder
from shmq.protocol.headers.pull import PULL_SUBSCRIPTION
from tests.helpers.waiting import is_readable, wait_until

SMALL = {
    "brokerName": "broker-t",
    "brokerWorkers": "2",
    "listenPort": "0",
    "namesrvPort": "0",
    "mappedFileSizeCommitLog": str(4 << 20),
    "mappedFileSizeConsumeQueue": "20000",
    "maxHashSlotNum": "1000",
    "maxIndexNum": "4000",
    "queueSlots": "4096",
    "offsetSlots": "4096",
    "diskMaxUsedSpaceRatio": "95",
    "diskSpaceWarningLevelRatio": "99",
    "cleanFileForciblyEnable": "false",
}
"""Settings that keep a test's broker small."""


class SupervisedBroker:
    """One started broker; `places` is what its ready line says."""

    def __init__(
        self, folder: Path, *arguments: str, environment: Mapping[str, str] | None = None, **settings: str
    ) -> None:
        self.folder = folder
        private = {
            "runtimeDir": str(folder / "run"),
            "storePathRootDir": str(folder / "store"),
            "logDir": str(folder / "log"),
        }
        self.settings = {**SMALL, **private, **settings}
        self.arguments = [*arguments, *(f"{key}={value}" for key, value in self.settings.items())]
        self.environment = {**os.environ, **(environment or {})}
        self.places: dict[str, str] = {}
        self.process: subprocess.Popen[bytes] | None = None

    # -- life ----------------------------------------------------------------------------------------------

    def launch(self) -> subprocess.Popen[bytes]:
        """Start the process without waiting for anything."""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "shmq.supervisor.main", *self.arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.environment,
        )
        return self.process

    def start(self, limit_s: float = 30) -> SupervisedBroker:
        """Start and wait for the ready line."""
        self.launch()
        return self.wait_ready(limit_s)

    def wait_ready(self, limit_s: float = 30) -> SupervisedBroker:
        """Wait for the ready line of a launched broker; fail with what it said instead."""
        process = self.process
        assert process is not None
        line = _read_line(process, limit_s)
        if not line.startswith("shmq-broker ready "):
            process.kill()
            _, errors = process.communicate()
            raise AssertionError(
                f"no ready line but {line!r}; stderr: {errors.decode()}; {self.log_text()[-3000:]}"
            )
        words = line.removeprefix("shmq-broker ready ").split()
        self.places = {key: unquote(value) for key, _, value in (word.partition("=") for word in words)}
        return self

    @property
    def pid(self) -> int:
        """The supervisor's pid."""
        assert self.process is not None
        return self.process.pid

    def stop(self, limit_s: float = 10) -> int:
        """SIGTERM and wait; returns the exit status. Twice is harmless."""
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"not stopped in {limit_s} s: {self.log_text()[-3000:]}") from None
        return self.process.returncode

    def kill(self) -> None:
        """SIGKILL the supervisor, and wait until its children have left too."""
        children = list(self.children().values())
        assert self.process is not None
        self.process.kill()
        self.process.communicate()
        wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children), 10, "children left")

    def kill_supervisor(self) -> None:
        """SIGKILL the supervisor alone; its children leave, or stay behind with our pipes."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()

    def kill_all(self) -> None:
        """SIGKILL every process of the broker, the supervisor first."""
        assert self.process is not None
        below = descendants(self.pid)
        for pid in (self.pid, *below):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.communicate()
        wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in below), 10, "all gone")

    # -- looking -------------------------------------------------------------------------------------------

    def children(self) -> dict[str, int]:
        """Process title -> pid of the living coordinator and workers."""
        found = {}
        for pid in descendants(self.pid):
            title = process_title(pid)
            if title.startswith(("shmq: coordinator", "shmq: worker")):
                found[title] = pid
        return found

    def log_text(self) -> str:
        """Everything the broker logged so far."""
        path = self.folder / "log" / "broker.log"
        return path.read_text() if path.exists() else ""

    def connect(self, tcp: bool = False) -> RawClient:
        """A client of the Unix or TCP front."""
        if tcp:
            host, _, port = self.places["tcp"].rpartition(":")
            return RawClient(socket.create_connection((host, int(port)), timeout=10))
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(10)
        client.connect(self.places["unix"])
        return RawClient(client)

    def name_server(self) -> RawClient:
        """A client of the name server the broker registers with."""
        host, _, port = self.places["namesrv"].split(";")[0].rpartition(":")
        return RawClient(socket.create_connection((host, int(port)), timeout=10))


class RawClient:
    """One connection that speaks frames; JSON headers."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._decoder = FrameDecoder()
        self._opaque = 0

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def ask(self, code: int, ext: Mapping[str, Any] | None = None, body: bytes | None = None) -> Command:
        """Send a request and return its answer."""
        texts = {key: str(value) for key, value in (ext or {}).items()}
        request = Command(code, ext=texts, body=body, serialization=Serialization.JSON)
        return self.ask_all([request])[0]

    def ask_all(self, requests: Sequence[Command]) -> list[Command]:
        """Send all in one piece and return their answers, in the order of the requests."""
        for request in requests:
            self._opaque += 1
            request.opaque = self._opaque
        self.sock.sendall(b"".join(part for request in requests for part in encode_command(request)))
        missing = {request.opaque for request in requests}
        answers: dict[int, Command] = {}
        while missing:
            data = self.sock.recv(1 << 16)
            if not data:
                raise ConnectionError("the broker closed the connection")
            for frame in self._decoder.feed(data):
                answer = decode_frame(bytes(frame))
                if answer.opaque in missing and answer.is_response:
                    answers[answer.opaque] = answer
                    missing.remove(answer.opaque)
        return [answers[request.opaque] for request in requests]

    def send(self, topic: str, body: bytes, queue_id: int = 0) -> Command:
        """SEND_MESSAGE to a topic that may be created."""
        return self.ask(
            RequestCode.SEND_MESSAGE,
            {
                "producerGroup": "tests",
                "topic": topic,
                "defaultTopic": "TBW102",
                "defaultTopicQueueNums": 4,
                "queueId": queue_id,
                "sysFlag": 0,
                "bornTimestamp": int(time.time() * 1000),
                "flag": 0,
                "properties": "",
            },
            body,
        )

    def bodies(self, topic: str, queue_id: int = 0) -> list[bytes]:
        """Every body of a queue from its first offset, 0, to its end, by PULL_MESSAGE."""
        found: list[bytes] = []
        while len(found) < self.max_offset(topic, queue_id):
            fields = {
                "consumerGroup": "TOOLS_CONSUMER",
                "topic": topic,
                "queueId": queue_id,
                "queueOffset": len(found),
                "maxMsgNums": 32,
                "sysFlag": PULL_SUBSCRIPTION,
                "commitOffset": 0,
                "suspendTimeoutMillis": 0,
                "subVersion": 0,
                "subscription": "*",
                "expressionType": "TAG",
            }
            answer = self.ask(RequestCode.PULL_MESSAGE, fields)
            assert answer.code == 0, answer
            messages = decode_messages(answer.body_bytes())
            assert [m.queue_offset for m in messages] == list(range(len(found), len(found) + len(messages)))
            found += [bytes(message.body) for message in messages]
        return found

    def max_offset(self, topic: str, queue_id: int = 0) -> int:
        """GET_MAX_OFFSET."""
        answer = self.ask(RequestCode.GET_MAX_OFFSET, {"topic": topic, "queueId": queue_id})
        assert answer.code == 0 and answer.ext is not None, answer
        return int(answer.ext["offset"])


class BrokerMaker:
    """Makes brokers for one test and ends those that are still there at its end, whatever happened."""

    def __init__(self) -> None:
        self._made: list[SupervisedBroker] = []

    def __call__(
        self, folder: Path, *arguments: str, environment: Mapping[str, str] | None = None, **settings: str
    ) -> SupervisedBroker:
        """A broker that is not started yet."""
        broker = SupervisedBroker(folder, *arguments, environment=environment, **settings)
        self._made.append(broker)
        return broker

    def end_all(self) -> None:
        """Kill what a failed test left running, and remove what it has in /dev/shm."""
        for broker in self._made:
            if broker.process is not None and broker.process.poll() is None:
                broker.kill()
            store = Path(broker.settings["storePathRootDir"])
            if store.exists():
                name = page_name(store).lstrip("/")
                for left in Path("/dev/shm").glob(f"*{name}*"):
                    left.unlink()


@contextlib.contextmanager
def running_broker(folder: Path, *arguments: str, **settings: str) -> Iterator[SupervisedBroker]:
    """A started broker that is stopped at the end, whatever happens."""
    broker = SupervisedBroker(folder, *arguments, **settings)
    try:
        yield broker.start()
    finally:
        if broker.process is not None and broker.process.poll() is None:
            broker.stop()


def descendants(pid: int) -> list[int]:
    """The living processes below `pid`."""
    found: list[int] = []
    waiting = [pid]
    while waiting:
        with contextlib.suppress(OSError):  # it may end at any moment
            for task in Path(f"/proc/{waiting.pop()}/task").glob("*/children"):
                children = [int(word) for word in task.read_text().split()]
                found += children
                waiting += children
    return found


def process_title(pid: int) -> str:
    """The command line of a process, as `ps` shows it; empty when it is gone or a zombie."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").replace(b"\0", b" ").decode()
    except OSError:
        return ""


def shared_objects() -> set[str]:
    """Names in /dev/shm that belong to shmq."""
    return {path.name for path in Path("/dev/shm").iterdir() if "shmq-" in path.name}


def _read_line(process: subprocess.Popen[bytes], limit_s: float) -> str:
    """The first line of stdout; whatever came when the process ends or the time is over."""
    assert process.stdout is not None
    descriptor = process.stdout.fileno()
    deadline = time.monotonic() + limit_s
    data = b""
    while b"\n" not in data and (left := deadline - time.monotonic()) > 0:
        if is_readable(descriptor, left):
            piece = os.read(descriptor, 4096)
            if not piece:
                break
            data += piece
    return data.decode().rstrip("\n")
