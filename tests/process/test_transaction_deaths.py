"""Deaths while transactions end or are checked: each committed message is in the log once, no other is."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from pathlib import Path

import psutil
import pytest

from shmq import (
    LocalTransactionState,
    Message,
    MessageExt,
    PullConsumer,
    PullStatus,
    ShmqError,
    TransactionProducer,
    TransactionSendResult,
)
from shmq.base.runtime_dir import page_name
from shmq.embedded import Broker
from shmq.model.message_id import parse_offset_message_id
from shmq.model.names import TRANSACTION_OP_HALF_TOPIC
from shmq.protocol.codes import RequestCode
from shmq.protocol.command import Command
from shmq.protocol.headers.send import EndTransactionHeader
from shmq.shm.control_page import ControlPage
from shmq.shm.worker_slots import SlotState, SlotTable
from shmq.store.check import check_store
from tests.helpers.waiting import wait_until

COMMIT, ROLLBACK, UNKNOWN = (
    LocalTransactionState.COMMIT_MESSAGE,
    LocalTransactionState.ROLLBACK_MESSAGE,
    LocalTransactionState.UNKNOW,
)
SETTINGS = {
    "brokerWorkers": "2",
    "transactionTimeOut": "200",
    "transactionCheckInterval": "100",
    "transactionCheckMax": "1000",
    "mappedFileSizeCommitLog": str(256 << 10),
}
PAUSE_S = 0.02
"""Between the transactions of one sender: what stays open while no coordinator lives has to be checked."""
TOPIC = "Deaths"
GROUP = "DeathGroup"


class Outcomes:
    """A listener that decides by a table shared by all producers of a test, as a database would be."""

    def __init__(self) -> None:
        self.decided: dict[str, LocalTransactionState] = {}

    def execute_local_transaction(self, message: Message, argument: LocalTransactionState) -> object:
        """The outcome is decided for good; the broker may still have to ask for it (UNKNOWN)."""
        state, told = argument  # type: ignore[misc]
        self.decided[str(message.transaction_id)] = state
        return told

    def check_local_transaction(self, message: MessageExt) -> LocalTransactionState:
        """One that is not in the table may be about to run: its half message's answer is on the way."""
        return self.decided.get(str(message.transaction_id), UNKNOWN)


def producer(broker: Broker, outcomes: Outcomes, **more: object) -> TransactionProducer:
    given = {"namesrv_addr": broker.namesrv_addr, "topics": (TOPIC,), "send_msg_timeout_ms": 5000, **more}
    return TransactionProducer(GROUP, outcomes, **given)  # type: ignore[arg-type]


def read_all(broker: Broker) -> list[bytes]:
    """The bodies in the topic, queue by queue."""
    found: list[bytes] = []
    with PullConsumer("DeathReader", namesrv_addr=broker.namesrv_addr) as reader:
        for queue in reader.fetch_subscribe_message_queues(TOPIC):
            offset = 0
            while (result := reader.pull(queue, "*", offset, 32)).status is PullStatus.FOUND:
                found += [message.body for message in result.messages]
                offset = result.next_begin_offset
    return found


def soon(broker: Broker, expected: list[bytes], what: str) -> None:
    """Wait until everything expected is there, and find nothing else and nothing twice."""

    def there() -> bool:
        try:
            return set(read_all(broker)) >= set(expected)
        except ShmqError:
            return False

    wait_until(there, 30, what)
    assert sorted(read_all(broker)) == sorted(expected), what


def children(broker: Broker, role: str) -> list[psutil.Process]:
    found = psutil.Process(broker.pid).children(recursive=True)
    return [child for child in found if role in " ".join(_words(child))]


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


