"""A load that reaches every window of a broker, keeps its own notes, and compares them with what is there.

Producers send bursts, one message to each of `queues` queues in one piece, so that one claim has them all.
An office worker makes and deletes topics, commits offsets, sends delayed messages and messages with keys.
Everybody is patient: what was not answered is asked again, on another connection.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

from shmq.protocol.codes import RequestCode, ResponseCode
from shmq.protocol.command import Command, Serialization
from tests.helpers.supervised_broker import RawClient, SupervisedBroker
from tests.helpers.waiting import wait_until

PRODUCERS = 3
TOPIC = "load"
LATER = "later"
GROUP = "office"
PAUSE_S = 0.02
ANSWER_LIMIT_S = 10.0


class Member(threading.Thread):
    """One client of the load: `work` again and again, on a new connection after each error."""

    def __init__(self, load: FaultLoad) -> None:
        super().__init__(daemon=True)
        self.load = load
        self.failure: BaseException | None = None

    def run(self) -> None:
        client: RawClient | None = None
        try:
            while not self.load.over.is_set():
                try:
                    if client is None:
                        client = self.load.broker.connect()
                        client.sock.settimeout(ANSWER_LIMIT_S)
                    self.work(client)
                except OSError:
                    if client is not None:
                        client.sock.close()
                    client = None
                    self.load.over.wait(PAUSE_S)
        except BaseException as failure:  # shown by the test's thread
            self.failure = failure
        finally:
            if client is not None:
                client.sock.close()

    def work(self, client: RawClient) -> None:
        raise NotImplementedError


class BurstProducer(Member):
    """Sends bursts; what of one was not acknowledged is sent again before the next."""

    def __init__(self, load: FaultLoad, number: int) -> None:
        super().__init__(load)
        self.number = number
        self.acknowledged: dict[tuple[int, int], bytes] = {}
        self.tries: Counter[bytes] = Counter()
        self._sent = 0
        self._missing: list[int] = []

    def work(self, client: RawClient) -> None:
        if not self._missing:
            self._sent += 1
            self._missing = list(range(self.load.queues))
        bodies = {queue: b"%d %d %d" % (self.number, queue, self._sent) for queue in self._missing}
        self.tries.update(bodies.values())
        requests = [send_request(TOPIC, queue, body) for queue, body in bodies.items()]
        for queue, answer in zip(bodies, client.ask_all(requests), strict=True):
            if answer.code == ResponseCode.SUCCESS:
                assert answer.ext is not None
                self.acknowledged[queue, int(answer.ext["queueOffset"])] = bodies[queue]
                self._missing.remove(queue)


class Office(Member):
    """Does everything that is not a plain send, and notes what it was told."""

    def __init__(self, load: FaultLoad) -> None:
        super().__init__(load)
        self.round = 0
        self.made: set[str] = set()
        self.deleted: set[str] = set()
        self.committed = 0
        self.delayed: set[bytes] = set()

    def work(self, client: RawClient) -> None:
        topic = f"made-{self.round}"
        if self.ask(client, send_request(topic, 0, b"first")):
            self.made.add(topic)
        done = min((len(p.acknowledged) for p in self.load.producers), default=0) // self.load.queues
        offset = max(done, self.committed)
        fields = {"consumerGroup": GROUP, "topic": TOPIC, "queueId": 0, "commitOffset": offset}
        if self.ask(client, request(RequestCode.UPDATE_CONSUMER_OFFSET, fields)):
            self.committed = offset
        body = b"delayed %d" % self.round
        if self.ask(client, send_request(LATER, 0, body, DELAY="1")):
            self.delayed.add(body)
        if self.round % 2:
            old = f"made-{self.round - 1}"
            self.made.discard(old)  # it may go without our being told
            if self.ask(client, request(RequestCode.DELETE_TOPIC_IN_BROKER, {"topic": old})):
                self.deleted.add(old)
        self.round += 1

    @staticmethod
    def ask(client: RawClient, command: Command) -> bool:
        (answer,) = client.ask_all([command])
        return answer.code == ResponseCode.SUCCESS


class FaultLoad:
    """The load of one broker, which may die and come back meanwhile."""

    def __init__(self, broker: SupervisedBroker, queues: int) -> None:
        self.broker = broker
        self.queues = queues
        self.over = threading.Event()
        self.producers = [BurstProducer(self, number) for number in range(PRODUCERS)]
        self.office = Office(self)
        self._members: list[Member] = [*self.producers, self.office]

    def start(self) -> None:
        for member in self._members:
            member.start()

    def goes_on(self, limit_s: float = 30) -> None:
        """Wait until every member was answered a few times more."""
        before = self._done()
        self._wait(lambda: all(n >= b + 3 for n, b in zip(self._done(), before, strict=True)), limit_s)

    def until(self, condition: Callable[[], object], limit_s: float, what: str) -> None:
        """Wait for something that the load brings about."""
        self._wait(condition, limit_s, what)

    def stop(self) -> None:
        self.over.set()
        for member in self._members:
            member.join(ANSWER_LIMIT_S + 20)
            assert not member.is_alive() and member.failure is None, member.failure

    def _done(self) -> list[int]:
        return [*(len(producer.acknowledged) for producer in self.producers), self.office.round]

    def _wait(self, condition: Callable[[], object], limit_s: float, what: str = "the load goes on") -> None:
        def met() -> bool:
            failures = [member.failure for member in self._members if member.failure is not None]
            assert not failures, failures
            return bool(condition())

        wait_until(met, limit_s, what)

    def verify(self) -> None:
        """Compare the notes with a running broker whose load has stopped."""
        with self.broker.connect() as client:
            tries = sum((producer.tries for producer in self.producers), Counter())
            for queue in range(self.queues):
                self._verify_queue(queue, client.bodies(TOPIC, queue), tries)
            wait_until(lambda: self.office.delayed <= set(client.bodies(LATER)), 20, "delayed messages came")
            for topic in self.office.made:
                assert b"first" in client.bodies(topic), topic
            for topic in self.office.deleted:
                answer = client.ask(RequestCode.GET_MAX_OFFSET, {"topic": topic, "queueId": 0})
                assert answer.code == ResponseCode.TOPIC_NOT_EXIST or self.office_max(answer) == 0, topic
            fields = {"consumerGroup": GROUP, "topic": TOPIC, "queueId": 0}
            if self.office.committed:
                answer = client.ask(RequestCode.QUERY_CONSUMER_OFFSET, fields)
                assert answer.ext is not None and int(answer.ext["offset"]) >= self.office.committed

    @staticmethod
    def office_max(answer: Command) -> int:
        return int((answer.ext or {}).get("offset", -1))

    def _verify_queue(self, queue: int, bodies: list[bytes], tries: Counter[bytes]) -> None:
        for producer in self.producers:
            for (of, offset), body in producer.acknowledged.items():
                assert of != queue or bodies[offset] == body, f"{body!r} is not at {queue}/{offset}"
        last: dict[int, int] = {}
        for body, count in Counter(bodies).items():
            assert count <= tries[body], f"{body!r} is there {count} times, sent {tries[body]} times"
        for body in bodies:
            number, own_queue, n = map(int, body.split())
            assert own_queue == queue
            assert n >= last.get(number, 0), f"{body!r} behind {last[number]}"
            last[number] = n


def request(code: int, fields: dict[str, Any]) -> Command:
    """A request in JSON."""
    texts = {key: str(value) for key, value in fields.items()}
    return Command(code, ext=texts, serialization=Serialization.JSON)


def send_request(topic: str, queue: int, body: bytes, **properties: str) -> Command:
    """SEND_MESSAGE with a key, to a topic that may be created with eight queues."""
    properties = {"KEYS": body.decode().replace(" ", "-"), **properties}
    command = request(
        RequestCode.SEND_MESSAGE,
        {
            "producerGroup": "tests",
            "topic": topic,
            "defaultTopic": "TBW102",
            "defaultTopicQueueNums": 8,
            "queueId": queue,
            "sysFlag": 0,
            "bornTimestamp": 1_700_000_000_000,
            "flag": 0,
            "properties": "".join(f"{key}\x01{value}\x02" for key, value in properties.items()),
        },
    )
    command.body = body
    return command
