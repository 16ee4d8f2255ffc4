"""The coordinator is killed under load, again and again: sends go on, members and locks are whole, no offset
goes back, the route is there all the time.

Printed, not asserted: how long members and locks took (target: 2 s). Asserted: every send succeeds, nobody is
ever told of a smaller group or given another's lock, no committed offset is ever less than it was, and
whoever asks the name server always hears where the topic is.
"""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from shmq.base.runtime_dir import page_name
from shmq.protocol.codes import RequestCode, ResponseCode
from shmq.shm.control_page import ControlPage
from shmq.shm.page_layout import OFFSET_COMMITTED, OFFSET_SLOTS_USED, OFFSET_WORDS
from shmq.store.check import check_store
from tests.helpers.pauses import histogram
from tests.helpers.supervised_broker import BrokerMaker, SupervisedBroker
from tests.helpers.waiting import wait_until
from tests.process.test_coordinator_whole_broker import beat, commit, committed, locked, members

COORDINATOR = "shmq: coordinator broker-t"
MEMBERS = ("a", "b", "c")


@pytest.fixture
def make() -> Iterator[BrokerMaker]:
    maker = BrokerMaker()
    yield maker
    maker.end_all()


class Sender(threading.Thread):
    """Sends to a known topic and commits an offset after each, on a connection that must never break."""

    def __init__(self, broker: SupervisedBroker) -> None:
        super().__init__(daemon=True)
        self.answered: list[float] = []
        self.codes: set[int] = set()
        self.over = threading.Event()
        self._broker = broker

    def run(self) -> None:
        with self._broker.connect() as client:
            while not self.over.is_set():
                self.codes.add(client.send("t", b"x").code)
                self.codes.add(commit(client, len(self.answered) + 1).code)
                self.answered.append(time.monotonic())


class OffsetWatch(threading.Thread):
    """Looks at every committed offset on the page all the time, and notes one that went back."""

    def __init__(self, root: Path) -> None:
        super().__init__(daemon=True)
        self.went_back: list[tuple[int, int]] = []
        self.looks = 0
        self.over = threading.Event()
        self._page = ControlPage.attach(page_name(root), readonly=True)

    def run(self) -> None:
        page, before = self._page, [-1]
        while not self.over.wait(0.001):
            first = page.offset_slots_start + OFFSET_COMMITTED
            end = first + page.words[OFFSET_SLOTS_USED] * OFFSET_WORDS
            now = page.words[first:end:OFFSET_WORDS].tolist()
            self.went_back += [(a, b) for a, b in zip(before, now, strict=False) if b < a]
            before = now
            self.looks += 1
        page.close()


class RouteWatch(threading.Thread):
    """Asks the broker's name server for the topic's route all the time."""

    def __init__(self, broker: SupervisedBroker) -> None:
        super().__init__(daemon=True)
        self.codes: Counter[int] = Counter()
        self.over = threading.Event()
        self._client = broker.name_server()

    def run(self) -> None:
        with self._client as client:
            while not self.over.wait(0.001):
                self.codes[client.ask(RequestCode.GET_ROUTEINFO_BY_TOPIC, {"topic": "t"}).code] += 1


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.long)])
def test_a_coordinator_dies_and_all_it_knew_is_whole_again(
    make: BrokerMaker, tmp_path: Path, kills: int, capsys: pytest.CaptureFixture[str]
) -> None:
    broker = make(tmp_path, flushConsumerOffsetInterval="50").start()
    clients = [broker.connect(tcp=tcp) for tcp in (False, False, True)]
    outsider = broker.connect()
    outsider.send("t", b"first")
    for client, name in zip(clients, MEMBERS, strict=True):
        beat(client, name)
    assert locked(clients[0], "a", 0, 1) == [0, 1]
    sender, watch, routes = Sender(broker), OffsetWatch(Path(broker.places["store"])), RouteWatch(broker)
    for thread in (sender, watch, routes):
        thread.start()
    whole: list[float] = []
    longest: list[float] = []
    for _ in range(kills):
        sent = len(sender.answered)
        wait_until(lambda sent=sent: len(sender.answered) > sent + 50, 20, "sends go on")
        pid = broker.children()[COORDINATOR]
        killed, sent = time.monotonic(), len(sender.answered)
        os.kill(pid, signal.SIGKILL)
        assert members(outsider) == list(MEMBERS)
        assert locked(clients[1], "b", 0, 1, 2) == [2]
        assert locked(clients[0], "a", 0, 1) == [0, 1]
        whole.append(time.monotonic() - killed)
        times = [killed, *sender.answered[sent:]]
        longest.append(max((b - a for a, b in itertools.pairwise(times)), default=whole[-1]))
        assert committed(outsider) > 0
    for thread in (sender, watch, routes):
        thread.over.set()
        thread.join(20)
    with capsys.disabled():
        print(f"\n{kills} deaths of the coordinator")
        print(histogram("members and locks whole again", whole))
        print(histogram("longest pause of a sender meanwhile", longest))
    assert sender.codes == {int(ResponseCode.SUCCESS)}
    assert watch.looks > kills and watch.went_back == []
    assert set(routes.codes) == {int(ResponseCode.SUCCESS)} and routes.codes.total() > kills
    for client in (*clients, outsider):
        client.sock.close()
    assert broker.stop() == 0
    assert list(check_store(Path(broker.places["store"]))) == []