class Points:
    """Fault points of all processes of a broker to come, harmless until `release`; each fires once."""

    def __init__(self, folder: Path, names: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self._marks = [folder / name for name in names]
        for mark in self._marks:
            mark.touch()
        monkeypatch.setenv("SHMQ_FAULTS", ",".join(f"{name}=kill" for name in names))
        monkeypatch.setenv("SHMQ_FAULTS_DIR", str(folder))

    def release(self) -> None:
        for mark in self._marks:
            mark.unlink()

    @property
    def all_fired(self) -> bool:
        return all(mark.exists() for mark in self._marks)


@pytest.mark.long
@pytest.mark.parametrize(
    "points",
    [
        ["transaction.ending=kill", "claim.half_filled", "claim.units_written", "transaction.ended=kill"],
        pytest.param(["claim.planned", "claim.bytes_written", "claim.unit_written"], marks=pytest.mark.long),
    ],
    ids=["main", "rest"],
)
def test_the_coordinator_dies_while_it_ends_a_transaction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, points: list[str]
) -> None:
    """Commit record and op message are in the log both or not: asked again, a death later, it is there once.

    The journal's windows, which other claims pass too, are in `test_fault_points.py`."""
    armed = Points(tmp_path, [point.removesuffix("=kill") for point in points], monkeypatch)
    settings = {**SETTINGS, "brokerWorkers": "1", "transactionCheckInterval": "3600000"}
    with (
        Broker(tmp_path / "store", **settings) as broker,
        producer(broker, Outcomes()) as sending,
    ):
        sending.create_topic(TOPIC, 2)
        sent = sending.send_message_in_transaction(Message(TOPIC, b"x"), (COMMIT, UNKNOWN))
        other = sending.send_message_in_transaction(Message(TOPIC, b"never"), (ROLLBACK, UNKNOWN))
        armed.release()
        for of, state in ((sent, COMMIT), (other, ROLLBACK)):
            wait_until(lambda of=of, state=state: has_ended(sending, of, state), 30, "it ends")
        assert armed.all_fired
        soon(broker, [b"x"], "it is committed")
        op_queue = sent.message_queue._replace(topic=TRANSACTION_OP_HALF_TOPIC, queue_id=0)
        assert sending.max_offset(op_queue) == 2
    assert list(check_store(tmp_path / "store")) == []


def has_ended(
    sending: TransactionProducer, sent: TransactionSendResult, state: LocalTransactionState
) -> bool:
    """Ask for an outcome; true when it is in the log, by this request or an earlier one."""
    header = EndTransactionHeader(
        GROUP, sent.queue_offset, parse_offset_message_id(sent.offset_msg_id)[1], int(state), sent.msg_id
    )
    try:
        link = sending._path.link(sent.message_queue)
        answer = link.call(Command.request(RequestCode.END_TRANSACTION, header), 2.0)
    except ShmqError:
        return False
    return answer.code == 0 or "ended already" in (answer.remark or "")


