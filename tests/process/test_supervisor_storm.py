"""kill -9 storms: processes die at random under load; what was acknowledged is there, the store is sound."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from shmq.base.runtime_dir import page_name
from shmq.protocol.codes import RequestCode
from shmq.shm.control_page import ControlPage
from shmq.store.check import check_store
from tests.helpers.supervised_broker import BrokerMaker, RawClient, SupervisedBroker

PRODUCERS = 4
BODY_BYTES_MAX = 800


class Acknowledged(NamedTuple):
    """One message and where its acknowledgement said it is."""

    topic: str
    queue_id: int
    queue_offset: int
    body: bytes


class PatientProducer(threading.Thread):
    """Sends one message after another, again and again until each is acknowledged."""

    def __init__(self, broker: SupervisedBroker, number: int) -> None:
        super().__init__(name=f"producer-{number}")
        self.acknowledged: list[Acknowledged] = []
        self.done = threading.Event()
        self._broker = broker
        self._number = number
        self._random = random.Random(number)

    def run(self) -> None:
        client: RawClient | None = None
        while not self.done.is_set():
            try:
                client = client or self._broker.connect()
                self._send_one(client)
            except OSError:
                if client is not None:
                    client.sock.close()
                client = None
                self.done.wait(0.02)
        if client is not None:
            client.sock.close()

    def _send_one(self, client: RawClient) -> None:
        topic, queue_id = f"storm-{self._number % 2}", self._number % 4
        body = b"%d-%d" % (self._number, len(self.acknowledged)) + b"." * self._random.randrange(
            BODY_BYTES_MAX
        )
        answer = client.send(topic, body, queue_id)
        if answer.code == 0 and answer.ext is not None:
            self.acknowledged.append(Acknowledged(topic, queue_id, int(answer.ext["queueOffset"]), body))


@pytest.fixture
def make() -> Iterator[BrokerMaker]:
    maker = BrokerMaker()
    yield maker
    maker.end_all()


@pytest.mark.long
@pytest.mark.parametrize(
    ("kinds", "seconds"),
    [
        (("worker",), 4),
        pytest.param(("worker", "worker", "coordinator", "supervisor"), 30, marks=pytest.mark.long),
    ],
    ids=["workers", "everybody"],
)
def test_nothing_acknowledged_is_lost_in_a_storm_of_kills(
    make: BrokerMaker, tmp_path: Path, kinds: tuple[str, ...], seconds: float
) -> None:
    # Small segments, so that claims run over their ends too.
    broker = make(tmp_path, brokerWorkers="3", mappedFileSizeCommitLog=str(1 << 20)).start()
    producers = [PatientProducer(broker, number) for number in range(PRODUCERS)]
    for producer in producers:
        producer.start()
    try:
        storm(broker, kinds, seconds)
        time.sleep(0.5)
    finally:
        for producer in producers:
            producer.done.set()
        for producer in producers:
            producer.join(30)
    expected = [sent for producer in producers for sent in producer.acknowledged]
    assert len(expected) > 100
    assert missing(broker, expected) == []
    assert findings(broker) == []
    assert broker.stop() == 0
    assert findings(broker) == []
    broker.start()
    assert missing(broker, expected) == []
    assert broker.stop() == 0


def storm(broker: SupervisedBroker, kinds: tuple[str, ...], seconds: float) -> None:
    """Kill somebody every now and then; a killed supervisor is started again, as a service manager would."""
    dice = random.Random(seconds)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(dice.uniform(0.05, 0.8))
        kind = dice.choice(kinds)
        if kind == "supervisor":
            assert broker.process is not None
            broker.process.kill()
            broker.process.communicate()
            broker.start()
            continue
        victims = [pid for title, pid in sorted(broker.children().items()) if kind in title]
        if victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(dice.choice(victims), signal.SIGKILL)


def missing(broker: SupervisedBroker, expected: list[Acknowledged]) -> list[Acknowledged]:
    """The acknowledged messages that a pull at their place does not return; of a sample and the newest."""
    sample = [*random.Random(1).sample(expected, min(len(expected), 400)), *expected[-50:]]
    with broker.connect() as client:
        return [sent for sent in sample if sent.body not in pulled(client, sent)]


def pulled(client: RawClient, sent: Acknowledged) -> bytes:
    """What a pull of one message at its place returns."""
    fields = {
        "consumerGroup": "TOOLS_CONSUMER",
        "topic": sent.topic,
        "queueId": sent.queue_id,
        "queueOffset": sent.queue_offset,
        "maxMsgNums": 1,
        "sysFlag": 4,  # the subscription is in the request
        "commitOffset": 0,
        "suspendTimeoutMillis": 0,
        "subVersion": 0,
        "subscription": "*",
        "expressionType": "TAG",
    }
    return client.ask(RequestCode.PULL_MESSAGE, fields).body_bytes()


def findings(broker: SupervisedBroker) -> list[str]:
    """What the store check finds, with the page while the broker runs."""
    root = Path(broker.places["store"])
    page = None
    if broker.process is not None and broker.process.poll() is None:
        page = ControlPage.attach(page_name(root), readonly=True)
    try:
        return [str(finding) for finding in check_store(root, page)]
    finally:
        if page is not None:
            page.close()
