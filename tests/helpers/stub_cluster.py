"""Scripted brokers and a name server over TCP: for what a client does when brokers misbehave.

A `StubBroker` answers as told, records every request, and can be made deaf, slow or dead. No store: a send is
answered with the next queue offset.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from types import TracebackType

from shmq.model.host import pack_host
from shmq.model.message_id import offset_message_id
from shmq.model.route import BrokerData, QueueData, TopicRoute
from shmq.protocol.bodies.groups import encode_consumer_list
from shmq.protocol.bodies.route import encode_route
from shmq.protocol.codes import RequestCode, ResponseCode
from shmq.protocol.command import Command, decode_frame, encode_command
from shmq.protocol.frame import FrameDecoder
from shmq.protocol.headers.naming import GetRouteInfoHeader
from shmq.protocol.headers.send import SendMessageHeader, SendMessageResponseHeader

Answer = Callable[[Command], Command | None]
"""Returns the response; None for no answer at all; raises ConnectionError to cut the connection."""

SENDS = frozenset({RequestCode.SEND_MESSAGE, RequestCode.SEND_MESSAGE_V2, RequestCode.SEND_BATCH_MESSAGE})


class StubServer:
    """A TCP server on a free loopback port that answers each frame with `answer`."""

    def __init__(self) -> None:
        """Listen and serve in threads until closed."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self.requests: list[Command] = []
        self._open: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def __enter__(self) -> StubServer:
        """Use it in a `with` block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop listening and cut every connection."""
        self.close()

    def close(self) -> None:
        """Die: nobody can connect any more, open connections break."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def answer(self, command: Command) -> Command | None:
        """What to say; subclasses decide."""
        raise NotImplementedError

    def of_code(self, *codes: int) -> list[Command]:
        """The requests received so far that have one of these codes."""
        return [command for command in list(self.requests) if command.code in codes]

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(connection)
            threading.Thread(target=self._serve, args=[connection], daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        decoder = FrameDecoder()
        with connection, contextlib.suppress(OSError):
            while data := connection.recv(1 << 16):
                for frame in decoder.feed(data):
                    command = decode_frame(frame)
                    self.requests.append(command)
                    response = self.answer(command)
                    if response is not None and not command.is_oneway:
                        connection.sendall(b"".join(encode_command(response)))


class StubNameServer(StubServer):
    """Knows the topics it is told, on the brokers it is told."""

    def __init__(self) -> None:
        """Start with no topic."""
        self.routes: dict[str, TopicRoute] = {}
        super().__init__()

    def add(self, topic: str, *brokers: StubBroker, queues: int = 4) -> None:
        """Make `topic` known with so many queues on each broker."""
        self.routes[topic] = TopicRoute(
            [QueueData(broker.name, queues, queues, 6) for broker in brokers],
            [BrokerData("DefaultCluster", broker.name, {0: broker.address}) for broker in brokers],
        )

    def answer(self, command: Command) -> Command:
        """Answer route questions; everything else succeeds without content."""
        if command.code != RequestCode.GET_ROUTEINFO_BY_TOPIC:
            return command.response(ResponseCode.SUCCESS)
        topic = command.read_header(GetRouteInfoHeader).topic
        if topic not in self.routes:
            return command.response(ResponseCode.TOPIC_NOT_EXIST, f"No topic route info for {topic}")
        return command.response(ResponseCode.SUCCESS, body=encode_route(self.routes[topic]))


class StubBroker(StubServer):
    """A broker whose answers to sends are scripted; other requests succeed.

    script   answers of the next sends, in order; afterwards every send succeeds
    delay_s  sleep before each answer to a send
    """

    def __init__(self, name: str) -> None:
        """Listen under this broker name."""
        self.name = name
        self.script: list[Answer] = []
        self.delay_s = 0.0
        self.members: list[str] = []
        self._offsets: Counter[tuple[str, int]] = Counter()
        super().__init__()

    @property
    def sends(self) -> list[SendMessageHeader]:
        """Headers of all sends received, oldest first."""
        return [command.read_header(SendMessageHeader) for command in self.of_code(*SENDS)]

    def answer(self, command: Command) -> Command | None:
        """Follow the script for sends; say yes to the rest."""
        if command.code in SENDS:
            if self.delay_s:
                time.sleep(self.delay_s)
            return self.script.pop(0)(command) if self.script else self.stored(command)
        if command.code == RequestCode.GET_CONSUMER_LIST_BY_GROUP:
            return command.response(ResponseCode.SUCCESS, body=encode_consumer_list(self.members))
        return command.response(ResponseCode.SUCCESS)

    def stored(self, command: Command, code: int = ResponseCode.SUCCESS) -> Command:
        """The answer of a broker that has stored the message."""
        header = command.read_header(SendMessageHeader)
        place = header.topic, header.queue_id
        offset = self._offsets[place]
        self._offsets[place] += 1
        message_id = offset_message_id(pack_host("127.0.0.1", self.port), offset * 100)
        return command.response(code, header=SendMessageResponseHeader(message_id, header.queue_id, offset))


def refuses(code: int, remark: str = "scripted") -> Answer:
    """An answer with that response code."""
    return lambda command: command.response(code, remark)


def cuts(command: Command) -> Command | None:
    """Cut the connection in place of an answer."""
    raise ConnectionResetError("scripted")


def ignores(command: Command) -> Command | None:
    """Never answer."""
    return None


@contextlib.contextmanager
def stub_cluster(*names: str) -> Iterator[tuple[StubNameServer, list[StubBroker]]]:
    """A name server and brokers of these names; topic `T` has 4 queues on each."""
    with contextlib.ExitStack() as stack:
        namesrv = stack.enter_context(contextlib.closing(StubNameServer()))
        brokers = [stack.enter_context(contextlib.closing(StubBroker(name))) for name in names]
        namesrv.add("T", *brokers)
        yield namesrv, brokers