@pytest.mark.long
def test_the_coordinator_dies_while_it_puts_a_half_message_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Copy and cursor are there both or not: neither is it lost, nor are there two to be committed."""
    points = ["transaction.putting_back=kill", "claim.bytes_written", "transaction.put_back=kill"]
    armed = Points(tmp_path, [point.removesuffix("=kill") for point in points], monkeypatch)
    settings = {**SETTINGS, "brokerWorkers": "1"}
    outcomes = Outcomes()
    with Broker(tmp_path / "store", **settings) as broker, producer(broker, outcomes) as sending:
        sending.create_topic(TOPIC, 2)
        sending.send_message_in_transaction(Message(TOPIC, b"x"), (UNKNOWN, UNKNOWN))
        outcomes.decided.update(dict.fromkeys(outcomes.decided, UNKNOWN))
        armed.release()
        wait_until(lambda: armed.all_fired, 30, "all deaths")
        outcomes.decided.update(dict.fromkeys(outcomes.decided, COMMIT))
        soon(broker, [b"x"], "its check commits it")
    assert list(check_store(tmp_path / "store")) == []


@pytest.mark.long
@pytest.mark.parametrize("page", ["kept", "lost"])
def test_open_transactions_outlive_everything(tmp_path: Path, page: str) -> None:
    """kill -9 of all, with and without the shared page: open ones are still asked about, ended ones not."""
    outcomes = Outcomes()
    broker = Broker(tmp_path / "store", **{**SETTINGS, "transactionCheckInterval": "3600000"})
    broker.start()
    try:
        with producer(broker, outcomes) as sending:
            sending.create_topic(TOPIC, 2)
            for number in range(30):
                body, state = b"%d" % number, (COMMIT, ROLLBACK)[number % 2]
                told = (state, UNKNOWN, state)[number % 3]
                sending.send_message_in_transaction(Message(TOPIC, body), (state, told))
            now = [b"%d" % n for n in range(0, 30, 2) if n % 3 != 1]
            soon(broker, now, "those whose outcome was told")
        for child in psutil.Process(broker.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):  # the supervisor clears away, too
                child.kill()
        broker.kill()
        if page == "lost":
            ControlPage.unlink(page_name(tmp_path / "store"))
        broker._settings.update(SETTINGS)
        broker.start()
        with producer(broker, outcomes):
            soon(broker, [b"%d" % n for n in range(0, 30, 2)], "the others after their check")
        broker.stop()
        saved = (tmp_path / "store/config/consumerOffset.json").read_text()
        assert "RMQ_SYS_TRANS_HALF_TOPIC@CID_RMQ_SYS_TRANS" in saved
        assert list(check_store(tmp_path / "store")) == []
        broker.start()
        assert sorted(read_all(broker)) == sorted(b"%d" % n for n in range(0, 30, 2))
    finally:
        broker.close()


class Victims:
    """Children that may be killed: those that serve."""

    def __init__(self, broker: Broker, page: ControlPage) -> None:
        self._broker = broker
        self._slots = SlotTable(page)

    def one(self, role: str) -> int:
        """A pid, 0 when none serves."""
        pids = {child.pid for child in children(self._broker, role)}
        serving = (slot.pid for slot in self._slots.taken() if slot.state is SlotState.SERVING)
        return next((pid for pid in serving if pid in pids), 0)


class Sender(threading.Thread):
    """Sends transactions with random outcomes until told to stop, and notes what was decided."""

    def __init__(self, broker: Broker, outcomes: Outcomes, number: int) -> None:
        super().__init__(daemon=True)
        self.over = threading.Event()
        self.committed: list[bytes] = []
        self.failures = 0
        self._chance = random.Random(number)
        self._number = number
        self._producer = producer(broker, outcomes, instance_name=f"sender{number}")
        self._producer.start()

    def run(self) -> None:
        count = 0
        while not self.over.wait(PAUSE_S):
            count += 1
            body = b"%d %d" % (self._number, count)
            state = self._chance.choice((COMMIT, COMMIT, ROLLBACK))
            told = self._chance.choice((state, state, state, UNKNOWN))
            try:
                self._producer.send_message_in_transaction(Message(TOPIC, body), (state, told))
            except ShmqError:
                self.failures += 1
                continue
            if state is COMMIT:
                self.committed.append(body)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_two_hundred_kills_leave_each_committed_message_once(tmp_path: Path) -> None:
    """Coordinator and workers die at random moments under four transactional producers."""
    chance, outcomes = random.Random(7), Outcomes()
    with Broker(tmp_path / "store", **SETTINGS) as broker:
        victims = Victims(broker, ControlPage.attach(page_name(tmp_path / "store"), readonly=True))
        with producer(broker, outcomes) as maker:
            maker.create_topic(TOPIC, 4)
        senders = [Sender(broker, outcomes, number) for number in range(4)]
        for sender in senders:
            sender.start()
        for _ in range(200):
            time.sleep(chance.uniform(0.05, 0.6))  # a random moment is what is wanted here
            role = chance.choice(("coordinator", "worker", "worker", "worker"))
            victim = wait_until(lambda role=role: victims.one(role), 60, f"a {role} serves")
            os.kill(victim, signal.SIGKILL)
        for sender in senders:
            sender.over.set()
            sender.join(30)
            assert not sender.is_alive()
        expected = [body for sender in senders for body in sender.committed]
        assert len(expected) > 200
        soon(broker, expected, "every committed message, once")
        print(f"{len(expected)} committed, {sum(s.failures for s in senders)} sends failed")
        for sender in senders:
            sender._producer.shutdown()
    assert list(check_store(tmp_path / "store")) == []
